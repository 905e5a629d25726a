# SPDX-License-Identifier: Apache-2.0
"""The memory of a hostile guest: regions between forbidden pages, an IOMMU in front of some, and a
log of what is written.

Used by hostile.py and the ring writers hostile_split.py and hostile_packed.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.testing.guarded import PAGE, Guarded
from byway.virtio.iotlb import IOTLB, READ, REFUSED, WRITE, entry_of
from byway.virtio.memtab import MEMTAB, fill
from byway.virtio.ring import LOG

MAIN = 16 * PAGE  # the region that holds the rings
TABLES = 64  # descriptors of indirect tables
LENGTHS = (14, 26, 60, 72, 76, 127, 128, 140, 1500, 1526, 2048, 4096)
BAD_LENGTHS = (0, 1, 9, 11, 12, 13, 15, 16, 32, 4097, 65535, 65547, 65548, 65569, 65570, 70000,
               1 << 31, 0xFFFFFFF0, 0xFFFFFFFF)
WILD = (0.0, 0.02, 0.1, 0.4, 1.0)  # how much of a case is wrong
LOG_PAGE = 4096


class World:
    """A memory table over some guarded regions; ``edges`` are the addresses worth trying."""

    def __init__(self, base: int, pieces: Sequence[Guarded], gap: int) -> None:
        self.base, self.pieces = base, tuple(pieces)
        self.regions, at = [], base
        for piece in pieces:
            self.regions.append((at, piece.size, piece.address))
            at += piece.size + gap
        self.physical = self.table = alloc(MEMTAB, 1)
        fill(self.table[0], self.regions)
        near = [(edge + d) % (1 << 64) for gpa, n, _ in self.regions[:6] for edge in (gpa, gpa + n)
                for d in (0, -1, -16, -12, -26, -60, -72, -128, 1)]
        self.edges = np.array([*near, 0, 1 << 62, 1 << 63, (1 << 63) - 16, (1 << 64) - 16,
                               (1 << 64) - 1, (1 << 63) + base], np.uint64)
        self.memory = [piece.view for piece in pieces]
        self._content = [np.random.default_rng(k).integers(0, 256, p.size, np.uint8)
                         for k, p in enumerate(pieces)]

    def reset(self) -> None:
        """The same content at the start of every case."""
        for view, content in zip(self.memory, self._content, strict=True):
            view[:] = content

    def arrays(self) -> list[tuple[str, Any]]:
        """The tables that a device reads, by name."""
        return [("table", self.table)]


class TranslatedWorld(World):
    """The same behind an IOMMU: the device's table is a translation cache.

    Pages lie where they would without it, but for every second one of the region with the rings,
    where neighbours are not next to each other. Of eight pages one is unknown, one is there to be
    read only and one to be written only; what is asked of some of the unknown was refused.
    """

    def __init__(self, base: int, pieces: Sequence[Guarded], gap: int) -> None:
        super().__init__(base, pieces, gap)
        self.table = alloc(MEMTAB, 1)
        self.iotlb = alloc(IOTLB, 1)
        self.table["iotlb"] = address_of(self.iotlb)
        self.iotlb["alarm"] = -1
        entries = self.iotlb["entries"][0].view(np.uint64)
        for gpa, size, host in self.regions:
            count = size // PAGE
            for k in range(count):
                there = count - k if k % 2 and count > 2 else k
                permission = (READ | WRITE, READ | WRITE, READ, READ | WRITE, READ | WRITE, WRITE,
                              READ | WRITE, 0)[k % 8 if count > 2 else 0]
                place, word = entry_of(gpa // PAGE + k, host + there * PAGE, permission)
                entries[place] = word
        self._refused = [(base // PAGE + 7) << 2 | need | REFUSED for need in (READ, WRITE)]

    def reset(self) -> None:
        super().reset()
        self.iotlb["slots"] = 0
        self.iotlb["slots"][0][: len(self._refused)] = self._refused

    def arrays(self) -> list[tuple[str, Any]]:
        return [("table", self.table), ("translations", self.iotlb),
                ("physical table", self.physical)]


class DirtyLog:
    """A dirty log that ends where forbidden memory begins: of the right size, or too small."""

    SIZE = 1 << 18  # enough for the worlds at low addresses and at 4 GiB

    def __init__(self) -> None:
        self.memory = Guarded(self.SIZE)
        self.record = alloc(LOG, 1)
        self.address = address_of(self.record)
        self.bits = self.memory.view[:0]

    def begin(self, world: World, octets: int) -> None:
        """An empty log of ``octets`` bytes (at most SIZE) for a world."""
        self.bits = self.memory.view[self.SIZE - octets :]
        self.bits[:] = 0
        row = self.record[0]
        row["bits"], row["bytes"] = self.memory.ending(octets), octets
        row["memtab"] = address_of(world.physical)

    def wrong(self, world: World, before: Sequence[bytes], spared: slice) -> bool:
        """Was a page of the world changed, since it was as in ``before``, that the log should name
        and does not; or is a page named that is none of the world's?

        ``spared``: bytes of the main region that may change without being logged.
        """
        named = self._named()
        for (gpa, n, _), view, old in zip(world.regions, world.memory, before, strict=True):
            first, pages = gpa // LOG_PAGE, n // LOG_PAGE
            if view.tobytes() != old:
                differs = view != np.frombuffer(old, np.uint8)
                if view is world.memory[0]:
                    differs[spared] = False
                changed = differs.reshape(pages, LOG_PAGE).any(1)
                for page in (np.flatnonzero(changed) + first).tolist():
                    if page < 8 * len(self.bits) and page not in named:
                        return True
            named = {page for page in named if not first <= page < first + pages}
        return bool(named)

    def _named(self) -> set[int]:
        """The pages whose bits are set."""
        return {8 * at + bit for at in np.flatnonzero(self.bits).tolist()
                for bit in range(8) if self.bits[at] >> bit & 1}


def pick(rng: Any, values: Sequence[int], n: int) -> Any:
    """n of the values, at random."""
    return np.array(values)[rng.integers(0, len(values), n)]


def chosen(rng: Any, n: int, part: float) -> Any:
    """The numbers of about that part of n things."""
    return (rng.random(n) < part).nonzero()[0]


def spoil(rng: Any, world: World, table: Any, wild: float, rings: Sequence[int]) -> None:
    """Make part of some descriptors wrong: addresses, lengths, flags. ``rings``: offsets in the
    main region that are worth pointing at."""
    count = len(table)
    gpa, flags = table["gpa"], table["flags"]
    edge = chosen(rng, count, wild)
    gpa[edge] = world.edges[rng.integers(0, len(world.edges), len(edge))]
    own = chosen(rng, count, wild / 3)
    gpa[own] = world.base + pick(rng, rings, len(own)).astype(np.uint64)
    length = chosen(rng, count, wild)
    table["len"][length] = pick(rng, BAD_LENGTHS, len(length))
    odd = chosen(rng, count, wild)
    flags[odd] = rng.integers(0, 8, len(odd))
    flags[odd[::7]] = rng.integers(0, 1 << 16, len(odd[::7]))


def place(rng: Any, parts: Sequence[int], aligned: Sequence[int]) -> tuple[list[int], bool]:
    """Where parts of a ring lie in the main region; -> (offsets, whether they are apart).

    Aligned, inside the region, and nothing more: a back end checks just that.
    """
    how = int(rng.integers(0, 8))
    if how == 0:  # overlapping at random
        return [int(rng.integers(0, MAIN - n + 1)) & -a
                for n, a in zip(parts, aligned, strict=True)], False
    if how == 1:  # all at one place
        return [4096] * len(parts), False
    if how == 2:  # each ending as late as it can
        return [MAIN - n & -a for n, a in zip(parts, aligned, strict=True)], False
    places, at = [], 0  # as drivers do
    for n in parts:
        places.append(at)
        at = at + n + 63 & ~63
    return places, True
