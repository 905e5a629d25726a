# SPDX-License-Identifier: Apache-2.0
"""Translated functions do what the author's class does in plain Python: random functions, random
frames, the same verdicts, faults, frames and state.

Interpreted there are many functions with few frames each; compiled (a second for each) few with
many frames.
"""

import itertools
import random
from pathlib import Path
from typing import Literal

import pytest

from byway import nf
from byway.functions.harness import Harness, same
from byway.testing.generated import generated
from tests.authoring import function_of
from tests.both_ways import tables
from tests.conftest import INTERPRETED
from tests.oracles.function_programs import METHODS, Program

PROGRAMS, FRAMES = (60, 25) if INTERPRETED else (3, 400)
CHAINS = 30 if INTERPRETED else 1
TABLES = ("words", "pairs", "flows", "sixes", "sums", "small", "hits")
PORTS = {"uplink": 3}


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_as_in_plain_python(seed: int, tmp_path: Path) -> None:
    text = Program(seed).text()
    cls = function_of(tmp_path, text, METHODS)
    harness, plain = Harness(cls, ports=PORTS, limit=50), nf.Plain(cls, ports=PORTS, limit=50)
    for k, frame in enumerate(generated(FRAMES, seed)):
        if len(frame) < 14:
            continue
        [compiled] = harness.run([frame], port=9, now=k << 21)
        [expected] = plain.run([frame], port=9, now=k << 21)
        assert same(compiled, expected), f"frame {k}: {compiled} {expected}\n{text}"
    ring = harness.instances[0].states["told"]
    events = list(itertools.chain.from_iterable(iter(ring.take, [])))  # some at a time
    assert events == plain.instances[0].told.take(), text
    rows, entries = tables(harness, plain, TABLES)
    assert rows == entries, text


@pytest.mark.parametrize("seed", range(CHAINS))
def test_chains_as_in_plain_python(seed: int, tmp_path: Path) -> None:
    """Frames that come in and frames that go out, through two functions or three."""
    rng = random.Random(seed)
    texts, chain = [], []
    for number in range(rng.choice((2, 2, 3))):
        (tmp_path / str(number)).mkdir()
        texts.append(Program(1000 + 10 * seed + number).text())
        cls = function_of(tmp_path / str(number), texts[-1], METHODS)
        chain.append((cls, {"limit": 50, "mode": rng.choice("ab")}))
    harness, plain = Harness(chain, ports=PORTS), nf.Plain(chain, ports=PORTS)
    for k, frame in enumerate(generated(FRAMES, seed)):
        if len(frame) < 14:
            continue
        direction: Literal["rx", "tx"] = rng.choice(("rx", "tx"))
        [compiled] = harness.run([frame], port=9, now=k << 21, direction=direction)
        [expected] = plain.run([frame], port=9, now=k << 21, direction=direction)
        what = "\n\n".join([f"frame {k}, {direction}: {compiled} {expected}", *texts])
        assert same(compiled, expected), what
    for number in range(len(chain)):
        rows, entries = tables(harness, plain, TABLES, number)
        assert rows == entries, texts[number]
