# SPDX-License-Identifier: Apache-2.0
"""How much one pass does for one guest, whatever it sends or offers: counted, not timed.

A worker that spends long on one guest makes all others wait, and the control thread as well.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from byway.packet.batch import MAX_CHAIN, ROWS
from byway.packet.offload import GSO_TCPV4, MAX_SEGMENTS, NEEDS_CSUM
from byway.testing.device import Device
from byway.testing.frame_batch import Unfinished
from byway.testing.guarded import Guarded
from byway.testing.offload_frames import Shape
from byway.testing.plain_queue import INDIRECT, INDIRECT_DESC, MRG_RXBUF, NEXT, VERSION_1, WRITE
from byway.virtio.borrow import MAX_OCTETS, MAX_PIECES
from byway.virtio.device_tx import MAX_STEPS
from byway.virtio.features import Feature, mask
from byway.virtio.publish import SCRATCH
from tests.running import RunningSwitch

LARGE = mask(Feature.CSUM, Feature.HOST_TSO4, Feature.GUEST_CSUM, Feature.GUEST_TSO4,
             Feature.MRG_RXBUF)
SIZE = 32768
DESC, AVAIL, USED, TABLE, DATA = 0, 0x80000, 0x98000, 0xE0000, 0xF0000
MEMORY = 0x100000


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        made.network()
        yield made


def seen(switch: RunningSwitch, port: str) -> int:
    """Frames that went to a port, or were dropped there."""
    status = switch.port(port)
    dropped: int = sum(status["drops"].values())
    return int(status["tx_frames"]) + dropped


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
@pytest.mark.parametrize(("payload", "size"), [(255, 1), (60000, 250), (60000, 1400)])
def test_frames_that_make_many(switch: RunningSwitch, packed: bool, payload: int,
                               size: int) -> None:
    """A pass cuts so many and takes so many bytes at the most; every piece is counted."""
    switch.vhost("vm1", "vm2")
    sender = switch.guest("vm1", 1, features=LARGE, size=1024, packed=packed)
    other = switch.guest("vm2", 2)
    switch.settle()
    shape = Shape(payload=bytes(payload))
    frame = b"\xff" * 6 + bytes.fromhex("020000000001") + shape.build()[12:]
    header = shape.header(GSO_TCPV4, size)
    unfinished = Unfinished(NEEDS_CSUM, GSO_TCPV4, size, *struct.unpack_from("<HH", header, 6))
    sent = sender.send([(unfinished, frame)] * ROWS)
    pieces = -(-payload // size)
    before, rows, passes = seen(switch, "vm2"), 0, 0
    while moved := switch.step():
        assert seen(switch, "vm2") - before <= MAX_PIECES + MAX_SEGMENTS
        assert moved * len(frame) <= MAX_OCTETS + len(frame)
        before = seen(switch, "vm2")
        rows, passes = rows + moved, passes + 1
    assert (rows, seen(switch, "vm2")) == (sent, sent * pieces)
    assert passes > 1
    sender.close()
    other.close()


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
@pytest.mark.parametrize(("payload", "size"), [(255, 1), (60000, 250), (60000, 1400)])
def test_several_queues_share_the_bound(switch: RunningSwitch, packed: bool, payload: int,
                                        size: int) -> None:
    """A batch of four queues takes no more than that of one, and each has its turn."""
    switch.add("vhost-user", "vm1", queues=4)
    switch.add("null", "sink")
    sender = switch.guest("vm1", 1, features=LARGE, size=1024, packed=packed, pairs=4)
    switch.settle()
    shape = Shape(payload=bytes(payload))
    frame = b"\xff" * 6 + bytes.fromhex("020000000001") + shape.build()[12:]
    header = shape.header(GSO_TCPV4, size)
    unfinished = Unfinished(NEEDS_CSUM, GSO_TCPV4, size, *struct.unpack_from("<HH", header, 6))
    sent = sum(sender.send([(unfinished, frame)] * ROWS, pair=pair) for pair in range(4))
    batch = switch.engine._workers[0].batch.record[0]
    rows = 0
    while moved := switch.step():
        assert int(batch["octets"]) <= MAX_OCTETS + len(frame)
        assert int(batch["made"]) <= MAX_PIECES
        rings = [r["frames"] for r in switch.port("vm1")["rings"] if r["way"] == "rx"]
        assert max(rings) - min(rings) <= ROWS, "none waits for the others to be empty"
        rows += moved
    assert rows == sent
    sender.close()


def test_a_checksum_for_a_full_ring(switch: RunningSwitch) -> None:
    """What could not be finished for want of a buffer is counted once, also as the first ever."""
    switch.vhost("vm1", "vm2")
    sender = switch.guest("vm1", 1, features=LARGE, size=1024)
    other = switch.guest("vm2", 2, size=4)
    switch.settle()
    shape = Shape(payload=bytes(1000))
    frame = b"\xff" * 6 + bytes.fromhex("020000000001") + shape.build()[12:]
    unfinished = Unfinished(NEEDS_CSUM, 0, 0, *struct.unpack_from("<HH", shape.header(), 6))
    sender.send([frame] * 4)
    switch.settle()
    for count in range(1, 4):
        sender.send([(unfinished, frame)])
        switch.settle()
        assert switch.drops() == {"vm2": {"no_buffers": count}}
    sender.close()
    other.close()


def test_buffers_of_shreds() -> None:
    """Chains of empty descriptors with one byte at their end: the walks of a delivery end."""
    memory = Guarded(MEMORY)
    table = b"".join(struct.pack("<QIHH", DATA, k + 1 == MAX_CHAIN,
                                 WRITE | (NEXT if k + 1 < MAX_CHAIN else 0), k + 1)
                     for k in range(MAX_CHAIN))
    chain = struct.pack("<QIHH", TABLE, len(table), INDIRECT, 0)
    for at, data in ((DESC, chain * SIZE), (TABLE, table),
                     (AVAIL, struct.pack("<HH", 0, SIZE) + np.arange(SIZE, dtype="<u2").tobytes())):
        memory.view[at : at + len(data)] = np.frombuffer(data, np.uint8)
    device = Device([(0, memory.address, MEMORY)], SIZE, memory.address + DESC,
                    memory.address + AVAIL, memory.address + USED,
                    VERSION_1 | INDIRECT_DESC | MRG_RXBUF)
    for length in (60, 1514):
        sent = device.deliver([bytes(length)] * ROWS)
        assert device.queue["steps"] <= MAX_STEPS + SCRATCH + MAX_CHAIN + 1
        assert device.error is None
        assert sent < ROWS
    assert sum(device.drops.values()) + int(device.counters["frames"][0]) == 2 * ROWS
    memory.close()
