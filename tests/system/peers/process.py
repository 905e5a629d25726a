# SPDX-License-Identifier: Apache-2.0
"""A child process with its output in a file, text to expect in it, and a clean end.

Used by every peer. The output goes straight to the file, so that a peer that prints a lot never
blocks on us; it runs in a process group of its own, which is what `stop` ends.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

POLL = 0.01  # seconds between two looks at the output
TAIL = 3000  # characters of output shown with a failure


class PeerError(Exception):
    """A peer did not do what it was asked; carries the end of its output."""


def wait_until(condition, what: str, timeout: float):  # type: ignore[no-untyped-def]
    """The first true result of `condition()`; PeerError naming `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise PeerError(f"not within {timeout:g} s: {what}")
        time.sleep(POLL)


class Process:
    """A peer's process. Starts at once; use it as a context manager, or call `stop`.

    `errors`: a file for what it writes to its standard error; without one, that is output too.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        errors: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self.mark = 0  # characters of output already expected
        with log.open("wb") as out, (errors or log).open("ab") as err:
            self.child = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err if errors else subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.child.pid

    @property
    def running(self) -> bool:
        """False once the child has ended."""
        return self.child.poll() is None

    def output(self) -> str:
        """Everything written so far; undecodable bytes become '?', carriage returns vanish."""
        return self.log.read_bytes().decode("utf-8", "replace").replace("\r", "")

    def skip(self) -> None:
        """Forget the output so far: the next `expect` looks only at what follows."""
        self.mark = len(self.output())

    def write(self, text: str) -> None:
        """Send text to the child's standard input."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(text.encode())
            self.child.stdin.flush()
        except BrokenPipeError as error:
            raise self.error(f"{text!r} could not be sent, it has gone") from error

    def expect(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """The next match of `pattern` (a regular expression, dots match newlines) in the output."""
        compiled = re.compile(pattern, re.DOTALL)
        end = time.monotonic() + timeout
        while True:
            running = self.running
            text = self.output()
            found = compiled.search(text, self.mark)
            if found:
                self.mark = found.end()
                return found
            if not running:
                raise self.error(f"ended with {self.child.returncode}, {pattern!r} never came")
            if time.monotonic() > end:
                raise self.error(f"{pattern!r} did not come within {timeout:g} s")
            time.sleep(POLL)

    def error(self, what: str) -> PeerError:
        """A PeerError that says what was wrong, with the command and the end of the output."""
        return PeerError(
            f"{self.name}: {what}\n$ {' '.join(self.argv)}\n"
            f"--- the end of its output ({self.log}):\n{self.output()[-TAIL:]}"
        )

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system, in seconds (proc(5), stat fields 14 and 15)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 10.0) -> int:
        """Send a signal and wait; SIGKILL to the group if that does not help. Its exit status."""
        if self.running:
            self.child.send_signal(how)
            try:
                self.child.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.child.wait()
        if self.child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.child.stdin.close()
        return self.child.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
