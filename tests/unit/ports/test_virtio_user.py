# SPDX-License-Identifier: Apache-2.0
"""The virtio-user port against our own vhost-user port: connect, lose it, connect again."""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from byway.control.problem import EngineError
from byway.ports.virtio_user import VirtioUserPort
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.vhost import FrontEnd
from byway.virtio.features import Feature, mask
from byway.virtio.ring import INDEX
from tests.running import RunningSwitch

# vm1 -- blue -- uplink == trunk -- green -- vm2


Ends = tuple[Guest, Guest]


@contextmanager
def chain(switch: RunningSwitch, **options: Any) -> Iterator[Ends]:
    """The chain with its uplink's options; -> both guests."""
    queues = options.get("queues", 1)
    switch.network("green")
    switch.vhost("vm1")
    switch.vhost("vm2", network="green")
    switch.add("vhost-user", "trunk", "green", queues=queues)
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"), **options)
    with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
        up(switch)
        yield one, two


@pytest.fixture
def chained(switch: RunningSwitch) -> Iterator[Ends]:
    with chain(switch) as ends:
        yield ends


def uplink(switch: RunningSwitch) -> VirtioUserPort:
    """The port object."""
    port = switch.engine._ports["uplink"]
    assert isinstance(port, VirtioUserPort)
    return port


def up(switch: RunningSwitch) -> None:
    switch.until(lambda: {switch.port(p)["state"] for p in ("uplink", "trunk")} == {"up"})


def crosses(switch: RunningSwitch, one: Guest, other: Guest) -> bool:
    """Do frames come from one end to the other?"""
    frames = [ethernet(BROADCAST, one.mac, TEST_ETHERTYPE, bytes([k]) * (46 + k)) for k in range(9)]
    assert one.send(frames) == len(frames)
    switch.settle()
    return other.receive() == frames


@pytest.mark.parametrize("off", [
    (), ("packed",), ("in_order",), ("packed", "in_order"), ("mrg_rxbuf",), ("event_idx",),
    ("packed", "in_order", "mrg_rxbuf", "event_idx", "csum", "guest_csum")],
    ids=lambda off: "-".join(off) or "all")
def test_both_ways(switch: RunningSwitch, off: tuple[str, ...]) -> None:
    """Packed where the back end has it; each feature can be switched off, and is told why."""
    with chain(switch, features={"off": off}) as (one, two):
        for _ in range(3):
            assert crosses(switch, one, two)
            assert crosses(switch, two, one)
        status = switch.port("uplink")
        assert (status["rx_frames"], status["tx_frames"]) == (27, 27)
        acked = {"version_1", "event_idx", "ring_packed", "in_order", "mrg_rxbuf", "host_tso4"}
        acked -= {"ring_packed" if name == "packed" else name for name in off}
        acked -= {"host_tso4"} if "csum" in off else set()
        assert acked <= set(status["features"]["acked"])
        assert not {"guest_tso4"} & set(status["features"]["acked"]) or "mrg_rxbuf" not in off
        why = status["features"]["off"]
        assert all(why["ring_packed" if n == "packed" else n] == "features.off" for n in off)
        assert {r["format"] for r in status["rings"]} == {"split" if "packed" in off else "packed"}
        assert [(r["way"], r["frames"]) for r in status["rings"]] == [("rx", 27), ("tx", 27)]
        assert switch.drops() == {}


def test_large_frames_need_mergeable_buffers(switch: RunningSwitch) -> None:
    """Offered, switched on, and still not taken: it says why."""
    with chain(switch, features={"off": ["mrg_rxbuf"]}):
        why = switch.port("uplink")["features"]["off"]
        assert "64 KiB" in why["guest_tso4"]
        assert "guest_csum" not in why


def test_several_queue_pairs(switch: RunningSwitch) -> None:
    """Frames of many flows use all of them, and come in order within each flow."""
    with chain(switch, queues=4) as (one, two):
        status = switch.port("uplink")
        assert (status["queues_enabled"], len(status["rings"])) == (4, 8)
        for end, other in ((one, two), (two, one)):
            frames = [flow_frame(end.mac, flow, k) for k in range(8) for flow in range(16)]
            assert end.send(frames) == len(frames)
            switch.settle()
            got = other.receive(len(frames))
            assert sorted(got) == sorted(frames)
            for flow in range(16):
                mine = [f for f in got if f[:42] == frames[flow][:42]]
                assert mine == frames[flow::16]
        rings = switch.port("uplink")["rings"]
        used = {way: [r["frames"] for r in rings if r["way"] == way] for way in ("rx", "tx")}
        for way in ("rx", "tx"):
            assert sum(used[way]) == 128
            assert all(used[way]), f"{way}: every pair has had frames: {used}"
        assert switch.drops() == {}


