# SPDX-License-Identifier: Apache-2.0
"""Runs network functions as they stand, in plain Python: slow and obvious.

Part of the author's page. Used by authors' tests and debuggers, and by tests that compare compiled
functions with it. Uses function.py, frame.py, running.py.

    plain = nf.Plain(RateGuard, limit=2)
    [outcome] = plain.run([frame_bytes], port=1)
    outcome.verdict == nf.PASS; outcome.frame; plain.instances[0].table

What goes wrong while a function runs (a division by zero, an index out of range, more rounds
and calls than the budget) drops the frame, as in the switch. Any other exception is the function's
defect and is raised as it is.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from byway.nf.counted import counted
from byway.nf.frame import Frame
from byway.nf.function import Definition, definition
from byway.nf.outcome import Fault, Outcome
from byway.nf.problem import FunctionError, Problem
from byway.nf.running import RUN, Run
from byway.nf.verdicts import DROP, MOST_PORTS, PASS, Verdict

DIVISION, INDEX, BUDGET, SHIFT, VERDICT = (
    "division by zero", "index out of range", "work budget used up", "negative shift",
    "a port that there cannot be")


class BudgetUsed(Exception):
    """A function's loops and calls were more than its budget."""


class _Instance:
    """A function at work: the author's object, its time and chance, its budget."""

    def __init__(self, cls: type, given: Mapping[str, Any], ports: Mapping[str, int],
                 seed: int) -> None:
        self.definition: Definition = definition(cls)
        self.left = 0
        made: Callable[..., Any] = counted(cls, self._spend)
        self.thing = made(**given)
        self.run = Run(random=seed)
        for each in self.definition.parameters:
            value = getattr(self.thing, each.name)
            if each.kind == "port" and value.name:
                setattr(self.thing, each.name, type(value)(value, ports.get(value.name, -1)))

    def _spend(self) -> None:
        if self.left == 0:
            raise BudgetUsed
        self.left -= 1

    def entry(self, direction: str) -> Callable[[Frame], Verdict] | None:
        """The method for frames of a direction, if it has one."""
        name = "process" if "process" in self.definition.entries else direction
        found: Callable[[Frame], Verdict] | None = getattr(self.thing, name, None)
        return found

    def say(self, frame: Frame, now: int, direction: str) -> tuple[Verdict, Fault | None]:
        """What the function says of a frame, or what went wrong."""
        entry = self.entry(direction)
        if entry is None:
            return PASS, None
        self.left = self.definition.budget + 1  # the call of the entry costs nothing
        self.run.now = now
        RUN.set(self.run)  # and it stays: who looks at state afterwards sees it at that time
        try:
            verdict = entry(frame)
        except ZeroDivisionError as error:
            return DROP(""), self._fault(DIVISION, error)
        except IndexError as error:
            return DROP(""), self._fault(INDEX, error)
        except BudgetUsed as error:
            return DROP(""), self._fault(BUDGET, error)
        except ValueError as error:
            if str(error) != "negative shift count":
                raise
            return DROP(""), self._fault(SHIFT, error)
        if not isinstance(verdict, Verdict):
            raise FunctionError([Problem(
                self.definition.file, self.definition.line,
                f"{self.definition.name} answers {verdict!r}, which is no verdict",
                "return nf.PASS, nf.DROP(...) or another verdict on every way through it")])
        if verdict.kind == "redirect" and not -1 <= verdict.port < MOST_PORTS:
            return DROP(""), Fault(VERDICT, self.definition.file, 0)
        return verdict, None

    def _fault(self, kind: str, error: BaseException) -> Fault:
        """Where the author's source went wrong: the innermost line that is no part of Byway's."""
        place = self.definition.file, self.definition.line
        trace = error.__traceback__
        while trace is not None:
            if not trace.tb_frame.f_globals.get("__name__", "").startswith("byway.nf."):
                place = trace.tb_frame.f_code.co_filename, trace.tb_lineno
            trace = trace.tb_next
        return Fault(kind, *place)


class Plain:
    """A chain of functions, each with its own state, run in plain Python.

    ``functions``: one class, or a list of classes or (class, parameters). ``ports``: numbers of the
    ports that parameters name. ``seed``: where chance begins.
    """

    def __init__(self, functions: Any, *, ports: Mapping[str, int] | None = None, seed: int = 1,
                 **parameters: Any) -> None:
        chain = functions if isinstance(functions, list) else [(functions, parameters)]
        pairs = [each if isinstance(each, tuple) else (each, {}) for each in chain]
        self._chain = [_Instance(cls, given, ports or {}, seed) for cls, given in pairs]

    @property
    def instances(self) -> list[Any]:
        """The functions' objects, in the chain's order: their state can be looked at and filled."""
        return [each.thing for each in self._chain]

    def run(self, frames: Iterable[bytes], *, port: int = 1, network: int = 1, vni: int = 0,
            now: int = 0, direction: Literal["rx", "tx"] = "rx") -> list[Outcome]:
        """What becomes of frames that come one after the other. ``now``: nanoseconds."""
        return [self._one(Frame(data, port=port, network=network, vni=vni, direction=direction),
                          now, direction)
                for data in frames]

    def frame(self, frame: Frame, now: int = 0, direction: Literal["rx", "tx"] = "rx") -> Outcome:
        """What becomes of one frame, which stays as the chain left it."""
        return self._one(frame, now, direction)

    def _one(self, frame: Frame, now: int, direction: str) -> Outcome:
        mirrors: list[int] = []
        verdict, fault = PASS, None
        for each in self._chain:
            verdict, fault = each.say(frame, now, direction)
            if verdict.kind == "clone":
                frame.send_copy(verdict.port)
            elif verdict.kind == "mirror":
                mirrors.append(verdict.port)
            elif verdict.kind != "pass":
                break
        if verdict.kind == "reply":
            frame.swap_eth()
        goes = verdict.kind != "drop" and (verdict.kind != "redirect" or verdict.port >= 0)
        for port in mirrors if goes else ():
            frame.send_copy(port)
        return Outcome(verdict, bytes(frame), tuple(frame.copies), fault)
