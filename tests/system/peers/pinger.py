# SPDX-License-Identifier: Apache-2.0
"""A guest of the test that pings all the time and knows when each answer came.

Used by test_migration.py. It answers ARP for its own address. Times are those of this process, so
the longest silence of the other side can be measured to a millisecond or so.
"""

import itertools
import threading
import time
from types import TracebackType
from typing import Self

from byway.machine.jit import prepare
from byway.testing import entries
from byway.testing.frames import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    ECHO_REPLY,
    ECHO_REQUEST,
    Arp,
    Echo,
    mac,
)
from byway.testing.guest import Guest

NUMBER = 77  # the identifier of the echo requests


class Pinger:
    """Pings `target` from `address` every `interval` seconds, in a thread, until the block ends."""

    def __init__(self, guest: Guest, address: str, target: str, interval: float = 0.05) -> None:
        self.guest = guest
        self.address, self.target = address, target
        self.interval = interval
        self.station = b""  # the target's MAC address, once it is known
        self.sent = 0
        self.answers: dict[int, float] = {}  # when each answer came, by sequence number
        self.twice = 0
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pinger", daemon=True)

    def _run(self) -> None:
        try:
            following = time.monotonic()
            while not self._stop.is_set():
                self._ask()
                following += self.interval
                while (left := following - time.monotonic()) > 0:
                    self.guest.wait(left)
                    for frame in self.guest.receive():
                        self._take(frame)
        except BaseException as error:  # shown where the block ends
            self._error = error

    def _ask(self) -> None:
        """An echo request, or ARP while nobody has said where the target is."""
        if not self.station:
            arp = Arp(ARP_REQUEST, self.guest.mac, self.address, mac("00:00:00:00:00:00"),
                      self.target)
            self.guest.send([arp.frame(BROADCAST)])
            return
        echo = Echo(ECHO_REQUEST, self.address, self.target, NUMBER, self.sent & 0xFFFF)
        self.guest.send([echo.frame(self.station, self.guest.mac)])
        self.sent += 1

    def _take(self, frame: bytes) -> None:
        arp, echo = Arp.parse(frame), Echo.parse(frame)
        if arp and arp.sender_ip == self.target:
            self.station = arp.sender_mac
        if arp and arp.operation == ARP_REQUEST and arp.target_ip == self.address:
            reply = Arp(ARP_REPLY, self.guest.mac, self.address, arp.sender_mac, arp.sender_ip)
            self.guest.send([reply.frame(arp.sender_mac)])
        elif echo and echo.kind == ECHO_REPLY and echo.number == NUMBER:
            self.twice += echo.sequence in self.answers
            self.answers[echo.sequence] = time.monotonic()

    def silence(self, begin: float) -> float:
        """The longest time since `begin` (time.monotonic) without an answer, in seconds."""
        came = [begin, *sorted(t for t in list(self.answers.values()) if t > begin)]
        return max(b - a for a, b in itertools.pairwise([*came, time.monotonic()]))

    def __enter__(self) -> Self:
        # Compiled before the clock runs.
        prepare([entries.guest_send, entries.guest_borrow, entries.guest_give_back,
                 entries.guest_sleep, entries.guest_wake])
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(10.0)
        if self._error is not None and error is None:
            raise self._error
