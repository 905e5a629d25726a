# SPDX-License-Identifier: Apache-2.0
"""What a ring's part of the in-flight region says at its start, and how it is put right.

Used by the back end, with no worker in the ring; uses virtio.inflight (the layout) and machine.mem.
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
from collections.abc import Callable
from typing import Any

import numpy as np

from byway.machine.mem import ld16_acq, ld16_once, st8_once, st16_rel, st32_rel, st64_rel
from byway.vhost.ring import Ring
from byway.virtio.inflight import (
    FEATURES_AT,
    FREE_AT,
    IN_FLIGHT,
    LAST_BATCH_HEAD_AT,
    PACKED_ENTRIES_AT,
    PACKED_ENTRY,
    PACKED_NEXT_AT,
    POSITIONS_AT,
    SPLIT_ENTRIES_AT,
    SPLIT_ENTRY,
    SPLIT_NEXT_AT,
    SPLIT_USED_AT,
    VERSION,
    VERSION_AT,
)
from byway.virtio.ring import AVAIL, DESCRIPTOR, ENTRIES, INDEX, USED, WRAP

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

Note = Callable[[int, int], None]  # (host address, bytes): something was written there


def _dtype(fields: dict[str, tuple[str, int]], size: int) -> Any:
    return np.dtype({"names": list(fields), "formats": [f[0] for f in fields.values()],
                     "offsets": [f[1] for f in fields.values()], "itemsize": size})


SPLIT_HEAD = _dtype(_SPLIT_HEAD, SPLIT_ENTRIES_AT)
PACKED_HEAD = _dtype(_PACKED_HEAD, PACKED_ENTRIES_AT)
SPLIT_ENTRY_TYPE = _dtype(_SPLIT_ENTRY, SPLIT_ENTRY)
PACKED_ENTRY_TYPE = _dtype(_PACKED_ENTRY, PACKED_ENTRY)


class Nonsense(Exception):
    """What the region says cannot be."""


def start(part: int, queue_size: int, ring: Ring, features: int, note: Note) -> str:
    """Begin to use ``part`` (a host address) for a ring that was placed.

    ``ring.base`` becomes the position to go on from. -> what is wrong, "" if nothing.
    ``note`` is told of what was written into the guest's memory.
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
            _Packed(part, ring, head, note).recover()
        else:
            _recover_split(part, ring, head, note)
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


def _copy(part: int, head: Any, kind: Any, entry: Any) -> Any:
    """A private copy of the entries."""
    raw = ctypes.string_at(part + kind.itemsize, int(head["number"]) * entry.itemsize)
    return np.frombuffer(raw, entry)


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


# ---------------------------------------------------------------- split


def _recover_split(part: int, ring: Ring, head: Any, note: Note) -> None:
    entries = _copy(part, head, SPLIT_HEAD, SPLIT_ENTRY_TYPE)
    used = ld16_acq(ring.used + INDEX)
    flying = set(np.flatnonzero(entries["inflight"]).tolist())
    for i in _last_batch(entries, int(head["last_batch_head"]), used - int(head["used"]) & 0xFFFF,
                         flying):
        flying.discard(i)
        st8_once(part + SPLIT_ENTRIES_AT + SPLIT_ENTRY * i, 0)
    st16_rel(part + SPLIT_USED_AT, used)
    heads = sorted(flying, key=lambda i: (int(entries["counter"][i]), i))
    if heads:
        waiting = ld16_acq(ring.avail + INDEX) - used & 0xFFFF
        if max(heads) >= ring.size or not len(heads) <= waiting <= ring.size:
            raise Nonsense(f"{len(heads)} chains, up to number {max(heads)}, of {waiting} that "
                           "were made available")
        mask = ring.size - 1
        next_heads = [ld16_once(ring.avail + ENTRIES + 2 * (used + j & mask))
                      for j in range(len(heads))]
        if next_heads != heads:
            used = _return_empty(part, int(head["last_batch_head"]), ring, used, heads, note)
        for i in reversed(heads):  # what is left of them is always the beginning
            st8_once(part + SPLIT_ENTRIES_AT + SPLIT_ENTRY * i, 0)
        st16_rel(part + SPLIT_USED_AT, used)
    ring.base = used


def _last_batch(entries: Any, first: int, n: int, flying: set[int]) -> list[int]:
    """The entries of the last batch, of which the region does not know yet that it was returned.

    A region in which nothing is in flight may have lost count; then there are none.
    """
    if not n or not flying:
        return []
    if n > len(entries):
        raise Nonsense(f"a batch of {n} in {len(entries)} entries")
    following = entries["next"].tolist()
    found = []
    for _ in range(n):
        if first >= len(following):
            raise Nonsense(f"entry {first} of {len(following)}")
        found.append(first)
        first = following[first]
    return found


def _return_empty(part: int, last: int, ring: Ring, used: int, heads: list[int],
                  note: Note) -> int:
    """Return chains with nothing in them, as one batch; -> the new used index."""
    mask = ring.size - 1
    for j, i in enumerate(heads):
        at = ring.used + ENTRIES + 8 * (used + j & mask)
        st64_rel(at, i)
        note(at, 8)
        st16_rel(part + SPLIT_ENTRIES_AT + SPLIT_ENTRY * i + SPLIT_NEXT_AT, last)
        last = i
    st16_rel(part + LAST_BATCH_HEAD_AT, last)
    used = used + len(heads) & 0xFFFF
    st16_rel(ring.used + INDEX, used)
    note(ring.used + INDEX, 2)
    return used


