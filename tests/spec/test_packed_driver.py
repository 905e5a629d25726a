# SPDX-License-Identifier: Apache-2.0
"""What the driver writes into a packed virtqueue, byte for byte (VIRTIO 1.2, section 2.8)."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from byway.testing.entries import guest_sleep, guest_wake
from byway.virtio.features import Feature, mask
from tests.driving import Driven, driven

PACKED = mask(Feature.VERSION_1, Feature.RING_PACKED)
EVENT, IN_ORDER = mask(Feature.EVENT_IDX), mask(Feature.IN_ORDER)


def put(at: int, text: str) -> None:
    data = bytes.fromhex(text)
    ctypes.memmove(at, data, len(data))


def got(at: int, n: int) -> str:
    return ctypes.string_at(at, n).hex(" ", 2)


@contextmanager
def queue(receive: bool, features: int = PACKED, size: int = 3) -> Iterator[Driven]:
    """Buffers of 2 KiB from guest address 0x1_0000_1000 on."""
    with driven(size, features, receive) as q:
        yield q


def test_what_it_posts() -> None:
    """2.8.13: le64 addr, le32 len, le16 id, le16 flags; in the first lap AVAIL (bit 7) is set and
    USED (bit 15) is not; WRITE (bit 1)."""
    with queue(True) as q:
        assert got(q.queue.desc, 48) == (
            "0010 0000 0100 0000 0008 0000 0000 8200 "
            "0018 0000 0100 0000 0008 0000 0100 8200 "
            "0020 0000 0100 0000 0008 0000 0200 8200")


def test_the_second_lap() -> None:
    """2.8.1: used in the first lap is AVAIL and USED set; made available in the second is AVAIL
    clear and USED set."""
    with queue(True) as q:
        put(q.queue.desc, "0000 0000 0000 0000 4800 0000 0200 8280")
        put(q.queue.buffers + 2 * 2048, "00" * 10 + "0100" + "41" * 60)
        assert q.receive() == [b"A" * 60]
        assert got(q.queue.desc, 16) == "0020 0000 0100 0000 0008 0000 0200 0280"
        assert int(q.queue.record["avail_idx"][0]) & 0xFFFF == 0x0001


def test_the_third_lap() -> None:
    """Used in the second lap is both clear."""
    with queue(True, size=1) as q:
        put(q.queue.buffers, "00" * 10 + "0100" + "41" * 60)
        for flags, after in (("8280", "0280"), ("0200", "8200"), ("8280", "0280")):
            put(q.queue.desc + 8, "4800 0000 0000" + flags)
            assert q.receive() == [b"A" * 60]
            assert got(q.queue.desc + 8, 8) == f"0008 0000 0000 {after}"


def test_a_chain_over_the_end_of_the_ring() -> None:
    """2.8.5, 2.8.6: NEXT (bit 0) in all but the last, the id in each, and behind the end of the
    ring the flags of the next lap."""
    with queue(False) as q:
        assert q.send([bytes(60)] * 2) == 2  # ids 2 and 1
        assert got(q.queue.desc, 48) == (
            "0020 0000 0100 0000 4800 0000 0200 8000 "
            "0018 0000 0100 0000 4800 0000 0100 8000 " + "0000 " * 7 + "0000")
        put(q.queue.desc + 8, "4800 0000 0200 8080")
        put(q.queue.desc + 24, "4800 0000 0100 8080")
        assert q.send([b"x" * 4100]) == 1
        assert got(q.queue.desc, 48) == (
            "0020 0000 0100 0000 0008 0000 0100 0180 "
            "0010 0000 0100 0000 1000 0000 0100 0080 "
            "0018 0000 0100 0000 0008 0000 0100 8100")


def test_in_order() -> None:
    """2.8.9: an id for a batch, in its first slot; the others keep what they held."""
    with queue(False, PACKED | IN_ORDER) as q:
        assert q.send([bytes(60)] * 3) == 3
        assert [got(q.queue.desc + 16 * k + 12, 2) for k in range(3)] == ["0000", "0100", "0200"]
        put(q.queue.desc + 12, "0100 8080")  # buffers 0 and 1 were used
        q.reap()
        assert (q.free, int(q.queue.record["used_seen"][0]) & 0xFFFF) == (2, 0x8002)


def test_what_it_wants_to_be_told() -> None:
    """2.8.14: le16 slot and wrap, le16 flags: 0 enable, 1 disable, 2 at the slot."""
    with queue(True) as q:
        assert got(q.queue.avail, 4) == "0000 0000"
        guest_wake(q.queue.address)
        assert got(q.queue.avail, 4) == "0000 0100"
        assert guest_sleep(q.queue.address) == 0
        assert got(q.queue.avail, 4) == "0000 0000"
    with queue(True, PACKED | EVENT) as q:
        assert guest_sleep(q.queue.address) == 0
        assert got(q.queue.avail, 4) == "0080 0200"
        put(q.queue.buffers, "00" * 10 + "0100" + "41" * 60)
        for k in range(3):  # buffer k, in the first lap
            put(q.queue.desc + 16 * k + 8, f"4800 0000 0{k}00 8280")
            assert len(q.receive()) == 1
            assert guest_sleep(q.queue.address) == 0
            assert got(q.queue.avail, 4) == ("0180 0200", "0280 0200", "0000 0200")[k]
        guest_wake(q.queue.address)
        assert got(q.queue.avail + 2, 2) == "0100"


def test_where_the_next_device_begins() -> None:
    """SET_VRING_BASE: slot in bits 0 to 14, wrap counter in bit 15."""
    with queue(True, size=2) as q:
        assert q.queue.position() == 0x8000
        for base in (0x8001, 0x0000, 0x0001, 0x8000):
            assert q.device.deliver([bytes(60)]) == 1
            q.receive()
            assert q.queue.resume() == base
