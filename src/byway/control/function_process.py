# SPDX-License-Identifier: Apache-2.0
"""What is done with users' functions beside the switch: in a process, or in a thread.

Used by function_library (build) and function_trace. The control thread never waits for it.

Theory of operation
-------------------
A process gets an order and gives an answer, both JSON (byway.functions.confined). Order, answer and
what it says beside are files in memory, without a name: nothing has to be fed or emptied, nobody
can hold up the control thread at the other end, and the process's limit for files bounds them. It
leads a group of its own, which is ended when it has ended or its time is over: what an author's
file has started goes with it.

What reads users' files without running them (are they what they were?) has a thread, which may
stand still for ever where a file system does. Nobody waits for that beyond its time.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from byway.control.problem import EngineError

T = TypeVar("T")
_SHOWN = 2000  # characters of what a process said before it died
_MOST = 64 << 20  # bytes of an answer
_FIX = "try `byway nf check` on the files"


async def ask(command: Sequence[str], order: Mapping[str, Any] | Sequence[bytes], what: str,
              seconds: float) -> dict[str, Any]:
    """Have a process carry out an order (or its JSON, in pieces); ``what`` it does, in words.
    EngineError: it does not end in time, or ends badly, or answers nothing."""
    files: list[int] = []
    try:
        for name in ("order", "answer", "said"):
            files.append(os.memfd_create(name, os.MFD_CLOEXEC))
        asked, answered, said = files
        await _write(asked, [json.dumps(order).encode()] if isinstance(order, Mapping) else order)
        status = await _ended(command, files, what, seconds)
        text = _end_of(said).decode(errors="replace")[-_SHOWN:].strip()
        if status:
            raise EngineError(f"{what} ended with status {status}: {text}", _FIX)
        size = os.fstat(answered).st_size
        answer = json.loads(os.pread(answered, size, 0) if size <= _MOST else b"")
        if not isinstance(answer, dict):
            raise ValueError("no answer")
        return answer
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: no thread to wait for it
        raise EngineError(
            f"{what} gave no answer ({error})",
            "see that the files neither end the process nor start others; " + _FIX) from None
    finally:
        for file in files:
            os.close(file)


async def _ended(command: Sequence[str], files: Sequence[int], what: str, seconds: float) -> int:
    """Run it to its end, and end whatever it has started; -> its status."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=files[0], stdout=files[1], stderr=files[2], start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    try:
        async with asyncio.timeout(seconds):  # wait_for loses a cancellation when it just ended
            return await process.wait()
    except TimeoutError:
        raise EngineError(f"{what} took longer than {seconds:.0f} seconds",
                          "see what the files do when they are imported") from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing is left of the group
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _write(file: int, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(file, view):]
        await asyncio.sleep(0)
    os.lseek(file, 0, os.SEEK_SET)


def _end_of(file: int) -> bytes:
    """Enough for what is shown of it."""
    size, most = os.fstat(file).st_size, 4 * _SHOWN
    return os.pread(file, most, max(size - most, 0))


async def aside(work: Callable[[], T], seconds: float) -> T:
    """What ``work`` returns or raises, in a thread that nobody waits for when the switch ends.
    TimeoutError: it takes longer."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()  # it can no longer be called off

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, name="files", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(done)
