# SPDX-License-Identifier: Apache-2.0
"""Does a network function do the same in plain Python, interpreted and compiled, and does nothing
go wrong, over frames right, wrong and cut?

Used by `byway nf check`. Uses function_trial.py, in a process for each of the three ways, and
generated.py.

Theory of operation
-------------------
The same frames go through the function three times, in batches of different lengths with different
times between them, for both directions. The plain way is what the author meant; the compiled way is
what the switch runs; the interpreted way runs the translated source without the compiler, and so
tells whose fault a difference is. What the function drops, sends elsewhere or changes is its own
business; the three have to agree in it. What *goes wrong* (a division by zero, an index out of
range, a used-up budget) is found here, with the line and the frame, although in the switch it costs
no more than that frame.

A process that says nothing for QUIET seconds is ended: the function does not come back.
"""

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from byway.nf import Problem
from byway.testing.function_trial import Line, Step, Way, request

WAYS: tuple[Way, ...] = get_args(Way)
QUIET = 90.0  # seconds: the first compilation is long
SECOND = 10**9
PAUSES = (0, 0, 1000, 10**6, SECOND // 10, SECOND // 2, 2 * SECOND, 100 * SECOND)
BATCH = 64
PROGRAM = "from byway.testing.function_trial import main; main()"
SHOWN = 3  # of each kind of thing that is wrong
HEADERS = 96  # bytes of a frame that are shown


@dataclass(frozen=True)
class Finding:
    """Something that is wrong. ``frame``: the one that shows it, if there is one."""

    file: str
    line: int
    message: str
    frame: bytes = b""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.message}" + (f"; the frame: {_hex(self.frame)}" if self.frame else "")


@dataclass
class Report:
    """``problems``: why it was refused; ``findings``: what went wrong; ``verdicts``: of how many
    frames each was said; ``reasons``: of those dropped; ``seconds``: until it was compiled."""

    frames: int
    problems: list[Problem] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Is there nothing wrong with it?"""
        return not self.problems and not self.findings


def _hex(frame: bytes) -> str:
    """A frame's bytes; of a long one, the first."""
    more = f"... ({len(frame)} bytes)" if len(frame) > HEADERS else ""
    return frame[:HEADERS].hex() + more


def batches(frames: Sequence[bytes], seed: int) -> list[Step]:
    """The frames as they come to the function, in batches of 1 to 64 at a time."""
    rng = random.Random(seed)
    steps, at, now = [], 0, SECOND
    while at < len(frames):
        n = rng.choice((1, 2, 7, BATCH))
        now += rng.choice(PAUSES)
        steps.append(Step(tuple(frames[at : at + n]), now, rng.choice((1, 2, 3)),
                          rng.choice(("rx", "rx", "tx"))))
        at += n
    return steps


def check(use: str, parameters: dict[str, Any], frames: Sequence[bytes],
          seed: int = 1, ways: Sequence[Way] = WAYS) -> Report:
    """Run a function (``use`` as in a chain, absolute) over the frames in all ways; -> what is to
    be said of it."""
    steps = batches(frames, seed)
    report = Report(len(frames))
    trials = {way: _Trial(way, use, parameters, steps) for way in ways}
    for trial in trials.values():
        trial.read()
    for trial in trials.values():
        if trial.refused:
            report.problems = trial.refused
            return report
    report.seconds = trials[ways[-1]].seconds
    plain = trials[ways[0]]
    report.findings = [broken for way in ways if (broken := trials[way].broken) is not None]
    for outcome in plain.outcomes:
        report.verdicts[outcome["kind"]] += 1
        if outcome["kind"] == "drop":
            report.reasons[outcome["reason"]] += 1
    report.findings += _faults(plain.outcomes, frames)
    for way in ways[1:]:
        report.findings += _differences(plain, trials[way], frames)
    return report


