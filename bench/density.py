# SPDX-License-Identifier: Apache-2.0
"""Two busy ports among thousands of idle ones: what a frame costs, and what a port costs to make.

    .venv/bin/python bench/density.py [--ports 2000] [--rounds 3] [--seconds 2] [--json FILE]

One switch with its worker on the first CPU. Two fake guests (those of `byway bench vm2vm`), on the
last one, exchange frames: alone, then among idle tap ports in a namespace each on the same network,
then alone again. Measured are the busy cycles a frame by the worker's own count, and the
milliseconds of the switch's processor and of the clock that each port took. Needs root.

Printed are the medians and the claims made with them; the exit status is 0 if all claims hold, 1
if not, 2 if nothing could be measured.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byway.testing.exchange import Exchange
from byway.testing.frames import mac
from byway.testing.guest import Guest
from tests.system.peers.crowd import Crowd
from tests.system.peers.process import PeerError
from tests.system.peers.switch import Port, Switch

MACS = ("02:00:00:01:00:01", "02:00:00:01:00:02")
FRAME, RING, WINDOW = 64, 1024, 256
WARM_UP = 0.5  # seconds
DENSE = 1.1  # busy cycles a frame among idle ports, of those alone
EVEN = 1.5  # processor time of the last ports, of that of the first hundred
STEPS = (10, 100, 1000, 2000, 5000)


@dataclass(frozen=True)
class Making:
    """What ports cost to make, one after the other, up to ``ports`` of them; for each."""

    ports: int
    milliseconds: float
    cpu_milliseconds: float


@contextmanager
def exchanging(folder: Path) -> Iterator[tuple[Exchange, Exchange]]:
    """The two guests at their ports."""
    one, other = (Guest.connect(str(folder / f"s{k}"), mac=address, size=RING)
                  for k, address in enumerate(MACS))
    with one, other:
        yield (Exchange(one, mac(MACS[1]), sizes=(FRAME,), window=WINDOW, check=False),
               Exchange(other, mac(MACS[0]), sizes=(FRAME,), window=WINDOW, check=False))


def cycles(switch: Switch, folder: Path, rounds: int, seconds: float) -> list[float]:
    """Busy cycles a frame, once a round."""
    found = []
    with exchanging(folder) as (first, second):
        switch.wait_up("vm0", "vm1")
        first.run_with(second, WARM_UP)
        for _ in range(rounds):
            before = switch.client.workers()[0]
            first.run_with(second, seconds)
            after = switch.client.workers()[0]
            found.append((after["busy_cycles"] - before["busy_cycles"])
                         / max(1, after["frames"] - before["frames"]))
    return found


def fill(switch: Switch, crowd: Crowd, count: int) -> list[Making]:
    """Make the idle ports, each by a call of its own."""
    made = []
    done = 0
    for step in sorted({*(s for s in STEPS if s < count), count}):
        began, used = time.monotonic(), switch.process.cpu_seconds()
        for k in range(done, step):
            switch.client.add_port({
                "name": f"c{k}", "network": "blue", "kind": "tap", "ifname": crowd.device,
                "netns": crowd.names[k], "address": [crowd.address(k)], "mac": crowd.mac(k)})
        n = step - done
        made.append(Making(step, 1000 * (time.monotonic() - began) / n,
                           1000 * (switch.process.cpu_seconds() - used) / n))
        print(f"up to {step} ports: {made[-1].milliseconds:.1f} ms a port, "
              f"{made[-1].cpu_milliseconds:.1f} ms of the switch's processor", file=sys.stderr)
        done = step
    return made


def empty(switch: Switch, count: int) -> float:
    """Remove them in one change; -> seconds."""
    began = time.monotonic()
    switch.client.change(remove_ports=[f"c{k}" for k in range(count)])
    return time.monotonic() - began


def measure(count: int, rounds: int, seconds: float, folder: Path) -> dict[str, object]:
    """Everything, in one run of one switch."""
    cpus = sorted(os.sched_getaffinity(0))
    ports = [Port(f"vm{k}", folder / f"s{k}") for k in range(2)]
    with Crowd(count) as crowd, Switch(folder, ports, workers=[cpus[0]]) as switch:
        os.sched_setaffinity(0, {cpus[-1]})
        alone = cycles(switch, folder, rounds, seconds)
        making = fill(switch, crowd, count)
        among = cycles(switch, folder, rounds, seconds)
        removal = empty(switch, count)
        alone += cycles(switch, folder, rounds, seconds)
        os.sched_setaffinity(0, cpus)
    return {"ports": count, "alone": alone, "among": among, "removal_seconds": removal,
            "making": [asdict(step) for step in making],
            "ratio": statistics.median(among) / statistics.median(alone),
            "evenness": making[-1].cpu_milliseconds / making[min(1, len(making) - 1)]
            .cpu_milliseconds}


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ports", type=int, default=2000, help="idle ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("density: network namespaces need root", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="byway-bench-") as folder:
            found = measure(given.ports, given.rounds, given.seconds, Path(folder))
    except (PeerError, OSError) as error:
        print(f"density: {error}", file=sys.stderr)
        return 2
    for name in ("alone", "among"):
        some = found[name]
        assert isinstance(some, list)
        print(f"{name:<8} {statistics.median(some):8.1f} busy cycles a frame "
              f"({', '.join(f'{one:.1f}' for one in some)})")
    print(f"removed  {found['removal_seconds']:8.1f} s for all in one change")
    holds = True
    for name, bound in (("ratio", DENSE), ("evenness", EVEN)):
        value = found[name]
        assert isinstance(value, float)
        holds = holds and value <= bound
        print(f"{name:<8} {value:8.3f} <= {bound:.2f}  {'holds' if value <= bound else 'FAILS'}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
