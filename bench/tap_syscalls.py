# SPDX-License-Identifier: Apache-2.0
"""What a frame costs at a tap, by each way that the Linux kernel offers.

    .venv/bin/python bench/tap_syscalls.py [--rounds 40] [--json FILE]

A tap in a network namespace of its own. Written are frames that its kernel drops at once (they are
for somebody else); read are frames that a packet socket has put into the tap's queue before. The
ways take turns, in batches of BATCH frames; printed are the cycles a frame took until the batch was
done, in the median of the rounds and at least. What a thread of the kernel does meanwhile on
another CPU (SQPOLL) is not counted.

Needs root. The tap port uses read, and write or writev (a frame whose head is not all of it).
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench.io_uring import IDLE_MS, READ, READV, WRITE, WRITEV, Uring, prepare, reap, submit
from byway.machine.clock import tsc
from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc
from byway.machine.mem import ld64
from byway.machine.netns import inside
from byway.machine.system import SYS_READ, SYS_WRITE, SYS_WRITEV, rdtsc, syscall3
from byway.packet.batch import BUFFER, HEAD
from byway.packet.offload import GSO_TCPV4
from byway.ports.tap import FEATURES, Interface, Tap
from byway.ports.tap_kernels import HEADER
from byway.testing.finishing import net_header
from byway.testing.offload_frames import Shape

SYS_READV = 19
BATCH = 32
NAMESPACE = f"byway-bench-{os.getpid()}"
SOL_PACKET, PACKET_VNET_HDR = 263, 15
LARGE = Shape(payload=bytes(65000))
WAYS = ("system call", "in two pieces", "io_uring", "io_uring, in two pieces", "io_uring, SQPOLL",
        "io_uring, SQPOLL, in two pieces")
MACS = bytes.fromhex("020000000009" "020000000008")
FRAMES = {
    "64": bytes(HEADER) + (MACS + b"\x88\xb5").ljust(64, b"x"),
    "1514": bytes(HEADER) + (MACS + b"\x88\xb5").ljust(1514, b"x"),
    "65054 (TSO)": net_header(1, GSO_TCPV4, 1448, 34, 16, 54) + LARGE.build(),
}


@kernel
def one_by_one(number, file, places, n):
    """n system calls with (address, bytes or pieces) listed at ``places``; -> (cycles, done)."""
    began = rdtsc()
    done = 0
    for k in range(n):
        address = ld64(places + 16 * k)
        if syscall3(number, file, address, ld64(places + 16 * k + 8)) > 0:
            done += 1
    return rdtsc() - began, done


@kernel
def by_ring(operation, file, places, n, ring):
    """The same by an io_uring; -> (cycles, done)."""
    began = rdtsc()
    for k in range(n):
        prepare(ring, operation, file, ld64(places + 16 * k), ld64(places + 16 * k + 8))
    submit(ring, n)
    done = reap(ring, n)
    return rdtsc() - began, done


class Bench:
    """The tap, the rings, and memory for a batch."""

    def __init__(self, cpu: int) -> None:
        self.tap = Tap(Interface("tap0", NAMESPACE, mtu=1500))
        self.tap.set_up(FEATURES, HEADER)
        self.filler = inside(NAMESPACE, lambda: socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, 0))
        self.filler.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self.filler.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 26)
        self.filler.bind(("tap0", 0))
        self.memory = alloc(np.dtype("u1"), BATCH * BUFFER)
        self.whole, self.pieces = (alloc(np.dtype("<i8"), 2 * BATCH) for _ in range(2))
        self.vectors = alloc(np.dtype("<i8"), 4 * BATCH)
        self.rings = {False: Uring(64), True: Uring(64, polled_on=cpu)}

    def describe(self, n: int, first: int) -> None:
        """Each place is n bytes, or ``first`` of them and the rest."""
        for k in range(BATCH):
            start = address_of(self.memory) + BUFFER * k
            self.whole[2 * k : 2 * k + 2] = start, n
            self.vectors[4 * k : 4 * k + 4] = start, first, start + first, n - first
            self.pieces[2 * k : 2 * k + 2] = address_of(self.vectors) + 32 * k, 2

    def run(self, way: str, read: bool) -> tuple[int, int]:
        """A batch; -> (cycles, frames done)."""
        places = address_of(self.pieces if "pieces" in way else self.whole)
        file = self.tap.files[0]
        if "io_uring" in way:
            operations = {(True, True): READV, (True, False): READ, (False, True): WRITEV,
                          (False, False): WRITE}
            operation = operations[read, "pieces" in way]
            return by_ring(operation, file, places, BATCH, self.rings["SQPOLL" in way].address)
        calls = {(True, True): SYS_READV, (True, False): SYS_READ, (False, True): SYS_WRITEV,
                 (False, False): SYS_WRITE}
        return one_by_one(calls[read, "pieces" in way], file, places, BATCH)

    def write(self, frame: bytes, rounds: int) -> dict[str, list[float]]:
        """Cycles a frame written, by way."""
        n = len(frame)
        self.describe(n, min(HEADER + HEAD, n // 2))
        for k in range(BATCH):
            self.memory[BUFFER * k : BUFFER * k + n] = np.frombuffer(frame, np.uint8)
        return self.measure(rounds, False, lambda: None)

    def read(self, frame: bytes, rounds: int) -> dict[str, list[float]]:
        """Cycles a frame read, by way."""
        self.describe(BUFFER, HEADER)

        def fill() -> None:
            self.empty()
            for _ in range(BATCH):
                self.filler.send(frame)

        return self.measure(rounds, True, fill)

    def empty(self) -> None:
        """Take what is in the tap's queue."""
        while True:
            try:
                os.read(self.tap.files[0], BUFFER)
            except BlockingIOError:
                return

    def measure(self, rounds: int, read: bool, before: Callable[[], None],
                ) -> dict[str, list[float]]:
        """Every way in every round."""
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        # The kernel's thread, which goes on looking for a while, is not to be in others' way.
        for ways in (list(WAYS[:4]), list(WAYS[4:])):
            for _ in range(rounds):
                ways.append(ways.pop(0))
                for way in ways:
                    before()
                    cycles, done = self.run(way, read)
                    if done != BATCH:
                        raise SystemExit(f"{way}: {done} of {BATCH} frames done")
                    found[way].append(cycles / BATCH)
            time.sleep(3 * IDLE_MS / 1000)
        return found

    def nothing(self, rounds: int) -> list[float]:
        """Cycles of a read that finds no frame."""
        self.describe(BUFFER, HEADER)
        self.empty()
        file = self.tap.files[0]
        return [one_by_one(SYS_READ, file, address_of(self.whole), BATCH)[0] / BATCH
                for _ in range(rounds)]

    def close(self) -> None:
        """Remove the tap."""
        for ring in self.rings.values():
            ring.close()
        self.filler.close()
        self.tap.close()


