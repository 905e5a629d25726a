# SPDX-License-Identifier: Apache-2.0
"""Runs cases of the hostile guest in a process of its own, whose end says what they did.

    python -m tests.hostile.ring_sweep sweep FORMAT SEED FIRST COUNT COMPARED PROGRESS
    python -m tests.hostile.ring_sweep change FORMAT SEED SECONDS PROGRESS

Used by test_rings.py. FORMAT: split or packed. ``sweep`` runs many cases, ``change`` a device on
rings that are written to meanwhile. Prints one JSON object; the number of the case at hand stands
in the file PROGRESS, so that a crash has a name. Interpreted, every access is watched.
"""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS
from byway.testing.device import Device
from byway.testing.hostile import SINK, HostileRings
from byway.testing.hostile_memory import World
from byway.testing.hostile_packed import PackedRing
from byway.testing.hostile_split import SplitRing
from byway.testing.ring_kernels import consume, device_deliver, scribble, scribble_packed
from byway.virtio.features import Feature, mask

PASSES = 50  # of a device over a ring that changes meanwhile, in one call
SIZES = (60, 1, 100, 3, 7, 2, 60)  # of packed rings that change: in small ones chains go all around


def sweep(packed: bool, seed: int, first: int, count: int, progress: Any,
          compared: int) -> dict[str, Any]:
    """Run cases; the digests of those below ``compared``."""
    drops, errors, digests = Counter[str](), Counter[str](), []
    moved = [0, 0]
    precise = HostileRings(seed, packed=packed, watch=INTERPRETED, digests=True)
    fast = HostileRings(seed, packed=packed, watch=INTERPRETED)
    for number in range(first, first + count):
        progress[0] = number
        outcome = (precise if number < compared else fast).run(number)
        moved[outcome.towards_guest] += outcome.moved > 0
        direction = "to" if outcome.towards_guest else "from"
        drops.update({f"{direction} {reason}": n for reason, n in outcome.drops.items()})
        errors[outcome.error.name if outcome.error else ""] += 1
        if number < compared:
            digests.append(outcome.digest)
    return {"drops": drops, "errors": errors, "digests": digests, "moved": moved}


class Changing:
    """A ring in one world that a thread scribbles on while it is entered."""

    def __init__(self, rings: HostileRings, world: World, seed: int, size: int) -> None:
        self.rings, self.world = rings, world
        made = PackedRing if rings.packed else SplitRing
        ring = self.ring = made(np.random.default_rng(seed), world, True, False)
        ring.size, ring.desc, ring.avail, ring.used = size, 0, 4096, 8192
        self._stop = alloc(np.dtype("<i8"), 1)
        host = world.pieces[0].address
        where = address_of(self._stop), host + ring.desc, host + ring.avail
        span = ring.size, world.base, len(rings.main), seed
        self._guest = threading.Thread(daemon=True, target=scribble_packed, args=(*where, *span)) \
            if rings.packed else threading.Thread(
                daemon=True, target=scribble, args=(*where, host + ring.used, *span))

    def __enter__(self) -> "Changing":
        self._guest.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop[0] = 1
        self._guest.join()

    def drive(self, device: Device, features: int, until: float) -> tuple[int, bool]:
        """Set the device up anew and let it run, not much longer than ``until``; -> (turns that
        moved something, broken?)."""
        used = self.rings.main[self.ring.used + 2 : self.ring.used + 4].view("<u2")
        start = None if self.rings.packed else int(used[0])
        self.ring.start = int(device.queue["calls"][0]) % self.ring.size | 1 << 15
        self.rings.set_up(device, self.world, self.ring, features, start)
        moved = 0
        for _ in range(50):
            if time.monotonic() > until:
                break
            if device is self.rings.rx:
                moved += int(consume(device.address, device.batch.address,
                                     address_of(self.rings.sink), SINK, PASSES)) > 0
            else:
                moved += int(device_deliver(device.address, device.batch.address,
                                            address_of(device.selected), ROWS)) > 0
            if device.error:
                return moved, True
            assert self.ring.taken(device) >= 0 or start is not None, "outside the ring"
        return moved, False


def change(packed: bool, seed: int, seconds: float, progress: Any) -> dict[str, int]:
    """The device runs on rings that a thread scribbles on; a broken one is set up anew."""
    rings = HostileRings(seed, packed=packed)
    rings.select_all()
    result = {"passes": 0, "moved": 0, "broken": 0}
    choices = (mask(Feature.EVENT_IDX), mask(Feature.MRG_RXBUF), mask(Feature.CSUM),
               mask(Feature.IN_ORDER))
    for k, world in enumerate(rings.worlds):
        size = SIZES[k] if packed else 64
        until = time.monotonic() + seconds / len(rings.worlds)
        with Changing(rings, world, seed, size) as guest:
            while time.monotonic() < until:
                n = progress[0] = result["passes"]
                features = mask(Feature.VERSION_1, Feature.INDIRECT_DESC)
                features |= mask(Feature.RING_PACKED) * packed
                features |= sum(bit * (n >> k & 1) for k, bit in enumerate(choices))
                for device in (rings.rx, rings.tx):
                    moved, broken = guest.drive(device, features, until)
                    result["moved"] += moved
                    result["broken"] += broken
                result["passes"] = n + 1
    return {name: int(n) for name, n in result.items()}


def main(what: str, layout: str, *arguments: str) -> None:
    """See the module's docstring."""
    path = Path(arguments[-1])
    path.write_bytes(bytes(8))
    progress = np.memmap(path, np.int64)
    packed = layout == "packed"
    seed = int(arguments[0])
    if what == "sweep":
        first, count, compared = (int(a) for a in arguments[1:4])
        result = sweep(packed, seed, first, count, progress, compared)
    else:
        result = change(packed, seed, float(arguments[1]), progress)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
