# SPDX-License-Identifier: Apache-2.0
"""A short trial of an author's function before it may stand in a chain: does it keep its budget?

Used by build.py, in whose process it runs; so a function that uses up its work budget with frames
as they are everywhere is refused, and the old chain stays. `byway nf check` looks much closer. Uses
harness.

Only functions whose loops and calls may be more than the budget allows are tried (the translator
counts those), with the parameters' defaults: others cannot exceed it.
"""

import random
import struct

from byway.functions import blueprint as does
from byway.functions.blueprint import Blueprint
from byway.functions.compose import Direction
from byway.functions.harness import Harness
from byway.functions.instance import BUDGET, FAULTS
from byway.nf.problem import ParameterError, Problem

_FRAMES, _MACS = 256, bytes.fromhex("020000000002020000000001")
_TCP, _UDP, _ICMP = 6, 17, 1


def problem_of(cls: type, blueprint: Blueprint) -> Problem | None:
    """What is wrong with a function, if it uses up its budget. Its code gets compiled."""
    needs = any(one["default"] is None for one in blueprint.parameters.values())
    if needs or not any(does.LOOPS in one.flags for one in blueprint.methods.values()):
        return None
    try:
        harness = Harness(cls)
    except ParameterError:  # its tables are too large for this process, not for the switch perhaps
        return None
    directions: tuple[Direction, ...] = ("rx", "tx")
    for direction in directions:
        if blueprint.method(direction) is None:
            continue
        for outcome in harness.run(_frames(), direction=direction):
            if outcome.fault and outcome.fault.kind == FAULTS[BUDGET]:
                return Problem(
                    outcome.fault.file, outcome.fault.line,
                    f"loops and calls use up the work budget of {blueprint.budget} rounds",
                    f"end them earlier, or raise it in the class: budget = {10 * blueprint.budget}")
    return None


def _frames() -> list[bytes]:
    """Frames of several kinds, some of them cut short."""
    rng = random.Random(1)
    made = [_frame(rng, k) for k in range(_FRAMES)]
    return [frame[:rng.randrange(14, len(frame))] if k % 4 == 3 else frame
            for k, frame in enumerate(made)]


def _frame(rng: random.Random, k: int) -> bytes:
    data = rng.randbytes(rng.choice((0, 20, 64, 400, 1400)))
    if k % 8 == 0:
        return _MACS + rng.randbytes(2) + data
    protocol = rng.choice((_TCP, _UDP, _ICMP))
    ports = struct.pack(">HH", rng.choice((53, 80, 4789, 40000)), rng.choice((53, 80, 443)))
    body = {
        _TCP: ports + rng.randbytes(8) + b"\x50" + rng.choice((b"\x02", b"\x10")) + bytes(6),
        _UDP: ports + struct.pack(">HH", 8 + len(data), 0), _ICMP: b"\x08\0" + rng.randbytes(6),
    }[protocol] + data
    if k % 3:
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), k, 0, 64, protocol, 0,
                           rng.randbytes(4), rng.randbytes(4))
        return _MACS + b"\x08\x00" + head + body
    head = struct.pack(">IHBB", 0x60000000, len(body), protocol, 64) + rng.randbytes(32)
    return _MACS + b"\x86\xdd" + head + body
