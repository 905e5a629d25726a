# SPDX-License-Identifier: Apache-2.0
"""The virtqueue as both sides see it: its layouts, the device's and the driver's record.

Used by the kernels of this package, by ports (which fill the records) and by byway.testing.
VIRTIO 1.2, sections 2.7 (split) and 2.8 (packed). The offsets below are pinned by
tests/spec/test_split_ring.py and tests/spec/test_packed_ring.py.
"""

from byway.machine.explained import Explained
from byway.machine.layout import record

# Both formats: flags of a descriptor.
DESCRIPTOR = 16
NEXT, WRITE, INDIRECT = 1, 2, 4

# Split. Descriptor: addr u64 @0, len u32 @8, flags u16 @12, next u16 @14 (2.7.5).
# avail: flags u16 @0, idx u16 @2, ring u16[] @4, used_event u16 (2.7.6)
# used: flags u16 @0, idx u16 @2, {id u32, len u32}[] @4, avail_event u16 (2.7.8)
INDEX, ENTRIES = 2, 4
AVAIL_NO_INTERRUPT = 1
USED_NO_NOTIFY = 1
MAX_SIZE = 32768

# Packed. Descriptor: addr u64 @0, len u32 @8, id u16 @12, flags u16 @14 (2.8.13). Its flags say
# in which lap of the ring it was made available (AVAIL) and used (USED); each side counts laps with
# a wrap counter of one bit that begins at 1 (2.8.1).
AVAIL, USED = 1 << 7, 1 << 15
# Event suppression (2.8.14), the driver's at ``avail`` and the device's at ``used``:
# slot u15 and wrap u1 @0, flags u16 @2.
EVENT_WORD, EVENT_FLAGS = 0, 2
EVENT_ENABLE, EVENT_DISABLE, EVENT_AT_SLOT = 0, 1, 2
# Where a side is in a packed ring: slot | WRAP of its counter. The start is slot 0, wrap 1.
WRAP = 1 << 15
PACKED_START = WRAP


class RingError(Explained):
    """Why a virtqueue is broken for good (until its front end sets it up again)."""

    AVAIL_JUMP = 1, "the available index is more than a ring ahead of what was taken"
    BAD_HEAD = 2, "the available ring names a descriptor outside the table"
    USED_JUMP = 3, "the used index is ahead of what was made available"
    BAD_ID = 4, "the used ring names a buffer that the device did not have"
    BLOCKED = 5, "its event fd was made to block"
    ENDLESS = 6, "a descriptor chain goes once around the ring"


def avail_bytes(size: int, event: bool, packed: bool = False) -> int:
    """Bytes of the available ring (packed: the driver's event suppression).

    ``event``: with used_event (EVENT_IDX).
    """
    return 4 if packed else 4 + 2 * size + (2 if event else 0)


def used_bytes(size: int, event: bool, packed: bool = False) -> int:
    """Bytes of the used ring (packed: the device's event suppression).

    ``event``: with avail_event (EVENT_IDX).
    """
    return 4 if packed else 4 + 8 * size + (2 if event else 0)


# The device's side (a guest's virtqueue that Byway serves).
# packed: the format, 0 or 1; in_order: IN_ORDER was negotiated. desc, avail, used: host addresses
# (packed: descriptor ring, the driver's and the device's event suppression). header: bytes of
# virtio_net_hdr. last_avail: next entry to take. avail_seen: available index as last read.
# used_idx: our private copy; the ring's is read at the start only. (Packed: last_avail and used_idx
# are slot | WRAP.) likely_head: what the next available entry probably names (drivers recycle
# descriptors in order; a guess is only prefetched). published: of a packed ring, used_idx | slots
# returned since the start << 16, so that laps are not taken for standing still. signalled: used_idx
# (packed: published) when the driver was last considered for a call. call: event fd or -1. one:
# address of the 8 bytes written to it. max_frame: longest frame delivered. offloads: whether the
# driver's virtio headers are read (it may send unfinished checksums, or segments to cut). slots,
# id: what the chain last walked takes of a packed ring. steps: descriptors walked in this delivery.
# log: address of a LOG record or 0. inflight: address of the queue's part of the in-flight region,
# or 0. ahead: up to where pages were asked for behind an IOMMU (ahead.py). unkept: slots returned
# since the position was written into the ring (position.py). likely: how many frames the last look
# into a packed ring found, as the next one probably will (only prefetched).
VQ, vq_at, Q = record("vq", [
    "desc", "avail", "used", "size", "mask", "header", "memtab", "counters",
    "last_avail", "avail_seen", "used_idx", "likely_head", "signalled", "signalled_valid", "error",
    "event_idx", "indirect", "merge", "call", "one", "max_frame", "calls",
    "packed", "in_order", "offloads", "slots", "id", "log", "inflight",
    "published", "steps", "ahead", "unkept", "likely"], size=320)

# The driver's side (a virtqueue of a device that Byway, or a fake guest, drives). Buffer i is
# buffer_size bytes at buffers + i * buffer_size (host) and gpa + i * buffer_size (device).
# free: address of int64[size], a stack of nfree ids (IN_ORDER: the next descriptor is the first);
# busy, taken: addresses of int64[size], what the device has, and the ntaken buffers that it has
# returned, of which frames are made, to be posted again (driver_ring.py says what their words
# hold). Packed: avail_idx, used_seen and kicked are slot | WRAP, and count slots above bit 16.
# offloads: whether the device's virtio headers are read.
DRIVER, driver_at, D = record("driver", [
    "desc", "avail", "used", "size", "mask", "header", "counters", "buffers",
    "gpa", "buffer_size", "avail_idx", "used_seen", "free", "nfree", "busy", "error",
    "event_idx", "kick", "one", "kicked", "max_frame", "kicks",
    "packed", "in_order", "merge", "offloads", "taken", "ntaken"], size=256)

# Where writes into a guest's memory are logged: one bit a page of 4096 bytes at ``bits``, which has
# ``bytes``; memtab: the table of the guest's physical memory, which says a host address's page.
LOG, log_at, LOG_AT = record("log", ["bits", "bytes", "memtab"])