# ---------------------------------------------------------------- packed


class _Packed:
    """The recovery of a packed ring's part."""

    def __init__(self, part: int, ring: Ring, head: Any, note: Note) -> None:
        self._part = part
        self._ring = ring
        self._note = note
        self._entries = _copy(part, head, PACKED_HEAD, PACKED_ENTRY_TYPE)
        self._next: list[int] = self._entries["next"].tolist()
        self._new = self._position(head["used"], head["wrap"])
        self._old = self._position(head["old_used"], head["old_wrap"])
        self._heads = int(head["free"]), int(head["old_free"])

    def _position(self, slot: int, wrap: int) -> int:
        if slot >= self._ring.size or wrap > 1:
            raise Nonsense(f"slot {slot} of {self._ring.size}, wrap counter {wrap}")
        return int(slot) | int(wrap) << 15

    def recover(self) -> None:
        committed = self._new != self._old and not self._still_available()
        position, free = ((self._new, self._heads[0]) if committed
                          else (self._old, self._heads[1]))
        chains = self._chains(free)
        self._put_back(chains, position)
        # Commit or roll back: in the order in which each half alone says what both will.
        if committed:
            st32_rel(self._part + FREE_AT, free | free << 16)
            st64_rel(self._part + POSITIONS_AT, _positions(position))
        else:
            st64_rel(self._part + POSITIONS_AT, _positions(position))
            st32_rel(self._part + FREE_AT, free | free << 16)
        self._free(chains, free)
        self._ring.base = position

    def _still_available(self) -> bool:
        """Whether the driver cannot have seen the last update (step 1)."""
        slot, wrap = self._old & WRAP - 1, self._old & WRAP
        flags = ld16_once(self._ring.desc + DESCRIPTOR * slot + 14)
        return bool(flags & (AVAIL | USED) == (AVAIL if wrap else USED))

    def _chains(self, free: int) -> list[list[int]]:
        """The entries of each chain in flight, in the order in which they were taken."""
        flying = np.flatnonzero(self._entries["inflight"] == IN_FLIGHT).tolist()
        if not flying:
            return []
        known = self._free_list(free)
        counters, nums, lasts = (self._entries[n].tolist() for n in ("counter", "num", "last"))
        chains, total = [], 0
        for i in sorted((i for i in flying if i not in known), key=lambda i: (counters[i], i)):
            chain: list[int] = []
            at = i
            for _ in range(nums[i]):
                if at >= len(self._next) or at in known:
                    raise Nonsense(f"the chain at entry {i} leads to {at}")
                known.add(at)
                chain.append(at)
                at = self._next[at]
            total += len(chain)
            if not chain or chain[-1] != lasts[i] or total > self._ring.size:
                raise Nonsense(f"the chain at entry {i} has {len(chain)} descriptors, after "
                               f"{total - len(chain)}")
            chains.append(chain)
        return chains

    def _free_list(self, free: int) -> set[int]:
        """The free entries. The list ends outside of the table, or, where it was being put in
        order, at an entry that it came by before."""
        found: set[int] = set()
        while free < len(self._next) and free not in found:
            found.add(free)
            free = self._next[free]
        return found

    def _put_back(self, chains: list[list[int]], position: int) -> None:
        """Write the chains' descriptors into the slots from ``position`` on, available."""
        ring, entries = self._ring, self._entries
        slot, wrap = position & WRAP - 1, position & WRAP
        for i in (i for chain in chains for i in chain):
            at = ring.desc + DESCRIPTOR * slot
            flags = int(entries["flags"][i]) & ~(AVAIL | USED) | (AVAIL if wrap else USED)
            st64_rel(at, int(entries["addr"][i]))
            st64_rel(at + 8, int(entries["len"][i]) | int(entries["id"][i]) << 32 | flags << 48)
            self._note(at, DESCRIPTOR)
            slot += 1
            if slot == ring.size:
                slot, wrap = 0, wrap ^ WRAP

    def _free(self, chains: list[list[int]], free: int) -> None:
        """Nothing is in flight: free all entries at once, then put the list in order."""
        part = self._part
        heads = [chain[0] for chain in chains] + [free]
        for chain, following in zip(chains, heads[1:], strict=True):
            st16_rel(self._entry(chain[-1]) + PACKED_NEXT_AT, following)
        st32_rel(part + FREE_AT, heads[0] | heads[0] << 16)
        for i in np.flatnonzero(self._entries["inflight"]).tolist():
            st8_once(self._entry(i), 0)
        tails = {chain[-1] for chain in chains}
        for i, following in enumerate(self._next):
            if following != i + 1 or i in tails:
                st16_rel(self._entry(i) + PACKED_NEXT_AT, i + 1)
        st32_rel(part + FREE_AT, 0)

    def _entry(self, i: int) -> int:
        return self._part + PACKED_ENTRIES_AT + PACKED_ENTRY * i
