# SPDX-License-Identifier: Apache-2.0
"""Commands that need no data path start without it: Numba alone is 0.3 seconds and 90 MB."""

import subprocess
import sys

import pytest

HEAVY = ("numba", "llvmlite", "numpy", "byway.control", "byway.machine.jit", "byway.testing")


@pytest.mark.parametrize("module", ["byway", "byway.client", "byway.cli.main"])
def test_the_client_side_imports_no_data_path(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
