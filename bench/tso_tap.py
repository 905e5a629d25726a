# SPDX-License-Identifier: Apache-2.0
"""TCP frames from a guest to the kernel: large ones that nobody cuts, against 1514 bytes.

    .venv/bin/python bench/tso_tap.py [--turns 20] [--json FILE]

A fake guest each sends 64 KiB frames and 1514-byte frames to a tap in a network namespace, in turn,
as fast as the switch takes them (root). Measured is what Byway's worker is busy with, which
contains the kernel's part: each frame is a system call, and in it the kernel does with the frame
what it does with what it receives. Printed are the medians and the median of the ratios within a
turn: bits that are moved in a second in which the worker is busy. It is claimed to be at least 5;
the exit status is 0 if it is, 1 if not, 2 if nothing could be measured. bench/tso.py has the same
between two guests, where nothing but a copy is left to save.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byway.machine.clock import measure_hz
from byway.machine.cpu import usable_cpus
from byway.testing.exchange import Exchange
from byway.testing.frames import mac
from byway.testing.guest import Guest
from byway.virtio.features import Feature, mask
from tests.system.engines.namespace import Namespace
from tests.system.peers.process import PeerError
from tests.system.peers.switch import Switch

LARGE = mask(Feature.CSUM, Feature.GUEST_CSUM, Feature.HOST_TSO4, Feature.GUEST_TSO4,
             Feature.MRG_RXBUF)
GUEST, KERNEL = "02:00:00:00:00:01", "02:00:00:00:00:02"
LENGTHS = {"large": 14 + 65535, "1514": 1514}
SLOT_SECONDS, PATIENCE_SECONDS = 0.3, 0.0005
AT_LEAST = 5.0
PORTS = """
[[network]]
name = "{way}"

[[port]]
name = "{way}-vm"
network = "{way}"
kind = "vhost-user"
socket = "{folder}/{way}"

[[port]]
name = "{way}-tap"
network = "{way}"
kind = "tap"
ifname = "tso-{way}"
netns = "{netns}"
mac = "{mac}"
"""


def sender(way: str, socket: Path) -> tuple[Guest, Exchange]:
    """A guest that sends one kind of frames and does not wait for answers: nobody gives any."""
    large = way == "large"
    guest = Guest.connect(str(socket), mac=GUEST, size=1024,
                          **({"features": LARGE, "buffer": 4096} if large else {}))
    exchange = Exchange(guest, mac(KERNEL), sizes=(LENGTHS[way],), check=False,
                        **({"window": 16, "gso_size": 1448} if large else
                           {"window": 256, "flows": 1}))
    exchange.record["patience"] = int(PATIENCE_SECONDS * measure_hz())
    return guest, exchange


@contextlib.contextmanager
def connected() -> Iterator[tuple[Switch, dict[str, Exchange]]]:
    """The switch, and who sends."""
    cpus = usable_cpus()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="byway-bench-")))
        place = stack.enter_context(Namespace("tso"))
        text = f'[switch]\nname = "lab"\napi = "{folder}/api.sock"\nworkers = [{cpus[0]}]\n'
        text += "".join(PORTS.format(way=way, folder=folder, netns=place.name, mac=KERNEL)
                        for way in LENGTHS)
        switch = stack.enter_context(Switch(folder, [], text=text))
        os.sched_setaffinity(0, {cpus[-1]})
        stack.callback(os.sched_setaffinity, 0, cpus)
        senders = {}
        for way in LENGTHS:
            place.run("ip", "link", "set", f"tso-{way}", "up")
            guest, senders[way] = sender(way, folder / way)
            stack.enter_context(guest)
        switch.wait_up(*(f"{way}-{end}" for way in LENGTHS for end in ("vm", "tap")))
        for exchange in senders.values():
            exchange.run(0)  # the first call ever compiles, for longer than a slot
            exchange.run(SLOT_SECONDS)
        yield switch, senders


def slot(switch: Switch, exchange: Exchange, way: str) -> tuple[float, float]:
    """Let one send for a while; -> Gbit for each busy second, bytes a frame."""
    before, port = switch.client.workers()[0], switch.ports()[f"{way}-tap"]
    exchange.run(SLOT_SECONDS)
    after, now = switch.client.workers()[0], switch.ports()[f"{way}-tap"]
    octets = now["tx_bytes"] - port["tx_bytes"]
    busy = (after["busy_cycles"] - before["busy_cycles"]) / after["cycles_per_second"]
    if octets == 0:
        raise PeerError(f"{way}: nothing came to the kernel in {SLOT_SECONDS} s")
    return 8 * octets / busy / 1e9, octets / (now["tx_frames"] - port["tx_frames"])


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    if given.turns < 2:
        parser.error("--turns: quartiles need two at least")
    rows: dict[str, list[tuple[float, float]]] = {way: [] for way in LENGTHS}
    try:
        with connected() as (switch, senders):
            for _ in range(given.turns):
                for way, exchange in senders.items():
                    rows[way].append(slot(switch, exchange, way))
    except PeerError as error:
        print(f"tso_tap: {error}", file=sys.stderr)
        return 2
    for way, some in rows.items():
        print(f"{way:>6} {statistics.median(row[0] for row in some):8.2f} Gbit/s busy "
              f"{statistics.median(row[1] for row in some):8.0f} bytes a frame")
    ratios = [large[0] / small[0] for large, small in zip(*rows.values(), strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    print(f"ratio {ratio:.2f} ({low:.2f} to {high:.2f}) >= {AT_LEAST:.1f}  "
          f"{'holds' if ratio >= AT_LEAST else 'FAILS'}")
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "ratio": ratio}))
    return 0 if ratio >= AT_LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
