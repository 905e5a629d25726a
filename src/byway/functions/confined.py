# SPDX-License-Identifier: Apache-2.0
"""A process that runs authors' files: what it may use, and how it answers.

Used by build.py and tracing.py. Uses nothing.

An author's file is trusted, but it has mistakes: it prints for ever, fills the memory, starts
processes. None of that may be the switch's trouble. So such a process has limits for memory and for
what it writes to a file (its standard output and error are files without a name), it is the first
to go where the machine has no memory left, and only the process itself answers, not a copy of it.
Control ends it, and all that it has started, when its time is over (function_process).
"""

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MEMORY = 4 << 30  # bytes of its own; the compiler needs some hundred MiB
_WRITTEN = 64 << 20  # bytes of one file
_FIRST = "1000"  # of processes that are ended where memory lacks


def answer(carry_out: Callable[[Any], Any]) -> None:
    """Read an order, have it carried out, write the answer; both JSON."""
    _limit()
    process = os.getpid()
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an author's file prints is no part of the answer
    done = json.dumps(carry_out(json.load(sys.stdin)))
    if os.getpid() != process:
        os._exit(0)
    told.write(done)
    told.close()


def _limit() -> None:
    for what, most in ((resource.RLIMIT_DATA, _MEMORY), (resource.RLIMIT_FSIZE, _WRITTEN),
                       (resource.RLIMIT_CORE, 0)):
        soft, hard = resource.getrlimit(what)
        allowed = [one for one in (most, soft, hard) if one != resource.RLIM_INFINITY]
        resource.setrlimit(what, (min(allowed), hard))
    with contextlib.suppress(OSError):  # where /proc is not there to be written to
        Path("/proc/self/oom_score_adj").write_text(_FIRST)
