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

The chain does for a function what the function needs: counts what comes to it (added up once a
batch), gives it its loop rounds, parses the headers again behind it where they may have moved. What
no function of the chain needs is not in the source.

The source depends on the functions and their order only. Instances, parameters and state are
reached by the CHAIN record, so all chains of the same functions share their code, and the code is
found in the cache by the source's digest.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import Literal, TypeAlias

from byway.functions import blueprint as does
from byway.functions.blueprint import Blueprint, Method

Direction: TypeAlias = Literal["rx", "tx"]

# The names that a chain's own lines use; the functions' sources bring theirs.
_IMPORTS = """
from byway.functions.apply import (
    FAULT, LEFT_OUT, UNFIT, clone, hold_all, own_row, refit, release_all, settle_rx, settle_tx,
    time_of, went_wrong)
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
    for k in range(n):
        row = rows + 64 * k
        if ld64(row + R.out) != UNDECIDED or ld64(row + R.len) < MIN_FRAME:
            continue
        frame = parse(row)
        {begin}
{steps}
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
    for k in range(n):
        row = ld64(selected + 8 * k)
        row = {own}
        frame = parse_out(row)
        mirror = -1
        mirrored = 0
        {begin}
{steps}
        if mirror >= 0:
            clone(mirrored, batch, row, mirror)
        st64(selected + 8 * kept, row)
        kept += 1
{counted}
    release_all(chain)
    return kept
"""
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
    flags = frozenset().union(*(step.method.flags for step in steps))
    chain = _CHAIN[direction].format(
        instances="\n".join(f"    i{s.place} = ld64(instances + {8 * s.place})" for s in steps),
        zero="\n".join(f"    n{step.place} = 0" for step in steps),
        now="time_of(chain, b.ticks)" if does.TIMED in flags else "0",
        own="own_row(batch, row, k)" if does.WRITES in flags else "row",
        begin=_note(-1, "0") if traced else "",
        steps=indent("\n".join(step.source(direction, steps) for step in steps), " " * 8),
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

    def source(self, direction: Direction, steps: Sequence["_Step"]) -> str:
        """The lines for one frame."""
        flags, at = self.method.flags, self.place
        lines = [f"n{at} += 1"]
        if does.LOOPS in flags:
            lines.append(f"st64(i{at} + I.left, {self.function.budget})")
        lines.append(f"word = {self.method.name}(i{at}, row, frame, batch, now)")
        if does.FAULTY in flags or does.LOOPS in flags:
            lines.append(f"if went_wrong(i{at}):")
            lines += ["    " + _note(at, "WENT_WRONG")] if self.traced else []
            lines += _settled(direction, "FAULT")
        lines += [_note(at, "word")] if self.traced else []
        if does.RESHAPES in flags:
            lines += ["if ld64(row + R.offload) != 0 and not refit(row):",
                      *_settled(direction, "UNFIT")]
        reasons = self.function.place_of_reasons
        call = (f"settle_rx(i{at}, {reasons}, batch, k, row, word)" if direction == "rx" else
                f"settle_tx(i{at}, {reasons}, batch, row, word)")
        lines.append("if word != PASS:")
        if direction == "tx" and does.COPIES in flags:  # of what leaves the chain
            lines += ["    if kind_of(word) == MIRROR:", "        mirror = value_of(word)",
                      f"        mirrored = i{at}"]
        lines += [f"    out = {call}", "    if out != UNDECIDED:",
                  *("    " + line for line in _settled(direction, "out"))]
        if does.RESHAPES in flags and self is not steps[-1]:
            lines.append("frame = parse_again(row, frame)")
        return "\n".join(lines)


def _note(step: int, word: str) -> str:
    """A line that notes what a function (step -1: none yet) made of a frame."""
    return f"note(chain, {step}, row, {word})"


def _settled(direction: Direction, out: str) -> list[str]:
    """What is done with a row that no further function sees."""
    if direction == "rx":
        return [f"    st64(row + R.out, {out})", "    continue"]
    return [f"    if {out} != LEFT_OUT:", f"        count_drops(counters, dropped({out}), 1)",
            "    elif mirror >= 0:", "        clone(mirrored, batch, row, mirror)", "    continue"]
