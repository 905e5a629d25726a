# SPDX-License-Identifier: Apache-2.0
"""What a frame costs an AF_XDP socket at a veth: in each mode, out and in, without a switch.

    python bench/xdp_rings.py [ROUNDS]        as root; makes a network namespace and removes it

Two sockets, one at each end of a veth. One sends batches of 32 frames (copy into chunks, one kick),
the other receives them (rows, chunks given back). Printed: cycles of the time stamp counter a
frame, medians over ROUNDS. ``out`` contains what the kernel does for both ends, in the system call
that sends; ``in`` is ours alone.
"""

import os
import socket
import statistics
import subprocess
import sys

import numpy as np

from byway.machine.clock import tsc
from byway.machine.layout import address_of, alloc
from byway.machine.netns import inside
from byway.packet.counters import COUNTERS
from byway.ports.xdp_program import XdpProgram
from byway.ports.xsk import Wanted, Xsk
from byway.testing.frame_batch import FrameBatch
from byway.testing.xdp_kernels import xdp_collect, xdp_flush, xdp_receive, xdp_return, xdp_send

BATCH = 32
FRAMES = 512
SIZES = (60, 256, 1514)


class End:
    """One end of the veth, with a socket."""

    def __init__(self, ifname: str, mode: str) -> None:
        index = socket.if_nametoindex(ifname)
        self.program = XdpProgram(ifname, index, 1, (mode,), False)
        self.counters = alloc(COUNTERS, 2)
        wanted = Wanted(index, 0, FRAMES, 2048, 1, False)
        self.xsk = Xsk(wanted, address_of(self.counters), address_of(self.counters[1:]))
        self.xsk.records.tx["max_frame"] = 2048
        self.program.serve(0, self.xsk.fileno())
        self.rx, self.tx = address_of(self.xsk.records.rx), address_of(self.xsk.records.tx)

    def close(self) -> None:
        """Give everything back."""
        self.program.close()
        self.xsk.close()


def measure(source: End, to: End, size: int, rounds: int) -> tuple[float, float]:
    """Cycles a frame: (out, in)."""
    batch, taken = FrameBatch(), FrameBatch()
    n = batch.place([b"\xff" * 12 + bytes(size - 12)] * BATCH)
    out, come = [], []
    for _ in range(rounds):
        began = tsc()
        sent = xdp_send(source.tx, batch.address, batch.selected, n)
        xdp_flush(source.tx)
        xdp_collect(source.tx)
        between = tsc()
        got = xdp_receive(to.rx, taken.address)
        xdp_return(to.rx, taken.address)
        ended = tsc()
        if sent == got == n:  # else others were in the way
            out.append((between - began) / n)
            come.append((ended - between) / n)
    return statistics.median(out), statistics.median(come)


def main(rounds: int) -> None:
    """Print the table."""
    name = f"byway-bench-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        print(f"{'mode':<8}{'bytes':>6}{'out':>8}{'in':>8}   cycles a frame")
        for mode in ("native", "skb"):
            for command in ("link add xa type veth peer name xb", "link set xa up",
                            "link set xb up"):
                subprocess.run(["ip", "-n", name, *command.split()], check=True)
            ends = inside(name, lambda mode=mode: [End(end, mode) for end in ("xa", "xb")])
            for size in SIZES:
                measure(*ends, size, 10)  # machine code, caches
                out, come = measure(*ends, size, rounds)
                print(f"{mode:<8}{size:>6}{np.round(out):>8.0f}{np.round(come):>8.0f}")
            for end in ends:
                end.close()
            subprocess.run(["ip", "-n", name, "link", "del", "xa"], check=True)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
