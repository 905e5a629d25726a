# SPDX-License-Identifier: Apache-2.0
"""From functions to a chain: the source of one kernel in which they are one after the other.

Used by build.py (which compiles it) and code.py (which loads it). Uses blueprints; what the source
calls stands in apply.py, fields.py, states.py and arith.py.

Theory of operation
-------------------
A chain looks at one frame after the other, and has each go through all functions before it looks at
the next one: the headers are parsed once, and what one function has read the next one finds in a
register. Everything is one piece of machine code, so a function costs what it does and no call. A
chain is a call by address for each batch.

Where functions have maps the chain goes over the batch twice: first their kernels that ask for the
maps' buckets (translate/ahead.py), then all functions, frame by frame. Those behind one that may
change the frame do not ask ahead. What was found out stands beside the row (BATCH.asked): the
frame's word, and a word for each function that asks.

The chain does for a function what the function needs: counts what comes to it (added up once a
batch), gives it its loop rounds, parses the headers again behind it where they may have moved. What
no function of the chain needs is not in the source.

The source depends on the functions and their order only. Instances, parameters and state are
reached by the CHAIN record, so all chains of the same functions share their code, and the code is
found in the cache by the source's digest.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from byway.functions import blueprint as does
from byway.functions.blueprint import Blueprint, Method
from byway.packet.batch import ASKED

Direction: TypeAlias = Literal["rx", "tx"]

# The names that a chain's own lines use; the functions' sources bring theirs.
_IMPORTS = """
from byway.functions.apply import (
    FAULT, LEFT_OUT, UNFIT, clone, clone_away, goes_away, hold_all, own_row, refit, release_all,
    settle_rx, settle_tx, source_of, time_of, went_wrong)
from byway.functions.fields import parse, parse_again, parse_out
from byway.functions.instance import I
from byway.functions.verdicts import MIRROR, PASS, kind_of, value_of
from byway.machine.mem import add64, ld64, st64
from byway.packet.batch import MIN_FRAME, ROWS, UNDECIDED, R, batch_at, dropped
from byway.packet.counters import count_drops
from byway.switch.chain import C
"""
_TRACING = "from byway.functions.trace_kernels import WENT_WRONG, note"

_RX = """
def chain(chain, batch):
    b = batch_at(batch)
    rows, n = b.rows, b.n
    instances = ld64(chain + C.instances)
{instances}
{zero}
    now = {now}
    hold_all(chain)
{ahead}
    for k in range(n):
        row = rows + 64 * k
{parse}
        source = {source}
{before}
{steps}
{after}
{counted}
    release_all(chain)
    return 0
"""

_TX = """
def chain(chain, batch, selected, n, counters):
    b = batch_at(batch)
    b.npayloads = ROWS
    instances = ld64(chain + C.instances)
{instances}
{zero}
    now = {now}
    kept = 0
    hold_all(chain)
{ahead}
    for k in range(n):
        row = ld64(selected + 8 * k)
        row = {own}
{parse}
{before}
{steps}
{after}
        st64(selected + 8 * kept, row)
        kept += 1
{counted}
    release_all(chain)
    return kept
