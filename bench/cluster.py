# SPDX-License-Identifier: Apache-2.0
"""How long a host needs to know a large cluster, how it keeps up, and what an entry takes.

    .venv/bin/python bench/cluster.py [--hosts 1000] [--networks 100] [--entries 100000]
        [--rate 1500] [--seconds 20] [--json FILE]

An etcd of Debian's gets what so many hosts would have written. Then one host joins: measured is the
time from its start until everything is in the data path's table, the longest moment in which its
control thread answered nobody meanwhile, and the bytes of an entry, in the table that workers read
and in the control thread's own. Then another process changes entries (moves from host to host,
removals, new ones) at the given rate; measured is the time from before each write to the end of
what the host does about it. The exit status is 0 if the sync took less than 5 s, 1,000 changes a
second were kept up with, and an entry takes less than 300 bytes in either table; 1 if not.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byway.control.cluster.cluster import Cluster
from byway.control.cluster.etcd import OPERATIONS, Access, Etcd, delete, put
from byway.control.cluster.layout import HostValue, Layout, entry_value
from byway.control.model import ClusterConfig
from byway.control.population import Population
from byway.switch import population as table
from tests.system.cluster_host import FakeDesk, until
from tests.system.etcd_server import EtcdServer

SYNC_SECONDS, CHANGES, ENTRY_BYTES = 5.0, 1000, 300
LAYOUT = Layout("/byway")
MAC = 0x020000000000


def ip_of(number: int) -> bytes:
    """10.0.0.0 and so many on, in 16 bytes."""
    return bytes(10) + b"\xff\xff" + (0x0A000000 + number).to_bytes(4, "big")


class TableOverlay:
    """The data path's table, without the data path: networks and hosts get numbers."""

    def __init__(self) -> None:
        self.table = table.Population()
        self._networks: dict[str, int] = {}
        self._hosts: dict[str | None, int] = {None: 0}
        self.floods = 0
        self.table.set_mac(0, MAC, 0)  # machine code is made before anything is measured
        self.table.set_ip(0, ip_of(0), MAC)

    def set_tunnel(self, host: str, address: str) -> None:
        self._hosts.setdefault(host, len(self._hosts))

    def drop_tunnel(self, host: str) -> None:
        """Its number stays: nothing else is measured here."""

    def flood(self, network: str, host: str, on: bool) -> None:
        self.floods += 1 if on else -1

    def member(self, group: str, ip: bytes, on: bool) -> None:
        """No security groups here."""

    def set_entry(self, network: str, mac: int, ips: tuple[bytes, ...], host: str | None,
                  gone: tuple[bytes, ...] = ()) -> None:
        number = self._networks.setdefault(network, len(self._networks))
        self.table.set_mac(number, mac, self._hosts[host])
        for ip in ips:
            self.table.set_ip(number, ip, mac)
        for ip in gone:
            self.table.drop_ip(number, ip, mac)

    def drop_entry(self, network: str, mac: int, ips: tuple[bytes, ...]) -> None:
        number = self._networks[network]
        self.table.drop_mac(number, mac)
        for ip in ips:
            self.table.drop_ip(number, ip, mac)


class Member:
    """The host that is measured."""

    def __init__(self, url: str) -> None:
        self.overlay = TableOverlay()
        self.population = Population(self.overlay)
        self.cluster = Cluster(ClusterConfig(etcd=(url,)), "measured", "198.51.100.1",
                               self.population, FakeDesk(self.population), print)

    def synced(self) -> bool:
        return bool(self.cluster.status()["synced"])


def fill(access: Access, hosts: int, networks: int, entries: int) -> None:
    """Write what these hosts would have."""
    client = Etcd(access)
    names = [f"n{number}" for number in range(networks)]
    operations = [put(LAYOUT.network(name), json.dumps(
        {"name": name, "vni": 5000 + number}).encode()) for number, name in enumerate(names)]
    for number in range(hosts):
        there = tuple(names[(number + step) % networks] for step in range(min(10, networks)))
        address = f"10.200.{number >> 8}.{number & 255}"
        operations.append(put(LAYOUT.host(f"h{number}"),
                              HostValue(address, there, "bench").encode()))
    operations += [put(*entry(number, hosts, networks)) for number in range(entries)]
    for at in range(0, len(operations), OPERATIONS):
        client.change([], operations[at : at + OPERATIONS])
    client.close()


def entry(number: int, hosts: int, networks: int, host: int | None = None,
          generation: int = 1) -> tuple[str, bytes]:
    """The key and the value of one entry."""
    network = f"n{number % networks}"
    key = LAYOUT.entry(network, f"h{number % hosts if host is None else host}", MAC + number)
    return key, entry_value((ip_of(number),), generation)


