# SPDX-License-Identifier: Apache-2.0
"""Explains what functions do with one frame, in a process of its own: an order in, an answer out.

Used by control (function_trace) and by nobody else; uses finding, trace and nf.

The functions run as they stand, in plain Python, in this process, with parameters and tables as
their instances have them now. So nothing in the switch sees the frame. Both texts are JSON:

    order:  {"steps": [{"name", "use", "parameters", "files": {path: digest}, of what runs}],
             "tables": [[number of the step, name, [{"key", "value"}, ...]], ..., null],
             "frame": hexadecimal digits, "direction", "port", "network", "vni", "now", "ports"}
    answer: {"steps": [{"name", "verdict", "reason", "port", "fault", "changed", "copies"}],
             "frame": as the last of them left it}, or {"problem", "fix"}

``changed``: {header field: [before, after]}, null where it is 0. Steps after the one that
ended the frame's way are left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byway.functions.confined import answer
from byway.functions.finding import find
from byway.functions.trace import headers_of
from byway.nf.outcome import Outcome
from byway.nf.plain import Plain
from byway.nf.problem import FunctionError, Problem

_GOES_ON = ("pass", "mirror", "clone")


def trace(order: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out an order; -> the answer."""
    try:
        return _traced(order)
    except FunctionError as error:
        first = error.problems[0]
        return {"problem": f"{first.place}: {first.message}", "fix": first.fix}


def _traced(order: Mapping[str, Any]) -> dict[str, Any]:
    frame = bytes.fromhex(order["frame"])
    where = {key: order[key] for key in ("port", "network", "vni", "direction")}
    steps = []
    tables: dict[int, list[Any]] = {}
    for number, name, rows in order["tables"][:-1]:
        tables.setdefault(number, []).append((name, rows))
    for number, step in enumerate(order["steps"]):
        cls, files = find(step["use"], Path("/"))
        if files != step.get("files", files):
            raise FunctionError([Problem(step["use"], 0, "the file is another one than what runs",
                                         "have it run with `byway nf reload` first")])
        plain = Plain([(cls, step["parameters"])], ports=order["ports"])
        for name, rows in tables.get(number, ()):
            state = getattr(plain.instances[0], name)
            for row in rows:
                state.put(row["key"], row["value"])
        (outcome,) = plain.run([frame], now=order["now"], **where)
        before, after = (headers_of(one, len(one), order["direction"])
                         for one in (frame, outcome.frame))
        steps.append(_told(step["name"], outcome, before, after))
        frame = outcome.frame
        if outcome.verdict.kind not in _GOES_ON or outcome.fault:
            break
    return {"steps": steps, "frame": frame.hex()}


def _told(name: str, outcome: Outcome, before: Mapping[str, Any],
          after: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "verdict": outcome.verdict.kind, "reason": outcome.verdict.reason,
            "port": outcome.verdict.port, "fault": str(outcome.fault) if outcome.fault else None,
            "changed": {name: [before.get(name), after.get(name)] for name in {**before, **after}
                        if before.get(name) != after.get(name)},
            "copies": [[port, len(copy)] for port, copy in outcome.copies]}


def main() -> None:
    """The process: one order, one answer."""
    answer(trace)
