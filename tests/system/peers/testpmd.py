# SPDX-License-Identifier: Apache-2.0
"""DPDK's testpmd: as a guest with two virtio_user ports, and as a switch of two vhost ports.

Used by the tests and the bench. Both run interactive, commands on standard input. The guest
forwards in `mac` mode with the other port as peer: a frame that enters the switch at one port comes
back through the other and is sent again, so the number of frames in flight stays what `start
tx_first` made it; each lost frame is missing from then on. After `drain` the check is exact: what
one port sent is what the other received.
"""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.system.peers.process import Process, wait_until

PROGRAM = "dpdk-testpmd"
PROMPT = "testpmd> "
BURST = 32  # frames a port sends for each burst of `start tx_first`
MBUFS = 16384
STARTED = r"TX RS bit threshold=0\s.*TX RS bit threshold=0\s"  # the end of the answer to `start`
STILL = 150  # equal readings, which take seconds: then nothing is on its way, also if a CPU stalls
_prefixes = itertools.count()


@dataclass(frozen=True)
class VirtioUser:
    """A virtio_user port: the driver's side of a vhost-user socket, in DPDK."""

    path: Path
    mac: str
    queue_size: int = 1024
    mrg_rxbuf: bool = True
    in_order: bool = True
    packed: bool = False
    server: bool = False
    queues: int = 1
    vectorized: bool = False

    def vdev(self, index: int) -> str:
        """The device's argument (DPDK 22.11, virtio guide, "Virtio-user arguments")."""
        options = [
            f"net_virtio_user{index},path={self.path},mac={self.mac}",
            f"queues={self.queues},queue_size={self.queue_size}",
            f"mrg_rxbuf={self.mrg_rxbuf:d},in_order={self.in_order:d},packed_vq={self.packed:d}",
        ]
        options += ["server=1"] if self.server else []
        return ",".join(options + (["vectorized=1"] if self.vectorized else []))


@dataclass(frozen=True)
class PacketSocket:
    """A port on an interface of the kernel (net_af_packet), which has this address."""

    ifname: str
    mac: str
    queue_size: int = 1024
    queues: int = 1

    def vdev(self, index: int) -> str:
        """The device's argument (DPDK 22.11, "AF_PACKET Poll Mode Driver")."""
        return f"net_af_packet{index},iface={self.ifname},qpairs=1,framecnt={self.queue_size}"


GuestPort: TypeAlias = VirtioUser | PacketSocket


@dataclass(frozen=True)
class PortStats:
    """What testpmd counted at one of its ports; rx and tx from its own point of view."""

    rx: int
    rx_missed: int
    rx_errors: int
    tx: int
    tx_errors: int


def parse_port_stats(text: str) -> list[PortStats]:
    """The counters of each port, from the output of `show port stats all`."""

    def number(block: str, key: str) -> int:
        found = re.search(rf"{key}:\s*(\d+)", block)
        if found is None:
            raise ValueError(f"no {key} in testpmd's statistics: {block!r}")
        return int(found.group(1))

    keys = ("RX-packets", "RX-missed", "RX-errors", "TX-packets", "TX-errors")
    blocks = re.split(r"NIC statistics for port \d+", text)[1:]
    return [PortStats(*(number(block, key) for key in keys)) for block in blocks]


def parse_cycles(text: str) -> float:
    """Cycles a frame, from `show fwd stats all` of a testpmd with --record-core-cycles."""
    found = re.search(r"CPU cycles/packet=([\d.]+)", text)
    if found is None:
        raise ValueError(f"no cycles in testpmd's statistics: {text[-500:]!r}")
    return float(found.group(1))


class Testpmd(Process):
    """A running interactive testpmd."""

    def __init__(
        self,
        name: str,
        folder: Path,
        cpu: int,
        mib: int,
        huge: bool,
        eal: list[str],
        app: list[str],
        mbufs: int = MBUFS,
        inside: Sequence[str] = (),
    ) -> None:
        prefix = f"byway-{os.getpid()}-{next(_prefixes)}"
        memory = ["--in-memory"] if huge else ["--no-huge", "--no-shconf"]
        # Line by line: a prompt that is stuck in a buffer cannot be waited for.
        argv = [*inside, "stdbuf", "-oL", PROGRAM, "--lcores", f"0@{cpu},1@{cpu}"]
        argv += ["-m", str(mib), *memory, f"--file-prefix={prefix}", "--no-pci"]
        argv += ["--no-telemetry", *eal]
        argv += ["--", "-i", "--nb-cores=1", f"--total-num-mbufs={mbufs}", *app]
        super().__init__(name, argv, folder / f"{name}.log")

    def ready(self, timeout: float = 30.0) -> None:
        """Wait for the prompt, which comes when every port is configured."""
        self.expect(PROMPT, timeout)

    def command(self, text: str, answer: str = PROMPT, timeout: float = 15.0) -> str:
        """Give a command; what was written from then to the end of `answer`."""
        self.skip()
        begin = self.mark
        self.write(text + "\n")
        self.expect(answer, timeout)
        return self.output()[begin:]

    def clear(self) -> None:
        """Begin a new count of frames and cycles."""
        self.command("clear fwd stats all")

    def cycles(self) -> float:
        """Cycles a frame since `clear`, of the passes that moved frames; it has to count them."""
        return parse_cycles(self.command("show fwd stats all", r"CPU cycles/packet=\S+"))


