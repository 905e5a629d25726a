# SPDX-License-Identifier: Apache-2.0
"""Somebody who asks all the time, from a station's interface, and knows when each answer came.

Used by the tests of convergence. Frames are made here and sent by a packet socket, so nothing is
resolved and no kernel waits between two attempts: an echo request every ``interval`` seconds to a
known MAC, and, with ``arp``, an ARP request for the address beside each. The station's kernel sees
the answers as well, and does not mind.
"""

import itertools
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from byway.machine.netns import inside
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
from tests.system.engines.station import INTERFACE
from tests.system.overlay.stations import Member, Seat
from tests.system.peers.process import wait_until

ETH_P_ALL = 3
NUMBER = 1077  # the identifier of the echo requests


@dataclass
class Answers:
    """When requests went out and answers came (time.monotonic), by sequence number."""

    sent: dict[int, float] = field(default_factory=dict)
    came: dict[int, float] = field(default_factory=dict)

    def first(self, since: float) -> float | None:
        """Seconds from ``since`` to the first answer after it; None where none came."""
        return min((t - since for t in list(self.came.values()) if t >= since), default=None)

    def unanswered(self, begin: float, end: float) -> int:
        """The longest run of requests that nobody answered, of those between the two times."""
        longest = run = 0
        for number, when in list(self.sent.items()):
            if begin <= when <= end:
                run = 0 if number in self.came else run + 1
                longest = max(longest, run)
        return longest


class Prober:
    """Asks ``target`` from ``station`` while the block runs. ``echo``, ``arp``: what was answered;
    a broadcast is counted as answered only by the target's own MAC."""

    def __init__(self, station: Member, target: Seat, interval: float = 0.002,
                 arp: bool = False) -> None:
        self.target, self.interval, self.asks = target, interval, arp
        self.echo, self.arp = Answers(), Answers()
        self.own, self.address = mac(station.seat.mac), station.seat.ipv4
        self._socket = inside(station.namespace.name, lambda: socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
        self._socket.bind((INTERFACE, ETH_P_ALL))
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="prober")

    def _run(self) -> None:
        following = time.monotonic()
        for number in itertools.count():
            if self._stop:
                return
            self._ask(number & 0xFFFF)
            following = max(following + self.interval, time.monotonic())
            while (left := following - time.monotonic()) > 0:
                self._socket.settimeout(left)
                try:
                    self._take(self._socket.recv(65536))
                except TimeoutError:
                    break

    def _ask(self, number: int) -> None:
        echo = Echo(ECHO_REQUEST, self.address, self.target.ipv4, NUMBER, number)
        self.echo.sent[number] = time.monotonic()
        self._socket.send(echo.frame(mac(self.target.mac), self.own))
        if self.asks:
            request = Arp(ARP_REQUEST, self.own, self.address, bytes(6), self.target.ipv4)
            self.arp.sent[number] = time.monotonic()
            self._socket.send(request.frame(BROADCAST))

    def _take(self, frame: bytes) -> None:
        echo, arp = Echo.parse(frame), Arp.parse(frame)
        now = time.monotonic()
        if echo and echo.kind == ECHO_REPLY and echo.number == NUMBER:
            self.echo.came.setdefault(echo.sequence, now)
        elif arp and arp.operation == ARP_REPLY and arp.sender_ip == self.target.ipv4 \
                and arp.sender_mac == mac(self.target.mac):
            self.arp.came.setdefault(len(self.arp.came), now)

    def outage(self, since: float) -> float:
        """The longest run of echo requests from then to now that nobody answered, in seconds of
        asking: a machine that stands still asks nothing meanwhile, and answers afterwards."""
        now = time.monotonic()  # once a later one is answered, nothing older is on its way
        wait_until(lambda: any(when > now and number in self.echo.came
                               for number, when in list(self.echo.sent.items())), "an answer", 20)
        return self.echo.unanswered(since, now) * self.interval

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop = True
        self._thread.join()
        self._socket.close()