def table(results: dict[str, dict[str, list[float]]]) -> list[str]:
    """Lines: median (least) by way and frame."""
    lines = ["cycles a frame: median (least)".ljust(34) + "".join(k.rjust(20) for k in results)]
    for way in WAYS:
        cells = [f"{statistics.median(found[way]):.0f} ({min(found[way]):.0f})".rjust(20)
                 for found in results.values()]
        lines.append(way.ljust(34) + "".join(cells))
    return lines


def verdict(name: str, results: dict[str, dict[str, list[float]]]) -> str:
    """How much the best io_uring without a thread of its own gains over the system call."""
    gains = []
    for size, found in results.items():
        plain = min(statistics.median(found[way]) for way in WAYS[:2])
        ring = min(statistics.median(found[way]) for way in WAYS[2:4])
        gains.append(f"{size}: {100 * (1 - ring / plain):+.0f} %")
    return f"{name}: io_uring takes off {', '.join(gains)} of the system calls' cycles"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a frame costs at a tap.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tsc()
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[-1]})
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run(["ip", "netns", "exec", NAMESPACE, "sysctl", "-qw",
                        "net.ipv6.conf.default.disable_ipv6=1"], check=True)
        bench = Bench(cpus[0])
        bench.write(FRAMES["64"], 2)  # compiles
        written = {size: bench.write(frame, options.rounds) for size, frame in FRAMES.items()}
        read = {size: bench.read(frame, options.rounds) for size, frame in FRAMES.items()}
        empty = bench.nothing(options.rounds)
        bench.close()
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False)
    print("written", *table(written), "", "read", *table(read), "", sep="\n")
    print(f"a read that finds nothing: {statistics.median(empty):.0f} ({min(empty):.0f})")
    print(verdict("written", written), verdict("read", read), sep="\n")
    if options.json:
        result: dict[str, Any] = {"written": written, "read": read, "empty": empty}
        options.json.write_text(json.dumps(result))


main()
