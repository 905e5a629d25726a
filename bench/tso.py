# SPDX-License-Identifier: Apache-2.0
"""TCP between two Linux guests through Byway: large frames that nobody cuts, against 1514 bytes.

    .venv/bin/python bench/tso.py [--rounds 3] [--json FILE]

Two QEMU guests have two cards each. On the first, checksum and segmentation are left to the device
and both sides take large frames; on the second every offload is off, so the guests cut their frames
themselves. A file goes through each in turn. Measured is what Byway's worker is busy with: bits
that it moved in one direction for each second (of its time stamp counter) in which it was busy, by
its own count. The worker has a processor for itself, where there are two: time in which it had to
wait for one would be counted too. How fast the emulated guests are does not enter, but how many
frames they send at a time does. Printed are the medians and their ratio, which is claimed to be at
least 5; the exit status is 0 if it is, 1 if not. Beside them stands what this machine does for a
bare copy of frames of that size (byway.testing.bare_copy), measured after each round while the
worker sleeps: a switch that copies cannot be above.
"""

import argparse
import contextlib
import hashlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byway.machine.clock import measure_hz
from byway.machine.cpu import usable_cpus
from byway.testing.bare_copy import cycles_a_frame
from tests.peers import find_kernel
from tests.system.matrix import OFFLOADS
from tests.system.peers import kernel
from tests.system.peers.qemu import MODULES, Card, Machine, Vm
from tests.system.peers.switch import Port, Switch

FILE = Random(64).randbytes(24 << 20)
WAYS = {"large": "", "1514": ",".join(f"{name}=off" for name in OFFLOADS)}
TCP_PORT = 5000
BUFFERS = {"large": 4096, "1514": 1536}  # bytes; what Linux posts
RING, FLIGHT = 256, 8  # buffers, frames
AT_LEAST = 5.0


def station(number: int, guest: int) -> str:
    """The address of a guest's card."""
    return f"02:00:00:02:{number:02x}:{guest:02x}"


def start(stack: contextlib.ExitStack, folder: Path, cpus: tuple[int, ...]) -> tuple[Switch, Vm]:
    """The switch, a guest that serves the file; -> the switch and the guest that fetches it."""
    image, modules = find_kernel()
    initramfs = kernel.build_initramfs(modules, MODULES, folder / "initramfs")
    system = kernel.extract_elf(image, folder / "vmlinux"), kernel.with_files(
        initramfs, {"srv/file": FILE}, folder / "system")
    ports, cards = [], ([], [])
    for number, (way, options) in enumerate(WAYS.items(), 1):
        for guest, some in enumerate(cards, 1):
            socket = folder / f"{way}-{guest}"
            ports.append(Port(f"{way}-{guest}", socket, network=way))
            some.append(Card(socket, station(number, guest), options))
    switch = stack.enter_context(Switch(folder, ports, workers=[cpus[0]]))
    if len(cpus) > 1:  # the guests and we leave the worker's processor alone
        os.sched_setaffinity(0, set(cpus[1:]))
        stack.callback(os.sched_setaffinity, 0, cpus)
    guests = [stack.enter_context(Vm(f"guest{guest}", folder, *system, some,
                                     machine=Machine(memory=256)))
              for guest, some in enumerate(cards, 1)]
    for guest, vm in enumerate(guests, 1):
        vm.ready()
        for number in range(1, len(WAYS) + 1):
            card = vm.interface(station(number, guest))
            vm.run(f"ip link set {card} up; ip addr add 10.3.{number}.{guest}/24 dev {card}")
    guests[0].serve("/srv/file", TCP_PORT)
    switch.wait_up(*(port.name for port in ports))
    return switch, guests[1]


def measure(switch: Switch, guest: Vm, way: str) -> tuple[float, float]:
    """-> Gbit for each busy second, bytes a frame, of a file that comes to the guest."""
    before, port = switch.client.workers()[0], switch.ports()[f"{way}-1"]
    got = guest.fetch(f"10.3.{list(WAYS).index(way) + 1}.1", TCP_PORT)
    after, now = switch.client.workers()[0], switch.ports()[f"{way}-1"]
    if got != hashlib.md5(FILE).hexdigest():
        raise RuntimeError(f"{way}: the file did not come as it was")
    octets = now["rx_bytes"] - port["rx_bytes"]
    busy = (after["busy_cycles"] - before["busy_cycles"]) / after["cycles_per_second"]
    return 8 * octets / busy / 1e9, octets / (now["rx_frames"] - port["rx_frames"])


def bare_copy(way: str, octets: float, cpus: tuple[int, ...]) -> float:
    """-> Gbit that a CPU copies in a second, of frames with so many bytes."""
    ticks = cycles_a_frame(round(octets), BUFFERS[way], RING, FLIGHT, (cpus[0], cpus[-1]))
    return 8 * octets * measure_hz() / ticks / 1e9


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    rows: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    cpus = usable_cpus()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="byway-bench-")))
        switch, guest = start(stack, folder, cpus)
        for number in range(1, given.rounds + 1):
            for way in WAYS:
                rate, octets = measure(switch, guest, way)
                rows[way].append((rate, octets, bare_copy(way, octets, cpus)))
                print(f"round {number}: {way}: {rate:.2f} Gbit/s busy, {octets:.0f} bytes a frame, "
                      f"bare copy {rows[way][-1][2]:.2f} Gbit/s", file=sys.stderr, flush=True)
    middle = {way: statistics.median(row[0] for row in some) for way, some in rows.items()}
    ratio = middle["large"] / middle["1514"]
    for way, some in rows.items():
        print(f"{way:>6} {middle[way]:8.2f} Gbit/s busy "
              f"{statistics.median(row[1] for row in some):8.0f} bytes a frame, "
              f"{statistics.median(row[0] / row[2] for row in some):6.1%} of a bare copy")
    print(f"ratio {ratio:.2f} >= {AT_LEAST:.1f}  {'holds' if ratio >= AT_LEAST else 'FAILS'}")
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "medians": middle, "ratio": ratio}))
    return 0 if ratio >= AT_LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
