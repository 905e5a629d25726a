# SPDX-License-Identifier: Apache-2.0
"""A network function run over frames in one way, in a process of its own.

Used by function_check.py, which starts it. Uses nf.Plain, and functions.harness for the two other
ways: compiled, or interpreted where NUMBA_DISABLE_JIT says so.

An author's function may loop, raise, or bring the process down; here it hurts nobody. The process
reads one JSON document, a *request*, and answers with lines of JSON: one when the function is
ready or refused, one for each batch.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from byway.functions.finding import find
from byway.nf import FunctionError, Outcome, ParameterError, Plain

Way: TypeAlias = Literal["plain", "interpreted", "compiled"]
Line: TypeAlias = dict[str, Any]
FIRST_PORT = 10


@dataclass(frozen=True)
class Step:
    """Frames that come to the function together. ``now``: nanoseconds."""

    frames: tuple[bytes, ...]
    now: int
    port: int = 1
    direction: Literal["rx", "tx"] = "rx"

    def written(self) -> Line:
        """As JSON has it."""
        return {**asdict(self), "frames": [frame.hex() for frame in self.frames]}

    @classmethod
    def read(cls, line: Line) -> "Step":
        """From JSON."""
        return cls(**{**line, "frames": tuple(map(bytes.fromhex, line["frames"]))})


def request(way: Way, use: str, parameters: Line, steps: Sequence[Step]) -> str:
    """What the process is to do."""
    return json.dumps({"way": way, "use": use, "parameters": parameters,
                       "steps": [step.written() for step in steps]})


def answer(asked: Line, emit: Callable[[Line], None]) -> None:
    """Do what a request asks; ``emit`` gets the answer's lines."""
    began = time.perf_counter()
    try:
        run = _runner(asked["way"], asked["use"], asked["parameters"])
    except FunctionError as error:
        emit({"refused": [asdict(problem) for problem in error.problems]})
        return
    except ParameterError as error:
        emit({"refused": [{"file": "", "line": 0, "message": str(error), "fix": ""}]})
        return
    emit({"seconds": time.perf_counter() - began})
    for step in map(Step.read, asked["steps"]):
        try:
            # Plain Python may raise: then it is known with which frame.
            for frames in ([[f] for f in step.frames] if asked["way"] == "plain"
                           else [list(step.frames)]):
                emit({"outcomes": [written(one, step.port) for one in run(frames, step)]})
        except FunctionError as error:
            emit({"raised": error.problems[0].message, "at": _place(error.problems[0])})
            return
        except Exception as error:
            emit({"raised": f"{type(error).__name__}: {error}", "at": _raised_at(error)})
            return


def _runner(way: Way, use: str,
            parameters: Line) -> Callable[[list[bytes], Step], list[Outcome]]:
    cls = find(use, Path("/"))[0]
    # Whatever a parameter calls a port has a number.
    texts = [value for value in parameters.values() if isinstance(value, str)]
    ports = {name: FIRST_PORT + k for k, name in enumerate(texts)}
    runs: Any
    if way == "plain":
        runs = Plain(cls, ports=ports, **parameters)
    else:
        from byway.functions.harness import Harness

        runs = Harness(cls, ports=ports, **parameters)
    return lambda frames, step: list(runs.run(
        frames, port=step.port, now=step.now, direction=step.direction))


def written(outcome: Outcome, port: int) -> Line:
    """An outcome of a frame that came from ``port``, as JSON has it. ``same``: what two ways have
    to agree in. MIRROR and CLONE show by the copies alone, the bytes of a frame that is dropped or
    has no port to go to do not matter, and a REPLY is a redirect to where the frame came from."""
    verdict, fault = outcome.verdict, outcome.fault
    kind = "fault" if fault is not None else verdict.kind
    same: list[Any] = [kind]
    if fault is not None:
        same += [fault.kind, fault.line]
    elif kind == "drop":
        same += [verdict.reason]
    else:
        to = {"redirect": verdict.port, "reply": port}.get(kind, -1)
        gone = kind == "redirect" and to < 0
        same = ["pass" if to == -1 and not gone else "redirect", to,
                "" if gone else outcome.frame.hex(),
                sorted([number, copy.hex()] for number, copy in outcome.copies)]
    return {"kind": kind, "reason": verdict.reason, "same": same,
            "at": [fault.file, fault.line, fault.kind] if fault is not None else []}


def _place(problem: Any) -> list[Any]:
    return [problem.file, problem.line]


def _raised_at(error: Exception) -> list[Any]:
    """File and line of the author's source in which it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if "/byway/" not in one.filename] or frames
    return [own[-1].filename, own[-1].lineno or 0]


def _lines() -> Iterator[str]:
    yield from sys.stdin


def main() -> None:
    """Run as a process: the request on standard input, the answer on standard output. What the
    function's file prints goes to standard error."""
    out, sys.stdout = sys.stdout, sys.stderr

    def emit(line: Line) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    answer(json.loads("".join(_lines())), emit)