def write(access: Access, hosts: int, networks: int, entries: int, rate: int, seconds: float,
          done: Any) -> None:
    """In a process of its own: change entries at a rate; -> (changes, seconds) into `done`. The
    generation is the time of writing in microseconds: so each change tells its age."""
    client, chance, count = Etcd(access), random.Random(5), 0
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        if count >= now * rate:
            time.sleep(0.001)
            continue
        operations: dict[str, Any] = {}
        while len(operations) < 10:
            number = chance.randrange(entries)
            host = chance.randrange(hosts)
            stamp = int(time.monotonic() * 1e6)
            key, value = entry(number, hosts, networks, host, stamp)
            operations[key] = delete(key) if chance.random() < 0.3 else put(key, value)
        client.change([], list(operations.values()))
        count += len(operations)
    done.put((count, time.monotonic() - began))


async def longest_pause(found: dict[str, float]) -> None:
    """How long a task that wants to run each millisecond had to wait at most."""
    found["pause"] = 0.0
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.001)
        found["pause"] = max(found["pause"], time.monotonic() - before - 0.001)


@contextlib.asynccontextmanager
async def watched(found: dict[str, float]) -> Any:
    task = asyncio.create_task(longest_pause(found))
    try:
        yield
    finally:
        task.cancel()


async def sync(url: str, entries: int) -> tuple[Member, dict[str, float]]:
    """Join, and wait until all is known; -> the member, which goes on, and the figures."""
    found: dict[str, float] = {}
    member = Member(url)
    async with watched(found):
        began, busy = time.monotonic(), time.process_time()
        await member.cluster.start()
        await until(lambda: len(member.overlay.table) >= entries and member.synced(), 120)
        found["sync_seconds"] = time.monotonic() - began
        found["sync_cpu_seconds"] = time.process_time() - busy
    found["table_bytes_an_entry"] = member.overlay.table.memory / entries
    return member, found


async def keep_up(member: Member, access: Access, arguments: argparse.Namespace,
                  ) -> dict[str, float]:
    """Be told of changes, and measure how old each is when it has been done."""
    ages: list[float] = []
    plain: Callable[..., bool] = member.population.put_entry

    def timed(source: str, version: int, network: str, host: str, mac: int, ips: Any,
              generation: int, groups: Any = ()) -> bool:
        done = plain(source, version, network, host, mac, ips, generation, groups)
        ages.append(time.monotonic() - generation / 1e6)
        return done

    member.population.put_entry = timed  # type: ignore[method-assign]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    writer = context.Process(target=write, args=(
        access, arguments.hosts, arguments.networks, arguments.entries, arguments.rate,
        arguments.seconds, answers))
    found: dict[str, float] = {}
    async with watched(found):
        writer.start()
        count, seconds = await asyncio.to_thread(answers.get)
        began = time.monotonic()
        client = Etcd(access)
        revision = await asyncio.to_thread(lambda: client.get("ready")[0])
        await until(lambda: member.cluster.status()["revision"] >= revision)
        behind = time.monotonic() - began
        client.close()
        writer.join()
    ages.sort()
    return {"changes_a_second": count / seconds, "behind_at_the_end": behind,
            "age_median": statistics.median(ages), "age_99": ages[int(len(ages) * 0.99)],
            "age_worst": ages[-1], "pause_while_changing": found["pause"]}


def control_bytes(entries: int) -> float:
    """What the control thread's own table takes an entry."""
    population = Population(TableOverlay())
    population.add_source("etcd")
    tracemalloc.start()
    population.begin("etcd", 1)
    for number in range(entries):
        population.put_entry("etcd", 1, f"n{number % 100}", f"h{number % 1000}", MAC + number,
                             (ip_of(number),), 1)
    population.end("etcd")
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / entries


async def measure(arguments: argparse.Namespace, server: EtcdServer) -> dict[str, float]:
    """All figures."""
    access = server.access()
    began = time.monotonic()
    await asyncio.to_thread(fill, access, arguments.hosts, arguments.networks, arguments.entries)
    print(f"written in {time.monotonic() - began:.1f} s", file=sys.stderr)
    member, found = await sync(server.url, arguments.entries)
    try:
        found |= await keep_up(member, access, arguments)
    finally:
        await member.cluster.close()
    found["control_bytes_an_entry"] = control_bytes(arguments.entries)
    return found


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (("hosts", 1000), ("networks", 100), ("entries", 100_000), ("rate", 1500),
                        ("seconds", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with (tempfile.TemporaryDirectory(prefix="byway-") as folder,
          EtcdServer(Path(folder)) as server):
        found = asyncio.run(measure(arguments, server))
    for name, value in found.items():
        print(f"{name:24} {value:10.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**vars(arguments), "json": None, **found}))
    kept_up = found["changes_a_second"] >= CHANGES and found["behind_at_the_end"] < 1.0
    small = max(found["table_bytes_an_entry"], found["control_bytes_an_entry"]) < ENTRY_BYTES
    return 0 if found["sync_seconds"] < SYNC_SECONDS and kept_up and small else 1


if __name__ == "__main__":
    sys.exit(main())
