# SPDX-License-Identifier: Apache-2.0
"""Listeners of network functions: their processes come, go, and are started again."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from byway.control import function_listeners
from byway.control.function_listeners import Listeners

SECONDS = 30.0


def command(folder: Path, text: str) -> tuple[str, ...]:
    """What writes a line into a file for each start, then runs ``text``."""
    file = str(folder / "starts")
    said = f"import sys; open({file!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))"
    return sys.executable, "-c", f"{said}\n{text}"


def starts(folder: Path) -> list[str]:
    file = folder / "starts"
    return file.read_text().splitlines() if file.exists() else []


def running(listeners: Listeners) -> int:
    """How many it knows to run: a process may have said so before."""
    return [one["state"] for one in listeners.shown.values()].count("running")


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not true():
            await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_one_for_each_instance(tmp_path: Path) -> None:
    async def go() -> None:
        listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 9,
                              command(tmp_path, "import time; time.sleep(60)"))
        listeners.follow({"a": 1, "vm1/b": 1})
        await until(lambda: len(starts(tmp_path)) == 2 and running(listeners) == 2)
        assert sorted(starts(tmp_path)) == [
            "a --api /run/api.sock", "vm1/b --api /run/api.sock"]
        pid = listeners.shown["a"]["pid"]
        listeners.follow({"a": 1, "vm1/b": 2})  # only this one is another now
        await until(lambda: len(starts(tmp_path)) == 3)
        assert listeners.shown["a"]["pid"] == pid
        listeners.follow({"a": None, "vm1/b": 2, "c": None})
        await until(lambda: not Path(f"/proc/{pid}").exists())
        assert list(listeners.shown) == ["vm1/b"]
        await listeners.close()
        assert listeners.shown == {}

    run(go)


def test_one_that_ends_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_listeners, "FIRST_WAIT", 0.01)

    async def go() -> None:
        listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 9,
                              command(tmp_path, "sys.exit(3)"))
        listeners.follow({"a": 1})
        await until(lambda: len(starts(tmp_path)) == 3)
        assert listeners.shown["a"]["last"] == "ended with status 3"
        assert listeners.shown["a"]["starts"] >= 3
        await listeners.close()

    run(go)


async def stubborn(folder: Path) -> Listeners:
    """Listeners of which "a" runs and does not end when it is told to; it writes that it was."""
    lines = ("import signal, time\n"
             f"told = lambda *_: open({str(folder / 'told')!r}, 'w').close()\n"
             "signal.signal(signal.SIGTERM, told)\n"
             f"open({str(folder / 'deaf')!r}, 'w').close(); time.sleep(60)")
    listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 9, command(folder, lines))
    listeners.follow({"a": 1})
    await until(lambda: (folder / "deaf").exists() and running(listeners) == 1)
    return listeners


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_listeners, "END_SECONDS", 0.05)

    async def go() -> None:
        listeners = await stubborn(tmp_path)
        pid = listeners.shown["a"]["pid"]
        await listeners.close()
        assert not Path(f"/proc/{pid}").exists()

    run(go)


def test_one_that_goes_while_it_is_to_be_another_is_killed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_listeners, "END_SECONDS", 1000.0)

    async def go() -> None:
        listeners = await stubborn(tmp_path)
        pid = listeners.shown["a"]["pid"]
        listeners.follow({"a": 2})
        await until((tmp_path / "told").exists)
        listeners.follow({"a": None})
        await listeners.close()
        try:
            assert not Path(f"/proc/{pid}").exists()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    run(go)


def test_one_that_goes_as_soon_as_it_is_another_is_not_waited_for(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_listeners, "FIRST_WAIT", 1000.0)

    async def go() -> None:
        listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 9,
                              command(tmp_path, "sys.exit(3)"))
        listeners.follow({"a": 1})
        await until(lambda: listeners.shown["a"]["state"] == "waiting")
        listeners.follow({"a": 2})
        listeners.follow({"a": None})
        async with asyncio.timeout(SECONDS):
            await listeners.close()
        assert len(starts(tmp_path)) == 1

    run(go)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    async def go() -> None:
        listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 9,
                              (str(tmp_path / "none"),))
        listeners.follow({"a": 1})
        await until(lambda: listeners.shown["a"]["last"] is not None)
        assert "could not be started: No such file" in listeners.shown["a"]["last"]
        await listeners.close()

    run(go)


def test_where_no_thread_can_be_had_it_is_tried_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio waits for each process in a thread; there may be a limit for those."""
    monkeypatch.setattr(function_listeners, "FIRST_WAIT", 0.01)
    start = asyncio.create_subprocess_exec

    async def refused(*_: object, **__: object) -> None:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)

    async def go() -> None:
        listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 9,
                              command(tmp_path, "import time; time.sleep(60)"))
        listeners.follow({"a": 1})
        await until(lambda: listeners.shown["a"]["last"] is not None)
        assert listeners.shown["a"]["last"] == "could not be started: can't start new thread"
        await until(lambda: running(listeners) == 1)
        await listeners.close()

    run(go)


