# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: where they are found, how a piece of work is done in one, when one goes.

Used by ports that live in another namespace than the switch; imports neither NumPy nor Numba.
Source: setns(2), inotify(7), pidfd_open(2), ip-netns(8).

The namespace of a thread is that in which it opens sockets and /dev/net/tun; what was opened works
wherever it is used. So work is done in a thread of its own that changes over and ends: nothing else
in the process moves. A socket keeps the namespace in which it was opened alive; whoever has one
there must close it when the namespace's name is removed, which ``Watch`` tells.
"""

import ctypes
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

NAMED = "/run/netns"  # where ip-netns(8) keeps names
_CLONE_NEWNET = 0x40000000
_IN_MOVED_FROM, _IN_DELETE = 0x40, 0x200
_PROCESS = re.compile(r"/proc/([0-9]+)/(?:task/[0-9]+/)?ns/net")

T = TypeVar("T")


class NoNamespaceError(OSError):
    """A namespace cannot be entered; the errno says why."""


def path_of(namespace: str) -> str:
    """The file of a namespace: ``namespace`` is a name of ip-netns(8), or an absolute path."""
    return os.path.join(NAMED, namespace)


def inside(namespace: str | None, work: Callable[[], T]) -> T:
    """What ``work`` answers, or raises, in a network namespace (None: the switch's own).

    NoNamespaceError (an OSError) where there is none, or it may not be entered (CAP_SYS_ADMIN).
    """
    if namespace is None:
        return work()
    path = path_of(namespace)
    answers: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            _enter(path)
            answers.append(work())
        except BaseException as error:  # raised again in the thread that asked
            problems.append(error)

    thread = threading.Thread(target=run, name="byway-netns")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return answers[0]


def _enter(path: str) -> None:
    """Change this thread over to the namespace of that file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoNamespaceError(error.errno, error.strerror, path) from None
    try:
        _call("setns", file, _CLONE_NEWNET)
    except OSError as error:
        raise NoNamespaceError(error.errno, error.strerror, path) from None
    finally:
        os.close(file)


def _call(name: str, *arguments: int | bytes) -> int:
    """A function of the C library that answers -1 and errno where it fails (OSError)."""
    answer = int(ctypes.CDLL(None, use_errno=True)[name](*arguments))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer


class Watch:
    """Readable (``fileno``) when a namespace's name may be gone: ask ``gone`` then.

    A process's namespace (/proc/PID/ns/net) goes with the process, every other with its name in
    its directory. OSError where it is not there to begin with.
    """

    def __init__(self, namespace: str) -> None:
        self._path = path_of(namespace)
        process = _PROCESS.fullmatch(self._path)
        if process:
            self._fd = os.pidfd_open(int(process[1]))
        else:
            self._fd = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not process:
                folder = os.fsencode(os.path.dirname(self._path))
                _call("inotify_add_watch", self._fd, folder, _IN_MOVED_FROM | _IN_DELETE)
            self._identity = self._inode()
        except OSError:
            self.close()
            raise

    def _inode(self) -> tuple[int, int]:
        found = os.stat(self._path)
        return found.st_dev, found.st_ino

    def fileno(self) -> int:
        """What is to be watched for reading."""
        return self._fd

    def gone(self) -> bool:
        """Is the namespace of that name no longer the one that it was?"""
        with suppress(OSError):  # EAGAIN: no more news; EINVAL: a process has none but its end
            while os.read(self._fd, 65536):
                continue
        try:
            return self._inode() != self._identity
        except OSError:
            return True

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
