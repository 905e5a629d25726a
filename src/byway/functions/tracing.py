# SPDX-License-Identifier: Apache-2.0
"""Explains what functions do with one frame, in a process of its own: an order in, an answer out.

Used by control (function_trace) and by nobody else; uses finding, trace and nf.

The functions run as they stand, in plain Python, in this process, with parameters and tables as
their instances have them now. So nothing in the switch sees the frame. Both texts are JSON:

    order:  {"steps": [{"name", "use", "parameters", "tables": {name: [{"key", "value"}]}}],
             "frame": hexadecimal digits, "direction", "port", "network", "vni", "now", "ports"}
    answer: {"steps": [{"name", "verdict", "reason", "port", "fault", "changed", "copies"}],
             "frame": as the last of them left it}

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

_GOES_ON = ("pass", "mirror", "clone")


def trace(order: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out an order; -> the answer. Raises FunctionError."""
    frame = bytes.fromhex(order["frame"])
    where = {key: order[key] for key in ("port", "network", "vni", "direction")}
    steps = []
    for step in order["steps"]:
        cls, _ = find(step["use"], Path("/"))
        plain = Plain([(cls, step["parameters"])], ports=order["ports"])
        for name, rows in step["tables"].items():
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
