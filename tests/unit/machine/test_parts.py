# SPDX-License-Identifier: Apache-2.0
"""Building blocks are kept beside the machine code: another entry, of another process, that uses
them need not compile them."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from byway.machine.cachedir import keep, kept

pytestmark = pytest.mark.compiled_only

_SCRIPT = """
import sys
from numba import types
from byway.machine.jit import kernel
from byway.machine.layout import address_of
from byway.packet.batch import Batch
from byway.packet.layers import layers, ipv4_layers, l3_of

@kernel(entry=True)
def {name}(row):
    return {expression}

batch = Batch()
batch.rows[0]["len"] = 14
print({name}(address_of(batch.rows)), sum(layers._cache_hits.values()),
      sum(layers._cache_misses.values()), sum(ipv4_layers._cache_misses.values()))
"""


def _answer(folder: Path, more: int) -> list[int]:
    """-> what the entry answers; how often ``layers`` was found, and had to be compiled, and so
    what it calls."""
    script = folder / "script.py"  # a file: a kernel of what is typed in has no place in a cache
    script.write_text(_SCRIPT.format(
        expression=f"layers(row) + {more}", name=f"plus_{more}"))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False,
        env={**os.environ, "BYWAY_CACHE": str(folder / "cache")})
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_parts_are_found_by_the_next_process(tmp_path: Path) -> None:
    assert _answer(tmp_path, 0) == [14, 0, 1, 1]
    assert _answer(tmp_path, 1) == [15, 1, 0, 0]
    kept = list((tmp_path / "cache").rglob("part_*"))
    assert len(kept) >= 3
    for part in kept:  # of some the file is damaged: they are compiled again
        part.write_bytes(part.read_bytes()[:50])
    assert _answer(tmp_path, 2) == [16, 0, 1, 1]
    assert _answer(tmp_path, 3) == [17, 1, 0, 0]


def test_a_part_that_others_no_longer_know_by_its_symbol_is_compiled_again(tmp_path: Path) -> None:
    """Two processes may have kept different parts at once."""
    _answer(tmp_path, 0)
    for part in (tmp_path / "cache").rglob("part_*"):
        stored = pickle.loads(kept(part) or b"")
        if "ipv4_layers" in stored["symbol"]:
            keep(part, pickle.dumps({**stored, "symbol": stored["symbol"] + "x"}))
    assert _answer(tmp_path, 1)[:3] == [15, 0, 1]
