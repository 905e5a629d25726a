# SPDX-License-Identifier: Apache-2.0
"""Translated functions do what the author's class does in plain Python: random functions, random
frames, the same verdicts, faults, frames and state.

Interpreted there are many functions with few frames each; compiled (a second for each) few with
many frames.
"""

from itertools import chain
from pathlib import Path

import pytest

from byway import nf
from byway.functions.harness import Harness, same
from byway.testing.generated import generated
from tests.authoring import function_of
from tests.both_ways import tables
from tests.conftest import INTERPRETED
from tests.oracles.function_programs import METHODS, Program

PROGRAMS, FRAMES = (60, 25) if INTERPRETED else (3, 400)
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
        [compiled] = harness.run([frame], port=2, now=k << 21)
        [expected] = plain.run([frame], port=2, now=k << 21)
        assert same(compiled, expected), f"frame {k}: {compiled} {expected}\n{text}"
    ring = harness.instances[0].states["told"]
    events = list(chain.from_iterable(iter(ring.take, [])))  # some at a time
    assert events == plain.instances[0].told.take(), text
    rows, entries = tables(harness, plain, TABLES)
    assert rows == entries, text
