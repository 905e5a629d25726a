# SPDX-License-Identifier: Apache-2.0
"""af-xdp ports at veths of the Linux kernel, in both modes: its own stacks are the judges.

Stations in namespaces talk through a switch. Their end of the pair is told to finish its frames, so
that none has a wrong checksum; frames of every size arrive byte for byte. Interfaces go, come back
and take their namespace with them, and a switch that is killed leaves no program attached.
"""

import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from byway.control.problem import EngineError
from byway.machine.netns import inside
from byway.ports import bpf
from byway.ports.ethtool import features
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.guest import Guest
from tests.running import RunningSwitch
from tests.system.peers.switch import Switch
from tests.system.peers.veth import Wire, shell, transfer
from tests.system.test_af_packet import OFFLOADS, meet, sum_is_right, udp_frames

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DATA = Random(4).randbytes(4 << 20)
LEFT, RIGHT, GUEST = "10.9.0.1", "10.9.0.2", "10.9.0.9"
PLAIN = b"\0" * 10  # the virtio header of a finished frame
KIND = b"\x88\xb5"  # IEEE 802, local experiments
MODES = ["native", "skb"]


@pytest.fixture
def switch(folder: Path, cpus: tuple[int, int]) -> Iterator[RunningSwitch]:
    """With two workers, where there are two CPUs: frames to a port come from both."""
    with RunningSwitch(folder, workers=sorted({*cpus})) as made:
        made.network()
        yield made


@pytest.fixture
def left() -> Iterator[Wire]:
    with Wire(LEFT) as made:
        yield made


@pytest.fixture
def right() -> Iterator[Wire]:
    with Wire(RIGHT) as made:
        yield made


def attach(switch: RunningSwitch, name: str, wire: Wire, **options: object) -> None:
    switch.add("af-xdp", name, ifname=wire.ifname, netns=wire.outer, queues=wire.queues, **options)
    assert switch.port(name)["state"] == "up"


def offloads(wire: Wire) -> set[str]:
    """What the station's device does by itself."""
    found = inside(wire.station, lambda: features(wire.device))
    return {name for name, one in found.items() if one.active}


def program(wire: Wire) -> bool:
    """Is an XDP program attached to the switch's end?"""
    return "prog/xdp" in shell(f"ip -n {wire.outer} -d link show {wire.ifname}")


# ---------------------------------------------------------------- traffic
@pytest.mark.parametrize("mode", MODES)
def test_ping_and_tcp_between_two_stations(switch: RunningSwitch, left: Wire, right: Wire,
                                           mode: str) -> None:
    attach(switch, "left", left, mode=mode)
    attach(switch, "right", right, mode=mode)
    assert (switch.port("left")["xdp"]["mode"], switch.port("left")["xdp"]["zero_copy"]) == (
        mode, False)
    assert "5 packets received" in left.ping(RIGHT)
    for source, to in ((left, right), (right, left)):
        assert transfer(source, to, DATA) == DATA
    assert left.checksum_errors() == right.checksum_errors() == {}
    kernel = switch.port("left")["xdp"]["kernel"]
    assert (kernel["rx_invalid_descs"], kernel["tx_invalid_descs"]) == (0, 0)
    assert {reason for drops in switch.lost().values() for reason in drops} <= {"ring_full"}


@pytest.mark.parametrize("mode", MODES)
def test_frames_of_every_size(switch: RunningSwitch, left: Wire, mode: str) -> None:
    """Up to a full frame, and with a tag; both ways, byte for byte."""
    attach(switch, "left", left, mode=mode)
    switch.vhost("guest")
    rng = Random(7)
    with switch.guest("guest", 9) as guest, left.raw() as raw:
        for tag, sizes in ((b"", range(60, 1515)), (b"\x81\x00\x20\x05", range(64, 1519, 7))):
            sizes = list(sizes)
            out = [guest.mac + left.mac + tag + KIND + rng.randbytes(n - 14 - len(tag))
                   for n in sizes]
            for start in range(0, len(out), 50):
                for frame in out[start : start + 50]:
                    raw.send(PLAIN + frame)
                assert received(guest, len(out[start : start + 50])) == out[start : start + 50]
        back = [left.mac + guest.mac + KIND + rng.randbytes(n - 14) for n in range(60, 1515)]
        for frame in back:
            assert guest.send([frame]) == 1
            assert captured(raw, guest.mac) == frame
    assert "left" not in switch.lost()


