# SPDX-License-Identifier: Apache-2.0
"""Guests in processes of their own: what they are told and what they answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.testing import process
from byway.testing.frames import ECHO_REPLY, Echo
from byway.testing.process import GuestProcess
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch, mac

IMIX = [60, 300, 1514]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RunningSwitch, GuestProcess, GuestProcess]]:
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        guests = [GuestProcess(switch.socket(f"vm{k}"), mac(k), f"10.0.0.{k}") for k in (1, 2)]
        try:
            for guest in guests:
                assert guest.answer() == {"ready": True}
            yield switch, guests[0], guests[1]
        finally:
            for guest in guests:
                guest.close()
                guest.close()


@pytest.mark.compiled_only
def test_what_two_guests_do(pair: tuple[RunningSwitch, GuestProcess, GuestProcess]) -> None:
    switch, one, two = pair
    two.order("answer", seconds=2.0)
    assert one.ask("resolve", address="10.0.0.2") == {"mac": mac(2)}
    times = one.ask("ping", address="10.0.0.2", mac=mac(2), count=5)["times"]
    assert len(times) == 5
    assert max(times) < 1.0
    assert two.answer() == {"heard": [mac(1)]}
    assert one.ask("shout", count=3, mac=mac(9)) == {"sent": 6}
    for guest, peer in ((one, mac(2)), (two, mac(1))):
        guest.order("exchange", seconds=0.3, asking=True, peer=peer, foreign="", sizes=IMIX)
    one.answer(), two.answer()
    for guest in (one, two):
        guest.order("exchange", seconds=0.2, asking=False)
    for found in (one.answer(), two.answer()):
        assert found["received"] == found["checked"] > 0
        assert (found["lost"], found["bad"], found["waiting"]) == (0, 0, 0)
    assert one.ask("statistics")["sent"] == switch.port("vm1")["rx_frames"]


@pytest.mark.compiled_only
def test_packed_rings_and_two_pairs(tmp_path: Path) -> None:
    """Options go to the guest; it goes on when its port was made anew."""
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        for name in ("vm1", "vm2"):
            switch.add("vhost-user", name, queues=2)
        guests = [GuestProcess(switch.socket(f"vm{k}"), mac(k), f"10.0.0.{k}", ring=200,
                               packed=True, pairs=2) for k in (1, 2)]
        try:
            for guest in guests:
                assert guest.answer() == {"ready": True}
            for guest, peer in zip(guests, (mac(2), mac(1)), strict=True):
                guest.order("exchange", seconds=0.3, asking=True, peer=peer, foreign="",
                            sizes=IMIX)
            assert all(guest.answer()["checked"] > 0 for guest in guests)
            switch.remove("vm1")
            switch.add("vhost-user", "vm1", queues=2)
            features = guests[0].ask("reconnect", seconds=5.0)["features"]
            assert features & mask(Feature.RING_PACKED, Feature.MQ) == mask(
                Feature.RING_PACKED, Feature.MQ)
            for guest in guests:
                guest.order("exchange", seconds=0.2, asking=False)
            for guest in guests:
                assert guest.answer()["bad"] == 0
        finally:
            for guest in guests:
                guest.close()


def test_orders_that_make_no_sense(
        pair: tuple[RunningSwitch, GuestProcess, GuestProcess]) -> None:
    _, one, two = pair
    with pytest.raises(RuntimeError, match="unknown order 'dance'"):
        one.ask("dance")
    assert one.ask("statistics")["sent"] == 0
    two.close()
    with pytest.raises((RuntimeError, ValueError)):
        two.ask("statistics")


def test_a_guest_that_finds_nobody(tmp_path: Path) -> None:
    guest = GuestProcess(str(tmp_path / "none.sock"), mac(1), "10.0.0.1")
    with pytest.raises(RuntimeError, match=f"guest {mac(1)} ended with status 1"):
        guest.answer()
    guest.close()


class LateReply:
    """A guest and the clock it lives by: what answers its ping takes two seconds."""

    mac = b"\x02\0\0\0\0\1"

    def __init__(self) -> None:
        self.now = 0.0
        self.reply: list[bytes] = []

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic

    def send(self, frames: list[bytes]) -> int:
        for echo in filter(None, map(Echo.parse, frames)):
            back = Echo(ECHO_REPLY, echo.destination, echo.source, echo.number, echo.sequence)
            self.reply.append(back.frame(self.mac, self.mac))
        return len(frames)

    def wait(self, seconds: float) -> bool:
        self.now = min(self.now + seconds, 2.0)
        return self.now == 2.0

    def receive(self) -> list[bytes]:
        came, self.reply = self.reply, []
        return came


def test_a_reply_that_is_late_is_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = LateReply()
    monkeypatch.setattr(process, "time", guest)
    assert process.Station(guest, "10.0.0.1").ping("10.0.0.2", mac(2), 1) == [2.0]
