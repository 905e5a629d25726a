# SPDX-License-Identifier: Apache-2.0
"""A process that does one thing with users' functions: an order in, an answer out, both JSON.

Used by function_library (build) and function_trace. The control thread never waits for it.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from byway.control.problem import EngineError

_SHOWN = 2000  # characters of what a process said before it died


async def ask(command: Sequence[str], order: Mapping[str, Any], what: str,
              seconds: float) -> dict[str, Any]:
    """Have a process carry out an order; ``what`` it does, in words. EngineError: it does not end
    in time, or ends badly."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    try:
        out, said = await asyncio.wait_for(
            process.communicate(json.dumps(order).encode()), seconds)
    except TimeoutError:
        raise EngineError(f"{what} took longer than {seconds:.0f} seconds",
                          "see what the files do when they are imported") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        text = said.decode(errors="replace")[-_SHOWN:].strip()
        raise EngineError(f"{what} ended with status {process.returncode}: {text}",
                          "try `byway nf check` on the files")
    answer: dict[str, Any] = json.loads(out)
    return answer
