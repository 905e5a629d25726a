# SPDX-License-Identifier: Apache-2.0
"""The split virtqueue as both sides see it: its layout, the device's and the driver's record.

Used by the kernels of this package, by ports (which fill the records) and by byway.testing.
VIRTIO 1.2, section 2.7. Every offset below is pinned by tests/spec/test_split_ring.py.
"""

from enum import IntEnum

from byway.machine.layout import record

# Descriptor: addr u64 @0, len u32 @8, flags u16 @12, next u16 @14 (2.7.5).
DESCRIPTOR = 16
NEXT, WRITE, INDIRECT = 1, 2, 4
# avail: flags u16 @0, idx u16 @2, ring u16[] @4, used_event u16 (2.7.6)
# used: flags u16 @0, idx u16 @2, {id u32, len u32}[] @4, avail_event u16 (2.7.8)
INDEX, ENTRIES = 2, 4
AVAIL_NO_INTERRUPT = 1
USED_NO_NOTIFY = 1
MAX_SIZE = 32768


class RingError(IntEnum):
    """Why a virtqueue is broken for good (until its front end sets it up again)."""

    sentence: str

    def __new__(cls, value: int, sentence: str = "") -> "RingError":
        made = int.__new__(cls, value)
        made._value_ = value
        made.sentence = sentence
        return made

    AVAIL_JUMP = 1, "the available index is more than a ring ahead of what was taken"
    BAD_HEAD = 2, "the available ring names a descriptor outside the table"
    USED_JUMP = 3, "the used index is ahead of what was made available"
    BAD_ID = 4, "the used ring names a buffer that the device did not have"
    BLOCKED = 5, "its event fd was made to block"


def avail_bytes(size: int, event: bool) -> int:
    """Bytes of the available ring; ``event``: with used_event (EVENT_IDX)."""
    return 4 + 2 * size + (2 if event else 0)


def used_bytes(size: int, event: bool) -> int:
    """Bytes of the used ring; ``event``: with avail_event (EVENT_IDX)."""
    return 4 + 8 * size + (2 if event else 0)


# The device's side (a guest's virtqueue that Byway serves).
# desc, avail, used: host addresses. header: bytes of virtio_net_hdr. last_avail: next entry to
# take. avail_seen: available index as last read. used_idx: our private copy; the ring's is read at
# the start only. likely_head: what the next available entry probably names (drivers recycle
# descriptors in order; a guess is only prefetched). signalled: used index when the driver was last
# considered for a call. call: event fd or -1. one: address of the 8 bytes written to it. max_frame:
# longest frame delivered.
VQ, vq_at, Q = record("vq", [
    "desc", "avail", "used", "size", "mask", "header", "memtab", "counters",
    "last_avail", "avail_seen", "used_idx", "likely_head", "signalled", "signalled_valid", "error",
    "event_idx", "indirect", "merge", "call", "one", "max_frame", "discard", "calls"], size=256)

# The driver's side (a virtqueue of a device that Byway, or a fake guest, drives). Buffer i is
# buffer_size bytes at buffers + i * buffer_size (host) and gpa + i * buffer_size (device).
# free: address of int64[size], a stack of nfree ids; busy: address of int64[size], 1 where the
# device has the buffer.
DRIVER, driver_at, D = record("driver", [
    "desc", "avail", "used", "size", "mask", "header", "counters", "buffers",
    "gpa", "buffer_size", "avail_idx", "used_seen", "free", "nfree", "busy", "error",
    "event_idx", "kick", "one", "kicked", "max_frame", "kicks"], size=256)
