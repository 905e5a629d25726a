# SPDX-License-Identifier: Apache-2.0
"""Tells ports when the name of a network namespace came or went: one for all ports of a switch.

Used by ports that have files in other namespaces; the engine has it (Host.namespaces). Sources:
inotify(7), pidfd_open(2), ip-netns(8).

Theory of operation
-------------------
A namespace has a name where its file is mounted: in a folder such as /run/netns, or, while a
process lives, at /proc/PID/ns/net. Of folders one inotify file tells about all the names in them
(a user has 128 such files, and may have thousands of ports); of processes a pidfd each. Who asked
about a name is called when something was made, removed or renamed at that name, or the process has
ended. What there is now he has to look at himself: a name that was just made is not a namespace
yet, and nothing tells of the mount that will make it one.

It all belongs to the control thread. Without watchers nothing is open.
"""

import ctypes
import os
import re
import struct
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from byway.machine.netns import path_of
from byway.machine.system import plain_syscall

_SYS_ADD_WATCH, _SYS_RM_WATCH, _SYS_INIT1 = 254, 255, 294
_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x40, 0x80, 0x100, 0x200
_IN_Q_OVERFLOW, _IN_IGNORED = 0x4000, 0x8000
_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, bytes of the name that follows
_PROCESS = re.compile(r"/proc/([0-9]+)/(?:task/[0-9]+/)?ns/net")

Callback = Callable[[], None]


def process_of(namespace: str) -> int | None:
    """The process that a namespace is named after, where it is named after one."""
    found = _PROCESS.fullmatch(namespace)
    return int(found[1]) if found else None


@dataclass
class _Place:
    """A folder (by its inotify watch) or a process (by its pidfd), and who asks about what."""

    handle: int
    asking: dict[str, list[Callback]] = field(default_factory=dict)


class Namespaces:
    """Who wants to know about which name."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._inotify = -1
        self._folders: dict[str, _Place] = {}
        self._processes: dict[int, _Place] = {}

    def watch(self, namespace: str, changed: Callback) -> None:
        """Call ``changed`` when the name ``namespace`` (or absolute path) comes or goes, until
        ``forget``. OSError where its folder or process is not there."""
        place, name = self._place(namespace)
        place.asking.setdefault(name, []).append(changed)

    def _place(self, namespace: str) -> tuple[_Place, str]:
        process = process_of(namespace)
        if process is not None:
            if process not in self._processes:
                self._processes[process] = _Place(os.pidfd_open(process))
                self._loop.add_reader(self._processes[process].handle,
                                      partial(self._on_end, process))
            return self._processes[process], ""
        folder, name = _split(namespace)
        if folder not in self._folders:
            self._folders[folder] = _Place(self._add(folder))
        return self._folders[folder], name

    def _add(self, folder: str) -> int:
        if self._inotify < 0:
            self._inotify = _checked(plain_syscall(_SYS_INIT1, os.O_NONBLOCK | os.O_CLOEXEC))
            self._loop.add_reader(self._inotify, self._on_news)
        path = ctypes.create_string_buffer(os.fsencode(folder))
        mask = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
        try:
            return _checked(plain_syscall(_SYS_ADD_WATCH, self._inotify, ctypes.addressof(path),
                                          mask))
        except OSError:
            self._tidy()
            raise

    def forget(self, namespace: str, changed: Callback) -> None:
        """``changed`` is not called any more. Idempotent."""
        process = process_of(namespace)
        folder, name = _split(namespace)
        place = self._folders.get(folder) if process is None else self._processes.get(process)
        name = name if process is None else ""
        if place is None or changed not in place.asking.get(name, []):
            return
        place.asking[name].remove(changed)
        if not place.asking[name]:
            del place.asking[name]
        if place.asking:
            return
        if process is None:
            plain_syscall(_SYS_RM_WATCH, self._inotify, place.handle)
            del self._folders[folder]
            self._tidy()
        else:
            self._loop.remove_reader(place.handle)
            os.close(place.handle)
            del self._processes[process]

    def _tidy(self) -> None:
        if not self._folders and self._inotify >= 0:
            self._loop.remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    # ------------------------------------------------------------ news
    def _on_end(self, process: int) -> None:
        place = self._processes[process]
        self._loop.remove_reader(place.handle)  # it stays readable
        _call(place.asking.get("", []))

    def _on_news(self) -> None:
        news = b""
        with suppress(BlockingIOError):
            news = os.read(self._inotify, 65536)
        by_handle = {place.handle: place for place in self._folders.values()}
        at = 0
        while at < len(news):
            handle, mask, _, length = _EVENT.unpack_from(news, at)
            at += _EVENT.size
            name = os.fsdecode(news[at : at + length].rstrip(b"\0"))
            at += length
            if mask & (_IN_Q_OVERFLOW | _IN_IGNORED):
                self._ask_all(handle)
            elif handle in by_handle:
                _call(by_handle[handle].asking.get(name, []))

    def _ask_all(self, handle: int) -> None:
        """Something was lost (-1), or a folder is no longer watched because it is gone."""
        for folder, place in list(self._folders.items()):
            if handle in (-1, place.handle):
                if handle >= 0:
                    del self._folders[folder]
                for callbacks in list(place.asking.values()):
                    _call(callbacks)
        self._tidy()


def _split(namespace: str) -> tuple[str, str]:
    """The folder, by the one name that it has without links, and the name in it."""
    folder, name = os.path.split(path_of(namespace))
    return os.path.realpath(folder), name


def _call(callbacks: list[Callback]) -> None:
    for callback in list(callbacks):
        callback()


def _checked(answer: int) -> int:
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer
