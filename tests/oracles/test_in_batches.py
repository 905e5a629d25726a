# SPDX-License-Identifier: Apache-2.0
"""Frames that come together fare as they do one after the other, although their functions' maps are
asked for all of them first: random functions, NAT, and chains in which one function changes what
the next one asks for."""

import ctypes
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from byway import nf
from byway.functions.builtin.flow_export import FlowExport
from byway.functions.builtin.nat44 import Nat44
from byway.functions.harness import Harness, same
from byway.functions.harness_kernels import frames_out
from byway.machine.layout import address_of, alloc
from byway.packet.batch import HEAD, ROWS
from byway.packet.counters import COUNTERS
from byway.testing import builders
from byway.testing.generated import generated
from tests.authoring import function_of
from tests.conftest import INTERPRETED
from tests.oracles.function_programs import METHODS, Program

PROGRAMS, BATCHES = (40, 2) if INTERPRETED else (3, 30)
_SECOND = 1_000_000_000


def _head(row: Any) -> bytes:
    return ctypes.string_at(int(row["head"]), min(int(row["len"]), HEAD))


def _in(harness: Harness, frames: list[bytes], now: int) -> list[tuple[int, bytes]]:
    outs = harness.run_batch(frames, now)
    return [(out, _head(row)) for out, row in zip(outs, harness.batch.rows, strict=False)]


def _out(harness: Harness, frames: list[bytes], now: int) -> list[bytes]:
    kept = [np.frombuffer(frame, np.uint8).copy() for frame in frames]
    harness.fill(kept)
    harness.now = now
    selected, counters = alloc(np.dtype("<i8"), ROWS, 64), alloc(COUNTERS, 1, 64)
    left = frames_out(harness.chain("tx").address, harness.batch.address, now,
                      address_of(selected), address_of(counters))
    rows = {address_of(rows) + 64 * k: rows[k] for rows in (harness.batch.rows,
                                                             harness.batch.altered)
            for k in range(ROWS)}
    return [_head(rows[int(address)]) for address in selected[:left]]


def _state(harness: Harness) -> list[Any]:
    return [(instance.counters, {name: sorted(map(str, state.dump()))
                                 for name, state in instance.states.items()})
            for instance in harness.instances]


def _compare(chain: Any, batches: Sequence[tuple[Literal["rx", "tx"], list[bytes]]],
             **given: Any) -> None:
    """``batches``: each with the way that its frames go."""
    together, alone = Harness(chain, **given), Harness(chain, **given)
    for k, (way, frames) in enumerate(batches):
        run: Any = _in if way == "rx" else _out
        got = run(together, frames, k * _SECOND // 3)
        wanted = [one for frame in frames for one in run(alone, [frame], k * _SECOND // 3)]
        assert got == wanted, f"batch {k}"
    assert _state(together) == _state(alone)


def _program(seed: int) -> str:
    """A random function that comes to a look-up by conditions, and changes what it finds."""
    program = Program(seed)

    def early(make: Any) -> str:
        while re.search(r"\b[rsvw]\b", text := make()):
            pass
        return text

    lines = ["a = frame.u16(16)", "b = 3", "c = 5", "six = frame.ipv6_src",
             f"if {early(lambda: program.test(2))}:",
             f"    c = {early(lambda: program.number(2))} & 0xFFFF",
             "else:", "    " + early(program.effect),
             f"d = self.words.add({early(lambda: program.number(1))} & 7, 1)",
             f"if d > {early(lambda: program.number(1))}:",
             "    c += self.words.get((d & 7) + c & 15)"]
    return "\n".join([*lines, *program.text().splitlines()[4:]])


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_random_functions(seed: int, tmp_path: Path) -> None:
    cls = function_of(tmp_path, _program(seed), METHODS)
    frames = [one for one in generated(BATCHES * ROWS, seed) if len(one) >= 14]
    batches = [("rx", frames[k : k + ROWS]) for k in range(0, len(frames), ROWS)]
    _compare(cls, batches, ports={"uplink": 3}, limit=50)


def test_address_translation_there_and_back() -> None:
    rng = random.Random(3)
    there = [builders.udp(f"10.0.0.{rng.randrange(1, 9)}", f"198.51.100.{rng.randrange(1, 4)}",
                          rng.randrange(2000, 2006), 53) for _ in range(400)]
    there += [builders.tcp("10.0.0.7", "198.51.100.9", 1000 + rng.randrange(4), 80, flags)
              for flags in rng.choices(("S", "A", "FA", "R"), k=200)]
    rng.shuffle(there)
    back = [builders.udp("198.51.100.1", "192.0.2.1", 53, rng.randrange(1990, 2010))
            for _ in range(200)]
    back += [builders.tcp("198.51.100.9", "192.0.2.1", 80, 1000 + rng.randrange(4), flags)
             for flags in rng.choices(("SA", "A", "FA", "R"), k=200)]
    rng.shuffle(back)
    batches = [("tx", there[k : k + 60]) for k in range(0, 600, 60)]
    batches += [("rx", back[k : k + 50]) for k in range(0, 400, 50)]
    rng.shuffle(batches)
    _compare(Nat44, batches, outside="192.0.2.1", inside="10.0.0.0/8")


@nf.function
class Turns:
    """Changes who a frame is from, for every other frame."""

    turn = nf.Array(value="u8", size=1)

    def process(self, frame: nf.Frame) -> nf.Verdict:
        self.turn[0] ^= 1
        if self.turn[0] == 1:
            frame.ipv4_src = frame.ipv4_src ^ 3
        return nf.PASS


@nf.function
class Some:
    """Lets only some of each sender's frames pass."""

    seen = nf.Map(key="ipv4", value="u32", capacity=64)

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if not frame.is_udp:
            return nf.PASS
        n = self.seen.add(frame.ipv4_src)
        if n > 5:
            self.seen.delete(frame.ipv4_src)
            return nf.DROP("many")
        return nf.PASS


def test_chains_of_functions_that_ask() -> None:
    rng = random.Random(4)
    frames = [builders.udp(f"10.0.0.{rng.randrange(1, 7)}", sport=rng.randrange(3))
              for _ in range(5 * ROWS)]
    ways: tuple[Literal["rx", "tx"], ...] = ("rx", "tx")
    batches = [(way, frames[k : k + ROWS]) for k in range(0, len(frames), ROWS) for way in ways]
    for chain in ([Some, Turns, Some], [Turns, Some], [Some, Some, FlowExport], [FlowExport, Some]):
        _compare(chain, batches)
        harness, plain = Harness(chain), nf.Plain(chain)
        for way, some in batches:
            for one, wanted in zip(harness.run(some, direction=way), plain.run(some, direction=way),
                                   strict=True):
                assert same(one, wanted)