def test_a_back_end_with_fewer_queue_pairs(switch: RunningSwitch) -> None:
    """No more are started than it has: frames in the others would never leave."""
    switch.network("green")
    switch.add("vhost-user", "trunk", "green", queues=2)
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"), queues=4)
    up(switch)
    assert switch.port("uplink")["queues_enabled"] == 2
    assert len(switch.port("uplink")["rings"]) == 4


def flow_frame(source: bytes, flow: int, number: int) -> bytes:
    """A UDP datagram of a flow."""
    udp = struct.pack(">HHHHI", 1000 + flow, 9, 12, 0, number)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                     b"\x0a\0\0\1", b"\x0a\0\0\2")
    return ethernet(BROADCAST, source, 0x0800, ip + udp + bytes(14))


@pytest.mark.parametrize(("multi", "told", "pairs", "after"), [
    (False, 8, 1, 1), (True, 1, 1, 1), (True, 4, 4, 2), (True, 6, 4, 3), (True, 128, 4, 4)])
def test_how_many_pairs(switch: RunningSwitch, multi: bool, told: int, pairs: int,
                        after: int) -> None:
    """By pairs at first; by rings with a back end that gives up at a ring beyond its number."""
    switch.add("virtio-user", "uplink", socket=switch.socket("nobody"), queues=4)
    ours, theirs = socket.socketpair()
    front = FrontEnd(ours)
    front.queue_num = told
    front.features = mask(Feature.MQ) if multi else 0
    port = uplink(switch)
    assert port.pair_count(front) == pairs
    port.gave_up(front, 2 * pairs - 1)
    assert port.pair_count(front) == after
    front.close()
    theirs.close()


def test_a_back_end_with_an_inflight_region_goes_on(switch: RunningSwitch, chained: Ends) -> None:
    """The same rings in the same memory: what was received and not looked at is not lost."""
    one, two = chained
    assert crosses(switch, one, two)
    before = uplink(switch).pairs
    assert not switch.port("uplink")["resumed"]
    switch.remove("trunk")
    switch.until(lambda: switch.port("uplink")["state"] == "waiting")
    switch.vhost("trunk", network="green")
    up(switch)
    assert switch.port("uplink")["resumed"]
    assert uplink(switch).pairs is before
    for _ in range(3):
        assert crosses(switch, one, two)
        assert crosses(switch, two, one)
    assert switch.drops() == {}


@pytest.mark.parametrize("off", [(), ("packed",)], ids=["packed", "split"])
def test_frames_in_the_rings_survive_the_back_end(switch: RunningSwitch,
                                                  off: tuple[str, ...]) -> None:
    """The trunk is served before those who send to it: one pass leaves frames in its ring."""
    switch.network("green")
    switch.vhost("trunk", network="green")
    switch.vhost("vm1")
    switch.vhost("vm2", network="green")
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"), features={"off": off})
    with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
        up(switch)
        assert crosses(switch, one, two)
        before = switch.port("trunk")["rx_frames"]
        frames = [ethernet(BROADCAST, one.mac, TEST_ETHERTYPE, bytes([k]) * 60) for k in range(5)]
        assert one.send(frames) == len(frames)
        sent = switch.port("uplink")["tx_frames"]
        switch.until(lambda: switch.port("uplink")["tx_frames"] > sent)
        assert switch.port("trunk")["rx_frames"] == before, "none of them was taken yet"
        switch.remove("trunk")
        switch.until(lambda: switch.port("uplink")["state"] == "waiting")
        switch.vhost("trunk", network="green")
        up(switch)
        switch.settle()
        assert two.receive() == frames
        assert crosses(switch, two, one)


def test_rings_that_were_broken_in_the_end_are_not_gone_on_with(switch: RunningSwitch) -> None:
    """The back end's last word made no sense, and nobody had looked yet."""
    with chain(switch, features={"off": ["packed"]}) as (one, two):
        switch.remove("trunk")
        switch.until(lambda: switch.port("uplink")["state"] == "waiting")
        kept = uplink(switch).kept
        assert kept
        used = ctypes.c_uint16.from_address(kept.pairs.transmit[0].used + INDEX)
        used.value += 2000
        switch.vhost("trunk", network="green")
        up(switch)
        assert not switch.port("uplink")["resumed"]
        assert crosses(switch, one, two)


