# SPDX-License-Identifier: Apache-2.0
"""A hostile guest: virtqueues that are wrong in every way, seeded and reproducible.

    rings = HostileRings(seed=1, packed=True)
    outcome = rings.run(4711)        # case 4711 of that seed; HostileError says what broke a rule

Used by tests/hostile. Each case writes a ring, lets Byway's device side run on it as a worker
would, and checks what must hold whatever the guest does.

Theory of operation
-------------------
A case starts from something a driver might do and spoils a part of it, more or less (its
*wildness*): addresses at and across the edges of regions, in no region, on the rings themselves;
lengths that wrap; chains that loop, leave the table, nest; available indices that jump, wrap bits
that flip; rings that overlap each other; virtio headers that ask for any checksum or segments.
Memory comes as *worlds* of 1 to 64 regions, adjacent or not, at low addresses and at the highest
allowed, or behind an IOMMU that does not know all of it. Some cases are logged, into a dirty log
that may be too small, and some packed ones noted in an in-flight region.

Every region, the device's private memory, log and in-flight region lie between forbidden pages, so
machine code that goes one byte too far ends the process. An Arena finds the same in interpreted
runs, and accesses to memory that exists but is not in the world's table. A case depends on seed,
format and number only, so both runs give the same ``digest``.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.machine.layout import address_of
from byway.packet.batch import (
    HEAD_STRIDE,
    MAX_FRAME,
    ROOM,
    ROWS,
    SCRATCH_BYTES,
    SEGMENT,
    SEGMENTS,
)
from byway.packet.segment import Finisher
from byway.testing.arena import Arena
from byway.testing.device import Device
from byway.testing.guarded import PAGE, Guarded
from byway.testing.hostile_frames import offloaded_frames, tempting_headers
from byway.testing.hostile_journal import Journal
from byway.testing.hostile_memory import MAIN, DirtyLog, TranslatedWorld, World
from byway.testing.hostile_packed import PackedRing
from byway.testing.hostile_split import SplitRing
from byway.testing.ring_kernels import consume, device_deliver, device_sleep, device_wake
from byway.virtio.features import Feature, mask
from byway.virtio.memtab import ADDRESS_LIMIT
from byway.virtio.ring import RingError

SMALL = (1, 2, 4)  # pages
MANY = 60  # one page each
SINK = 1 << 17
LOG_SIZES = (0, 1, 2, 3, 7, 16, (1 << 17) + 1, (1 << 17) + 2, (1 << 17) + 4)
Ring = SplitRing | PackedRing


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


class HostileRings:
    """Cases of one seed and ring format.

    ``watch``: run under an Arena (interpreted kernels only). ``digests``: of guest memory and
    state in every outcome, and drops by reason (else of state only, which is faster).
    """

    def __init__(self, seed: int = 0, *, packed: bool = False, watch: bool = False,
                 digests: bool = False) -> None:
        self.seed, self.packed, self.digests = seed, packed, digests
        main, *rest = (Guarded(n) for n in (MAIN, *(k * PAGE for k in SMALL), *[PAGE] * MANY))
        self._memory = [main, *rest]
        some, every = [main, *rest[: len(SMALL)]], [main, *rest]
        self.worlds = [
            World(0, [main], 0), World(1 << 32, some, 0), World(PAGE, some, PAGE),
            World(1 << 40, every, 0), World(0, every, 3 * PAGE),
            World(ADDRESS_LIMIT - MAIN, [main], 0), TranslatedWorld(1 << 32, some, 0)]
        self.main = main.view
        self.sink = np.zeros(SINK, np.uint8)
        self._call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._log = DirtyLog()
        self._journal = Journal(packed)
        self._memory += [self._log.memory, self._journal.memory]
        self._finisher = Finisher()
        self._headers = tempting_headers()
        self.rx, self.tx = (self._device() for _ in range(2))
        frames, words = offloaded_frames(ROWS)
        self.tx.place(frames, (1, 2, 16), words)
        self._rows = address_of(self.tx.batch.rows)
        self.arenas = [self._arena(world) for world in self.worlds] if watch else []

    def _device(self) -> Device:
        """A device whose private memory lies between forbidden pages as well."""
        made = Device([(0, 0, PAGE)], 1, 0, 0, 0, 0, call=self._call)
        record = made.batch.record
        for name, size in (("segs", SEGMENTS * SEGMENT), ("scratch", SCRATCH_BYTES),
                           ("heads", ROWS * HEAD_STRIDE)):
            piece = Guarded(size)
            self._memory.append(piece)
            record[name] = piece.address
        made.batch.rows["head"] = piece.address + ROOM + HEAD_STRIDE * np.arange(ROWS)
        record["finisher"] = self._finisher.address
        return made

    def _arena(self, world: World) -> Arena:
        arena = Arena()
        for gpa, n, host in world.regions:
            arena.allow(f"guest memory at {gpa:#x}", host, n)
        self.rx.allow(arena)
        self.tx.allow(arena)
        finisher = self._finisher
        for name, array in (
                *world.arrays(), ("sink", self.sink), ("dirty log", self._log.record),
                ("finisher", finisher.record), ("segments", finisher.rows),
                ("segments' heads", finisher.heads), ("list of segments", finisher.selected),
                ("frame to finish", finisher.linear)):
            arena.allow_array(name, array)
        arena.allow("logged pages", self._log.memory.address, self._log.SIZE)
        arena.allow("journal", self._journal.memory.address, self._journal.SIZE)
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
        rng = np.random.default_rng((self.seed, self.packed, number))
        which, towards, logged, noted, *choices = rng.integers(0, 60, 10).tolist()
        world = self.worlds[which % len(self.worlds)]
        features = self._features(*choices)
        world.reset()
        event = bool(features & mask(Feature.EVENT_IDX))
        made = PackedRing if self.packed else SplitRing
        ring = made(rng, world, event, bool(towards & 1))
        if features & mask(Feature.CSUM) and not towards & 1:
            self._tempt(rng, world, ring)
        device = self.tx if towards & 1 else self.rx
        self.set_up(device, world, ring, features)
        log = logged % 8 == 0
        if log:
            self._log.begin(world, LOG_SIZES[logged // 8])
            device.queue["log"] = self._log.address
        if noted % 4 == 0:
            self._note(rng, number, device, ring, noted % 8 == 0)
        untouched = ring.without_own_words(self.main) if device is self.rx else self.main
        if self.arenas:
            with self.arenas[which % len(self.worlds)]:
                done, offered = self._drive(rng, number, device, ring, world, log)
        else:
            done, offered = self._drive(rng, number, device, ring, world, log)
        self._check(number, device, ring, done, offered)
        if device is self.rx:
            self._check_borrowed(number, world)
            self._must(bool((ring.without_own_words(self.main) == untouched).all()), number,
                       "what a guest sends is not written to")
        return self._outcome(number, device, world, done)

    def _features(self, event: int, merge: int, indirect: int, modern: int, order: int,
                  offloads: int) -> int:
        features = (mask(Feature.EVENT_IDX) * (event & 1) | mask(Feature.MRG_RXBUF) * (merge & 1)
                    | mask(Feature.INDIRECT_DESC) * (indirect % 5 > 0)
                    | mask(Feature.IN_ORDER) * (order % 4 == 0)
                    | mask(Feature.CSUM) * (offloads & 1))
        if self.packed:
            return features | mask(Feature.RING_PACKED, Feature.VERSION_1)
        return features | mask(Feature.VERSION_1) * (modern & 1)

    def _tempt(self, rng: Any, world: World, ring: Ring) -> None:
        """Put virtio headers and heads of frames where some buffers begin."""
        offsets = (ring.buffers - np.uint64(world.base)).astype(np.int64)
        chosen = self._headers[rng.integers(0, len(self._headers), len(offsets))]
        for offset, header in zip(offsets.tolist(), chosen, strict=True):
            if ring.tables + 1024 <= offset <= MAIN - len(header):
                self.main[offset : offset + len(header)] = header

    def set_up(self, device: Device, world: World, ring: Ring, features: int,
               start: int | None = None) -> None:
        """Begin anew on a ring, both positions at ``start`` (default: where the ring begins)."""
        row = device.queue[0]
        host = world.pieces[0].address
        row["desc"], row["avail"], row["used"] = (host + ring.desc, host + ring.avail,
                                                  host + ring.used)
        device.begin(ring.size, features, ring.start if start is None else start)
        row["memtab"], row["max_frame"] = address_of(world.table), MAX_FRAME
        row["log"] = row["inflight"] = 0
        device.counters[:] = np.zeros(1, device.counters.dtype)

    def _note(self, rng: Any, number: int, device: Device, ring: Ring, found: bool) -> None:
        """Give the ring an in-flight region: a new one, or one that was ``found``."""
        row = device.queue[0]
        part = self._journal.begin(ring.size + int(rng.integers(0, 3)))
        if found:
            self._journal.tempt(rng, ring.start, ring.size, ring.wild)
        known = ring.known(row)
        before = self.main.copy()
        if self._journal.recover(known):
            self._must(bool((before == self.main).all()), number,
                       "a region without sense changes no ring")
            return
        self._must(not self._journal.flying(), number, "after a recovery nothing is in flight")
        ring.go_on(known.base)
        row["last_avail"] = row["avail_seen"] = row["used_idx"] = ring.start
        row["inflight"] = part * self.packed

    def _drive(self, rng: Any, number: int, device: Device, ring: Ring, world: World,
               log: bool) -> tuple[int, int]:
        """Let the device run three times, more being available each time; -> (done, offered)."""
        done, offered = 0, 0
        for _ in range(3):
            ring.offer(rng, device)
            before = [view.tobytes() for view in world.memory] if log else []
            if device is self.rx:
                done += int(consume(device.address, device.batch.address, address_of(self.sink),
                                    SINK, 4))
            else:
                n = int(rng.integers(1, ROWS + 1))
                device.selected[:n] = self._rows + 64 * rng.integers(0, ROWS, n)
                done += int(device_deliver(device.address, device.batch.address,
                                           address_of(device.selected), n))
                offered += n
            broken = bool(device.queue["error"][0])
            if not broken:
                (device_sleep, device_wake)[int(rng.integers(0, 2))](device.address)
            if log:
                spared = ring.unlogged(device is self.rx)
                self._must(not self._log.wrong(world, before, spared), number,
                           "the dirty log names what was written")
            if broken:
                break
        return done, offered

    # ------------------------------------------------------------ what must hold
    def _check(self, number: int, device: Device, ring: Ring, done: int, offered: int) -> None:
        row, counters = device.queue[0], device.counters[0]
        taken = ring.taken(device)
        if row["inflight"]:
            self._must(not self._journal.wrong(int(row["used_idx"])), number,
                       "nothing is in flight between two passes")
        # With a journal a guest that changed its chains gets nothing back of that batch.
        self._must(taken >= 0 or bool(row["inflight"] and row["error"]), number,
                   "as many buffers go back as were taken")
        self._must(device.error is None or int(row["error"]) in list(RingError), number,
                   "an error is a RingError")
        if device is self.tx:
            self._must(done + int(counters["drops"].sum()) == offered, number,
                       "each frame is delivered or counted")
            self._must(done == int(counters["frames"]), number, "delivered frames are counted")
        else:
            self._must(done == int(counters["bytes"]), number, "bytes taken are counted")
            taken = taken if taken >= 0 else int(counters["frames"] + counters["drops"].sum())
            frames, drops = int(counters["frames"]), int(counters["drops"].sum())
            # A frame whose offload does not fit it was taken, and is counted as dropped later.
            self._must(frames <= taken <= frames + drops, number, "each buffer is counted")
            self._must(taken == frames + drops or row["offloads"] != 0, number,
                       "each buffer held a frame, or was counted")

    def _check_borrowed(self, number: int, world: World) -> None:
        """Frames lie in memory of the world."""
        batch = self.rx.batch
        n = int(batch.record["n"][0])
        for row in batch.rows[:n] if self.rx.counters["frames"][0] else ():
            if row["len"] > 0 and row["nsegs"] == 0:
                at, end = int(row["addr"]), int(row["addr"]) + int(row["len"])
                self._must(any(p.address <= at and end <= p.address + p.size
                               for p in world.pieces), number, "a row lies in one region")

    def _must(self, held: bool, number: int, rule: str) -> None:
        if not held:
            how = ", packed=True" if self.packed else ""
            raise HostileError(f"HostileRings({self.seed}{how}).run({number}): {rule}: not so")

    def _outcome(self, number: int, device: Device, world: World, done: int) -> Outcome:
        digest = hashlib.blake2b(digest_size=12)
        for view in world.memory if self.digests else ():
            digest.update(view)
        row = device.queue[0]
        state = [int(row[k]) for k in ("last_avail", "used_idx", "error", "calls")]
        digest.update(repr((state, done)).encode() + device.counters.tobytes())
        if row["log"]:
            digest.update(self._log.bits)
        return Outcome(number, device is self.tx, done, device.drops if self.digests else {},
                       device.error, digest.hexdigest())
