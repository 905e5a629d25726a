# SPDX-License-Identifier: Apache-2.0
"""Code of chains out of the cache, in a process that has not made all that was made with it."""

import gc
import linecache
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byway.functions.code import native
from byway.functions.compose import compose
from byway.functions.harness import Harness
from tests.unit.functions.two_ways import Other

MAKE = """
import sys
from byway.functions.code import native
from byway.functions.compose import compose
from byway.functions.harness import Harness
from tests.unit.functions.two_ways import Other, TwoWays

for word in sys.argv[1:]:
    direction, _, names = word.partition(":")
    harness = Harness([{"T": TwoWays, "O": Other}[name] for name in names])
    composed = compose([one.blueprint for one in harness.instances], direction)
    loaded = native(composed).load()
    harness.chain(direction)
    print(word, "loaded" if loaded else "made")
"""
ROOT = Path(__file__).parents[3]


def made(folder: Path, *chains: str) -> list[str]:
    """Have a process of its own make these, or load them; -> those that it had to make."""
    done = subprocess.run(
        [sys.executable, "-c", MAKE, *chains], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=230, env={**os.environ, "BYWAY_CACHE": str(folder)})
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return [line.split()[0] for line in done.stdout.splitlines() if line.endswith("made")]


@pytest.mark.compiled_only
@pytest.mark.timeout(600)
def test_a_chain_is_loaded_without_those_it_was_compiled_with(tmp_path: Path) -> None:
    """Functions that stand in several chains are compiled once, in one of them."""
    first, second = ("rx:T", "tx:T", "rx:OT"), ("tx:OT", "rx:TO", "rx:O")
    assert made(tmp_path, *first) == [*first]
    assert made(tmp_path, "tx:T", *second) == [*second]
    for chain in (*first, *second):
        assert made(tmp_path, chain) == []
    assert made(tmp_path, *reversed(first), *reversed(second)) == []


@pytest.mark.compiled_only
def test_one_that_cannot_be_loaded_is_made_anew(tmp_path: Path) -> None:
    made(tmp_path, "rx:O", "tx:O")
    for file in tmp_path.rglob("chain *.nbc"):
        file.write_bytes(file.read_bytes()[:1000])
    for file in tmp_path.rglob("made_*"):
        file.write_bytes(b"")
    assert made(tmp_path, "tx:O") == ["tx:O"]
    assert made(tmp_path, "tx:O", "rx:O") == ["rx:O"]


def test_a_chain_that_nobody_has_is_forgotten() -> None:
    gc.collect()  # what others have left may leave sys.modules as well
    harness = Harness(Other)
    blueprint = harness.instances[0].blueprint
    composed = compose([blueprint], "tx")
    chain = harness.chain("tx")
    assert native(composed) is native(composed)
    others = [native(compose([blueprint] * k, "tx")) for k in range(2, 20)]  # since then
    assert native(composed).address == chain.record["code"][0]
    name, file = f"byway.functions.chain_{composed.digest}", f"<chain {composed.digest}>"
    assert name in sys.modules
    assert file in linecache.cache
    del harness, chain, others
    for k in range(2, 20):
        native(compose([blueprint] * k, "tx"))
    through = iter(sys.modules)
    next(through)
    gc.collect()  # as it may happen to everybody who goes through them
    next(through)
    native(compose([blueprint] * 2, "tx"))
    assert name not in sys.modules
    assert file not in linecache.cache
    assert native(composed).function.__name__ == "chain"  # and is there when it is wanted again
    assert name in sys.modules
