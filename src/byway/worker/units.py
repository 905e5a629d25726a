# SPDX-License-Identifier: Apache-2.0
"""The machine code that is compiled apart from the loop: stages and tunnels, loaded where a port
has any, and what the control thread changes tables with.

Used by worker.py (``start``, before the switch starts) and control (``stages``, when the first port
needs them). Uses staging.py and ports.tunnel_code.

The first start with new sources takes as long as the compiler. A switch whose configuration has
stages has a second process compile this while the first one compiles the loop; both leave the code
in the cache. Others start without it, and have it compiled when they have been there for a while,
by a process that leaves the processor to everybody else. Whoever needs it earlier waits until that
process has ended, and compiles by itself what it has not left (late, but right).
"""

import asyncio
import atexit
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from byway.machine.jit import INTERPRETED, Native, is_cached, prepare
from byway.ports.tunnel_code import tunnels
from byway.switch import events, groups_control, population
from byway.worker.staging import rx_stages, tx_stages

# What control calls, where it has to do with stages.
TABLES: tuple[Any, ...] = (*population.ENTRIES, *events.ENTRIES, *groups_control.ENTRIES)
_COMPILE = "import os; os.nice({}); from byway.worker.units import compile_all; compile_all()"
POLL_SECONDS = 0.05
_LAST = 19  # nice(2): whoever else wants the processor has it


@functools.cache
def stages() -> tuple[Native, Native]:
    """The stages of what comes in (rx), and of what goes out (tx)."""
    return Native(rx_stages, 3), Native(tx_stages, 5)


def compile_all() -> None:
    """Have everything of this in the cache, and in memory."""
    for code in (*stages(), *tunnels()):
        assert code.address
    prepare(TABLES)


def all_cached() -> bool:
    """Need nothing of this be compiled?"""
    natives = all(code.cached for code in (*stages(), *tunnels()))
    return natives and (INTERPRETED or all(map(is_cached, TABLES)))


class _Compiling:
    """The process that compiles, of which there is one at the most."""

    process: "subprocess.Popen[bytes] | None" = None
    patient = False
    made = False  # is all in the cache?


def start(progress: Callable[[str], None] | None = None, *, patient: bool = False) -> None:
    """Have another process compile, if anything is to be; ``patient``: in time that nobody else
    wants. Returns at once. Idempotent."""
    if _Compiling.process or all_cached():
        return
    _Compiling.patient = patient
    if progress:
        progress("compiling stages beside (first run with these sources)")
    _Compiling.process = subprocess.Popen(
        [sys.executable, "-c", _COMPILE.format(_LAST if patient else 0)], stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    atexit.register(_end)


async def made() -> None:
    """Returns when all of it is in the cache; the control thread goes on meanwhile. A process that
    is patient ends, and another one goes on with what it has left in the cache."""
    if _Compiling.made or all_cached():
        _Compiling.made = True
        return
    if _Compiling.patient:
        _end()
        _Compiling.process = None
    start()
    while _Compiling.process and _Compiling.process.poll() is None:
        await asyncio.sleep(POLL_SECONDS)
    _Compiling.made = True


def finish() -> None:
    """Returns when all of it is there. Idempotent."""
    if _Compiling.process:
        _Compiling.process.wait()
        atexit.unregister(_end)
        _Compiling.process = None
    compile_all()


def _end() -> None:
    if _Compiling.process:
        _Compiling.process.kill()
        _Compiling.process.wait()
