# SPDX-License-Identifier: Apache-2.0
"""Delivery into virtqueues: what each guest receives, in the order in which it was sent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import FLOOD, ROWS
from byway.packet.reason import Reason
from byway.ports.record import Kind
from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.testing.kernels import deliver_batch
from byway.testing.plain_driver import VERSION_1, Layout, PlainDriver, PlainMemory
from byway.testing.plans import plan_of
from byway.testing.records import PortRecords
from byway.worker.deliver import SORT_BYTES

PORTS = 4
EXAMPLES = 15 if INTERPRETED else 40


class Guests:
    """One guest with ROWS receive buffers behind each port."""

    def __init__(self) -> None:
        self.memory = [Guarded(1 << 16) for _ in range(PORTS)]
        self.records: list[PortRecords] = []
        self.drivers, self.devices = [], []
        for k, area in enumerate(self.memory):
            plain = PlainMemory([(0, area.address, area.size)])
            driver = PlainDriver(plain, ROWS, VERSION_1, receive=True)
            for _ in range(ROWS):
                driver.add(72, Layout())
            driver.publish()
            device = Device([(0, area.address, area.size)], ROWS, plain.host(driver.desc),
                            plain.host(driver.avail), plain.host(driver.used), VERSION_1)
            self.records.append(PortRecords(
                Kind.DEVICE, k, tx=device.address, counters=address_of(device.counters)))
            self.drivers.append(driver)
            self.devices.append(device)
        ports = {k: self.records[k].address for k in range(PORTS)}
        self.plan = plan_of(ports, {0: list(range(PORTS))})

    def close(self) -> None:
        for area in self.memory:
            area.close()


@settings(max_examples=EXAMPLES, deadline=None)
@given(own=st.integers(0, PORTS - 1), outs=st.lists(st.one_of(
    st.integers(0, PORTS - 1), st.just(FLOOD), st.just(-1 - Reason.RUNT)), max_size=ROWS))
def test_frames_to_one_destination_stay_in_order(own: int, outs: list[int]) -> None:
    guests, sender = Guests(), Device([(0, 1 << 40, 1)], 1, 0, 0, 0, VERSION_1)
    frames = [bytes([k]) * 60 for k in range(len(outs))]
    sender.place(frames)
    sender.batch.rows["out"][: len(outs)] = outs
    sort = alloc(np.dtype("u1"), SORT_BYTES)
    deliver_batch(guests.plan.address, guests.records[own].rx_address, sender.batch.address,
                  address_of(sort))
    for port, driver in enumerate(guests.drivers):
        assert driver.receive_frames() == [
            frame for frame, out in zip(frames, outs, strict=True)
            if out == port or (out == FLOOD and port != own)]
    counted = guests.records[own].received[0]["drops"]
    assert int(counted[Reason.RUNT]) == outs.count(-1 - Reason.RUNT)
    guests.close()


@pytest.mark.parametrize("broken", ["fault", "error"])
def test_a_port_that_broke_is_not_touched(broken: str) -> None:
    """Its queues are left alone; what was for it is counted there."""
    guests, sender = Guests(), Device([(0, 1 << 40, 1)], 1, 0, 0, 0, VERSION_1)
    sender.place([bytes(60)] * 3)
    sender.batch.rows["out"][:3] = [1, 2, 1]
    guests.records[1].port[broken] = 1
    sort = alloc(np.dtype("u1"), SORT_BYTES)
    deliver_batch(guests.plan.address, guests.records[0].rx_address, sender.batch.address,
                  address_of(sort))
    assert [len(driver.receive_frames()) for driver in guests.drivers] == [0, 0, 1, 0]
    assert guests.devices[1].drops == {"port_down": 2}
    guests.close()
