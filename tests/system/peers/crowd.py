# SPDX-License-Identifier: Apache-2.0
"""Thousands of network namespaces, made and removed quickly, each with one interface to come.

    with Crowd(2000) as crowd:
        ... a port with ifname=crowd.device, netns=crowd.names[k], address=[crowd.address(k)] ...
        sockets = crowd.open(ping_socket)

One thread makes them and goes from one to the next; the sockets that it opens there are used from
anywhere. `unshare` for each and a thread for each would take minutes. IPv6 is off in them, as in
containers: its announcements alone would be some ten multicasts of everybody to everybody. The
Linux kernel's table of neighbours is one for all namespaces and too small for them; it is made
larger meanwhile.
"""

import ctypes
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.peers import need_peer

NAMED = Path("/run/netns")
NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default")
LIMITS = {"gc_thresh3": 1 << 17, "gc_thresh2": 1 << 16, "gc_thresh1": 1 << 15}
CLONE_NEWNET, MS_BIND, MNT_DETACH = 0x40000000, 4096, 2

T = TypeVar("T")


def call(name: str, *arguments: int | bytes | None) -> None:
    """A function of the C library that answers -1 where it fails (OSError)."""
    if ctypes.CDLL(None, use_errno=True)[name](*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Crowd:
    """``count`` namespaces with names in /run/netns; ``prefix`` begins all of them."""

    device = "eth0"

    def __init__(self, count: int) -> None:
        if os.geteuid() != 0:
            need_peer("root", "network namespaces need privileges")
        self.prefix = f"bywD-{secrets.token_hex(2)}-"
        self.names = [f"{self.prefix}{k}" for k in range(count)]
        self._files: list[int] = []
        self._limits = {name: (NEIGHBOURS / name).read_text() for name in LIMITS}
        NAMED.mkdir(exist_ok=True)
        try:
            for name, value in LIMITS.items():
                (NEIGHBOURS / name).write_text(str(value))
            self._in_a_thread(self._make)
        except BaseException:
            self.close()
            raise

    def host(self, k: int) -> str:
        """The IPv4 address of one."""
        return f"10.77.{(k + 1) >> 8}.{(k + 1) & 255}"

    def address(self, k: int) -> str:
        """The same with its prefix length."""
        return f"{self.host(k)}/16"

    def mac(self, k: int) -> str:
        """The hardware address that its interface is to have."""
        return f"02:00:00:00:{k >> 8:02x}:{k & 255:02x}"

    def _make(self) -> None:
        for name in self.names:
            call("unshare", CLONE_NEWNET)
            # As this thread sees it, which is in the new namespace.
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            path = NAMED / name
            path.touch()
            here = f"/proc/self/task/{threading.get_native_id()}/ns/net"
            call("mount", here.encode(), os.fsencode(path), None, MS_BIND, None)
            self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def open(self, work: Callable[[int], T]) -> list[T]:
        """What ``work(k)`` answers in the k-th namespace, for all of them."""
        made: list[T] = []

        def run() -> None:
            for k, file in enumerate(self._files):
                call("setns", file, CLONE_NEWNET)
                made.append(work(k))

        self._in_a_thread(run)
        return made

    @staticmethod
    def _in_a_thread(work: Callable[[], None]) -> None:
        problems: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as problem:  # raised again in the thread that asked
                problems.append(problem)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if problems:
            raise problems[0]

    def close(self) -> None:
        """Remove all of them; the Linux kernel takes them apart in its own time."""
        while self._files:
            os.close(self._files.pop())
        for name in self.names:
            path = NAMED / name
            if path.exists():
                with suppress(OSError):  # not mounted yet
                    call("umount2", os.fsencode(path), MNT_DETACH)
                path.unlink()
        for limit in reversed(LIMITS):
            (NEIGHBOURS / limit).write_text(self._limits[limit])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
