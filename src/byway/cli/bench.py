# SPDX-License-Identifier: Apache-2.0
"""`byway bench vm2vm`: what the data path costs on this machine, between two fake guests.

Used by cli.run. The switch is `byway run` in a process of its own, its worker on the first CPU
that may be used; the guests are the two ends of an exchange in this process, in one thread on the
last one. *Busy cycles a frame* are those of the time stamp counter in passes that moved frames, as
the worker counts them itself: they do not depend on how fast the guests are, but they do on
whoever else runs on the worker's CPU. Beside them stands what copying these frames takes there, and
nothing else (testing.bare_copy): no switch that copies them can need less.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byway.cli.lab import Lab
from byway.machine.cpu import usable_cpus

if TYPE_CHECKING:
    from byway.testing.exchange import Exchange

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
RING = 1024
WINDOW = 256
WARM_UP_SECONDS = 0.3
MIN_SIZE, MAX_SIZE = 60, 1522
# TCP frames to be cut: the longest that IPv4 has, over buffers of a page, a few at a time.
TSO_SIZE, TSO_SEGMENT, TSO_BUFFER, TSO_WINDOW = 14 + 65535, 1448, 4096, 16


@dataclass(frozen=True)
class Row:
    """One frame size: ``frame`` as asked for; rates count both directions.

    ``busy_gbit_per_second``: what the worker would move if it were busy all the time.
    ``copy_cycles_per_frame``: of a bare copy, 0 where there is only one CPU.
    """

    frame: str
    seconds: float
    frames: int
    mpps: float
    gbit_per_second: float
    busy_gbit_per_second: float
    cycles_per_frame: float
    copy_cycles_per_frame: float
    frames_per_pass: float
    lost: int


def frame_sizes(text: str) -> tuple[int, ...]:
    """Lengths for a number of bytes (without frame check sequence, as virtio carries frames),
    "imix" or "tso". ValueError for what is none of them."""
    from byway.testing.exchange import IMIX

    if text == "imix":
        return IMIX
    if text == "tso":
        return (TSO_SIZE,)
    if not text.isdigit() or not MIN_SIZE <= int(text) <= MAX_SIZE:
        raise ValueError(f"{text!r} is no frame size: give {MIN_SIZE} to {MAX_SIZE}, imix, or tso")
    return (int(text),)


def run_vm2vm(frames: list[str], seconds: float, json_file: str | None, packed: bool = False,
              pairs: int = 1) -> int:
    """Measure each of ``frames`` for ``seconds``, between guests with ``pairs`` pairs of split or
    packed rings; -> 0, or 2 for a frame size that is none."""
    try:
        sizes = {text: frame_sizes(text) for text in frames}
    except ValueError as error:
        print(f"byway bench vm2vm: --frame: {error}", file=sys.stderr)
        return 2
    cpus = usable_cpus()
    if len(cpus) < 2:
        print("byway bench vm2vm: only one CPU: switch and guests take turns on it, and the"
              " cycles of both are counted", file=sys.stderr)
    rows = []
    with Lab({"blue": ["vm1", "vm2"]}, workers=cpus[:1], queues=pairs) as lab:
        os.sched_setaffinity(0, {cpus[-1]})
        lab.wait_ready()
        print(f"{'frame':>6} {'Mpps':>8} {'Gbit/s':>8} {'busy Gbit/s':>12} {'cycles/frame':>13}"
              f" {'bare copy':>10} {'frames/pass':>12} {'lost':>6}")
        for text, lengths in sizes.items():
            row = _measure(lab, text, lengths, seconds, packed, pairs)
            row = replace(row, copy_cycles_per_frame=_bare_copy(text, lengths, cpus))
            rows.append(row)
            print(f"{row.frame:>6} {row.mpps:8.2f} {row.gbit_per_second:8.2f}"
                  f" {row.busy_gbit_per_second:12.2f} {row.cycles_per_frame:13.1f}"
                  f" {row.copy_cycles_per_frame:10.1f}"
                  f" {row.frames_per_pass:12.1f} {row.lost:6}",
                  flush=True)
        os.sched_setaffinity(0, cpus)
    if json_file:
        Path(json_file).write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0


def _options(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the guests and their exchange need for a frame size."""
    from byway.virtio.features import Feature, mask

    if text != "tso":
        return {}, {"window": WINDOW}
    features = mask(Feature.CSUM, Feature.GUEST_CSUM, Feature.HOST_TSO4, Feature.GUEST_TSO4,
                    Feature.MRG_RXBUF)
    return ({"features": features, "buffer": TSO_BUFFER},
            {"window": TSO_WINDOW, "gso_size": TSO_SEGMENT})


def _measure(lab: Lab, text: str, lengths: tuple[int, ...], seconds: float, packed: bool,
             pairs: int) -> Row:
    from byway.testing.exchange import Exchange
    from byway.testing.frames import mac
    from byway.testing.guest import Guest

    of_guest, of_exchange = _options(text)
    one, other = (Guest.connect(lab.socket(name), mac=address, size=RING, packed=packed,
                                pairs=pairs, **of_guest)
                  for name, address in zip(("vm1", "vm2"), MACS, strict=True))
    with one, other:
        first = Exchange(one, mac(MACS[1]), sizes=lengths, check=False, **of_exchange)
        second = Exchange(other, mac(MACS[0]), sizes=lengths, check=False, **of_exchange)
        first.run_with(second, WARM_UP_SECONDS)
        before, octets = lab.client.workers()[0], _octets(first, second)
        began = time.perf_counter()
        first.run_with(second, seconds)
        elapsed = time.perf_counter() - began
        after = lab.client.workers()[0]
        moved = after["frames"] - before["frames"]
        passes = after["busy_passes"] - before["busy_passes"]
        lost = first.statistics()["lost"] + second.statistics()["lost"]
        bits = 8 * (_octets(first, second) - octets)
        busy = (after["busy_cycles"] - before["busy_cycles"]) / after["cycles_per_second"]
        return Row(
            frame=text, seconds=round(elapsed, 3), frames=moved,
            mpps=round(moved / elapsed / 1e6, 3),
            gbit_per_second=round(bits / elapsed / 1e9, 3),
            busy_gbit_per_second=round(bits / max(busy, 1e-9) / 1e9, 3),
            cycles_per_frame=round((after["busy_cycles"] - before["busy_cycles"])
                                   / max(moved, 1), 1),
            copy_cycles_per_frame=0.0,
            frames_per_pass=round(moved / max(passes, 1), 1), lost=lost)


def _bare_copy(text: str, lengths: tuple[int, ...], cpus: tuple[int, ...]) -> float:
    """Cycles a frame of a copy by the worker's CPU, which sleeps, between as many buffers."""
    from byway.testing.bare_copy import cycles_a_frame
    from byway.testing.guest_queues import buffer_size

    if len(cpus) < 2:
        return 0.0
    buffer, window = (TSO_BUFFER, TSO_WINDOW) if text == "tso" else (buffer_size(1500, 0), WINDOW)
    cycles = {length: cycles_a_frame(length, buffer, 2 * RING, 2 * window, (cpus[0], cpus[-1]))
              for length in set(lengths)}
    return round(sum(cycles[length] for length in lengths) / len(lengths), 1)


def _octets(*exchanges: "Exchange") -> int:
    return sum(e.statistics()["octets"] for e in exchanges)
