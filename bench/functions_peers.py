# SPDX-License-Identifier: Apache-2.0
"""Firewall and NAT44 beside Open vSwitch with DPDK: the same DPDK guest through both.

    .venv/bin/python bench/functions_peers.py [--rounds 3] [--seconds 5] [--json FILE]

The guest is one testpmd with two virtio_user ports that sends back what it gets, with MAC and IP
addresses and ports exchanged (5tswap), 32 frames of 64 bytes in flight, each a flow of its own (but
one flow for nat44, as testpmd varies source addresses within the destination's network). Measured
are the cycles a frame costs the switch, empty polls left out, by each switch's own count; both
directions are frames. Cases:

* none: the switch alone (Open vSwitch: one NORMAL flow);
* acl 1000, acl 10000: as many rules that match other frames, and a last one that lets all pass
  (byway.acl on both ports; Open vSwitch: a flow each, by source address and UDP port);
* nat44: what leaves by the second port gets another source address, and answers come back through
  it (byway.nat44 on the second port; Open vSwitch: connection tracking with ct(nat)).

Printed are the medians of the rounds, what each case adds to "none", and the ratios. Needs root,
huge pages and Open vSwitch with DPDK; exit status 2 where nothing could be measured.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.vm2vm_testpmd import HUGE_MIB, MACS, WARM_UP, BywayMeter, Meter, OvsMeter
from tests.system.peers import hugepages, ovs, testpmd
from tests.system.peers.process import PeerError
from tests.system.peers.switch import Port, Switch

CASES = ("none", "acl 1000", "acl 10000", "nat44")
FRAME = 64
INSIDE, OUTSIDE, PEER = "10.0.0.1", "192.0.2.1", "198.51.100.2"
NOBODY = "01:80:c2:00:00:00"  # no switch hands this on: only the first port's frames live


class Swapper(testpmd.Testpmd):
    """A guest whose ports send back what they get, turned round."""

    def __init__(self, folder: Path, ports: tuple[testpmd.VirtioUser, testpmd.VirtioUser], *,
                 cpu: int, many: bool) -> None:
        eal = ["--single-file-segments"]
        for index, port in enumerate(ports):
            eal += ["--vdev", port.vdev(index)]
        size = ports[0].queue_size
        app = ["--forward-mode=5tswap", "--port-topology=loop",
               f"--eth-peer=0,{MACS[1]}", f"--eth-peer=1,{NOBODY}", f"--tx-ip={INSIDE},{PEER}",
               f"--txpkts={FRAME}", f"--txd={size}", f"--rxd={size}"]
        if many:
            app.append("--txonly-multi-flow")
        super().__init__("testpmd-swapper", folder, cpu, 256, True, eal, app,
                         max(testpmd.MBUFS, 12 * size), ())


def rules(count: int) -> Iterator[tuple[str, int]]:
    """Source address and destination port of rules that match no frame of the guest."""
    for k in range(count):
        yield f"172.{16 + (k >> 16)}.{k >> 8 & 255}.{k & 255}", 1000 + k % 5000


def toml(folder: Path, case: str, sockets: tuple[Path, Path], cpu: int) -> str:
    """Byway's configuration for a case."""
    text = [f'[switch]\nname = "lab"\napi = "{folder}/api.sock"\nworkers = [{cpu}]\n']
    chains = ["", ""]
    if case.startswith("acl"):
        rows = [f'{{ value = "drop", protocol = "udp", source = "{source}", '
                f'destination_ports = {port} }}' for source, port in rules(int(case.split()[1]))]
        rows.append('{ value = "pass" }')
        text.append('[[function]]\nname = "fence"\nuse = "byway.acl"\n'
                    f"tables = {{ rules = [{', '.join(rows)}] }}\n")
        chains = ['chain = ["fence"]\n'] * 2
    elif case == "nat44":
        chains[1] = f"chain = [\"byway.nat44(outside='{OUTSIDE}', inside='10.0.0.0/24')\"]\n"
    text.append('[[network]]\nname = "blue"\n')
    for k, socket in enumerate(sockets):
        text.append(f'[[port]]\nname = "vm{k + 1}"\nnetwork = "blue"\nkind = "vhost-user"\n'
                    f'socket = "{socket}"\n{chains[k]}')
    return "\n".join(text)


def flows(case: str) -> list[str]:
    """Open vSwitch's flows for a case."""
    if case == "nat44":
        return [
            f"table=0,priority=9,in_port=p0,ip,nw_src=10.0.0.0/24,"
            f"actions=ct(commit,zone=1,nat(src={OUTSIDE}:1024-65535)),output:p1",
            f"table=0,priority=9,in_port=p1,ip,nw_dst={OUTSIDE},actions=ct(zone=1,nat,table=1)",
            "table=0,priority=0,actions=drop",
            "table=1,ct_state=+trk+est,actions=output:p0",
        ]
    made = ["priority=1,actions=NORMAL"]
    if case.startswith("acl"):
        made += [f"priority={60000 - k},udp,nw_src={source},tp_dst={port},actions=drop"
                 for k, (source, port) in enumerate(rules(int(case.split()[1])))]
    return made


