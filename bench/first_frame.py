# SPDX-License-Identifier: Apache-2.0
"""How long from `byway run` to the first frame forwarded: cold (compiling) and warm.

    .venv/bin/python bench/first_frame.py [--rounds 3] [--json FILE]

Two guests written in plain Python connect as soon as the switch's sockets are there, and one of
them sends until the other one receives. Measured is the time from the start of the process to that
arrival. Cold means an empty cache of compiled kernels, once; warm the same cache again, `--rounds`
times, of which the median counts. Also measured is the way of the first frame after idle: sent
while the worker sleeps, until it lies in the receiver's ring. The exit status is 0 if the claims
hold (cold below 15 s, warm below 1.5 s, first frame after idle below 100 us), 1 if not.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byway.machine.unixsocket import SocketError
from tests.system.peers.plain import PlainGuest, frame
from tests.system.peers.process import Process, wait_until
from tests.system.peers.switch import BYWAY, START, Port, Switch, configuration

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
AGAIN = 0.005  # seconds until the sender tries again
COLD, WARM, IDLE = 15.0, 1.5, 100e-6  # the claims, in seconds
IDLE_FRAMES = 200


def connect(port: Port, process: Process) -> PlainGuest:
    """A guest at this port, as soon as the switch listens there."""

    def attempt() -> PlainGuest | None:
        if not process.running:
            raise process.error(f"ended with {process.child.returncode}")
        with contextlib.suppress(SocketError):  # not there yet
            return PlainGuest(port.socket)
        return None

    guest: PlainGuest = wait_until(attempt, f"{port.socket} answers", START)
    return guest


def first_frame(cache: Path) -> float:
    """Seconds from the start of `byway run`, with this cache, to the first frame that arrives."""
    folder = Path(tempfile.mkdtemp(prefix="byway-bench-"))
    ports = [Port(name, folder / f"{name}.sock") for name in ("vm1", "vm2")]
    file = folder / "lab.toml"
    file.write_text(configuration(folder / "api.sock", ports, (), {}))
    data = frame(MACS[1], MACS[0])
    begin = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            argv = [str(BYWAY), "run", str(file)]
            env = {"BYWAY_CACHE": str(cache)}
            process = stack.enter_context(Process("byway", argv, folder / "byway.log", env))
            receiver = stack.enter_context(connect(ports[1], process))
            sender = stack.enter_context(connect(ports[0], process))

            def attempt() -> bool:
                if sender.idle():
                    sender.send(data)
                return receiver.receive(AGAIN) == data

            wait_until(attempt, "the first frame arrives", START)
            return time.monotonic() - begin
    finally:
        shutil.rmtree(folder)


def after_idle(frames: int) -> list[float]:
    """Seconds that each of `frames` frames took which were sent while the worker slept."""
    folder = Path(tempfile.mkdtemp(prefix="byway-bench-"))
    ports = [Port(name, folder / f"{name}.sock") for name in ("vm1", "vm2")]
    data = frame(MACS[1], MACS[0])
    took = []
    try:
        with (
            Switch(folder, ports, workers=[min(os.sched_getaffinity(0))]) as switch,
            PlainGuest(ports[0].socket) as sender,
            PlainGuest(ports[1].socket) as receiver,
        ):
            switch.wait_up()
            for _ in range(frames):
                asleep = lambda: all(w["asleep"] for w in switch.client.workers())  # noqa: E731
                wait_until(asleep, "the worker sleeps", 5)
                begin = time.perf_counter()
                sender.send(data)
                if receiver.receive() != data:
                    raise switch.process.error("a frame sent while it was idle did not arrive")
                took.append(time.perf_counter() - begin)
    finally:
        shutil.rmtree(folder)
    return took


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="warm starts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    cache = Path(tempfile.mkdtemp(prefix="byway-cache-"))
    try:
        cold = first_frame(cache)
        warm = [first_frame(cache) for _ in range(given.rounds)]
    finally:
        shutil.rmtree(cache)
    idle = after_idle(IDLE_FRAMES)
    middle, latency = statistics.median(warm), statistics.median(idle)
    print(f"cold start to first frame   {cold:8.2f} s   claim below {COLD:g} s")
    print(f"warm start to first frame   {middle:8.2f} s   claim below {WARM:g} s")
    print(f"first frame after idle      {1e6 * latency:8.1f} us  claim below {1e6 * IDLE:g} us")
    if given.json:
        result = {"cold_seconds": cold, "warm_seconds": warm, "after_idle_seconds": idle}
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if cold < COLD and middle < WARM and latency < IDLE else 1


if __name__ == "__main__":
    sys.exit(main())
