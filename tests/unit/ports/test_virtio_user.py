# SPDX-License-Identifier: Apache-2.0
"""The virtio-user port against our own vhost-user port: connect, lose it, connect again."""

import ctypes
import os
from collections.abc import Iterator

import pytest

from byway.control.problem import EngineError
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.virtio.ring import INDEX
from tests.running import RunningSwitch

# vm1 -- blue -- uplink == trunk -- green -- vm2


@pytest.fixture
def chained(switch: RunningSwitch) -> Iterator[tuple[Guest, Guest]]:
    switch.network("green")
    switch.vhost("vm1")
    switch.vhost("vm2", "trunk", network="green")
    switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
    with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
        up(switch)
        yield one, two


def up(switch: RunningSwitch) -> None:
    switch.until(lambda: {switch.port(p)["state"] for p in ("uplink", "trunk")} == {"up"})


def crosses(switch: RunningSwitch, one: Guest, other: Guest) -> bool:
    """Do frames come from one end to the other?"""
    frames = [ethernet(BROADCAST, one.mac, TEST_ETHERTYPE, bytes([k]) * (46 + k)) for k in range(9)]
    assert one.send(frames) == len(frames)
    switch.settle()
    return other.receive() == frames


def test_both_ways(switch: RunningSwitch, chained: tuple[Guest, Guest]) -> None:
    one, two = chained
    for _ in range(3):
        assert crosses(switch, one, two)
        assert crosses(switch, two, one)
    status = switch.port("uplink")
    assert (status["rx_frames"], status["tx_frames"]) == (27, 27)
    assert {"version_1", "event_idx"} <= set(status["features"]["acked"])
    assert switch.drops() == {}


def test_the_back_end_goes_and_comes(switch: RunningSwitch, chained: tuple[Guest, Guest]) -> None:
    one, two = chained
    switch.remove("trunk")
    switch.until(lambda: switch.port("uplink")["state"] == "waiting")
    assert "hung up" in switch.port("uplink")["reason"]
    assert not crosses(switch, one, two)
    switch.vhost("trunk", network="green")
    up(switch)
    assert crosses(switch, one, two)
    assert crosses(switch, two, one)


def test_a_back_end_that_breaks_the_ring(switch: RunningSwitch,
                                         chained: tuple[Guest, Guest]) -> None:
    """Its used index jumps: the port says so, hangs up, and begins anew."""
    one, two = chained
    uplink = switch.engine._ports["uplink"]
    used = ctypes.c_uint16.from_address(uplink._receive.used + INDEX)  # type: ignore[attr-defined]
    used.value += 2000
    said = []
    switch.until(lambda: said.append(switch.port("uplink")) or said[-1]["state"] != "up")
    assert "used index is ahead" in said[-1]["reason"]
    up(switch)
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
    assert counts[1:] == [counts[1]] * 3


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
