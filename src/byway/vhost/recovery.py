# SPDX-License-Identifier: Apache-2.0
"""What a ring's part of the in-flight region says at its start, and how it is put right.

Used by the back end, with no worker in the ring; uses virtio.inflight (the layout) and
virtio.repair (the loops).
Source: QEMU, docs/interop/vhost-user.rst, "Inflight I/O tracking", whose steps the numbers cite.

Theory of operation
-------------------
The part was written by a back end that was killed: by one of ours, which keeps its own rules
(virtio/inflight.py), or by any other, which may have had many chains in flight and returned them
in any order. Afterwards nothing is in flight, and the ring goes on at one position:

* packed: an update that was being made is committed or rolled back (steps 1, 2). Then the chains
  in flight, in the order in which they were taken (step 4), are put back into the ring as their
  driver wrote them, from the position on: those slots are the device's until it returns them, and
  their driver does not look at them. They are then taken like any others.
* split: what was in the last batch is no longer in flight (the used index counts it). The heads
  still in flight stand in the avail ring, normally right behind the used index; then they are
  taken again. A back end that returned others before them leaves them somewhere before, where
  nobody will look again, and the avail ring is the driver's to write: so they are returned with
  nothing in them, which for a network is a frame lost, but no buffer.

This, too, may be killed after any of its stores. So the ring is put right before the region, and
the region by single stores that each make one statement ("these entries are free now", "this is
the position"); whoever comes next finds the same to do, or less, or nothing.

The region is the front end's as well: numbers without sense are told, and the ring does not start.
"""

import ctypes
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.machine.mem import ld16_acq, ld16_once, st16_rel, st32_rel, st64_rel
from byway.vhost.ring import Ring
from byway.virtio.inflight import (
    FEATURES_AT,
    FREE_AT,
    IN_FLIGHT,
    LAST_BATCH_HEAD_AT,
    PACKED_ENTRIES_AT,
    PACKED_ENTRY,
    POSITIONS_AT,
    SPLIT_ENTRIES_AT,
    SPLIT_ENTRY,
    SPLIT_USED_AT,
    VERSION,
    VERSION_AT,
)
from byway.virtio.repair import (
    ASTRAY,
    REPAIR,
    SOUND,
    gather_chains,
    repair_last_batch,
    repair_packed,
    repair_split,
)
from byway.virtio.ring import AVAIL, DESCRIPTOR, INDEX, USED, WRAP

_HEAD = {"version": ("<u2", 8), "number": ("<u2", 10)}
_SPLIT_HEAD = _HEAD | {"last_batch_head": ("<u2", 12), "used": ("<u2", 14)}
_PACKED_HEAD = _HEAD | {
    "free": ("<u2", 12), "old_free": ("<u2", 14), "used": ("<u2", 16), "old_used": ("<u2", 18),
    "wrap": ("u1", 20), "old_wrap": ("u1", 21)}
_SPLIT_ENTRY = {"inflight": ("u1", 0), "next": ("<u2", 6), "counter": ("<u8", 8)}
_PACKED_ENTRY = {
    "inflight": ("u1", 0), "next": ("<u2", 2), "last": ("<u2", 4), "num": ("<u2", 6),
    "counter": ("<u8", 8), "id": ("<u2", 16), "flags": ("<u2", 18), "len": ("<u4", 20),
    "addr": ("<u8", 24)}


def _dtype(fields: dict[str, tuple[str, int]], size: int) -> Any:
    return np.dtype({"names": list(fields), "formats": [f[0] for f in fields.values()],
                     "offsets": [f[1] for f in fields.values()], "itemsize": size})


SPLIT_HEAD = _dtype(_SPLIT_HEAD, SPLIT_ENTRIES_AT)
PACKED_HEAD = _dtype(_PACKED_HEAD, PACKED_ENTRIES_AT)
SPLIT_ENTRY_TYPE = _dtype(_SPLIT_ENTRY, SPLIT_ENTRY)
PACKED_ENTRY_TYPE = _dtype(_PACKED_ENTRY, PACKED_ENTRY)


class Nonsense(Exception):
    """What the region says cannot be."""


def start(part: int, queue_size: int, ring: Ring, features: int, log: int = 0) -> str:
    """Begin to use ``part`` (a host address) for a ring that was placed.

    ``ring.base`` becomes the position to go on from. ``log``: address of the LOG record in which
    writes to the guest's memory are noted, or 0. -> what is wrong, "" if nothing.
    """
    kind = PACKED_HEAD if ring.packed else SPLIT_HEAD
    head = np.frombuffer(ctypes.string_at(part, kind.itemsize), kind)[0]
    try:
        if head["version"] == 0:
            _prepare(part, queue_size, ring, features)
        elif head["version"] != VERSION:
            raise Nonsense(f"version {head['version']}")
        elif not ring.size <= head["number"] <= queue_size:
            raise Nonsense(f"{head['number']} entries, for a ring of {ring.size} in a region for "
                           f"{queue_size}")
        elif ring.packed:
            _recover_packed(part, ring, head, log)
        else:
            _recover_split(part, ring, head, log)
    except Nonsense as error:
        return f"ring {ring.index}: the in-flight region makes no sense ({error})"
    return ""


def resume(part: int, ring: Ring) -> None:
    """Note the position of a ring that goes on after a change, with nothing in flight."""
    if ring.packed:
        st32_rel(part + FREE_AT, 0)
        st64_rel(part + POSITIONS_AT, _positions(ring.base))


