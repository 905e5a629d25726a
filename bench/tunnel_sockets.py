# SPDX-License-Identifier: Apache-2.0
"""What frames cost that go into a tunnel and come out of one, by UDP sockets of the kernel.

    .venv/bin/python bench/tunnel_sockets.py [--rounds 9] [--json FILE]

Both ends are on the loopback interface, so what is counted for sending contains the kernel's way up
to the receiver's socket: cycles of the time stamp counter a frame. Frames of one length as runs
(UDP_SEGMENT, UDP_GRO), and one by one; segments of TCP joined, and not. The ways take turns in each
round; printed are medians. Nothing is judged: what was found stands in docs/explanation/overlay.md.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.tunnel_socket_kernels import receive_timed, send_timed
from byway.machine.layout import address_of
from byway.packet.batch import ROWS
from byway.ports.tunnel_send import MOST
from byway.testing.offload_frames import Shape
from tests.unit.ports.tunnel_bench import Bench, frame

TIMES = 4  # batches at once: the socket has room for more
SEGMENT = 1398  # of TCP, in a network with an MTU of 1450
SEGMENTS = 44  # that one message holds


def tcp() -> list[bytes]:
    """The segments of one large frame, as they are sent."""
    return [Shape(sequence=1 + SEGMENT * k, ident=1 + k,
                  payload=bytes([k]) * SEGMENT).build(complete=True) for k in range(SEGMENTS)]


LOTS = {"60 bytes": [frame(60)] * ROWS, "1464 bytes": [frame(1464)] * ROWS, "TCP": tcp()}
# How a lot travels: frames in a message, joined.
WAYS = {"runs": (MOST, 0), "one by one": (1, 0), "runs, joined": (MOST, 1)}


def measure(rounds: int) -> dict[str, list[float]]:
    """All samples, by what they are of."""
    samples: dict[str, list[float]] = {}
    bench = Bench("127.0.0.1")
    try:
        for number in range(rounds + 1):
            for lot, frames in LOTS.items():
                for way, (most, join) in WAYS.items():
                    if join and lot != "TCP":
                        continue
                    bench.point_at(bench.wanted.port, most=most)
                    bench.queue.record["join"] = join
                    n = bench.frames.place(frames)
                    sent = send_timed(address_of(bench.sender), bench.frames.address,
                                      bench.frames.selected, n, TIMES)
                    taken = receive_timed(bench.queue.address, bench.frames.address)
                    assert bench.tx["frames"][0] == n * TIMES
                    for what, ticks in (("send", sent), ("receive", taken)):
                        samples.setdefault(f"{what}, {lot}, {way}", []).append(ticks / n / TIMES)
            if number == 0:  # compiling, first pages
                samples.clear()
    finally:
        bench.close()
    return samples


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    given = parser.parse_args()
    samples = measure(given.rounds)
    for name, values in samples.items():
        print(f"{name:<40} {statistics.median(values):>10.1f}")
    if given.json:
        given.json.write_text(json.dumps(samples, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
