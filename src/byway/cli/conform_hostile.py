# SPDX-License-Identifier: Apache-2.0
"""`byway conform backend --hostile` and `--replay`.

Used by conform. With --start the back end is a child process of ours, which is started again after
it broke, so that a finding can be made smaller.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

from byway.conform.backend.bench import Bench
from byway.conform.backend.hostile import Finding, Hunt, play, summary
from byway.conform.outcome import Failed

END_SECONDS = 5.0
START_SECONDS = 60.0


class Child:
    """The back end as a process in a group of its own."""

    def __init__(self, command: str, path: str) -> None:
        self._argv, self._path = shlex.split(command), path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it again, however it is, and wait for its socket."""
        self.stop()
        if os.path.exists(self._path):
            os.unlink(self._path)
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                         start_new_session=True)
        end = time.monotonic() + START_SECONDS
        while not os.path.exists(self._path) and time.monotonic() < end:
            if self._process.poll() is not None:
                return
            time.sleep(0.05)

    def stop(self) -> None:
        """End it. Idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._process = None


def run_hostile(bench: Bench, path: str, seed: int, cases: int, out: str, replay: str | None,
                start: str | None, as_json: bool) -> int:
    """Hunt, or do one finding again; -> the exit status."""
    child = Child(start, path) if start else None
    try:
        if child:
            try:
                child.start()
            except OSError as error:
                print(f"byway conform: --start {start}: {error.strerror}", file=sys.stderr)
                return 2
        if replay:
            return _again(bench, replay, as_json)
        return _hunt(Hunt(bench, child.start if child else None), cases, out, as_json)
    except Failed as error:
        print(f"byway conform: {error}", file=sys.stderr)
        return 1
    finally:
        bench.close()
        if child:
            child.stop()


def _again(bench: Bench, file: str, as_json: bool) -> int:
    try:
        finding = Finding.read(file)
    except ValueError as error:
        print(f"byway conform: {error}", file=sys.stderr)
        return 2
    what, text = play(bench, finding.acts)
    if as_json:
        print(json.dumps({"what": what, "text": text, "acts": len(finding.acts)}, indent=2))
    else:
        print(f"{len(finding.acts)} acts: {what + ': ' if what else 'still well: '}{text}")
    return int(bool(what))


def _hunt(hunt: Hunt, cases: int, out: str, as_json: bool) -> int:
    found: Finding | None = None
    for case, finding in hunt.cases(cases):
        if not as_json and sys.stderr.isatty():
            print(f"\rcase {case + 1} of {cases}", end="", file=sys.stderr, flush=True)
        if finding is not None:
            found = hunt.smaller(finding)
            found.write(out)
            break
    if as_json:
        print(json.dumps({"seed": hunt.bench.seed, **summary(hunt.ends),
                          "finding": out if found else None,
                          "what": found.what if found else None,
                          "text": found.text if found else None}, indent=2))
    elif found:
        smaller = "made smaller" if found.minimised else "not made smaller: it did not come back"
        print(f"FOUND in case {found.case} of seed {found.seed}: {found.what}: {found.text}\n"
              f"{len(found.acts)} acts ({smaller}) are in {out}; do them again with --replay {out}")
    else:
        ends = ", ".join(f"{kind} {n}" for kind, n in sorted(hunt.ends.items()))
        print(f"PASSED: {cases} spoiled conversations of seed {hunt.bench.seed}, and a frame "
              f"passed after each ({ends})")
    return int(found is not None)
