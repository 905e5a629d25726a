# SPDX-License-Identifier: Apache-2.0
"""A hostile guest: virtqueues that are wrong in every way, seeded and reproducible.

    rings = HostileRings(seed=1)
    outcome = rings.run(4711)        # case 4711 of that seed; HostileError says what broke a rule

Used by tests/hostile. Each case writes a ring, lets Byway's device side run on it as a worker
would, and checks what must hold whatever the guest does.

Theory of operation
-------------------
A case starts from something a driver might do and spoils a part of it, more or less (its
*wildness*): addresses at and across the edges of regions, in no region, on the rings themselves;
lengths that wrap; chains that loop, leave the table, nest; available indices that jump; rings that
overlap each other. Memory comes as *worlds* of 1 to 64 regions, adjacent or not, at low addresses
and at the highest allowed.

Every region, and the device's private memory as well, lies between forbidden pages, so machine
code that goes one byte too far ends the process. An Arena finds the same in interpreted runs, and
accesses to memory that exists but is not in the world's table. A case depends on seed and number
only, so both runs give the same ``digest``.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.batch import HEAD_STRIDE, MAX_FRAME, ROOM, ROWS, SEGMENT, SEGMENTS
from byway.testing.arena import Arena
from byway.testing.device import Device
from byway.testing.guarded import PAGE, Guarded
from byway.testing.kernels import consume, device_deliver
from byway.virtio.features import Feature, header_length, mask
from byway.virtio.memtab import ADDRESS_LIMIT, MEMTAB, fill
from byway.virtio.ring import RingError, avail_bytes, used_bytes

MAIN = 16 * PAGE  # the region that holds the rings
SMALL = (1, 2, 4)  # pages
MANY = 60  # one page each
TABLES = 64  # descriptors of indirect tables
SIZES = (1, 2, 4, 8, 16, 64, 256, 1024)
LENGTHS = (14, 26, 60, 72, 76, 127, 128, 140, 1500, 1526, 2048, 4096)
BAD_LENGTHS = (0, 1, 9, 11, 12, 13, 15, 16, 32, 4097, 65535, 65547, 65548, 70000, 1 << 31,
               0xFFFFFFF0, 0xFFFFFFFF)
FRAMES = (14, 60, 64, 127, 128, 129, 300, 1500, 1514, 9014)
SINK = 1 << 17


class HostileError(AssertionError):
    """A rule that no guest may be able to break was broken; says seed and case."""


@dataclass(frozen=True)
class Outcome:
    """What a case came to. ``digest``: of guest memory and all counters."""

    number: int
    towards_guest: bool
    moved: int  # bytes taken from the guest, or frames delivered to it
    drops: dict[str, int]
    error: RingError | None
    digest: str


class World:
    """A memory table over some guarded regions; ``edges`` are the addresses worth trying."""

    def __init__(self, base: int, pieces: Sequence[Guarded], gap: int) -> None:
        self.base, self.pieces = base, tuple(pieces)
        self.regions, at = [], base
        for piece in pieces:
            self.regions.append((at, piece.size, piece.address))
            at += piece.size + gap
        self.table = alloc(MEMTAB, 1)
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


@dataclass
class Ring:
    """Where the parts of a case's ring lie: offsets in the main region."""

    size: int
    desc: int
    avail: int
    used: int
    tables: int


