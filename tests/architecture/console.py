# SPDX-License-Identifier: Apache-2.0
"""Runs the commands that the manual shows, and compares what they print with what it shows.

Used by test_docs.py, and by the tests of pages that need a peer. A page's ```console blocks are
one session, run in order in an empty folder that holds a copy of examples/, with .venv/bin on the
PATH:

    $ command            run by bash; must exit 0, unless the next command begins with `echo $?`
    $ command &          runs on; the next command waits for the output shown, or for a switch
                         that says it is up
    $ kill -TERM %1      signals the first background command (-KILL: and waits for its end); those
                         left get SIGTERM at the end
    $ export NAME=VALUE  holds for the commands that follow
    output               what it prints; `...` stands for anything; blanks count as one; a block
                         that shows no output after a command checks none

A ```toml block with title="FILE" is written to FILE first. A block after an HTML comment that
begins with "not run:" is left alone, and says why there. `/tmp/` in commands, files and output
stands for the session's own folder, so that a session never meets another one's sockets.
"""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from string import Template
from typing import Self

from tests.architecture.sources import ROOT

_BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<skip>[^>]+?) -->\s*\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)
_EXPORT = re.compile(r"export (?P<name>\w+)=(?P<value>\S+)")
_KILL = re.compile(r"kill -(?P<signal>\w+) %(?P<number>\d+)")
_TITLE = re.compile(r'title="([^"]+)"')
START_SECONDS = 300
COMMAND_SECONDS = 120
STOP_SECONDS = 10


@dataclasses.dataclass
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    body: str
    not_run: str | None
    line: int


@dataclasses.dataclass
class Step:
    """One command and the output shown under it."""

    command: str
    output: list[str] = dataclasses.field(default_factory=list)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        indent = len(match["indent"])
        title = _TITLE.search(match["info"])
        found.append(
            Block(
                match["language"],
                title[1] if title else None,
                "".join(line[indent:] + "\n" for line in match["body"].splitlines()),
                match["skip"],
                text.count("\n", 0, match.start("language")) + 1,
            )
        )
    return found


def steps(body: str) -> list[Step]:
    """The commands of a console block, continued lines joined."""
    made: list[Step] = []
    lines = iter(body.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines, "")
            made.append(Step(command))
        elif made:
            made[-1].output.append(line)
    return made


class Session:
    """A folder, and the background commands that were started in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="byway-docs-"))
        self._background: list[tuple[str, subprocess.Popen[str], Path]] = []
        self._status = 0
        shutil.copytree(ROOT / "examples", self.folder / "examples")
        for path in (self.folder / "examples").rglob("*.toml"):
            path.write_text(self._own(path.read_text()))
        (self.folder / "run").mkdir(mode=0o700)
        binaries = str(Path(sys.executable).parent)
        self.env = {
            **os.environ,
            "PATH": f"{binaries}:{os.environ.get('PATH', os.defpath)}",
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "COLUMNS": "120",
            "NO_COLOR": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            while self._background:
                self.stop()
        finally:
            for _, process, _ in self._background:
                process.kill()
                process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _own(self, text: str) -> str:
        return text.replace("/tmp/", f"{self.folder}/")

    def write(self, name: str, body: str) -> None:
        """Put a file of the page into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._own(body))

    def run_page(self, page: Path) -> None:
        """All blocks of a page that are to be run: its files are written, its commands run."""
        for block in blocks(page):
            if block.not_run:
                continue
            if block.title and block.language in {"toml", "python", "json"}:
                self.write(block.title, block.body)
            elif block.language == "console":
                todo = steps(block.body)
                for step, following in zip(todo, [*todo[1:], None], strict=True):
                    fails = following is not None and following.command.startswith("echo $?")
                    self.run(step, may_fail=fails)

    def run(self, step: Step, may_fail: bool) -> None:
        """One command; AssertionError where status or output is not what the page shows."""
        if exported := _EXPORT.fullmatch(step.command):
            shown = self._own(exported["value"])
            self.env[exported["name"]] = Template(shown).safe_substitute(self.env)
        elif job := _KILL.fullmatch(step.command):
            process = self._background[int(job["number"]) - 1][1]
            process.send_signal(signal.Signals[f"SIG{job['signal']}"])
            if job["signal"] == "KILL":
                process.wait(STOP_SECONDS)
        elif step.command.endswith("&"):
            self._start(step)
        else:
            command = f"(exit {self._status}); {self._own(step.command)}"
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, env=self.env, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=COMMAND_SECONDS, check=False,
            )
            self._status = done.returncode
            assert done.returncode == 0 or may_fail, (
                f"$ {step.command}\nexit status {done.returncode}\n{done.stdout}"
                f"{self._background_output()}"
            )
            self._compare(step, done.stdout)

    def _start(self, step: Step) -> None:
        log = self.folder / f"background-{len(self._background)}.log"
        command = self._own(step.command.removesuffix("&"))
        with log.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.env, text=True,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )
        self._background.append((step.command, process, log))
        ready = [line for line in step.output if line.strip()] or ["...is up:..."]
        pattern = re.compile("^" + _pattern(ready), re.DOTALL | re.MULTILINE)
        end = time.monotonic() + START_SECONDS
        while not pattern.search(log.read_text()):
            assert process.poll() is None, f"$ {step.command}\nended early\n{log.read_text()}"
            assert time.monotonic() < end, f"$ {step.command}\nnot ready\n{log.read_text()}"
            time.sleep(0.05)

    def stop(self) -> None:
        """End the last background command as an administrator would; it must end cleanly."""
        command, process, log = self._background.pop()
        if process.returncode == -signal.SIGKILL:
            return  # as the page shows
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"$ {command}\ndid not end\n{log.read_text()}") from None
        assert status == 0, f"$ {command}\nended with status {status}\n{log.read_text()}"

    def _compare(self, step: Step, output: str) -> None:
        shown = [self._own(line) for line in step.output if line.strip()]
        assert not shown or _matches(shown, output), (
            f"$ {step.command}\nthe page shows:\n" + "\n".join(shown) + f"\nit printed:\n{output}"
        )

    def _background_output(self) -> str:
        return "".join(f"\n--- {c}\n{log.read_text()}" for c, _, log in self._background)


def _matches(shown: list[str], output: str) -> bool:
    """Does the output begin with the lines shown? `...` is anything, also several lines."""
    return re.match(r"\s*" + _pattern(shown), output, re.DOTALL) is not None


def _pattern(shown: list[str]) -> str:
    return r"\s+".join(
        ".*?".join(re.escape(part) for part in word.split("..."))
        for line in shown
        for word in line.split()
    )
