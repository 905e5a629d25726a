# SPDX-License-Identifier: Apache-2.0
"""The machine code that is compiled apart from the loop: stages, loaded where a port has any, and
the tables that the control thread changes.

Used by worker.py (has it ready before the switch starts) and control (tells the workers where it
is). Uses staging.py.

The first start with new sources takes as long as the compiler: so a second process compiles this
while the first one compiles the loop. Both leave the code in the cache.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from byway.machine.jit import INTERPRETED, Native, is_cached, prepare
from byway.ports.tunnel_code import tunnels
from byway.switch import events, fdb, groups_control, population
from byway.worker.staging import rx_stages, tx_stages

# What control calls.
TABLES: tuple[Any, ...] = (
    *fdb.ENTRIES, *population.ENTRIES, *events.ENTRIES, *groups_control.ENTRIES)
_COMPILE = "from byway.worker.units import compile_all; compile_all()"


@functools.cache
def stages() -> tuple[Native, Native]:
    """The stages of what comes in (rx), and of what goes out (tx)."""
    return Native(rx_stages, 3), Native(tx_stages, 5)


def compile_all() -> None:
    """Have everything that is not the loop in the cache."""
    for code in (*stages(), *tunnels()):
        assert code.address
    prepare(TABLES)


class Background:
    """Has the units compiled by another process, if they are not in the cache."""

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        cached = [INTERPRETED or is_cached(entry) for entry in TABLES]
        if all(cached) and all(code.cached for code in (*stages(), *tunnels())):
            return
        if progress:
            progress("compiling stages and tables beside (first run with these sources)")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMPILE], stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})

    def wait(self) -> None:
        """Returns when the code is in the cache. Where that failed it is compiled when it is first
        needed, which is late, but right."""
        if self._process:
            self._process.wait()
