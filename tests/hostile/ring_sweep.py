# SPDX-License-Identifier: Apache-2.0
"""Runs cases of the hostile guest in a process of its own, whose end says what they did.

    python -m tests.hostile.ring_sweep sweep SEED FIRST COUNT COMPARED PROGRESS
    python -m tests.hostile.ring_sweep change SEED SECONDS PROGRESS

Used by test_rings.py. ``sweep`` runs many cases, ``change`` a device on rings that are written to
meanwhile. Prints one JSON object; the number of the case at hand stands in the file
PROGRESS, so that a crash has a name. Interpreted, every access is watched.
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
from byway.testing.hostile import SINK, HostileRings, Ring, World
from byway.testing.kernels import consume, device_deliver, scribble
from byway.virtio.features import Feature, mask


def sweep(seed: int, first: int, count: int, progress: Any, compared: int) -> dict[str, Any]:
    """Run cases; the digests of those below ``compared``."""
    drops, errors, digests = Counter[str](), Counter[str](), []
    moved = [0, 0]
    precise = HostileRings(seed, watch=INTERPRETED, digests=True)
    fast = HostileRings(seed, watch=INTERPRETED)
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

    def __init__(self, rings: HostileRings, world: World, seed: int) -> None:
        self.rings, self.world = rings, world
        self.ring = Ring(64, 0, 4096, 8192, 12288)
        self._stop = alloc(np.dtype("<i8"), 1)
        host = world.pieces[0].address
        self._guest = threading.Thread(daemon=True, target=scribble, args=(
            address_of(self._stop), host + self.ring.desc, host + self.ring.avail,
            host + self.ring.used, self.ring.size, world.base, len(rings.main), seed))

    def __enter__(self) -> "Changing":
        self._guest.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop[0] = 1
        self._guest.join()

    def drive(self, device: Device, features: int) -> tuple[int, bool]:
        """Set the device up anew and let it run; -> (turns that moved something, broken?)."""
        used = self.rings.main[self.ring.used + 2 : self.ring.used + 4].view("<u2")
        self.rings.set_up(device, self.world, self.ring, features, int(used[0]))
        moved = 0
        for _ in range(50):
            if device is self.rings.rx:
                moved += int(consume(device.address, device.batch.address,
                                     address_of(self.rings.sink), SINK, 8)) > 0
            else:
                moved += int(device_deliver(device.address, device.batch.address,
                                            address_of(device.selected), ROWS)) > 0
            if device.error:
                return moved, True
        return moved, False


def change(seed: int, seconds: float, progress: Any) -> dict[str, int]:
    """The device runs on rings that a thread scribbles on; a broken one is set up anew."""
    rings = HostileRings(seed)
    rings.select_all()
    result = {"passes": 0, "moved": 0, "broken": 0}
    for world in rings.worlds:
        until = time.monotonic() + seconds / len(rings.worlds)
        with Changing(rings, world, seed) as guest:
            while time.monotonic() < until:
                n = progress[0] = result["passes"]
                features = mask(Feature.VERSION_1, Feature.INDIRECT_DESC)
                features |= mask(Feature.MRG_RXBUF) * (n >> 1 & 1)
                features |= mask(Feature.EVENT_IDX) * (n & 1)
                for device in (rings.rx, rings.tx):
                    moved, broken = guest.drive(device, features)
                    result["moved"] += moved
                    result["broken"] += broken
                result["passes"] = n + 1
    return {name: int(n) for name, n in result.items()}


def main(what: str, *arguments: str) -> None:
    """See the module's docstring."""
    path = Path(arguments[-1])
    path.write_bytes(bytes(8))
    progress = np.memmap(path, np.int64)
    seed = int(arguments[0])
    if what == "sweep":
        first, count, compared = (int(a) for a in arguments[1:4])
        result = sweep(seed, first, count, progress, compared)
    else:
        result = change(seed, float(arguments[1]), progress)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
