# SPDX-License-Identifier: Apache-2.0
"""Frames whose headers and virtio_net_hdr were spoiled, in a process of its own.

    python -m tests.hostile.offload_sweep SEED FIRST COUNT COMPARED PROGRESS

Used by test_offloads.py. Each case builds a frame of some shape, spoils bytes of its headers and
fields of its virtio_net_hdr, cuts it short, lets it lie in segments; then it is hashed, checked and
finished for some destination, while its sender overwrites it. Every buffer ends (or begins) at a
forbidden page, so machine code that goes too far ends the process; interpreted, an Arena watches
each access, and reports bytes of the sender's memory that are read twice. Prints one JSON object;
the number of the case at hand stands in the file PROGRESS.
"""

import ctypes
import hashlib
import json
import random
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from byway.machine.jit import INTERPRETED
from byway.packet.batch import HEAD, MAX_FRAME, ROWS
from byway.packet.offload import FRAGMENT_HEADER, MAX_SEGMENTS, NEEDS_CSUM, TAKES_CSUM
from byway.testing.arena import Arena
from byway.testing.finishing import PIECES, Finishing, net_header
from byway.testing.guarded import Guarded
from byway.testing.offload_frames import TCP, UDP, Shape
from byway.testing.offload_kernels import flow_of, headers_of, layers_of, may_go, wire_length_of

SIZES = (0, 1, 7, 8, 9, 33, 64, 100, 100, 200, 536, 536, 1448, 1460, 16384, 32768, 65535)
WORDS = (0, 1, 5, 13, 14, 15, 20, 33, 34, 35, 54, 74, 100, 126, 127, 128, 129, 255, 256, 1500,
         32767, 65519, 65534, 65535)
BYTES = (0, 1, 4, 5, 6, 15, 16, 17, 43, 44, 45, 50, 51, 58, 59, 60, 64, 69, 79, 96, 127, 128, 129,
         132, 200, 240, 254, 255)
PAYLOADS = (0, 1, 8, 64, 100, 200, 700, 700, 1449, 1500)
LARGE = (3000, 9000, 65400)
MASKS = (0, TAKES_CSUM, 0x7F, 0xFF, 2, 24, 96)


class Fenced(Finishing):
    """All memory that kernels write lies between forbidden pages: at their end or their start."""

    def __init__(self, at_end: bool) -> None:
        super().__init__()
        self.fences = [Guarded(HEAD) for _ in range(ROWS + 1)]
        self.linear = Guarded(MAX_FRAME)
        rows = self.finisher.rows
        for k, fence in enumerate(self.fences):
            place = fence.ending(HEAD) if at_end else fence.address
            if k < ROWS:
                rows["head"][k] = place
            else:
                self.row["head"] = place
        self.finisher.record["linear"] = \
            self.linear.ending(MAX_FRAME) if at_end else self.linear.address

    def allow(self, arena: Arena) -> None:
        """As Finishing's, with the fenced memory as well."""
        super().allow(arena)
        for fence in (*self.fences, self.linear):
            arena.allow("fenced memory", fence.address, fence.size)

    def scribble(self, n: int) -> None:
        """The sender overwrites its frame of n bytes."""
        ctypes.memset(self.memory.ending(n), 0xEE, n)