def received(guest: Guest, count: int) -> list[bytes]:
    """Frames of our kind that come to a guest."""
    found: list[bytes] = []
    while len(found) < count and guest.wait(5.0):
        found += [frame for frame in guest.receive() if KIND in (frame[12:14], frame[16:18])]
    return found


def captured(raw: socket.socket, source: bytes) -> bytes:
    """The next frame from ``source`` that comes to a station."""
    while True:
        frame = raw.recv(70000)[10:]
        if frame[6:12] == source:
            return frame


@pytest.mark.parametrize("mode", MODES)
def test_a_jumbo_network(switch: RunningSwitch, left: Wire, right: Wire, mode: str) -> None:
    """Frames of more than a chunk travel in pieces."""
    switch.network("large", mtu=9000)
    for wire in (left, right):
        for namespace, device in ((wire.outer, wire.ifname), (wire.station, wire.device)):
            shell(f"ip -n {namespace} link set {device} mtu 9000")
    attach(switch, "left", left, mode=mode, network="large")
    attach(switch, "right", right, mode=mode, network="large")
    assert switch.port("left")["xdp"]["pieces"] > 1
    assert "5 packets received" in left.ping(RIGHT, size=8972)
    assert transfer(left, right, DATA) == DATA
    assert left.checksum_errors() == right.checksum_errors() == {}


def test_several_queues(switch: RunningSwitch, right: Wire) -> None:
    with Wire(LEFT, queues=4) as left:
        attach(switch, "left", left)
        attach(switch, "right", right)
        assert "5 packets received" in left.ping(RIGHT)
        for _ in range(4):
            assert transfer(left, right, DATA[: 1 << 20]) == DATA[: 1 << 20]
            assert transfer(right, left, DATA[: 1 << 20]) == DATA[: 1 << 20]
        assert left.checksum_errors() == right.checksum_errors() == {}
        assert switch.port("left")["queues"] == 4


# ---------------------------------------------------------------- unfinished frames
@pytest.mark.parametrize("mode", MODES)
def test_the_far_end_finishes_its_frames(switch: RunningSwitch, left: Wire, mode: str) -> None:
    """Offloads are switched off while the port is there, and on again when it has gone."""
    before = offloads(left)
    assert {"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-vlan-hw-insert"} <= before
    attach(switch, "left", left, mode=mode)
    assert not [one for one in offloads(left)
                if one.startswith(("tx-checksum", "tx-vlan")) or one.endswith("-segmentation")]
    off = switch.port("left")["xdp"]["switched_off"]
    assert "tx-checksum-ip-generic" in off[f"{left.device} in /run/netns/{left.station}"]
    switch.vhost("guest")
    with switch.guest("guest", 9) as guest, left.opened(socket.SOCK_DGRAM) as sender:
        meet(left, guest)
        sender.sendto(b"small", (GUEST, 7))
        ((todo, frame),) = udp_frames(guest, 1)
        assert todo == FINISHED
        assert sum_is_right(frame)
    switch.remove("left")
    assert offloads(left) == before
    assert not program(left)


def test_frames_for_all_addresses_are_received(switch: RunningSwitch, left: Wire) -> None:
    """A network card would otherwise keep those for guests away."""
    def promiscuity() -> str:
        return shell(f"ip -n {left.outer} -d link show {left.ifname}").split("promiscuity ")[1][0]

    attach(switch, "left", left)
    assert promiscuity() == "1"
    switch.remove("left")
    assert promiscuity() == "0"


def test_a_far_end_that_is_moved(switch: RunningSwitch, left: Wire) -> None:
    """It is found again when its offloads are to be switched on."""
    before = offloads(left)
    attach(switch, "left", left)
    shell(f"ip -n {left.station} link set {left.device} netns {left.outer}")
    switch.remove("left")
    found = inside(left.outer, lambda: features(left.device))
    assert {name for name, one in found.items() if one.active} == before


def test_a_far_end_that_cannot_be_found(switch: RunningSwitch, left: Wire) -> None:
    """Its namespace lives on without a name or a process."""
    file = os.open(f"/run/netns/{left.station}", os.O_RDONLY)
    try:
        shell(f"ip netns del {left.station}")
        with pytest.raises(EngineError, match="checksums: the other end of the pair cannot be told"
                                              " to finish its frames: no file of its network"):
            attach(switch, "left", left)
        assert not program(left)
        attach(switch, "left", left, checksums="complete")
    finally:
        os.close(file)


