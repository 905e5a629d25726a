# SPDX-License-Identifier: Apache-2.0
"""Single rings are stopped and come back in another size while the rest of the port goes on.

That is what a front end does for a driver that resets a queue (VIRTIO 1.2, 2.6.1), and for one that
is loaded again with other ideas.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.machine.layout import address_of
from byway.testing.frames import TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.testing.guest_queues import GPA
from byway.virtio.driver_queue import DriverQueue
from tests.exchanging import introduce
from tests.running import RunningSwitch

SIZE = 256
FRAMES = 40
RECEIVES, TRANSMITS = 0, 1  # of the first pair, by ring index (5.1.2)


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path) as running:
        running.network()
        running.add("vhost-user", "vm1", queues=2)
        running.vhost("vm2")
        yield running


def replace(guest: Guest, index: int, size: int) -> None:
    """Stop a ring of a guest and start one of ``size`` entries in its place."""
    guest.front.enable_ring(index, False)
    guest.front.stop_ring(index)
    queues = guest.queues.rx if index % 2 == RECEIVES else guest.queues.tx
    old = queues[index // 2]
    counters = guest.queues.received if old.receive else guest.queues.sent
    new = DriverQueue(guest.region, old.desc - guest.region.address, GPA, size,
                      int(old.record["buffer_size"][0]), old.receive)
    old.close()
    queues[index // 2] = new
    new.start(guest.features, address_of(counters), guest.queues.longest)
    guest.front.start_ring(index, size, new.position() & 0xFFFF, new.desc, new.avail, new.used,
                           new.kick, new.call)
    guest.front.enable_ring(index, True)
    if new.receive:
        new.post_all()


def talk(one: Guest, other: Guest) -> None:
    """Frame by frame, each way: everything arrives, in order, as it was sent."""
    for sender, receiver in ((one, other), (other, one)):
        for number in range(FRAMES):
            frame = ethernet(receiver.mac, sender.mac, TEST_ETHERTYPE, bytes([number]) * 100)
            assert sender.send([frame], pair=number % sender.pairs) == 1
            assert receiver.receive_until(1) == [frame], number


@pytest.mark.parametrize(
    ("packed", "sizes"), [(False, (64, 1, 2, SIZE)), (True, (100, 1, 3, SIZE))],
    ids=["split", "packed"])
def test_rings_come_back_in_other_sizes(
    switch: RunningSwitch, packed: bool, sizes: tuple[int, ...]
) -> None:
    with switch.guest("vm1", 1, packed=packed, pairs=2, size=SIZE) as one, \
            switch.guest("vm2", 2, packed=packed) as other:
        introduce(one, other)
        for size in sizes:
            for index in (RECEIVES, TRANSMITS, 2 + RECEIVES, 2 + TRANSMITS):
                replace(one, index, size)
            switch.until(lambda: switch.port("vm1")["state"] == "up")
            talk(one, other)
            found = {ring["size"] for ring in switch.port("vm1")["rings"][:4]}
            assert found == {size}
        assert switch.drops() == {}


def test_the_other_pair_goes_on_while_a_ring_is_away(switch: RunningSwitch) -> None:
    with switch.guest("vm1", 1, pairs=2, size=SIZE) as one, switch.guest("vm2", 2) as other:
        introduce(one, other)
        one.front.enable_ring(2 + RECEIVES, False)
        one.front.stop_ring(2 + RECEIVES)
        assert switch.port("vm1")["state"] == "up"
        for number in range(FRAMES):
            frame = ethernet(other.mac, one.mac, TEST_ETHERTYPE, bytes([number]) * 100)
            assert one.send([frame], pair=0) == 1
            assert other.receive_until(1) == [frame]
            back = ethernet(one.mac, other.mac, TEST_ETHERTYPE, bytes([number]) * 100)
            assert other.send([back]) == 1
            assert one.receive_until(1) == [back]
