# SPDX-License-Identifier: Apache-2.0
"""struct virtio_net_hdr byte for byte (VIRTIO 1.2, sections 5.1.6 and 5.1.6.1)."""

import pytest

from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.packet.counters import COUNTERS
from byway.testing.device import Device
from byway.testing.entries import guest_send
from byway.testing.guarded import Guarded
from byway.testing.plain_driver import Layout, PlainDriver, PlainMemory
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, header_length, mask

MERGE, MODERN = mask(Feature.MRG_RXBUF), mask(Feature.VERSION_1)


@pytest.mark.parametrize(("features", "length"), [
    (0, 10), (MERGE, 12), (MODERN, 12), (MODERN | MERGE, 12), (mask(Feature.CSUM), 10)])
def test_length(features: int, length: int) -> None:
    """5.1.6.1: num_buffers is there with VERSION_1 or MRG_RXBUF, and not otherwise."""
    assert header_length(features) == length


@pytest.mark.parametrize(("features", "rooms", "headers"), [
    (0, [100], ["00 00 00 00 00 00 00 00 00 00"]),
    (MODERN, [100], ["00 00 00 00 00 00 00 00 00 00 01 00"]),
    (MERGE, [100], ["00 00 00 00 00 00 00 00 00 00 01 00"]),
    (MODERN | MERGE, [50, 50], ["00 00 00 00 00 00 00 00 00 00 02 00"]),
    (MODERN | MERGE, [*[1 + 12], *[1] * 59], ["00 00 00 00 00 00 00 00 00 00 3c 00"])])
def test_what_the_device_writes(features: int, rooms: list[int], headers: list[str]) -> None:
    """5.1.6.4.1: flags, gso_type, hdr_len, gso_size, csum_* are 0; num_buffers is le16."""
    memory = Guarded(1 << 16)
    regions = [(0, memory.address, memory.size)]
    plain = PlainMemory(regions)
    driver = PlainDriver(plain, 64, features, receive=True)
    for room in rooms:
        driver.add(room, Layout(gap=1))
    driver.publish()
    device = Device(regions, 64, plain.host(driver.desc), plain.host(driver.avail),
                    plain.host(driver.used), features)
    assert device.deliver([bytes(range(60))]) == 1
    first = next(iter(driver.chains.values()))
    assert driver.content(first)[: driver.header].hex(" ") == headers[0]
    assert driver.receive_frames() == [bytes(range(60))]
    memory.close()


@pytest.mark.parametrize(("features", "length"), [(0, 10), (MODERN, 12)])
def test_what_the_driver_writes(features: int, length: int) -> None:
    """5.1.6.2.1: without offloads all is 0, num_buffers as well."""
    region = Region.create(1 << 14)
    region.view[:] = 0xFF
    queue = DriverQueue(region, 0, 0, 4, 2048, False)
    counters = alloc(COUNTERS, 1)
    queue.start(features, address_of(counters), 1514)
    sender = Device([(0, 1 << 40, 1)], 1, 0, 0, 0, features)
    frame = bytes(range(1, 61))
    sender.place([frame])
    assert guest_send(queue.address, sender.batch.address, address_of(sender.selected), 1) == 1
    at = queue.buffers - region.address + 3 * 2048  # ids are taken from the top of the stack
    assert region.view[at : at + length + 61].tobytes() == bytes(length) + frame + b"\xff"
    queue.close()
    region.close()