def test_what_is_kept_goes_with_the_port(switch: RunningSwitch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    switch.vhost("trunk")
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
    up(switch)
    switch.remove("trunk")
    switch.until(lambda: switch.port("uplink")["state"] == "waiting")
    assert uplink(switch).kept
    switch.remove("uplink")
    switch.until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_back_end_that_comes_back_with_less_starts_over(switch: RunningSwitch,
                                                          chained: Ends) -> None:
    """Rings of the other format cannot be gone on with."""
    one, two = chained
    assert crosses(switch, one, two)
    switch.remove("trunk")
    switch.until(lambda: switch.port("uplink")["state"] == "waiting")
    switch.add("vhost-user", "trunk", "green", features={"off": ["packed"]})
    up(switch)
    status = switch.port("uplink")
    assert not status["resumed"]
    assert {r["format"] for r in status["rings"]} == {"split"}
    assert status["features"]["off"]["ring_packed"] == "not offered by the back end"
    assert crosses(switch, one, two)
    assert crosses(switch, two, one)


def test_a_back_end_that_refuses_our_mtu(switch: RunningSwitch) -> None:
    """Its network's is smaller: said, and no reason to be without it."""
    switch.network("green", mtu=1000)
    switch.vhost("trunk", network="green")
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
    up(switch)
    assert "refused NET_SET_MTU" in switch.port("uplink")["note"]


def test_the_back_end_goes_and_comes(switch: RunningSwitch, chained: Ends) -> None:
    one, two = chained
    switch.remove("trunk")
    switch.until(lambda: switch.port("uplink")["state"] == "waiting")
    assert "hung up" in switch.port("uplink")["reason"]
    assert not crosses(switch, one, two)
    switch.vhost("trunk", network="green")
    up(switch)
    assert crosses(switch, one, two)
    assert crosses(switch, two, one)


def test_a_back_end_that_breaks_the_ring(switch: RunningSwitch) -> None:
    """Its used index jumps: the port says so, hangs up, and begins anew."""
    with chain(switch, features={"off": ["packed"]}) as (one, two):
        pairs = uplink(switch).pairs
        assert pairs
        used = ctypes.c_uint16.from_address(pairs.receive[0].used + INDEX)
        used.value += 2000
        said = []
        switch.until(lambda: said.append(switch.port("uplink")) or said[-1]["state"] != "up")
        assert "used index is ahead" in said[-1]["reason"]
        up(switch)
        assert not switch.port("uplink")["resumed"]
        assert crosses(switch, one, two)


def test_server_mode(switch: RunningSwitch) -> None:
    """The back end dials; it goes, another comes."""
    switch.network("green")
    switch.vhost("vm1")
    switch.add("virtio-user", "uplink", mode="server")
    assert switch.port("uplink")["state"] == "waiting"
    with switch.guest("vm1", 1) as one:
        for _ in range(2):
            switch.add("vhost-user", "trunk", "green", mode="client",
                       socket=switch.socket("uplink"))
            switch.add("vhost-user", "vm2", "green")
            with switch.guest("vm2", 2) as two:
                up(switch)
                assert crosses(switch, one, two)
            switch.remove("trunk")
            switch.remove("vm2")


def test_nobody_there(switch: RunningSwitch) -> None:
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
    switch.until(lambda: "does not exist" in switch.port("uplink")["reason"])
    assert switch.port("uplink")["state"] == "waiting"


def test_a_legacy_back_end(switch: RunningSwitch) -> None:
    switch.add("vhost-user", "trunk", features={"off": ["version_1"]})
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
    switch.until(lambda: "does not offer VERSION_1" in switch.port("uplink")["reason"])


def test_a_directory_that_is_missing(switch: RunningSwitch) -> None:
    for mode in ("server", "client"):
        with pytest.raises(EngineError, match=r'"uplink": socket: .* does not exist'):
            switch.add("virtio-user", "uplink", socket=str(switch.folder / "no" / "x"), mode=mode)
    assert switch.call(switch.engine.ports) == []


def test_everything_is_given_back(switch: RunningSwitch) -> None:
    switch.network("green")
    switch.vhost("trunk", network="green")
    counts = []
    for _ in range(4):
        switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
        up(switch)
        switch.remove("uplink")
        switch.until(lambda: switch.port("trunk")["state"] == "waiting")
        counts.append(len(os.listdir("/proc/self/fd")))
    assert max(counts[2:]) <= counts[1]


def test_removed_in_the_middle_of_a_conversation(switch: RunningSwitch) -> None:
    """The thread that talks ends by itself, and what it made is closed."""
    switch.network("green")
    switch.vhost("trunk", network="green")
    for _ in range(5):
        switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
        switch.remove("uplink")
    switch.until(lambda: switch.port("trunk")["state"] == "waiting")
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
    up(switch)
