# SPDX-License-Identifier: Apache-2.0
"""A guest in a process of its own, told what to do by lines of JSON.

Used by the demo, the benchmarks and the system tests. ``GuestProcess`` is the handle; the process
runs PROGRAM. Each line in is {"do": ...}, each line out the answer, or {"error": ...}.

A guest answers ARP requests and pings for its address while it resolves or pings others.
"""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from byway.testing.frames import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    ECHO_REPLY,
    ECHO_REQUEST,
    TEST_ETHERTYPE,
    Arp,
    Echo,
    ethernet,
    mac,
)

PROTOCOL_SECONDS = 5.0
PROGRAM = "import sys; from byway.testing.process import serve; serve(*sys.argv[1:])"


class Station:
    """What a guest does with its network: ARP, ping, and full-speed exchanges."""

    def __init__(self, guest: Any, address: str) -> None:
        self.guest = guest
        self.address = address
        self.heard: set[str] = set()  # every source address of any frame

    def take(self, seconds: float, wanted: Callable[[bytes], Any]) -> Any:
        """Answer what comes for at most ``seconds``; -> the first result of ``wanted``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self.guest.wait(left):
            for frame in self.guest.receive():
                self.heard.add(frame[6:12].hex(":"))
                self._answer(frame)
                if (found := wanted(frame)) is not None:
                    return found
        return None

    def _answer(self, frame: bytes) -> None:
        arp, echo = Arp.parse(frame), Echo.parse(frame)
        if arp and arp.operation == ARP_REQUEST and arp.target_ip == self.address:
            reply = Arp(ARP_REPLY, self.guest.mac, self.address, arp.sender_mac, arp.sender_ip)
            self.guest.send([reply.frame(arp.sender_mac)])
        elif echo and echo.kind == ECHO_REQUEST and echo.destination == self.address:
            back = Echo(ECHO_REPLY, self.address, echo.source, echo.number, echo.sequence,
                        echo.data)
            self.guest.send([back.frame(frame[6:12], self.guest.mac)])

    def resolve(self, address: str) -> str | None:
        """Ask by ARP who has ``address``; -> its MAC address, or None."""
        ask = Arp(ARP_REQUEST, self.guest.mac, self.address, bytes(6), address)
        for _ in range(3):
            self.guest.send([ask.frame(BROADCAST)])
            found = self.take(PROTOCOL_SECONDS / 3, lambda frame: _owner(frame, address))
            if found:
                return str(found)
        return None

    def ping(self, address: str, to: str, count: int) -> list[float]:
        """Ping; -> the round trips that came back, in seconds."""
        times = []
        for sequence in range(count):
            request = Echo(ECHO_REQUEST, self.address, address, 1, sequence)
            began = time.perf_counter()
            self.guest.send([request.frame(mac(to), self.guest.mac)])
            if self.take(PROTOCOL_SECONDS, functools.partial(_is_reply, sequence)):
                times.append(time.perf_counter() - began)
        return times

    def shout(self, count: int, to: str) -> int:
        """Send broadcasts, and frames to an address that may not be here; -> frames sent."""
        frames = [ethernet(d, self.guest.mac, TEST_ETHERTYPE, bytes(50))
                  for d in (BROADCAST, mac(to))] * count
        return int(self.guest.send(frames))


def _owner(frame: bytes, address: str) -> str | None:
    arp = Arp.parse(frame)
    if arp and arp.operation == ARP_REPLY and arp.sender_ip == address:
        return arp.sender_mac.hex(":")
    return None


def _is_reply(sequence: int, frame: bytes) -> bool | None:
    echo = Echo.parse(frame)
    return True if echo and echo.kind == ECHO_REPLY and echo.sequence == sequence else None


def serve(socket: str, own_mac: str, address: str, options: str) -> None:
    """The process: connect (``options``: Guest's, as JSON), then do what the lines say until they
    end."""
    from byway.machine.jit import prepare
    from byway.testing.entries import ENTRIES
    from byway.testing.exchange import Exchange
    from byway.testing.guest import Guest
    from byway.testing.traffic import traffic_run

    prepare([*ENTRIES, traffic_run])
    with Guest.connect(socket, mac=own_mac, **json.loads(options)) as guest:
        station = Station(guest, address)
        exchange: Exchange | None = None
        say({"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            what = order.pop("do")
            if what == "resolve":
                say({"mac": station.resolve(order["address"])})
            elif what == "answer":
                station.take(order["seconds"], lambda _: None)
                say({"heard": sorted(station.heard)})
            elif what == "ping":
                say({"times": station.ping(order["address"], order["mac"], order["count"])})
            elif what == "shout":
                say({"sent": station.shout(order["count"], order["mac"])})
            elif what == "exchange":
                seconds, asking = order.pop("seconds"), order.pop("asking")
                if exchange is None:
                    exchange = Exchange(guest, mac(order.pop("peer")), mac(order.pop("foreign")),
                                        **order)
                exchange.run(seconds, asking)
                say(exchange.statistics())
            elif what == "reconnect":
                guest.reconnect(socket, order["seconds"])
                say({"features": guest.features})
            elif what == "statistics":
                say(guest.statistics())
            else:
                say({"error": f"unknown order {what!r}"})


def say(answer: dict[str, Any]) -> None:
    """One line out."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class GuestProcess:
    """A handle on such a process. Orders may be sent to several guests before their answers are
    read, so that the guests work at the same time.

    ``ring``: entries of each ring; ``options``: Guest's (packed, pairs, features, ...).
    """

    def __init__(self, socket: str, own_mac: str, address: str, ring: int = 256,
                 **options: int) -> None:
        self.mac, self.address = own_mac, address
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, socket, own_mac, address,
             json.dumps({"size": ring, **options})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def order(self, do: str, **arguments: Any) -> None:
        """Send an order; the answer is read by ``answer``."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer. RuntimeError where the guest has ended or refuses."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"guest {self.mac} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"guest {self.mac}: {answer['error']}")
        return answer

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """An order and its answer."""
        self.order(do, **arguments)
        return self.answer()

    def close(self) -> None:
        """End the process. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