class Sweep:
    """Cases of one seed; a case depends on seed and number only."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.places = Fenced(True), Fenced(False)
        for place in self.places:  # not to be guessed, but here to be compared
            place.finisher.record["secret"] = 1
        self.counts = Counter[str]()

    def frame(self, rng: random.Random) -> tuple[bytes, bytes]:
        """A frame and its header, spoiled more or less."""
        version, protocol = rng.choice((4, 6)), rng.choice((TCP, UDP))
        n = rng.choice(LARGE if rng.random() < 0.03 else PAYLOADS)
        kinds = [(rng.choice((0, 43, 60)), bytes([rng.randrange(4)] * rng.choice((6, 14))))
                 for _ in range(rng.choice((0, 0, 1, 3)))]
        shape = Shape(
            version, protocol, tuple(rng.choices((0, 5, 4095), k=rng.choice((0, 0, 1, 2, 3)))),
            bytes([1] * rng.choice((0, 0, 4, 40))) if version == 4 else b"",
            tuple(kinds) if version == 6 else (), bytes([1] * rng.choice((0, 12, 40))),
            rng.randrange(256), payload=bytes(rng.choices(range(256), k=64)) * (n // 64 + 1))
        made = bytearray(shape.build()[: min(shape.header_bytes + n, MAX_FRAME)])
        for _ in range(rng.choice((0, 0, 1, 2, 8))):
            made[rng.randrange(min(len(made), shape.header_bytes + 4))] = rng.choice(BYTES)
        if rng.random() < 0.2:
            struct.pack_into(">H", made, rng.choice((shape.l3 + 2, shape.l3 + 4)),
                             rng.choice(WORDS))
        if rng.random() < 0.2:
            made = made[: rng.randrange(14, min(len(made), 200) + 1)]
        gso = rng.choice((0, 1, 3, 4, 5, 0x81, 0x84)) if rng.random() < 0.3 else rng.choice((
            0, {TCP: 1 if version == 4 else 4, UDP: 3 if rng.random() < 0.5 else 5}[protocol]))
        fields = [1, gso, rng.choice(SIZES), shape.l4, 16 if protocol == TCP else 6]
        if rng.random() < 0.3:
            fields[rng.randrange(3, 5)] = rng.choice(WORDS)
        if rng.random() < 0.1:
            fields[0] = rng.randrange(256)
        return bytes(made), net_header(*fields, rng.choice(WORDS))

    def run(self, number: int) -> str:
        """One case; -> a digest of what came of it."""
        rng = random.Random(self.seed << 32 | number)
        place = self.places[number & 1]
        frame, header = self.frame(rng)
        arena = Arena()
        place.place(frame, header)
        if rng.random() < 0.3 and len(frame) > PIECES:
            place.cut(rng.randrange(2, PIECES + 1))
        place.allow(arena)
        watched: AbstractContextManager[Any] = arena if INTERPRETED else nullcontext()
        with watched:
            seen: list[Any] = [flow_of(place.address), layers_of(place.address)]
            reason = place.check()
            if reason is None:
                seen += self.finish(place, len(frame), rng.choice(MASKS))
        assert arena.doubles == []
        self.counts[reason.name if reason else "kept"] += 1
        return hashlib.sha256(repr((seen, reason)).encode()).hexdigest()[:16]

    def finish(self, place: Fenced, n: int, mask: int) -> Sequence[Any]:
        """Finish a frame that passed the check; what must hold of any such frame."""
        word = int(place.row["offload"])
        longest, headers = int(wire_length_of(place.address)), int(headers_of(place.address))
        goes = int(may_go(place.address, mask))
        assert headers <= n
        assert longest <= n + FRAGMENT_HEADER  # that of IPv6 is inserted
        assert place.begin(mask) is None
        if not goes and word & NEEDS_CSUM:
            place.scribble(n)  # it was copied: too late
        frames = [made for lot in place.lots() for made in lot]
        assert 1 <= len(frames) <= MAX_SEGMENTS
        assert max(len(frame) for frame, _ in frames) <= (n if goes else longest)
        if goes:
            assert frames[0][1] == word
        else:
            left = {offload for _, offload in frames}
            assert len(left) == 1
            assert left <= ({0} if mask & TAKES_CSUM == 0 else {0, word & ~0xFFFFFF00})
            assert all(b"\xee" * 40 not in frame for frame, _ in frames)
        self.counts["lent" if goes else "whole" if len(frames) == 1 else "cut"] += 1
        return [word, longest, headers, frames]


def main(seed: int, first: int, count: int, compared: int, path: str) -> None:
    """See the module's docstring."""
    progress = np.memmap(path, np.int64, "w+", shape=1)
    sweep, digests = Sweep(seed), []
    for number in range(first, first + count):
        progress[0] = number
        digest = sweep.run(number)
        if number < compared:
            digests.append(digest)
    print(json.dumps({"counts": sweep.counts, "digests": digests}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]), sys.argv[5])
