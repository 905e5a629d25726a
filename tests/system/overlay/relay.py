# SPDX-License-Identifier: Apache-2.0
"""Virtual machines for tests: a fake guest's rings in front, the Linux kernel's network behind.

Used by stations.py. A machine is a tap interface in a namespace, and a guest (byway.testing) that
carries every frame between that tap and the virtqueues of a vhost-user port. So it resolves, pings
and speaks TCP like any Linux, and reaches the switch as a virtual machine does.

One thread carries for all machines; it sleeps in poll(2) until a ring, a tap or a connection has
something. Where a switch dies, its guests try to connect again, every RETRY seconds, and go on with
the same rings. What others ask of a machine (connect, move, close) happens between two rounds of
that thread: they hold ``lock``.
"""

import fcntl
import os
import select
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from byway.machine.jit import prepare
from byway.machine.netns import inside
from byway.machine.unixsocket import SocketError
from byway.testing import entries
from byway.testing.guest import Guest
from byway.vhost.connection import Closed
from byway.vhost.messages import ProtocolError

RETRY = 0.02  # seconds between two attempts to connect again
FRAMES = 32  # of a tap in a row
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
SWITCH_AWAY = (SocketError, Closed, ProtocolError, OSError)


def open_tap(namespace: str, name: str) -> int:
    """A tap interface in a namespace, which goes when the descriptor is closed."""

    def work() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        return fd

    return inside(namespace, work)


class Carried:
    """One machine's tap, and its guest where it is connected. ``unsent``: frames of the machine
    that found no room in its ring, or no switch."""

    def __init__(self, tap: int, mac: str, mtu: int) -> None:
        self.tap, self.mac, self.mtu = tap, mac, mtu
        self.guest: Guest | None = None
        self.socket = Path()
        self.lost = False
        self.again = 0.0
        self.unsent = 0

    def connect(self, socket: Path) -> None:
        """Be the guest of the port that listens there."""
        self.socket = socket
        self.guest = Guest.connect(str(socket), self.mac, mtu=self.mtu, inflight=True)
        self.lost = False

    def disconnect(self) -> None:
        """Leave the port. Idempotent."""
        if self.guest is not None:
            self.guest.close()
        self.guest = None

    def descriptors(self) -> list[int]:
        """What to wait for."""
        if self.guest is None or self.lost:
            return [self.tap]
        calls = [queue.call for queue in self.guest.queues.rx]
        return [self.tap, self.guest.front.fileno(), *calls]

    def waits(self) -> bool:
        """Whether a frame is there already; if not, the rings will tell."""
        if self.guest is None or self.lost:
            return False
        return any(entries.guest_sleep(queue.address) for queue in self.guest.queues.rx)

    def carry(self, ready: set[int]) -> None:
        """One round, both ways."""
        if self.guest is not None and not self.lost:
            self._take(self.guest, ready)
        if self.lost:
            self._connect_again()
        for _ in range(FRAMES):
            try:
                frame = os.read(self.tap, 65536)
            except (BlockingIOError, OSError):  # none, or the interface is down
                break
            if self.guest is None or self.lost or not self.guest.send([frame]):
                self.unsent += 1

    def _take(self, guest: Guest, ready: set[int]) -> None:
        for queue in guest.queues.rx:
            if queue.call in ready:
                with suppress(BlockingIOError):
                    os.eventfd_read(queue.call)
            entries.guest_wake(queue.address)
        for frame in guest.receive():
            with suppress(OSError):  # the interface is down
                os.write(self.tap, frame)
        if guest.front.fileno() in ready:  # a back end says nothing by itself: it hung up
            self.lost = True

    def _connect_again(self) -> None:
        assert self.guest is not None
        if time.monotonic() < self.again:
            return
        self.again = time.monotonic() + RETRY
        try:
            self.guest.reconnect(str(self.socket), 0.0)
        except SWITCH_AWAY:
            return
        self.lost = False

    def close(self) -> None:
        """Leave the port, and remove the interface."""
        self.disconnect()
        os.close(self.tap)


class Relay:
    """The thread, and all that it carries."""

    def __init__(self) -> None:
        prepare(entries.ENTRIES)
        self.lock = threading.Lock()
        self._all: list[Carried] = []
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stop = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def add(self, one: Carried) -> None:
        """Carry for one more from now on."""
        with self.lock:
            self._all.append(one)
        self.tell()

    def remove(self, one: Carried) -> None:
        """Carry no more for it, and close it."""
        with self.lock:
            self._all.remove(one)
            one.close()
        self.tell()

    def tell(self) -> None:
        """Something has changed: what it waits for is looked up anew."""
        os.eventfd_write(self._news, 1)

    def _run(self) -> None:
        try:
            while not self._stop:
                self._round()
        except BaseException as error:  # raised again in `close`
            self._error = error

    def _round(self) -> None:
        with self.lock:
            fds = {fd: None for one in self._all for fd in one.descriptors()}
            busy = any(one.waits() for one in self._all)
            lost = any(one.lost for one in self._all)
        poll = select.poll()
        for fd in (self._news, *fds):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(0 if busy else RETRY * 1000 if lost else None)}
        if self._news in ready:
            os.eventfd_read(self._news)
        with self.lock:
            for one in self._all:
                one.carry(ready)

    def close(self) -> None:
        """End; whatever is still carried is closed. Raises what ended the thread too soon."""
        self._stop = True
        self.tell()
        self._thread.join(10.0)
        for one in self._all:
            one.close()
        os.close(self._news)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