def test_a_few_a_second_and_not_too_many(tmp_path: Path) -> None:
    async def go() -> None:
        loop = asyncio.get_running_loop()
        listeners = Listeners(loop, "/run/api.sock", 3,
                              command(tmp_path, "import time; time.sleep(60)"))
        began = loop.time()
        listeners.follow({f"vm{k}/log": 1 for k in range(200)})
        await until(lambda: len(starts(tmp_path)) == 3 and running(listeners) == 3)
        assert loop.time() - began >= 2 * function_listeners.START_SECONDS
        states = [one["state"] for one in listeners.shown.values()]
        assert (states.count("running"), states.count("held back")) == (3, 197)
        assert "3 listeners at the most (switch.listeners)" in listeners.shown["vm199/log"]["last"]
        listeners.follow({"vm0/log": None, "vm3/log": None})
        await until(lambda: len(starts(tmp_path)) == 4)
        assert listeners.shown["vm4/log"]["last"] is None
        assert len(listeners.shown) == 198
        await listeners.close()
        assert listeners.shown == {}

    run(go)


def test_one_that_is_begun_anew_keeps_its_place(tmp_path: Path) -> None:
    async def go() -> None:
        listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 1,
                              command(tmp_path, "import time; time.sleep(60)"))
        listeners.follow({"a": 1})
        await until(lambda: running(listeners) == 1)
        pid = listeners.shown["a"]["pid"]
        listeners.follow({"b": 1})
        await until(lambda: listeners.shown["b"]["state"] == "held back")
        listeners.follow({"a": 2})
        await until(lambda: listeners.shown["a"]["pid"] not in {pid, None})
        assert not Path(f"/proc/{pid}").exists()
        assert [one["state"] for one in listeners.shown.values()] == ["running", "held back"]
        assert (listeners.shown["a"]["starts"], listeners.shown["a"]["last"]) == (1, None)
        listeners.follow({"a": None})
        await until(lambda: listeners.shown["b"]["state"] == "running")
        await listeners.close()

    run(go)


def test_one_that_fails_holds_up_nobody_while_it_waits(tmp_path: Path) -> None:
    async def go() -> None:
        listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 1, command(
            tmp_path, "import time; sys.exit(3) if sys.argv[1] == 'bad' else time.sleep(60)"))
        listeners.follow({"bad": 1, "good": 1})
        await until(lambda: listeners.shown["good"]["state"] == "running")
        await until(lambda: listeners.shown["bad"]["state"] == "held back")
        await listeners.close()

    run(go)


def test_no_listeners_at_all(tmp_path: Path) -> None:
    async def go() -> None:
        listeners = Listeners(asyncio.get_running_loop(), "/run/api.sock", 0,
                              command(tmp_path, "pass"))
        listeners.follow({"a": 1})
        await until(lambda: listeners.shown["a"]["state"] == "held back")
        await listeners.close()
        assert starts(tmp_path) == []

    run(go)
