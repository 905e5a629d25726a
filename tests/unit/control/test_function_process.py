# SPDX-License-Identifier: Apache-2.0
"""Processes that run authors' files end in time, with all that they have started, and whatever
they print, the switch hears a bounded part of it."""

import asyncio
import os
import resource
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from byway.control.function_process import aside, ask
from byway.control.problem import EngineError

T = TypeVar("T")
ANSWER = "from byway.functions.confined import answer\n"
PLAIN = ANSWER + "answer(lambda order: {'got': order})"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def asked(program: str, seconds: float = 30.0, **order: Any) -> dict[str, Any]:
    return run(ask((sys.executable, "-c", program), order, "a trial", seconds))


def gone(process: int) -> bool:
    """Has it ended? (It may still be there for its parent to ask.)"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def ends(process: int) -> bool:
    until = time.monotonic() + 30
    while not gone(process) and time.monotonic() < until:
        os.sched_yield()
    return gone(process)


def test_an_order_and_its_answer() -> None:
    many = ["x" * 100] * 10_000
    assert asked(PLAIN, many=many) == {"got": {"many": many}}


def test_no_file_is_left_open() -> None:
    asked(PLAIN)
    before = len(os.listdir("/proc/self/fd"))
    asked(PLAIN)
    with pytest.raises(EngineError):
        asked("import sys; sys.exit(1)")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("program", "told"), [
    ("import sys; sys.exit('no room')", "a trial ended with status 1: no room"),
    ("import os; os._exit(0)", "a trial gave no answer"),
    ("print('{')", "a trial gave no answer"),
    ("print('[1]')", "a trial gave no answer"),
    ("import os; os.kill(os.getpid(), 11)", "a trial ended with status -11"),
    ("import time; time.sleep(100)", "a trial took longer than 1 seconds"),
    ("import os, time\nfor _ in range(2000): os.write(2, b'x' * 1000)\ntime.sleep(100)",
     "a trial took longer than 1 seconds"),
])
def test_one_that_ends_badly(program: str, told: str) -> None:
    with pytest.raises(EngineError) as error:
        asked(program, 1.0 if "sleep" in program else 30.0)
    assert str(error.value).startswith(told)
    assert error.value.fix


def test_one_that_cannot_be_started() -> None:
    with pytest.raises(EngineError, match="gave no answer"):
        run(ask(("/no/such/program",), {}, "a trial", 5.0))


def test_an_end_by_itself_ends_what_it_started(tmp_path: Path) -> None:
    """A child that holds all files of the process open is not waited for."""
    program = (ANSWER + "import subprocess\nchild = subprocess.Popen(['sleep', '300'])\n"
               "answer(lambda order: {'child': child.pid})")
    began = time.monotonic()
    assert ends(asked(program)["child"])
    assert time.monotonic() - began < 60


def test_no_thread_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    with pytest.raises(EngineError, match="can't start new thread"):
        asked(PLAIN)


def test_an_end_by_its_time_ends_what_it_started(tmp_path: Path) -> None:
    place = tmp_path / "child"
    program = ("import subprocess, time\nchild = subprocess.Popen(['sleep', '300'])\n"
               f"open({str(place)!r}, 'w').write(str(child.pid))\ntime.sleep(300)")
    seconds = 1.0
    while not (place.exists() and place.read_text()):  # it had not come so far
        with pytest.raises(EngineError, match="took longer"):
            asked(program, seconds)
        seconds *= 2
    assert ends(int(place.read_text()))


def test_only_one_of_two_processes_answers() -> None:
    program = ANSWER + "import os\nanswer(lambda order: [os.fork(), {'n': 1}][1])"
    assert asked(program) == {"n": 1}


def test_a_flood_of_output_is_bounded() -> None:
    """The process hears of it as an error, and the switch keeps nothing of it."""
    program = ANSWER + """
def flood(order):
    import sys
    try:
        while True:
            sys.stdout.write("x" * (1 << 20))
            sys.stdout.flush()
    except OSError as error:
        return {"error": error.errno}
answer(flood)
"""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert asked(program) == {"error": 27}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10


def test_memory_is_bounded() -> None:
    program = ANSWER + """
def fill(order):
    try:
        return {"length": len(bytearray(5 << 30))}
    except MemoryError:
        return {"length": 0}
answer(fill)
"""
    assert asked(program) == {"length": 0}


def test_one_that_ends_as_it_is_called_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants its answer any more."""
    waiting, ended = asyncio.Event(), asyncio.Event()

    class Process:
        pid = 1

        async def wait(self) -> int:
            waiting.set()
            await ended.wait()
            return 0

    async def started(*_: object, **__: object) -> Process:
        return Process()

    async def go() -> None:
        task = asyncio.create_task(ask(("program",), {}, "a trial", 1000.0))
        await waiting.wait()
        ended.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    run(go())


def test_work_that_is_done_as_it_is_called_off() -> None:
    threads: list[threading.Thread] = []
    done = threading.Event()

    def work() -> None:
        threads.append(threading.current_thread())
        done.wait()

    async def go() -> None:
        task = asyncio.create_task(aside(work, 1000.0))
        while not threads:
            await asyncio.sleep(0)
        done.set()
        threads[0].join()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(go())


def test_work_aside_returns_raises_or_is_left_alone() -> None:
    assert run(aside(lambda: 7, 5.0)) == 7
    with pytest.raises(ZeroDivisionError):
        run(aside(lambda: 1 // 0, 5.0))
    go = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            run(aside(go.wait, 0.05))
    finally:
        go.set()