"""
# How a frame's word is found, and where others are asked for first: how that is kept.
_PARSE: dict[Direction, str] = {
    "rx": """
        if ld64(row + R.out) != UNDECIDED or ld64(row + R.len) < MIN_FRAME:
            continue
        frame = parse(row)""",
    "tx": """
        frame = parse_out(row)"""}
_PARSED: dict[Direction, str] = {
    "rx": """
        asked = b.asked + 64 * k
        frame = ld64(asked)
        if frame == -1:
            continue""",
    "tx": """
        asked = b.asked + 64 * k
        frame = ld64(asked)"""}
_AHEAD: dict[Direction, str] = {
    "rx": """
    for k in range(n):
        row = rows + 64 * k
        asked = b.asked + 64 * k
        frame = -1
        if ld64(row + R.out) == UNDECIDED and ld64(row + R.len) >= MIN_FRAME:
            frame = parse(row)
            {asks}
        st64(asked, frame)""",
    "tx": """
    for k in range(n):
        row = ld64(selected + 8 * k)
        asked = b.asked + 64 * k
        frame = parse_out(row)
        {asks}
        st64(asked, frame)"""}
_CHAIN: dict[Direction, str] = {"rx": _RX, "tx": _TX}


@dataclass(frozen=True)
class Composed:
    """``source`` defines ``chain``, a kernel; ``digest`` names it; ``flags``: what is in it."""

    direction: Direction
    source: str
    digest: str
    flags: frozenset[str]


def compose(functions: Sequence[Blueprint], direction: Direction, *,
            traced: bool = False) -> Composed:
    """The chain of these functions, in this order. ``traced``: one that notes each step (trace.py).
    ValueError: a function has no method for the direction."""
    steps: list[_Step] = []
    for place, function in enumerate(functions):
        method = function.method(direction)
        if method is None:
            raise ValueError(f"{function.name} has no method for {direction}")
        steps.append(_Step(place, function, method, traced))
    steps = _asking(steps)
    flags = frozenset().union(*(step.method.flags for step in steps))
    asks = "; ".join(f"st64(asked + {8 * s.asks}, {s.method.ahead}"
                     f"(i{s.place}, row, frame, batch, now))" for s in steps if s.asks)
    chain = _CHAIN[direction].format(
        instances="\n".join(f"    i{s.place} = ld64(instances + {8 * s.place})" for s in steps),
        zero="\n".join(f"    n{step.place} = 0" for step in steps),
        now="time_of(chain, b.ticks)" if does.TIMED in flags else "0",
        ahead=_AHEAD[direction].format(asks=asks).strip("\n") if asks else "",
        parse=(_PARSED if asks else _PARSE)[direction].strip("\n"),
        own="own_row(batch, row, k)" if does.WRITES in flags else "row",
        source="source_of(row)" if does.SETTLES in flags else "0",
        before=_lines(([_note(-1, "0")] if traced else []) + [
            f"m{place} = UNDECIDED" for place in _mirroring(steps)]),
        steps=_lines([line for step in steps for line in step.lines(direction, steps)]),
        after=_lines(_mirrors(steps)),
        counted="\n".join(f"    add64(i{s.place} + I.seen, n{s.place})" for s in steps))
    sources = dict.fromkeys(step.method.source.strip() for step in steps)
    imports = _IMPORTS.strip() + ("\n" + _TRACING if traced else "")
    source = "\n\n\n".join((imports, *sources, chain.strip())) + "\n"
    return Composed(direction, source, hashlib.sha256(source.encode()).hexdigest()[:24], flags)


@dataclass(frozen=True)
class _Step:
    """One function of a chain."""

    place: int
    function: Blueprint
    method: Method
    traced: bool
    asks: int = 0  # which word of what is asked ahead is its, 0: none

    def lines(self, direction: Direction, steps: Sequence["_Step"]) -> list[str]:
        """The lines for one frame."""
        flags, at = self.method.flags, self.place
        lines = [f"n{at} += 1"]
        if does.LOOPS in flags:
            lines.append(f"st64(i{at} + I.left, {self.function.budget})")
        asked = f", ld64(asked + {8 * self.asks})" if self.asks else ", 0"
        lines.append(f"word = {self.method.name}(i{at}, row, frame, batch, now"
                     f"{asked if self.method.ahead else ''})")
        if does.FAULTY in flags or does.LOOPS in flags:
            lines.append(f"if went_wrong(i{at}):")
            lines += ["    " + _note(at, "WENT_WRONG")] if self.traced else []
            lines += indented(_dropped(direction, "FAULT"))
        lines += [_note(at, "word")] if self.traced else []
        if does.RESHAPES in flags:
            lines.append("if ld64(row + R.offload) != 0 and not refit(row):")
            lines += indented(_dropped(direction, "UNFIT"))
        lines += self._verdict(direction, steps[:at])
        if does.RESHAPES in flags and self is not steps[-1]:
            lines.append("frame = parse_again(row, frame)")
        return lines

    def _verdict(self, direction: Direction, before: Sequence["_Step"]) -> list[str]:
        """What is done for a verdict that is not PASS. ``before``: those whose MIRRORs count."""
        at, reasons = self.place, self.function.place_of_reasons
        lines = ["if word != PASS:"]
        if does.COPIES in self.method.flags:  # of what leaves the chain
            lines += ["    if kind_of(word) == MIRROR:", f"        m{at} = value_of(word)",
                      "        word = PASS", "if word != PASS:"]
        if direction == "rx":
            mirrors = _mirrors(before)
            return [*lines, f"    out = settle_rx(i{at}, {reasons}, batch, row, word, source)",
                    "    if out != UNDECIDED:", "        st64(row + R.out, out)",
                    *(["        if out >= 0:", *indented(mirrors, 3)] if mirrors else []),
                    "        continue"]
        mirrors = _mirrors(before, "clone_away", ", word")
        return [*lines, *(["    if goes_away(word):", *indented(mirrors, 2)] if mirrors else []),
                f"    out = settle_tx(i{at}, {reasons}, batch, row, word)",
                "    if out != UNDECIDED:",
                "        if out != LEFT_OUT:",
                "            count_drops(counters, dropped(out), 1)", "        continue"]


def _asking(steps: Sequence[_Step]) -> list[_Step]:
    """The same, with places for what they ask ahead."""
    made, asks = [], 0
    for step in steps:
        if step.method.ahead and asks < ASKED - 1:
            asks += 1
            step = replace(step, asks=asks)
        made.append(step)
        if {does.WRITES, does.RESHAPES} & step.method.flags:
            asks = ASKED
    return made


def _mirroring(steps: Sequence[_Step]) -> list[int]:
    """The places of functions that may have others get copies."""
    return [step.place for step in steps if does.COPIES in step.method.flags]


def _mirrors(steps: Sequence[_Step], clone: str = "clone", more: str = "") -> list[str]:
    """Lines that make the copies of a frame that leaves the chain. ``clone``: what makes one of a
    row, of which it needs to know ``more``."""
    return [line for at in _mirroring(steps) for line in (
        f"if m{at} != UNDECIDED:", f"    {clone}(i{at}, batch, row, m{at}{more})")]


def _note(step: int, word: str) -> str:
    """A line that notes what a function (step -1: none yet) made of a frame."""
    return f"note(chain, {step}, row, {word})"


def _dropped(direction: Direction, out: str) -> list[str]:
    """What is done with a row that a function goes wrong with."""
    if direction == "rx":
        return [f"st64(row + R.out, {out})", "continue"]
    return [f"count_drops(counters, dropped({out}), 1)", "continue"]


def indented(lines: Sequence[str], depth: int = 1) -> list[str]:
    """Lines, further to the right."""
    return ["    " * depth + line for line in lines]


def _lines(lines: Sequence[str]) -> str:
    """Lines of what is done for each frame."""
    return "\n".join(indented(lines, 2))