def _faults(outcomes: Sequence[Line], frames: Sequence[bytes]) -> list[Finding]:
    """One finding for each place where something goes wrong, with the first frame that shows it."""
    first: dict[tuple[str, str, int], bytes] = {}
    times: Counter[tuple[str, str, int]] = Counter()
    for outcome, frame in zip(outcomes, frames, strict=False):
        if outcome["at"]:
            file, line, kind = outcome["at"]
            first.setdefault((kind, file, line), frame)
            times[kind, file, line] += 1
    return [Finding(file, line, f"{kind}, with {times[kind, file, line]} of {len(frames)} frames",
                    frame) for (kind, file, line), frame in first.items()]


def _differences(plain: "_Trial", other: "_Trial", frames: Sequence[bytes]) -> list[Finding]:
    """Where another way does otherwise than plain Python."""
    found = [Finding("", 0, f"plain Python: {_said(one)}; {other.way}: {_said(two)}", frame)
             for one, two, frame in zip(plain.outcomes, other.outcomes, frames, strict=False)
             if one["same"] != two["same"]]
    if len(found) > SHOWN:
        more = len(found) - SHOWN
        found[SHOWN:] = [Finding("", 0, f"{other.way}: {more} more frames with another outcome")]
    return found


def _said(outcome: Line) -> str:
    """What was said of a frame, in a few words."""
    what, *more = outcome["same"]
    if what == "fault":
        return f"{more[0]} in line {more[1]}"
    if what == "drop":
        return f"drop {more[0]!r}"
    to, frame, copies = more
    text = f"{what} to port {to}" if what == "redirect" else str(what)
    if copies:
        text += f", copies to {[number for number, _ in copies]}"
    return f"{text}, frame {_hex(bytes.fromhex(frame))}"


class _Trial:
    """The process of one way: what it answered, and how it ended."""

    def __init__(self, way: Way, use: str, parameters: dict[str, Any],
                 steps: Sequence[Step]) -> None:
        self.way = way
        self.seconds = 0.0
        self.ready = False
        self.refused: list[Problem] = []
        self.outcomes: list[Line] = []
        self.broken: Finding | None = None
        self._frames = [frame for step in steps for frame in step.frames]
        env = {**os.environ, "NUMBA_DISABLE_JIT": str(int(way != "compiled"))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=env, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._feed, args=(request(way, use, parameters, steps),)),
            threading.Thread(target=self._listen),
            threading.Thread(target=self._collect)]
        for thread in self._threads:
            thread.start()

    def _feed(self, text: str) -> None:
        assert self._process.stdin
        try:
            with self._process.stdin as pipe:
                pipe.write(text)
        except BrokenPipeError:
            self._errors.append("it ended before it had read what to do")

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _collect(self) -> None:
        assert self._process.stderr
        self._errors += self._process.stderr

    def read(self) -> None:
        """All that it answers, until it ends or says nothing for too long."""
        try:
            while line := self._lines.get(timeout=QUIET):
                self._take(json.loads(line))
        except queue.Empty:
            self._process.kill()
            self._broken(f"{self.way}: it does not come back")
        status = self._process.wait()
        for thread in self._threads:
            thread.join()
        if status and not self.broken:
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            last = self._errors[-1].strip() if self._errors else "it said nothing"
            self._broken(f"{self.way}: the process ended with {how}: {last}")

    def _take(self, line: Line) -> None:
        if "refused" in line:
            self.refused = [Problem(**one) for one in line["refused"]]
        elif "seconds" in line:
            self.ready, self.seconds = True, line["seconds"]
        elif "raised" in line:
            self._broken(f"{self.way}: {line['raised']}", *line["at"])
        else:
            self.outcomes += line["outcomes"]

    def _broken(self, message: str, file: str = "", line: int = 0) -> None:
        """It went no further than the frame at hand, or did not become ready at all."""
        at = len(self.outcomes) if self.ready else len(self._frames)
        frame = self._frames[at] if at < len(self._frames) else b""
        self.broken = Finding(file, line, message, frame)
