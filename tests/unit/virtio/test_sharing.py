# SPDX-License-Identifier: Apache-2.0
"""Two workers deliver to one guest that sleeps whenever it has nothing: nothing is lost."""

import os
import select
import threading
import time

import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.counters import COUNTERS
from byway.ports.record import Kind
from byway.testing.device import Device
from byway.testing.entries import guest_borrow, guest_give_back, guest_sleep, guest_wake
from byway.testing.kernels import port_deliver
from byway.testing.records import PortRecords
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask

TOTAL = 500 if INTERPRETED else 100_000
# Milliseconds. A worker may be held up between publishing and calling: interpreted, for as long as
# other threads keep Python's lock to themselves.
CALL_COMES = 5000
GPA = 0x1_0000_0000


class Shared:
    """A vhost-user port's record over a guest's receive queue, for two workers."""

    def __init__(self, features: int) -> None:
        self.region = Region.create(1 << 20)
        self.guest = DriverQueue(self.region, 0, GPA, 64, 2048, True)
        self.counted, self.taken = alloc(COUNTERS, 1), alloc(COUNTERS, 1)
        self.guest.start(features, address_of(self.taken), 1514)
        self.regions = [(GPA, self.region.address, self.region.size)]
        g = self.guest
        self.device = Device(self.regions, 64, g.desc, g.avail, g.used, features, call=g.call)
        self.features = features
        self.port = PortRecords(Kind.DEVICE, 0, tx=self.device.address,
                                counters=address_of(self.counted))
        self.port.port["shared"] = 1
        self.sent = [0, 0]

    def worker(self, number: int) -> None:
        """Deliver until enough has arrived."""
        own = Device(self.regions, 64, 0, 0, 0, self.features)  # for its batch
        own.place([bytes([number]) * 60] * 5)
        while self.sent[number] < TOTAL // 2:
            self.sent[number] += int(port_deliver(
                self.port.address, own.batch.address, address_of(own.selected), 5, 3))
            time.sleep(0)


@pytest.mark.parametrize("features", [
    mask(Feature.VERSION_1), mask(Feature.VERSION_1, Feature.EVENT_IDX)])
def test_two_workers_and_a_guest_that_sleeps(features: int) -> None:
    shared = Shared(features)
    guest = shared.guest
    guest.post_all()
    mine = Device(shared.regions, 64, 0, 0, 0, features)  # the guest's batch
    workers = [threading.Thread(target=shared.worker, args=(k,)) for k in range(2)]
    for worker in workers:
        worker.start()
    poll = select.poll()
    poll.register(guest.call, select.POLLIN)
    lost = received = 0
    while any(worker.is_alive() for worker in workers):
        while n := int(guest_borrow(guest.address, mine.batch.address)):
            received += n
            guest_give_back(guest.address, mine.batch.address)
        if not guest_sleep(guest.address):
            if poll.poll(300):
                os.eventfd_read(guest.call)
            elif guest_sleep(guest.address) and not poll.poll(CALL_COMES):
                lost += 1  # asleep with frames in the ring, and nobody calls
        guest_wake(guest.address)
    for worker in workers:
        worker.join()
    while n := int(guest_borrow(guest.address, mine.batch.address)):
        received += n
        guest_give_back(guest.address, mine.batch.address)
    assert (received, lost) == (sum(shared.sent), 0)
    assert int(shared.counted["drops"].sum()) == 0, "counted at the queue"
    assert (shared.device.error, int(guest.record["error"][0])) == (None, 0)
    guest.close()
    shared.region.close()