def _positions(position: int) -> int:
    slot, wrap = position & WRAP - 1, position >> 15
    return slot | slot << 16 | wrap << 32 | wrap << 40


def _prepare(part: int, queue_size: int, ring: Ring, features: int) -> None:
    """Fill a part that was never used. Its version comes last: without it there is nothing."""
    kind, entry = ((PACKED_HEAD, PACKED_ENTRY_TYPE) if ring.packed
                   else (SPLIT_HEAD, SPLIT_ENTRY_TYPE))
    size = queue_size * entry.itemsize
    cells = (ctypes.c_uint8 * size).from_address(part + kind.itemsize)
    entries = np.frombuffer(cells, entry)
    entries["inflight"] = 0
    st64_rel(part + FEATURES_AT, features)
    if ring.packed:
        entries["next"] = np.arange(1, queue_size + 1)
        st32_rel(part + FREE_AT, 0)
        st64_rel(part + POSITIONS_AT, _positions(ring.base))
    else:
        st16_rel(part + LAST_BATCH_HEAD_AT, 0)
        st16_rel(part + SPLIT_USED_AT, ld16_acq(ring.used + INDEX))
    st32_rel(part + VERSION_AT, VERSION | queue_size << 16)


class _Repair:
    """What the kernels of virtio.repair work on: a private copy of the entries, and lists."""

    def __init__(self, part: int, ring: Ring, head: Any, log: int) -> None:
        kind, entry = ((PACKED_HEAD, PACKED_ENTRY_TYPE) if ring.packed
                       else (SPLIT_HEAD, SPLIT_ENTRY_TYPE))
        n = int(head["number"])
        self.entries = np.frombuffer(
            ctypes.string_at(part + kind.itemsize, n * entry.itemsize), entry)
        self.known = np.zeros(n, np.uint8)
        self._lists = [np.zeros(n, np.int64) for _ in range(2)]
        self._heads = np.zeros(0, np.int64)
        self._record = alloc(REPAIR, 1)
        self.row = row = self._record[0]
        row["part"], row["log"], row["size"], row["number"] = part, log, ring.size, n
        row["desc"], row["avail"], row["used"] = ring.desc, ring.avail, ring.used
        row["entries"], row["known"] = address_of(self.entries), address_of(self.known)
        row["order"], row["tails"] = map(address_of, self._lists)

    @property
    def address(self) -> int:
        """The REPAIR record."""
        return address_of(self._record)

    def flying(self) -> Any:
        """The entries said to be in flight, and not known to be otherwise, in the order in which
        they were taken."""
        found = np.flatnonzero((self.entries["inflight"] == IN_FLIGHT) & (self.known == 0))
        self._heads = found[np.argsort(self.entries["counter"][found], kind="stable")]
        self.row["heads"], self.row["nheads"] = address_of(self._heads), len(found)
        return self._heads


# ---------------------------------------------------------------- split


def _recover_split(part: int, ring: Ring, head: Any, log: int) -> None:
    repair = _Repair(part, ring, head, log)
    row = repair.row
    row["position"] = used = ld16_acq(ring.used + INDEX)
    if len(repair.flying()):
        # (A region in which nothing is in flight may have lost count of the batches.)
        row["first"], row["count"] = head["last_batch_head"], used - int(head["used"]) & 0xFFFF
        if row["count"] > row["number"]:
            raise Nonsense(f"a batch of {row['count']} in {row['number']} entries")
        if repair_last_batch(repair.address) == ASTRAY:
            raise Nonsense(f"entry {row['led']} of {row['number']}")
    heads = repair.flying()
    if len(heads):
        waiting = ld16_acq(ring.avail + INDEX) - used & 0xFFFF
        if heads.max() >= ring.size or not len(heads) <= waiting <= ring.size:
            raise Nonsense(f"{len(heads)} chains, up to number {heads.max()}, of {waiting} that "
                           "were made available")
        used = int(repair_split(repair.address))
    st16_rel(part + SPLIT_USED_AT, used)
    ring.base = used


# ---------------------------------------------------------------- packed


def _recover_packed(part: int, ring: Ring, head: Any, log: int) -> None:
    new, old = (_position(ring, head[slot], head[wrap])
                for slot, wrap in (("used", "wrap"), ("old_used", "old_wrap")))
    committed = new != old and not _still_available(ring, old)
    repair = _Repair(part, ring, head, log)
    row = repair.row
    row["position"] = new if committed else old
    row["free"] = head["free"] if committed else head["old_free"]
    row["committed"] = committed
    repair.flying()
    if (answer := gather_chains(repair.address)) != SOUND:
        if answer == ASTRAY:
            raise Nonsense(f"the chain at entry {row['bad']} leads to {row['led']}")
        raise Nonsense(f"the chain at entry {row['bad']} has {row['led']} descriptors")
    repair_packed(repair.address)
    ring.base = int(row["position"])


def _position(ring: Ring, slot: int, wrap: int) -> int:
    if slot >= ring.size or wrap > 1:
        raise Nonsense(f"slot {slot} of {ring.size}, wrap counter {wrap}")
    return int(slot) | int(wrap) << 15


def _still_available(ring: Ring, position: int) -> bool:
    """Whether the driver cannot have seen what was returned at ``position`` (step 1)."""
    slot, wrap = position & WRAP - 1, position & WRAP
    flags = ld16_once(ring.desc + DESCRIPTOR * slot + 14)
    return bool(flags & (AVAIL | USED) == (AVAIL if wrap else USED))
