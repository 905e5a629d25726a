# SPDX-License-Identifier: Apache-2.0
"""How fast two containers talk: through Byway, a Linux bridge, and Open vSwitch in user space.

    .venv/bin/python bench/containers.py [--rounds 3] [--seconds 5] [--ways WAY ...] [--json FILE]

Two network namespaces stand for two containers; between them, each way in turn:

    byway tap      `byway run` with two tap ports
    byway af-xdp   `byway run` with two af-xdp ports, each on the host's end of a veth
    linux bridge   a bridge of the kernel with two veths
    ovs tap        Open vSwitch, data path "netdev" (in user space), with two taps
    ovs veth       the same with packet sockets on the host's ends of two veths

iperf3 sends TCP for some seconds, then frames of 64 bytes (18 of UDP payload) as fast as it can.
TCP counts what arrived; UDP counts the frames that arrived, not those that were sent.

CPU time is that of the whole machine: all that /proc/stat does not call idle, iowait or stolen. A
kernel bridge works in whoever sends, and in softirqs that belong to nobody; to count processes
would make it free. It includes what iperf3 itself needs, which is the same for all. Hence nothing
else may run meanwhile. The ways take turns in each round; printed are medians and the claim; the
exit status is 0 if it holds, 1 if not, 2 if nothing could be measured. Needs root.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.container_ways import WAYS, Pair
from tests.system.peers.process import PeerError, Process, wait_until

PAYLOAD = 18  # bytes of UDP in a frame of 64 bytes, whose checksum the kernel never sees
FRAME = 60
GIB = 1 << 30
CLAIM = 3.0  # Byway's tap against Open vSwitch's, TCP
IDLE = (3, 4, 7)  # idle, iowait, steal in the first line of /proc/stat (proc(5))


@dataclass(frozen=True)
class Sample:
    """One measurement: ``rate`` in Gbit/s (TCP) or million frames a second (UDP) that arrived;
    ``cost`` in CPU seconds of the machine for each GiB (UDP: of frames of 60 bytes); ``lost``:
    the share of the frames that were sent and did not arrive."""

    way: str
    load: str
    round: int
    rate: float
    cost: float
    lost: float


def busy() -> float:
    """CPU seconds that this machine has worked since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = sum(int(value) for place, value in enumerate(fields) if place not in IDLE)
    return ticks / os.sysconf("SC_CLK_TCK")


def iperf(pair: Pair, folder: Path, options: list[str]) -> tuple[dict[str, float], float]:
    """What iperf3 says at its end of the sum of what was received, and the CPU seconds it took."""
    server = [*pair.right.prefix, "iperf3", "-s", "-1", "-B", pair.address, "--forceflush"]
    with Process("iperf3", server, folder / "server.log") as listening:
        listening.expect("Server listening", 10)
        before = busy()
        try:
            text = pair.left.run("iperf3", "-c", pair.address, "-J", *options, timeout=120)
        except PeerError as error:
            raise listening.error(f"the client failed: {error}") from None
        spent = busy() - before
    report = json.loads(text)
    if "error" in report:
        raise PeerError(f"iperf3: {report['error']}")
    end: dict[str, float] = report["end"].get("sum_received") or report["end"]["sum"]
    return end, spent


def tcp(pair: Pair, folder: Path, seconds: int) -> tuple[float, float, float]:
    """(Gbit/s, CPU seconds a GiB, 0) of one TCP connection."""
    end, spent = iperf(pair, folder, ["-t", f"{seconds}"])
    return end["bits_per_second"] / 1e9, spent * GIB / end["bytes"], 0.0


def udp(pair: Pair, folder: Path, seconds: int) -> tuple[float, float, float]:
    """(million frames a second, CPU seconds a GiB, share lost) of small frames."""
    end, spent = iperf(pair, folder, ["-u", "-b", "0", "-l", str(PAYLOAD), "-t", f"{seconds}"])
    arrived = end["packets"] - end["lost_packets"]
    if arrived <= 0:
        raise PeerError("no frame arrived")
    return (arrived / end["seconds"] / 1e6, spent * GIB / (arrived * FRAME),
            end["lost_packets"] / end["packets"])


LOADS: dict[str, Callable[[Pair, Path, int], tuple[float, float, float]]] = {
    "tcp": tcp, "udp": udp,
}
UNITS = {"tcp": "Gbit/s", "udp": "M frames/s"}


@contextlib.contextmanager
def connected(way: str) -> Iterator[tuple[Pair, Path]]:
    """Two namespaces that reach each other that way, and a folder; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="byway-") as name, \
            WAYS[way](Path(name)) as pair:
        reach = ["busybox", "ping", "-c", "1", "-W", "1", pair.address]

        def answers() -> bool:
            with contextlib.suppress(PeerError):
                pair.left.run(*reach)
                return True
            return False

        wait_until(answers, f"{way}: a first answer", 30)
        yield pair, Path(name)


def measure(ways: list[str], rounds: int, seconds: int) -> list[Sample]:
    """Every way in every round, each told on stderr as it comes."""
    samples = []
    for number in range(1, rounds + 1):
        for way in ways:
            with connected(way) as (pair, folder):
                for load, run in LOADS.items():
                    run(pair, folder, 1)  # what is compiled, learned, cached, is so by now
                    sample = Sample(way, load, number, *run(pair, folder, seconds))
                    samples.append(sample)
                    print(f"round {number}: {way}, {load}: {sample.rate:.3g} {UNITS[load]},"
                          f" {sample.cost:.3g} CPU s/GiB, {sample.lost:.0%} lost",
                          file=sys.stderr, flush=True)
    return samples


def medians(samples: list[Sample]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """{(way, load): (rate, cost, lost)}, each the median of its rounds."""
    keys = dict.fromkeys((sample.way, sample.load) for sample in samples)
    return {
        key: tuple(  # type: ignore[misc]
            statistics.median(getattr(s, value) for s in samples if (s.way, s.load) == key)
            for value in ("rate", "cost", "lost"))
        for key in keys
    }


def table(middle: dict[tuple[str, str], tuple[float, float, float]]) -> str:
    """What is printed."""
    lines = [f"{'':<14}{'TCP Gbit/s':>12}{'CPU s/GiB':>12}{'UDP M/s':>12}{'CPU s/GiB':>12}"
             f"{'lost':>8}"]
    for way in dict.fromkeys(way for way, _ in middle):
        rate, cost, _ = middle[way, "tcp"]
        frames, dear, lost = middle[way, "udp"]
        lines.append(f"{way:<14}{rate:>12.2f}{cost:>12.2f}{frames:>12.3f}{dear:>12.1f}{lost:>8.0%}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, judge; -> the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)  # iperf3 knows no parts
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    try:
        samples = measure(given.ways, given.rounds, given.seconds)
    except (PeerError, OSError) as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 2
    middle = medians(samples)
    print(table(middle))
    if given.json:
        given.json.write_text(json.dumps([asdict(sample) for sample in samples], indent=2))
    if not {"byway tap", "ovs tap"} <= set(given.ways):
        return 0
    ratio = middle["byway tap", "tcp"][0] / middle["ovs tap", "tcp"][0]
    print(f"TCP, byway tap / ovs tap: {ratio:.1f} (to be at least {CLAIM:g})")
    return 0 if ratio >= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
