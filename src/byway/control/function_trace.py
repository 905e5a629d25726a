# SPDX-License-Identifier: Apache-2.0
"""What each network function of a port says of one frame, without the switch seeing it.

Used by function_answers. The functions run in plain Python, in a process of their own
(byway.functions.tracing), with parameters and tables as they are now. Tables may be large: they are
looked at and written down a few rows at a time.
"""

import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from byway.control.function_process import ask
from byway.control.problem import EngineError

Rows: TypeAlias = Callable[[str, str, int], AsyncIterator[list[dict[str, Any]]]]
TRACE_SECONDS = 60.0
MOST_ROWS = 100_000  # of a table, that a function finds there
_TRACE = (sys.executable, "-c", "from byway.functions.tracing import main; main()")
_TABLES = ("array", "lpm", "maglev", "map", "rules")  # kinds of states that have rows


async def trace(instances: Sequence[tuple[str, Any]], rows: Rows, frame: bytes,
                where: Mapping[str, Any]) -> dict[str, Any]:
    """``instances``: name and memory of those that have something to do, in order; ``rows``: of
    an instance's table, at most so many; ``where``: direction, port, network, vni, now, and ports
    by name. EngineError: it cannot be told."""
    steps = [{"name": name, "use": one.blueprint.use, "parameters": one.parameters,
              "files": dict(one.blueprint.files)} for name, one in instances]
    order = [json.dumps({"steps": steps, "frame": frame.hex(), **where}).encode()[:-1]]
    order += [b', "tables": [', *[piece async for piece in _rows(instances, rows)], b"null]}"]
    answer = await ask(_TRACE, order, "tracing a frame", TRACE_SECONDS)
    if "problem" in answer:
        raise EngineError(answer["problem"], answer["fix"])
    return answer


async def _rows(instances: Sequence[tuple[str, Any]], rows: Rows) -> AsyncIterator[bytes]:
    """Some rows of a table at a time, as JSON: [number of the step, table, rows], and a comma."""
    for number, (name, one) in enumerate(instances):
        for state, spec in one.blueprint.states.items():
            if spec["kind"] in _TABLES:
                async for some in rows(name, state, MOST_ROWS):
                    yield json.dumps([number, state, some]).encode() + b", "
