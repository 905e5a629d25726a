# SPDX-License-Identifier: Apache-2.0
"""No wake-up is lost, at whatever moment a frame comes: all moments, one after the other.

Interpreted kernels tell of every access to memory, so a frame can be sent in the middle of a pass
that puts a port to sleep, before its first access, its second, and so on. Each time the frame has
to arrive without another kick. (That accesses happen in the order in which they are written is
what the fences are for; tests/unit/worker/test_idle.py runs machine code.)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from byway.machine.clock import tsc
from byway.machine.dual import Watch
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch

pytestmark = pytest.mark.interpreted_only

LATER = 1 << 40  # ticks: some minutes
MANY = 2000  # accesses that no pass here makes
FEATURES = pytest.mark.parametrize(
    "features", [0, mask(Feature.EVENT_IDX)], ids=["flags", "event-idx"])


class Moment:
    """Does something once, at the access number ``number`` of interpreted kernels."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.number, self.act = number, act
        self.done = False

    def see(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.number -= 1
        if self.number < 0 and not self.done:
            self.done = True
            Watch.see = None
            self.act()


@contextmanager
def at(moment: Moment) -> Iterator[None]:
    """Watch the accesses of what runs in the block."""
    Watch.see = moment.see
    try:
        yield
    finally:
        Watch.see = None


@contextmanager
def two_guests(folder: Path, features: int) -> Iterator[tuple[RunningSwitch, Guest, Guest]]:
    with RunningSwitch(folder, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1, features=features) as one, \
                switch.guest("vm2", 2, features=features) as two:
            switch.settle()
            yield switch, one, two


@FEATURES
def test_a_frame_while_a_port_falls_asleep(tmp_path: Path, features: int) -> None:
    with two_guests(tmp_path, features) as (switch, one, two):
        frame = ethernet(BROADCAST, one.mac, TEST_ETHERTYPE, b"")
        asleep = 0
        for number in range(MANY):
            assert one.send([frame]) == 1
            switch.settle(now=int(tsc()))  # time stands still: the port stays hot
            assert two.receive() == [frame]
            assert switch.worker()["hot_ports"] > 0
            moment = Moment(number, lambda: one.send([frame]))
            with at(moment):
                switch.step(now=int(tsc()) + LATER)
            if not moment.done:
                break
            asleep += switch.worker()["hot_ports"] == 0
            switch.settle()
            assert two.receive() == [frame], f"lost, when sent before access {number}"
        assert 10 < number < MANY - 1
        assert 0 < asleep < number, "sometimes it was seen at once, sometimes the port slept"


@FEATURES
def test_a_frame_while_a_guest_falls_asleep(tmp_path: Path, features: int) -> None:
    with two_guests(tmp_path, features) as (switch, one, two):
        frame = ethernet(BROADCAST, one.mac, TEST_ETHERTYPE, b"")

        def send() -> None:
            assert one.send([frame]) == 1
            switch.settle()

        for number in range(MANY):
            moment = Moment(number, send)
            with at(moment):
                came = two.wait(0.0)
            if not moment.done:
                break
            # It was seen in time, or else the guest has been called.
            assert came or two.wait(0.0), f"not told of a frame sent before access {number}"
            assert two.receive() == [frame]
        assert 2 < number < MANY - 1
