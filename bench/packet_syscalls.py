# SPDX-License-Identifier: Apache-2.0
"""What frames cost that come and go by AF_PACKET sockets, in each of the ways there are.

    sudo .venv/bin/python bench/packet_syscalls.py [--rounds 9] [--json FILE]

A veth between two network namespaces that are made here. Receiving: one end sends a burst that a
ring holds, the other takes it. Counted are the kernel's work while it is sent, less what sending
costs with no socket at the other end, and that of the taker: cycles of the time stamp counter a
frame. And how long one frame alone takes to be seen. Sending: batches of 64 rows, the other end
throws them away.

The ways take turns in each round; printed are medians. Nothing is judged: what was found stands in
docs/explanation/packet-sockets.md.
"""

import argparse
import json
import mmap
import os
import secrets
import socket
import statistics
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import packet_kernels as ways
from byway.machine.clock import measure_hz
from byway.machine.layout import address_of, alloc
from byway.machine.netns import inside
from byway.packet.batch import ROWS
from byway.packet.counters import COUNTERS
from byway.ports import packet_socket as p
from byway.ports.af_packet_kernels import PACKET
from byway.ports.links import Links
from byway.testing.frame_batch import Frame, FrameBatch, Unfinished
from byway.testing.offload_frames import Shape

BURST = 256  # frames
TAKER = bytes.fromhex("020000000009")
TSO = Unfinished(1, 1, 1448, 34, 16)
PACKET_TX_RING, TPACKET_V3 = 13, 2
SIZES = {"60": 60, "1514": 1514, "64 KiB": 65000}


class Queue:
    """A record for the kernels of the port, about any socket and ring."""

    def __init__(self, fd: int, ring: int = 0, size: int = 0, slots: int = 1) -> None:
        self.record, self.rx, self.tx = alloc(PACKET, 1), alloc(COUNTERS, 1), alloc(COUNTERS, 1)
        row = self.record[0]
        row["fd"], row["ring"], row["slot"], row["mask"] = fd, ring, size, slots - 1
        row["rx"], row["tx"] = address_of(self.rx), address_of(self.tx)
        self.address = address_of(self.record)