def test_checksums_are_completed_here(switch: RunningSwitch, left: Wire, right: Wire) -> None:
    """Where the far end is left alone they are recognised: completed for a guest that wants them
    so, passed on to one that does not care."""
    attach(switch, "left", left, checksums="complete", mode="native")
    attach(switch, "right", right, checksums="complete", mode="native")
    assert "tx-checksum-ip-generic" in offloads(left)
    assert transfer(left, right, DATA) == DATA
    assert left.checksum_errors() == right.checksum_errors() == {}
    switch.vhost("plain", "modern")
    for name, features_, expected in (("plain", None, FINISHED),
                                      ("modern", OFFLOADS, Unfinished(1, 0, 0, 34, 6))):
        options = {} if features_ is None else {"features": features_}
        with switch.guest(name, 9, **options) as guest, left.opened(socket.SOCK_DGRAM) as sender:
            meet(left, guest)
            sender.sendto(b"small", (GUEST, 7))
            ((todo, frame),) = udp_frames(guest, 1)
            assert todo == expected
            assert sum_is_right(frame) == (expected == FINISHED)


def test_a_tag_that_linux_keeps_beside_the_frame(switch: RunningSwitch, left: Wire) -> None:
    """What pushes a tag (here a program at the station's device, as a bridge or a VLAN device
    would) notes it in Linux' records only; the far end has to write it into the frame."""
    attach(switch, "left", left)
    switch.vhost("guest")
    pushing = inside(left.station, lambda: push_tag(socket.if_nametoindex(left.device), 5))
    try:
        with switch.guest("guest", 9) as guest, left.raw() as raw:
            frame = guest.mac + left.mac + KIND + bytes(range(60))
            raw.send(PLAIN + frame)
            assert received(guest, 1) == [frame[:12] + b"\x81\x00\x00\x05" + frame[12:]]
    finally:
        for file in pushing:
            os.close(file)


def push_tag(ifindex: int, tag: int) -> list[int]:
    """Have bpf_skb_vlan_push (helper 18) called for each frame that leaves an interface, for as
    long as the returned files are open."""
    kind, at = 3, 47  # BPF_PROG_TYPE_SCHED_CLS, BPF_TCX_EGRESS
    code = ctypes.create_string_buffer(bytes.fromhex(
        "b702000081000000"  # r2 = htons(0x8100)
        f"b7030000{tag.to_bytes(4, 'little').hex()}"  # r3 = the tag; r1 is the frame
        "8500000012000000"  # call
        "b700000000000000"  # r0 = TCX_PASS
        "9500000000000000"))  # exit
    licence = ctypes.create_string_buffer(b"GPL")
    program = bpf._bpf(bpf._PROG_LOAD, bpf._PROG_ATTR.pack(
        kind, 5, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, b"push", 0, at))
    return [program, bpf._bpf(bpf._LINK_CREATE, bpf._LINK_ATTR.pack(program, ifindex, at, 0))]


# ---------------------------------------------------------------- interfaces that come and go
def test_down_and_up(switch: RunningSwitch, left: Wire, right: Wire) -> None:
    attach(switch, "left", left)
    attach(switch, "right", right)
    for end in (f"-n {left.outer} link set {left.ifname}",
                f"-n {left.station} link set {left.device}"):
        shell(f"ip {end} down")
        switch.until(lambda: switch.port("left")["state"] == "down")
        shell(f"ip {end} up")
        switch.until(lambda: switch.port("left")["state"] == "up")
    assert switch.port("left")["last_trouble"] == 'the interface "e1" has no carrier'
    assert "5 packets received" in left.ping(RIGHT)


def test_an_mtu_that_is_changed(switch: RunningSwitch, left: Wire) -> None:
    attach(switch, "left", left)
    assert switch.port("left")["xdp"]["chunk"] == 2048
    shell(f"ip -n {left.outer} link set {left.ifname} down mtu 3000")
    switch.until(lambda: switch.port("left")["state"] == "down")
    assert switch.port("left")["xdp"]["chunk"] == 2048, "sockets stay while it is only down"
    shell(f"ip -n {left.outer} link set {left.ifname} up")
    switch.until(lambda: switch.port("left")["state"] == "up")
    assert switch.port("left")["xdp"]["chunk"] == 4096