class Guest(Testpmd):
    """Two virtio_user ports that forward to each other: two virtual machines in one process.

    `flows`: what they send is of many flows, so that a switch can spread it over their queues.
    `mbufs`: as many buffers share the two, if not plenty: they take turns, so how many there are
    decides which caches they stay in. `inside`: what comes before its command, to enter a
    namespace. `count`: it counts its cycles.
    """

    def __init__(
        self,
        folder: Path,
        ports: tuple[GuestPort, GuestPort],
        *,
        cpu: int = 1,
        frame: int = 64,
        huge: bool = False,
        name: str = "guest",
        flows: bool = False,
        mbufs: int = 0,
        inside: Sequence[str] = (),
        count: bool = False,
    ) -> None:
        eal = ["--single-file-segments"]
        for index, port in enumerate(ports):
            eal += ["--vdev", port.vdev(index)]
        app = ["--forward-mode=mac", f"--eth-peer=0,{ports[1].mac}", f"--eth-peer=1,{ports[0].mac}"]
        size = ports[0].queue_size
        app += [f"--txpkts={frame}", f"--txd={size}", f"--rxd={size}"]
        if ports[0].queues > 1:
            app += [f"--rxq={ports[0].queues}", f"--txq={ports[0].queues}"]
        if flows:  # the first frames differ in their source addresses
            app += ["--txonly-multi-flow"]
        # Every ring may be full of buffers, those for sending of such as nobody took back yet.
        mbufs = mbufs or max(MBUFS, 3 * size * 4 * ports[0].queues)
        if count:
            app.append("--record-core-cycles")
        super().__init__(name, folder, cpu, 256, huge, eal, app, mbufs, inside)

    def ping_pong(self, bursts: int = 1) -> None:
        """Send `bursts` bursts of 32 frames from each port, and forward from then on."""
        self.command(f"start tx_first {bursts}", STARTED)

    def stats(self) -> list[PortStats]:
        """Both ports' counters now."""
        text = self.command("show port stats all", r"statistics for port 1.*Tx-pps:.*####\s")
        return parse_port_stats(text)

    def drain(self, timeout: float = 30.0) -> list[PortStats]:
        """Stop forwarding, receive all that is still in flight, and return the final counters:
        balanced, or as they are when nothing has come for a while."""
        self.command("stop", r"\nDone\.")
        self.command("set fwd rxonly", "Set rxonly")
        self.command("start", STARTED)
        previous: list[PortStats] = []
        same = 0

        def settled() -> list[PortStats]:
            nonlocal previous, same
            now = self.stats()
            same = same + 1 if now == previous else 0
            previous = now
            return now if balanced(now) or same == STILL else []

        stats: list[PortStats] = wait_until(settled, "testpmd's counters stand still", timeout)
        self.command("stop", r"\nDone\.")
        return stats


def balanced(stats: list[PortStats]) -> bool:
    """True when each port received exactly what the other one sent."""
    return stats[0].tx == stats[1].rx and stats[1].tx == stats[0].rx


class VhostSwitch(Testpmd):
    """testpmd as a switch: two vhost ports, io forwarding, no look at the frames."""

    def __init__(
        self, folder: Path, sockets: tuple[Path, Path], *, cpu: int = 0, huge: bool
    ) -> None:
        eal = []
        for index, socket in enumerate(sockets):
            eal += ["--vdev", f"net_vhost{index},iface={socket},queues=1"]
        app = ["--forward-mode=io", "--record-core-cycles"]
        super().__init__("testpmd-switch", folder, cpu, 512, huge, eal, app)

    def forward(self) -> None:
        """Start forwarding."""
        self.command("start", STARTED)
