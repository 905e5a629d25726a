# SPDX-License-Identifier: Apache-2.0
"""Packed rings whose front end, as QEMU does, names the position of the first start again."""

import ctypes
from pathlib import Path

import pytest

from byway.testing.frames import TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.testing.guest_queues import GPA
from byway.vhost.frontend import FrontEnd
from byway.virtio.features import Feature, mask
from byway.virtio.position import packed_position
from byway.virtio.ring import EVENT_DISABLE, EVENT_ENABLE, PACKED_START, WRAP
from tests.running import RunningSwitch

SIZE = 5


def reconnect(switch: RunningSwitch, guest: Guest, exact: bool = False) -> None:
    """The guest's VMM meets a back end anew: the driver notices nothing. ``exact``: it knows where
    the rings are."""
    bases = {index: guest.front.stop_ring(index) if exact else PACKED_START
             for index in guest.queues.by_index()}
    guest.front.close()
    switch.until(lambda: switch.port("vm1")["state"] == "waiting")
    guest.front = FrontEnd.connect(switch.socket("vm1"))
    guest.front.negotiate(guest.features)
    guest.front.set_memory([guest.region], [GPA])
    for index, queue in guest.queues.by_index().items():
        guest.front.start_ring(index, queue.size, bases[index], queue.desc, queue.avail,
                               queue.used, queue.kick, queue.call)
        guest.front.enable_ring(index, True)
    switch.until(lambda: switch.port("vm1")["state"] == "up")


@pytest.mark.parametrize("features", [0, mask(Feature.EVENT_IDX)], ids=["flags", "event-idx"])
def test_the_ring_says_where_it_was(tmp_path: Path, features: int) -> None:
    """After any number of frames, so that the old back end stood in every slot and lap."""
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        one = switch.guest("vm1", 1, packed=True, size=SIZE, features=features)
        two = switch.guest("vm2", 2, packed=True, size=64)
        out = ethernet(two.mac, one.mac, TEST_ETHERTYPE, b"out")
        back = ethernet(one.mac, two.mac, TEST_ETHERTYPE, b"back")
        for number in range(3 * SIZE):
            reconnect(switch, one)
            for _ in range(number % 4):
                assert (one.send([out]), two.send([back])) == (1, 1)
                switch.settle()
                assert (one.receive(), two.receive()) == ([back], [out])
        assert switch.drops() == {}
        one.close()
        two.close()


def test_in_order_the_front_end_is_believed(tmp_path: Path) -> None:
    """One used descriptor returns a batch, so the ring does not tell where it ended."""
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        one = switch.guest("vm1", 1, packed=True, size=SIZE, features=mask(Feature.IN_ORDER))
        two = switch.guest("vm2", 2, packed=True, size=64)
        out = ethernet(two.mac, one.mac, TEST_ETHERTYPE, b"out")
        for number in range(4 * SIZE):
            count = 1 + number % SIZE
            assert one.send([out] * count) == count
            switch.settle()
            assert two.receive() == [out] * count
            reconnect(switch, one, exact=True)
        assert switch.drops() == {}
        one.close()
        two.close()


def test_back_ends_that_return_little_each(tmp_path: Path) -> None:
    """Each returns less than a position is written after; together they go round the ring."""
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        one = switch.guest("vm1", 1, packed=True, size=64)
        two = switch.guest("vm2", 2, packed=True, size=64)
        out = ethernet(two.mac, one.mac, TEST_ETHERTYPE, b"out")
        back = ethernet(one.mac, two.mac, TEST_ETHERTYPE, b"back")
        for _ in range(30):
            assert (one.send([out] * 7), two.send([back] * 7)) == (7, 7)
            switch.settle()
            assert (one.receive(), two.receive()) == ([back] * 7, [out] * 7)
            switch.call(switch.engine.remove_port, "vm1")
            switch.vhost("vm1")
            reconnect(switch, one)
        one.close()
        two.close()


class Ring:
    """Descriptors with flags as told, and the word of the device's event suppression."""

    def __init__(self, flags: list[int], kept: int, kicks: int = EVENT_DISABLE) -> None:
        self.desc = bytearray(b"".join(bytes(14) + f.to_bytes(2, "little") for f in flags))
        self.used = bytearray(kept.to_bytes(2, "little") + kicks.to_bytes(2, "little"))
        self.size = len(flags)

    def position(self, base: int) -> int:
        """What a back end would believe."""
        desc, used = ((ctypes.c_char * len(b)).from_buffer(b) for b in (self.desc, self.used))
        return packed_position(ctypes.addressof(desc), ctypes.addressof(used), self.size, base)


AVAILABLE, USED = 0x0080, 0x8080  # in the first lap
NEXT_LAP = 0x8000  # available in the second


@pytest.mark.parametrize(("flags", "kept", "expected"), [
    ([0, 0, 0, 0], 0, PACKED_START),  # new
    ([USED, USED, AVAILABLE, 0], 2 | WRAP, 2 | WRAP),
    ([USED, USED, USED, AVAILABLE], 2 | WRAP, 3 | WRAP),  # killed before it was noted
    ([USED, USED, USED, USED], 2 | WRAP, 0),
    ([AVAILABLE, AVAILABLE, 0, 0], 2 | WRAP, PACKED_START),  # a ring that began anew
    ([0, 0, 0, 0], 3 | WRAP, PACKED_START),
    ([USED, USED, USED, USED], 0, 0),  # the next lap begins
    ([USED, USED, 0, 0], 4 | WRAP, 2 | WRAP),  # outside of the ring: what that says itself
    ([USED, USED, 0, 0], 0x7FFF, 2 | WRAP),
    ([USED, AVAILABLE, 0, 0], 0, 1 | WRAP),  # not noted yet
    ([NEXT_LAP, NEXT_LAP, NEXT_LAP, USED], 1 | WRAP, 0),  # made available again since it was noted
    ([NEXT_LAP, USED, AVAILABLE, AVAILABLE], 0, 2 | WRAP),
    ([AVAILABLE, 0, USED, USED], 1, 2),  # in the second lap, slot 0 available in the third
])
def test_what_is_believed(flags: list[int], kept: int, expected: int) -> None:
    assert Ring(flags, kept).position(PACKED_START) == expected


def test_a_new_ring_that_begins_in_a_later_lap() -> None:
    ring = Ring([AVAILABLE, AVAILABLE, NEXT_LAP, NEXT_LAP], 0, EVENT_ENABLE)
    assert ring.position(2) == 2


def test_a_new_ring_that_begins_in_a_later_lap_with_nothing_in_it() -> None:
    """Its zeros look like used descriptors of that lap."""
    assert Ring([0, 0, 0, 0], 0, EVENT_ENABLE).position(0) == 0
    assert Ring([0, 0, 0, 0], 0).position(2) == 2
