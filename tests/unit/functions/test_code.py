# SPDX-License-Identifier: Apache-2.0
"""Code of chains out of the cache, in a process that has not made all that was made with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = """
import sys
from byway.functions.harness import Harness
from tests.unit.functions.two_ways import TwoWays

harness = Harness(TwoWays)
for direction in sys.argv[1:]:
    harness.chain(direction)
"""
ROOT = Path(__file__).parents[3]


@pytest.mark.compiled_only
def test_a_chain_is_loaded_without_the_one_it_was_compiled_with(tmp_path: Path) -> None:
    for directions in (("rx", "tx"), ("tx",), ("rx",)):
        done = subprocess.run(
            [sys.executable, "-c", MAKE, *directions], cwd=ROOT, capture_output=True, text=True,
            check=False, timeout=100, env={**os.environ, "BYWAY_CACHE": str(tmp_path)})
        assert done.returncode == 0, done.stderr
