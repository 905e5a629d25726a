# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: where they are found, and how a piece of work is done in one.

Used by ports that live in another namespace than the switch; imports neither NumPy nor Numba.
Source: setns(2), ip-netns(8).

The namespace of a thread is that in which it opens sockets and /dev/net/tun; what was opened works
wherever it is used. So work is done in a thread of its own that changes over and ends: nothing else
in the process moves. A socket keeps the namespace in which it was opened alive; whoever has one
there must close it when the namespace's name is removed (ports.namespaces tells).
"""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

NAMED = "/run/netns"  # where ip-netns(8) keeps names
_CLONE_NEWNET = 0x40000000

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
        failed = ctypes.CDLL(None, use_errno=True).setns(file, _CLONE_NEWNET)
        problem = ctypes.get_errno() if failed else 0
    finally:
        os.close(file)
    if problem:
        raise NoNamespaceError(problem, os.strerror(problem), path)


def identity(namespace: str) -> tuple[int, int]:
    """What tells a namespace from all others that are there: it may be made anew under its name.
    OSError where there is none."""
    found = os.stat(path_of(namespace))
    return found.st_dev, found.st_ino