@contextlib.contextmanager
def started(switch: str, case: str, folder: Path, cpus: tuple[int, int]) -> Iterator[Meter]:
    """A switch with what a case asks for, between the sockets s0 and s1."""
    sockets = (folder / "s0", folder / "s1")
    if switch == "byway":
        ports = [Port(f"vm{k + 1}", socket) for k, socket in enumerate(sockets)]
        with Switch(folder, ports, text=toml(folder, case, sockets, cpus[0])) as running:
            yield BywayMeter(running)
        return
    with ovs.Ovs(folder, sockets, cpu=cpus[0], other=cpus[1]) as bridge:
        bridge.ready()
        listed = folder / "flows"
        listed.write_text("\n".join(flows(case)) + "\n")
        for words in (["del-flows", "br0"], ["--names", "add-flows", "br0", str(listed)]):
            subprocess.run(["ovs-ofctl", *words], check=True, capture_output=True, text=True,
                           env={**os.environ, **bridge.env})
        yield OvsMeter(bridge)


def measure(switch: str, case: str, seconds: float, cpus: tuple[int, int]) -> tuple[float, float]:
    """-> cycles a frame, million frames a second."""
    folder = Path(tempfile.mkdtemp(prefix="byway-bench-"))
    users = tuple(testpmd.VirtioUser(folder / f"s{k}", mac, server=switch == "ovs")
                  for k, mac in enumerate(MACS))
    try:
        with started(switch, case, folder, cpus) as meter, \
                Swapper(folder, (users[0], users[1]), cpu=cpus[1],
                        many=case != "nat44") as guest:
            guest.ready()
            meter.connected()
            guest.command("start tx_first 1", testpmd.STARTED)
            time.sleep(2 * WARM_UP)
            meter.clear()
            begin, first = time.monotonic(), _received(guest)
            time.sleep(seconds)
            end, last = time.monotonic(), _received(guest)
            if last == first:
                raise PeerError(f"{switch}, {case}: no frame came through")
            return meter.cycles(), (last - first) / (end - begin) / 1e6
    finally:
        shutil.rmtree(folder)


def _received(guest: Swapper) -> int:
    text = guest.command("show port stats all", r"statistics for port 1.*Tx-pps:.*####\s")
    return sum(port.rx for port in testpmd.parse_port_stats(text))


def table(samples: dict[tuple[str, str], list[tuple[float, float]]]) -> str:
    """The medians as lines of text."""
    middle = {key: statistics.median(cycles for cycles, _ in found)
              for key, found in samples.items()}
    lines = [f"{'case':<10} {'byway':>8} {'adds':>7} {'ovs':>8} {'adds':>7} {'byway/ovs':>10}"]
    for case in dict.fromkeys(case for _, case in middle):
        words = [f"{case:<10}"]
        for switch in ("byway", "ovs"):
            own, alone = middle.get((switch, case)), middle.get((switch, "none"))
            words.append(f"{own:>8.1f}" if own is not None else f"{'-':>8}")
            words.append(f"{own - alone:>7.1f}" if own and alone else f"{'-':>7}")
        both = [middle.get((switch, case)) for switch in ("byway", "ovs")]
        words.append(f"{both[0] / both[1]:>10.3f}" if both[0] and both[1] else f"{'-':>10}")
        lines.append(" ".join(words))
    return "\n".join(lines)


def main() -> int:
    """Run the bench; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per measurement")
    parser.add_argument("--case", choices=CASES, action="append", help="only these; repeatable")
    parser.add_argument("--switch", choices=("byway", "ovs"), action="append")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        with hugepages.reserve(HUGE_MIB):
            for _ in range(given.rounds):
                for case in given.case or CASES:
                    for switch in given.switch or ("byway", "ovs"):
                        found = measure(switch, case, given.seconds, (cpus[0], cpus[-1]))
                        samples.setdefault((switch, case), []).append(found)
                        print(f"{switch}, {case}: {found[0]:.1f} cycles a frame, "
                              f"{found[1]:.2f} Mpps", file=sys.stderr, flush=True)
    except (PeerError, FileNotFoundError, hugepages.HugePagesMissing) as error:
        print(f"functions_peers: {error}", file=sys.stderr)
        return 2
    print(table(samples))
    if given.json:
        rows = [{"switch": switch, "case": case, "samples": found}
                for (switch, case), found in samples.items()]
        given.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
