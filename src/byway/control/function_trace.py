# SPDX-License-Identifier: Apache-2.0
"""What each network function of a port says of one frame, without the switch seeing it.

Used by function_answers. The functions run in plain Python, in a process of their own
(byway.functions.tracing), with parameters and tables as they are now.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from byway.control.function_process import ask
from byway.control.problem import EngineError

TRACE_SECONDS = 60.0
MOST_ROWS = 100_000  # of a table, that a function finds there
_TRACE = (sys.executable, "-c", "from byway.functions.tracing import main; main()")
_TABLES = ("array", "lpm", "maglev", "map", "rules")  # kinds of states that have rows


async def trace(instances: Sequence[tuple[str, Any]], frame: bytes,
                where: Mapping[str, Any]) -> dict[str, Any]:
    """``instances``: name and memory of those that have something to do, in order; ``where``:
    direction, port, network, vni, now, and ports by name. EngineError: it cannot be told."""
    steps = [{
        "name": name, "use": one.blueprint.use, "parameters": one.parameters,
        "files": dict(one.blueprint.files),
        "tables": {state: one.states[state].dump(MOST_ROWS)
                   for state, spec in one.blueprint.states.items() if spec["kind"] in _TABLES}}
        for name, one in instances]
    answer = await ask(_TRACE, {"steps": steps, "frame": frame.hex(), **where},
                       "tracing a frame", TRACE_SECONDS)
    if "problem" in answer:
        raise EngineError(answer["problem"], answer["fix"])
    return answer