class HostileRings:
    """Cases of one seed.

    ``watch``: run under an Arena (interpreted kernels only). ``digests``: of guest memory and
    state in every outcome, and drops by reason (else of state only, which is faster).
    """

    def __init__(self, seed: int = 0, *, watch: bool = False, digests: bool = False) -> None:
        self.seed, self.digests = seed, digests
        main, *rest = (Guarded(n) for n in (MAIN, *(k * PAGE for k in SMALL), *[PAGE] * MANY))
        self._memory = [main, *rest]
        some, every = [main, *rest[: len(SMALL)]], [main, *rest]
        self.worlds = [
            World(0, [main], 0), World(1 << 32, some, 0), World(PAGE, some, PAGE),
            World(1 << 40, every, 0), World(0, every, 3 * PAGE),
            World(ADDRESS_LIMIT - MAIN, [main], 0)]
        self.main = main.view
        self.sink = np.zeros(SINK, np.uint8)
        self._call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.rx, self.tx = (self._device() for _ in range(2))
        self.tx.place([bytes([k] * FRAMES[k % len(FRAMES)]) for k in range(ROWS)], (1, 2, 16))
        self._rows = address_of(self.tx.batch.rows)
        self.arenas = [self._arena(world) for world in self.worlds] if watch else []

    def _device(self) -> Device:
        """A device whose private memory lies between forbidden pages as well."""
        made = Device([(0, 0, PAGE)], 1, 0, 0, 0, 0, call=self._call)
        record = made.batch.record
        for name, size in (("segs", SEGMENTS * SEGMENT), ("scratch", 2 * SEGMENTS * SEGMENT),
                           ("heads", ROWS * HEAD_STRIDE)):
            piece = Guarded(size)
            self._memory.append(piece)
            record[name] = piece.address
        made.batch.rows["head"] = piece.address + ROOM + HEAD_STRIDE * np.arange(ROWS)
        return made

    def _arena(self, world: World) -> Arena:
        arena = Arena()
        for gpa, n, host in world.regions:
            arena.allow(f"guest memory at {gpa:#x}", host, n)
        self.rx.allow(arena)
        self.tx.allow(arena)
        for name, array in (("table", world.table), ("sink", self.sink)):
            arena.allow_array(name, array)
        return arena

    def close(self) -> None:
        """Unmap everything, once."""
        os.close(self._call)
        for piece in self._memory:
            piece.close()

    def select_all(self) -> None:
        """All frames that there are to deliver, one batch."""
        self.tx.selected[:] = self._rows + 64 * np.arange(ROWS)

    # ------------------------------------------------------------ one case
    def run(self, number: int) -> Outcome:
        """Make case ``number``, run it, check it (HostileError)."""
        rng = np.random.default_rng((self.seed, number))
        which, towards, event, merge, indirect, modern = rng.integers(0, 60, 6).tolist()
        world = self.worlds[which % len(self.worlds)]
        features = (mask(Feature.EVENT_IDX) * (event & 1) | mask(Feature.MRG_RXBUF) * (merge & 1)
                    | mask(Feature.INDIRECT_DESC) * (indirect % 5 > 0)
                    | mask(Feature.VERSION_1) * (modern & 1))
        world.reset()
        ring = self._place_ring(rng, bool(event & 1))
        self._write(rng, world, ring, bool(towards & 1))
        device = self.tx if towards & 1 else self.rx
        start = int(rng.choice([0, 1, 65535, 65520, 40000]))
        self.set_up(device, world, ring, features, start)
        before = self.main.copy()
        if self.arenas:
            with self.arenas[which % len(self.worlds)]:
                frames, offered = self._drive(rng, device, ring, start)
        else:
            frames, offered = self._drive(rng, device, ring, start)
        self._check(number, device, start, frames, offered)
        if device is self.rx:
            self._check_borrowed(number, world, ring, before)
        return self._outcome(number, device, world, frames)

    def _place_ring(self, rng: Any, event: bool) -> Ring:
        """Aligned, inside the main region, and nothing more: a back end checks just that."""
        size = SIZES[int(rng.integers(0, len(SIZES)))]
        parts = (16 * size, avail_bytes(size, event), used_bytes(size, event), 16 * TABLES)
        how = int(rng.integers(0, 8))
        if how == 0:  # overlapping at random
            places = [int(rng.integers(0, MAIN - n + 1)) & ~15 for n in parts]
        elif how == 1:  # all at one place
            places = [4096] * 4
        elif how == 2:  # each ending as late as it can
            places = [MAIN - n & ~15 for n in parts]
            places[1], places[2] = MAIN - parts[1] & ~1, MAIN - parts[2] & ~3
        else:  # as drivers do
            places, at = [], 0
            for n in parts:
                places.append(at)
                at = at + n + 63 & ~63
        return Ring(size, *places)

    def _write(self, rng: Any, world: World, ring: Ring, towards: bool) -> None:
        """Descriptors, indirect tables and the available ring."""
        wild = float(rng.choice([0.0, 0.02, 0.1, 0.4, 1.0]))
        count = ring.size + TABLES
        table = np.zeros(count, [("gpa", "<u8"), ("len", "<u4"), ("flags", "<u2"), ("next", "<u2")])
        table["gpa"] = world.base + rng.integers(0, MAIN, count).astype(np.uint64)
        table["len"] = rng.choice(LENGTHS, count)
        table["flags"] = np.where(rng.random(count) < 0.3, 1, 0) | (2 if towards else 0)
        table["next"] = rng.integers(0, ring.size, count)
        table["next"][ring.size :] = rng.integers(0, TABLES, TABLES)
        nested = rng.random(count) < 0.15 + wild / 4
        table["flags"][nested] = 4
        entries = rng.integers(0, TABLES, count)
        table["gpa"][nested] = world.base + ring.tables + 16 * entries[nested]
        table["len"][nested] = 16 * np.minimum(TABLES - entries[nested], 1 + entries[nested] % 9)
        self._spoil(rng, world, ring, table, wild)
        self.main[ring.desc : ring.desc + 16 * ring.size] = table[: ring.size].view(np.uint8)
        self.main[ring.tables : ring.tables + 16 * TABLES] = table[ring.size :].view(np.uint8)
        heads = rng.integers(0, ring.size, ring.size).astype("<u2")
        bad = rng.random(ring.size) < wild / 20
        heads[bad] = rng.integers(0, 1 << 16, int(bad.sum()))
        self.main[ring.avail + 4 : ring.avail + 4 + 2 * ring.size] = heads.view(np.uint8)

    def _spoil(self, rng: Any, world: World, ring: Ring, table: Any, wild: float) -> None:
        if wild == 0.0:
            return
        count = len(table)
        rings = np.array([ring.desc, ring.avail, ring.used, ring.tables], np.uint64)
        chosen = [np.flatnonzero(rng.random(count) < wild) for _ in range(5)]
        edge, own, length, flags, following = chosen
        table["gpa"][edge] = rng.choice(world.edges, len(edge))
        table["gpa"][own[::3]] = world.base + rng.choice(rings, len(own[::3]))
        table["len"][length] = rng.choice(BAD_LENGTHS, len(length))
        table["flags"][flags] = rng.integers(0, 8, len(flags))
        table["flags"][flags[::7]] = rng.integers(0, 1 << 16, len(flags[::7]))
        table["next"][following] = rng.integers(0, 1 << 16, len(following))

    def set_up(self, device: Device, world: World, ring: Ring, features: int, start: int) -> None:
        """Begin anew on a ring, both indices at ``start``."""
        row = device.queue[0]
        host = world.pieces[0].address
        row["desc"], row["avail"], row["used"] = (host + ring.desc, host + ring.avail,
                                                  host + ring.used)
        row["size"], row["mask"], row["header"] = ring.size, ring.size - 1, header_length(features)
        row["memtab"] = address_of(world.table)
        row["last_avail"] = row["avail_seen"] = row["used_idx"] = start
        row["event_idx"] = features >> Feature.EVENT_IDX & 1
        row["indirect"] = features >> Feature.INDIRECT_DESC & 1
        row["merge"] = features >> Feature.MRG_RXBUF & 1
        row["error"] = row["signalled"] = row["signalled_valid"] = row["calls"] = 0
        row["max_frame"] = MAX_FRAME
        device.counters[:] = np.zeros(1, device.counters.dtype)

    def _drive(self, rng: Any, device: Device, ring: Ring, start: int) -> tuple[int, int]:
        """Let the device run three times, the available index moving on; -> (done, offered)."""
        index, done, offered = start, 0, 0
        for step, jump in rng.integers(0, 40, (3, 2)).tolist():
            room = ring.size - (index - int(device.queue["last_avail"][0]) & 0xFFFF)
            index += (room + 1, 65535)[jump & 1] if jump < 2 else (0, 1, room // 2, room)[step & 3]
            index &= 0xFFFF
            self.main[ring.avail + 2 : ring.avail + 4].view("<u2")[0] = index
            if device is self.rx:
                done += int(consume(device.address, device.batch.address, address_of(self.sink),
                                    SINK, 4))
            else:
                n = int(rng.integers(1, ROWS + 1))
                device.selected[:n] = self._rows + 64 * rng.integers(0, ROWS, n)
                done += int(device_deliver(device.address, device.batch.address,
                                           address_of(device.selected), n))
                offered += n
            if device.queue["error"][0]:
                break
        return done, offered

    # ------------------------------------------------------------ what must hold
    def _check(self, number: int, device: Device, start: int, done: int, offered: int) -> None:
        row, counters = device.queue[0], device.counters[0]
        taken = int(row["last_avail"]) - start & 0xFFFF
        self._must(int(row["used_idx"]) - start & 0xFFFF == taken, number,
                   "as many buffers go back as were taken")
        self._must(device.error is None or int(row["error"]) in list(RingError), number,
                   "an error is a RingError")
        if device is self.tx:
            self._must(done + int(counters["drops"].sum()) == offered == offered, number,
                       "each frame is delivered or counted")
            self._must(done == int(counters["frames"]), number, "delivered frames are counted")
        else:
            self._must(done == int(counters["bytes"]), number, "bytes taken are counted")
            self._must(int(counters["frames"]) + int(counters["drops"].sum()) == taken, number,
                       "each buffer held a frame, or was counted")

    def _check_borrowed(self, number: int, world: World, ring: Ring, before: Any) -> None:
        """Frames lie in memory of the world; only the used ring and avail_event are written."""
        batch = self.rx.batch
        n = int(batch.record["n"][0])
        for row in batch.rows[:n] if self.rx.counters["frames"][0] else ():
            if row["len"] > 0 and row["nsegs"] == 0:
                at, end = int(row["addr"]), int(row["addr"]) + int(row["len"])
                self._must(any(p.address <= at and end <= p.address + p.size
                               for p in world.pieces), number, "a row lies in one region")
        after = self.main.copy()
        for view in (before, after):
            view[ring.used : ring.used + used_bytes(ring.size, True)] = 0
            view[ring.avail + 2 : ring.avail + 4] = 0
        self._must(bool((before == after).all()), number, "what a guest sends is not written to")

    def _must(self, held: bool, number: int, rule: str) -> None:
        if not held:
            raise HostileError(f"HostileRings({self.seed}).run({number}): {rule}: not so")

    def _outcome(self, number: int, device: Device, world: World, frames: int) -> Outcome:
        digest = hashlib.blake2b(digest_size=12)
        for view in world.memory if self.digests else ():
            digest.update(view)
        row = device.queue[0]
        state = [int(row[k]) for k in ("last_avail", "used_idx", "error", "calls")]
        digest.update(repr((state, frames)).encode() + device.counters.tobytes())
        return Outcome(number, device is self.tx, frames, device.drops if self.digests else {},
                       device.error, digest.hexdigest())