def test_an_interface_that_is_deleted_and_made_again(switch: RunningSwitch, left: Wire,
                                                     right: Wire) -> None:
    attach(switch, "left", left)
    attach(switch, "right", right)
    shell(f"ip -n {left.outer} link del {left.ifname}")
    switch.until(lambda: switch.port("left")["state"] == "down")
    assert switch.port("left")["reason"] == 'there is no interface "e1"'
    left.plug_in()
    switch.until(lambda: switch.port("left")["state"] == "up")
    assert "5 packets received" in left.ping(RIGHT)
    assert "tx-checksum-ip-generic" not in offloads(left)
    assert switch.port("right")["last_trouble"] is None


def test_a_namespace_that_is_deleted_and_made_again(switch: RunningSwitch, left: Wire,
                                                    right: Wire) -> None:
    """The port does not keep it alive: the veth goes, at both ends."""
    attach(switch, "left", left)
    attach(switch, "right", right)
    shell(f"ip netns del {left.outer}")
    switch.until(lambda: switch.port("left")["state"] == "down")
    switch.until(lambda: left.device not in shell(f"ip -n {left.station} link"))
    shell(f"ip netns add {left.outer}")
    left.plug_in()
    switch.until(lambda: switch.port("left")["state"] == "up")
    assert "5 packets received" in left.ping(RIGHT)


def test_an_interface_that_comes_later(switch: RunningSwitch, left: Wire) -> None:
    switch.add("af-xdp", "later", ifname="e7", netns=left.outer)
    port = switch.port("later")
    assert (port["state"], port["reason"]) == ("waiting", 'there is no interface "e7"')
    shell(f"ip -n {left.outer} link set {left.ifname} down")
    shell(f"ip -n {left.outer} link set {left.ifname} name e7 up")
    switch.until(lambda: switch.port("later")["state"] == "up")
    assert switch.port("later")["peer"] == f"e7 in {left.outer}"


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_switch_leaves_no_program(own_folder: Path, left: Wire, right: Wire,
                                           mode: str) -> None:
    """And the next one takes the interface up again."""
    with Switch(own_folder, []) as switch:
        for name, wire in (("left", left), ("right", right)):
            switch.client.add_port({"name": name, "network": "blue", "kind": "af-xdp", "mode": mode,
                                    "ifname": wire.ifname, "netns": wire.outer})
        switch.wait_up("left", "right")
        assert program(left)
        switch.kill()
        assert not program(left)
        switch.start()
        for name, wire in (("left", left), ("right", right)):
            switch.client.add_port({"name": name, "network": "blue", "kind": "af-xdp", "mode": mode,
                                    "ifname": wire.ifname, "netns": wire.outer})
        switch.wait_up("left", "right")
        assert "5 packets received" in left.ping(RIGHT)


# ---------------------------------------------------------------- what is refused
@pytest.mark.parametrize(("options", "says"), [
    ({"queues": 2}, 'queues: "e1" has only 1 receive queues'),
    ({"zero_copy": True, "mode": "native"}, 'zero_copy: "e1" cannot do without copying'),
    ({"ifname": "lo"}, 'ifname: the interface "lo" is not Ethernet'),
    ({"checksums": "complete", "mode": "skb"}, "checksums: large frames, which would come"),
])
def test_what_cannot_be(switch: RunningSwitch, left: Wire, options: dict[str, object],
                        says: str) -> None:
    before = offloads(left)
    shell(f"ip -n {left.outer} link set lo up")
    with pytest.raises(EngineError, match=says):
        switch.add("af-xdp", "left", **{"ifname": left.ifname, "netns": left.outer, **options})
    assert offloads(left) == before
    assert not program(left)


def test_frames_that_nobody_can_be_told_to_finish(switch: RunningSwitch, left: Wire) -> None:
    shell(f"ip -n {left.outer} link add br0 up type bridge")
    shell(f"ip -n {left.outer} link set {left.ifname} master br0")
    with pytest.raises(EngineError, match='on an interface of kind "bridge" may come unfinished'):
        switch.add("af-xdp", "left", ifname="br0", netns=left.outer)
    switch.add("af-xdp", "left", ifname="br0", netns=left.outer, checksums="trust")
    assert switch.port("left")["xdp"]["mode"] == "skb"


def test_an_interface_that_has_a_program(switch: RunningSwitch, left: Wire) -> None:
    attach(switch, "left", left)
    switch.network("green")
    with pytest.raises(EngineError, match=r'has an XDP program already: program [0-9]+'
                                          r' "byway_xsk".* held by .*process'):
        attach(switch, "again", left, network="green")
    assert switch.port("left")["state"] == "up"