class Ways:
    """The sockets of one round, opened one at a time in the outer namespace."""

    def __init__(self, outer: str, index: int) -> None:
        self.outer, self.index = outer, index

    @contextmanager
    def v2(self, longest: int = 1522) -> Iterator[Queue]:
        """The port's own, with slots for frames of so many bytes."""
        made = inside(self.outer, lambda: p.PacketSocket(self.index, longest, None))
        try:
            yield Queue(made.fileno(), made.address, made.size, made.slots)
        finally:
            made.close()

    @contextmanager
    def plain(self, *rings: tuple[int, int, bytes, int, int]) -> Iterator[Queue]:
        """A socket with virtio headers and perhaps a ring: (version, option, request, bytes of a
        block or slot, how many)."""
        made = inside(self.outer, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        with made:
            p.use_large_buffers(made, 64 << 20)
            queue, area = Queue(made.fileno()), None
            for version, option, request, size, count in rings:
                made.setsockopt(p.SOL_PACKET, p.PACKET_VERSION, version)
                made.setsockopt(p.SOL_PACKET, p.PACKET_VNET_HDR, 1)
                made.setsockopt(p.SOL_PACKET, p.PACKET_QDISC_BYPASS, 1)
                made.setsockopt(p.SOL_PACKET, option, request)
                area = mmap.mmap(made.fileno(), size * count)
                start = address_of(np.frombuffer(area, np.uint8))
                queue = Queue(made.fileno(), start, size, count)
            if not rings:
                made.setsockopt(p.SOL_PACKET, p.PACKET_VNET_HDR, 1)
                made.setsockopt(p.SOL_PACKET, p.PACKET_QDISC_BYPASS, 1)
            made.setsockopt(p.SOL_PACKET, p.PACKET_IGNORE_OUTGOING, 1)
            inside(self.outer, lambda: made.bind(("e1", p.ETH_P_ALL)))
            try:
                yield queue
            finally:
                if area:
                    area.close()

    def v3(self) -> Any:
        """32 blocks of 256 KiB, handed over after a millisecond at the latest."""
        block, count = 1 << 18, 32
        return self.plain((TPACKET_V3, p.PACKET_RX_RING, struct.pack(
            "=7I", block, count, 2048, block // 2048 * count, 1, 0, 0), block, count))

    def tx_ring(self, longest: int) -> Any:
        """64 slots for frames of that size: of 128 KiB where they have 64 KiB."""
        size, count = (2048 if longest <= 1514 else 1 << 17), ROWS
        return self.plain((p.TPACKET_V2, PACKET_TX_RING, struct.pack(
            "=4I", max(size, 4096), size * count // max(size, 4096), size, count), size, count))


def frame(size: int) -> Frame:
    """A frame of that size; a large one is TCP to be cut."""
    if size <= 1514:
        return TAKER + bytes.fromhex("020000000001" "88b5") + bytes(size - 14)
    shape = Shape(macs=TAKER + bytes.fromhex("020000000001"), payload=bytes(size - 54))
    return TSO, shape.build()


def place(batch: FrameBatch, size: int) -> int:
    return batch.place([frame(size)] * ROWS)


def receiving(at: Ways, send: Queue, samples: dict[str, list[float]]) -> None:
    """One round of all ways of receiving, all sizes."""
    batch, taker = FrameBatch(), FrameBatch()
    drains: dict[str, tuple[Any, Callable[..., int], bool]] = {
        "V2 ring": (at.v2, ways.drain_v2, False), "V3 ring": (at.v3, ways.drain_v3, False),
        "V2 ring, slots of 128 KiB": (lambda: at.v2(70000), ways.drain_v2, False),
        "recvmmsg": (at.plain, ways.drain_recvmmsg, True)}
    for name, size in SIZES.items():
        n = place(batch, size)
        times = BURST // n if size <= 1514 else 1
        base = ways.send_sendmmsg(send.address, batch.address, batch.selected, n, times)
        for way, (opened, drain, by_fd) in drains.items():
            with opened() as queue:
                sent = ways.send_sendmmsg(send.address, batch.address, batch.selected, n, times)
                if way == "V3 ring":  # the last block is handed over by a timer
                    ways.wait_v3(queue.address, 1 << 24)
                taken = drain(int(queue.record["fd"][0]) if by_fd else queue.address,
                              taker.address)
            samples.setdefault(f"receive, {name}, {way}, kernel", []).append(
                (sent - base) / n / times)
            samples.setdefault(f"receive, {name}, {way}, worker", []).append(taken / n / times)


def alone(at: Ways, send: Queue, samples: dict[str, list[float]], hz: float) -> None:
    """How long one frame alone takes to be seen, in microseconds."""
    batch = FrameBatch()
    batch.place([frame(60)])
    for way, opened, wait in (("V2 ring", at.v2, ways.wait_v2), ("V3 ring", at.v3, ways.wait_v3)):
        with opened() as queue:
            ways.send_sendmmsg(send.address, batch.address, batch.selected, 1, 1)
            ticks = wait(queue.address, int(hz))
        samples.setdefault(f"one frame, {way}, microseconds", []).append(ticks / hz * 1e6)


def sending(at: Ways, samples: dict[str, list[float]]) -> None:
    """One round of all ways of sending, all sizes."""
    batch = FrameBatch()
    for name, size in SIZES.items():
        n = place(batch, size)
        times = 32 if size <= 1514 else 4
        for way, opened, send in (
                ("sendmmsg", at.v2, ways.send_sendmmsg), ("sendmsg", at.v2, ways.send_sendmsg),
                ("V2 ring", lambda size=size: at.tx_ring(size), ways.send_ring)):
            with opened() as queue:
                ticks = send(queue.address, batch.address, batch.selected, n, times)
            samples.setdefault(f"send, {name}, {way}", []).append(ticks / n / times)


@contextmanager
def veth() -> Iterator[tuple[str, str]]:
    """(the sender's namespace, with e0; the outer one, with e1)."""
    name = f"byway-{secrets.token_hex(3)}"
    names = f"{name}-s", f"{name}-o"
    commands = [f"ip netns add {names[0]}", f"ip netns add {names[1]}",
                f"ip -n {names[0]} link add e0 type veth peer name e1 netns {names[1]}",
                f"ip -n {names[0]} link set e0 up", f"ip -n {names[1]} link set e1 up"]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield names
    finally:
        for one in names:
            subprocess.run(["ip", "netns", "del", one], check=False)


def measure(rounds: int) -> dict[str, list[float]]:
    """All samples, by what they are of."""
    samples: dict[str, list[float]] = {}
    hz = measure_hz()
    with ExitStack() as stack:
        inner, outer = stack.enter_context(veth())
        index = {}
        for space, device in ((inner, "e0"), (outer, "e1")):
            links = Links(space)
            found = links.find(device)
            links.close()
            assert found
            index[space] = found.index
        near = inside(inner, lambda: p.PacketSocket(index[inner], 1522, None))
        stack.callback(near.close)
        send = Queue(near.fileno(), near.address, near.size, near.slots)
        at = Ways(outer, index[outer])
        for number in range(rounds + 1):
            receiving(at, send, samples)
            alone(at, send, samples, hz)
            sending(at, samples)
            if number == 0:  # compiling, first pages
                samples.clear()
    return samples


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("packet_syscalls: needs root, for network namespaces", file=sys.stderr)
        return 2
    samples = measure(given.rounds)
    for name, values in samples.items():
        print(f"{name:<56} {statistics.median(values):>10.1f}")
    if given.json:
        given.json.write_text(json.dumps(samples, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
