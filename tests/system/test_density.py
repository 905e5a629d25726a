# SPDX-License-Identifier: Apache-2.0
"""Thousands of namespaces on one network: made soon and evenly, all reach each other, and leave.

Their kernels are the judges: they answer pings and ARP, and packet sockets count what arrives.
"""

import ctypes
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from byway.testing.frames import checksum
from tests.system.peers.crowd import Crowd
from tests.system.peers.process import wait_until
from tests.system.peers.switch import Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

COUNT = 2000
STEPS = (10, 100, 1000, COUNT)  # ports; what one costs the switch's processor up to there
KIB_PER_PORT = 64
CREATION = REMOVAL = 240.0  # seconds for all, on a machine that others use as well
AT_A_TIME = 20  # pings of hosts that are to be asked for first: each asks all of them
AGAIN = 4.0  # seconds until one that had no answer pings again (a slow machine)
WITNESSES = 8  # namespaces that keep every broadcast; the others count them
SEED = 4

ECHO, ECHO_REPLY = 8, 0
ETH_P_ARP = 0x0806
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
# Classic BPF: came in to the group address (SKF_AD_PKTTYPE is PACKET_BROADCAST, 1), and ARP's
# operation is 1, request. Then the frame is taken, else not.
REQUESTS = [(0x28, 0, 0, 0xFFFFF000 + 4), (0x15, 0, 3, 1), (0x28, 0, 0, 20), (0x15, 0, 1, 1),
            (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]


class Inhabited:
    """The switch, the namespaces with their ports, and what was measured on the way."""

    def __init__(self, folder: Path) -> None:
        self.stack = ExitStack()
        self.crowd = self.stack.enter_context(Crowd(COUNT))
        self.switch = self.stack.enter_context(Switch(folder, []))
        self.milliseconds: dict[int, float] = {}
        self.kib = 0.0

    def port(self, k: int) -> dict[str, object]:
        crowd = self.crowd
        return {"name": f"c{k}", "network": "blue", "kind": "tap", "ifname": crowd.device,
                "netns": crowd.names[k], "address": [crowd.address(k)], "mac": crowd.mac(k)}

    def fill(self) -> None:
        """A port after the other, through the API."""
        done, begin = 0, time.monotonic()
        for step in STEPS:
            since = self.switch.process.cpu_seconds()
            for k in range(done, step):
                assert self.switch.client.add_port(self.port(k))["state"] == "up"
            used = self.switch.process.cpu_seconds() - since
            self.milliseconds[step] = 1000 * used / (step - done)
            if done == STEPS[0]:  # what the first ports make it load is not a port's
                self.before = resident(self.switch), step
            done = step
        self.seconds = time.monotonic() - begin
        kib, ports = self.before
        self.kib = (resident(self.switch) - kib) / (COUNT - ports)

    def empty(self) -> float:
        """All ports in one change; -> seconds."""
        begin = time.monotonic()
        self.switch.client.change(remove_ports=[f"c{k}" for k in range(COUNT)])
        return time.monotonic() - begin


def resident(switch: Switch) -> int:
    """KiB of memory that the switch has."""
    text = Path(f"/proc/{switch.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))


def left_overs(crowd: Crowd) -> list[str]:
    """The interfaces that are still there, by namespace."""
    names = crowd.open(lambda k: [name for _, name in socket.if_nameindex()])
    return [crowd.names[k] for k, found in enumerate(names) if crowd.device in found]


@pytest.fixture(scope="module")
def inhabited(folder: Path) -> Iterator[Inhabited]:
    made = Inhabited(folder)
    with made.stack:
        made.fill()
        yield made


def test_made_soon_and_evenly(inhabited: Inhabited) -> None:
    table = ", ".join(f"{n}: {ms:.1f}" for n, ms in inhabited.milliseconds.items())
    print(f"{COUNT} ports in {inhabited.seconds:.1f} s; milliseconds of the switch's processor for "
          f"each, up to {table}; {inhabited.kib:.1f} KiB a port")
    assert inhabited.seconds < CREATION
    assert inhabited.milliseconds[COUNT] < 3 * inhabited.milliseconds[100]
    assert inhabited.kib < KIB_PER_PORT


# ---------------------------------------------------------------- pings
def ping_socket(_: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK,
                         socket.IPPROTO_ICMP)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 16)
    return made


def echo(number: int) -> bytes:
    """An echo request (RFC 792) by which its answer is known."""
    body = struct.pack(">BBHHH", ECHO, 0, 0, number & 0xFFFF, 1) + b"byway" * 4
    return body[:2] + struct.pack(">H", checksum(body)) + body[4:]


def answered(made: socket.socket, number: int, host: str) -> bool:
    """Has this host answered that request?"""
    while True:
        try:
            packet, (source, _) = made.recvfrom(2048)
        except OSError:  # nothing more, or EHOSTUNREACH
            return False
        icmp = packet[20:]
        if source == host and icmp[0] == ECHO_REPLY and icmp[4:6] == struct.pack(">H", number):
            return True


def ping_all(sockets: list[socket.socket], hosts: list[str], who: list[int],
             partner: list[int], seconds: float) -> set[int]:
    """Ping from each of ``who`` its partner; -> those without an answer."""
    poll, missing = select.poll(), set(who)
    by_file = {sockets[k].fileno(): k for k in who}
    for k in who:
        poll.register(sockets[k], select.POLLIN)
    now = again = time.monotonic()
    end = now + seconds
    while missing and now < end:
        if now >= again:
            again = now + AGAIN
            for k in missing:
                with suppress(OSError):  # what became of the one before: EHOSTUNREACH
                    sockets[k].sendto(echo(k), (hosts[partner[k]], 0))
        for file, _ in poll.poll(1000 * max(0.0, min(again, end) - now)):
            k = by_file[file]
            if answered(sockets[k], k, hosts[partner[k]]):
                missing.discard(k)
        now = time.monotonic()
    return missing


def partners(rng: random.Random) -> list[int]:
    """Each pings another one, and is pinged by another one: a ring of all in any order."""
    order = list(range(COUNT))
    rng.shuffle(order)
    found = [0] * COUNT
    for place, k in enumerate(order):
        found[k] = order[(place + 1) % COUNT]
    return found


def test_everybody_reaches_everybody(inhabited: Inhabited) -> None:
    """As many pairs as there are namespaces, in which each is on both sides once."""
    crowd = inhabited.crowd
    sockets = crowd.open(ping_socket)
    hosts = [crowd.host(k) for k in range(COUNT)]
    partner = partners(random.Random(SEED))
    begin = time.monotonic()
    missing: set[int] = set()
    for first in range(0, COUNT, AT_A_TIME):
        some = list(range(first, min(first + AT_A_TIME, COUNT)))
        missing |= ping_all(sockets, hosts, some, partner, 20.0)
    print(f"{COUNT} pings of unknown neighbours, {AT_A_TIME} at a time: "
          f"{time.monotonic() - begin:.1f} s")
    for made in sockets:
        made.close()
    assert missing == set()


# ---------------------------------------------------------------- all at once
def packet_socket(device: str, witness: bool) -> socket.socket:
    """Sends frames; sees ARP requests to everybody, and keeps them where it is a witness."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in REQUESTS))
    program = struct.pack("HL", len(REQUESTS), ctypes.addressof(code))
    made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20 if witness else 4096)
    made.bind((device, ETH_P_ARP))
    made.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # which begins anew
    return made


def request(crowd: Crowd, k: int, target: int) -> bytes:
    """An ARP request (RFC 826) to everybody."""
    own = bytes.fromhex(crowd.mac(k).replace(":", ""))
    return (b"\xff" * 6 + own + struct.pack(">HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, 1)
            + own + socket.inet_aton(crowd.host(k)) + bytes(6)
            + socket.inet_aton(crowd.host(target)))


def counted(made: socket.socket) -> int:
    """How many it has seen, kept or not (packet(7), PACKET_STATISTICS), since it was asked last."""
    return int(struct.unpack("II", made.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[0])


def senders(made: socket.socket) -> list[str]:
    """Who sent the requests that a witness has kept."""
    found = []
    while True:
        try:
            found.append(socket.inet_ntoa(made.recv(2048)[28:32]))
        except BlockingIOError:
            return found


def test_a_broadcast_from_all_at_once(inhabited: Inhabited) -> None:
    """Everybody gets everybody's, once: four million deliveries, and none is lost."""
    crowd = inhabited.crowd
    sockets = crowd.open(lambda k: packet_socket(crowd.device, k < WITNESSES))
    seen = [0] * COUNT
    begin = time.monotonic()
    for k, made in enumerate(sockets):
        made.send(request(crowd, k, (k + 1) % COUNT))
    sent = time.monotonic() - begin

    def complete() -> bool:
        for k, made in enumerate(sockets):
            if seen[k] < COUNT - 1:
                seen[k] += counted(made)
        return min(seen) >= COUNT - 1

    wait_until(complete, "everybody has everybody's request", 300.0)
    took = time.monotonic() - begin
    wait_until(lambda: all(not w["flood_backlog"] for w in inhabited.switch.client.workers()),
               "nothing waits", 10.0)
    complete()
    print(f"{COUNT} requests sent within {sent:.2f} s reached all within {took:.1f} s: "
          f"{COUNT * (COUNT - 1) / took / 1e6:.2f} million deliveries a second")
    assert set(seen) == {COUNT - 1}
    for k in range(WITNESSES):
        assert sorted(senders(sockets[k])) == sorted(
            crowd.host(other) for other in range(COUNT) if other != k)
    for made in sockets:
        made.close()
    assert inhabited.switch.drops() == {}


def test_all_are_gone_soon(inhabited: Inhabited) -> None:
    seconds = inhabited.empty()
    print(f"{COUNT} ports removed in {seconds:.1f} s")
    assert inhabited.switch.client.ports() == []
    assert left_overs(inhabited.crowd) == []
    assert seconds < REMOVAL
    files = len(os.listdir(f"/proc/{inhabited.switch.process.pid}/fd"))
    assert files < 100, "the files of the ports are closed"


def test_the_bench_runs(own_folder: Path) -> None:
    """With few ports: what it says is there; numbers are for a machine that does nothing else."""
    written = own_folder / "density.json"
    done = subprocess.run(
        [sys.executable, "bench/density.py", "--ports", "20", "--rounds", "1", "--seconds", "0.2",
         "--json", str(written)], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(written.read_text())
    assert (len(found["alone"]), len(found["among"])) == (2, 1)
    assert found["ratio"] > 0
    assert [step["ports"] for step in found["making"]] == [10, 20]
