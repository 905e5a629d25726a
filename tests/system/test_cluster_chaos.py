# SPDX-License-Identifier: Apache-2.0
"""Addresses come, move and go while etcd is killed, hangs, forgets, and hosts leave: in the end
every host knows exactly what is true."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.cluster_host import Host, until
from tests.system.etcd_server import EtcdServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

NAMES = ("a", "b", "c")
MACS = tuple(range(0x020000000001, 0x020000000009))
STEPS = 120


@pytest.fixture
def etcd(own_folder: Path) -> Iterator[EtcdServer]:
    with EtcdServer(own_folder) as server:
        yield server


class Chaos:
    """Three hosts with the network blue, and what happens to them."""

    def __init__(self, etcd: EtcdServer, seed: int) -> None:
        self.etcd = etcd
        self.chance = random.Random(seed)
        self.hosts: dict[str, Host] = {}
        self.lives: list[Host] = []

    async def bear(self, name: str) -> None:
        """A host begins to live."""
        host = Host(name, self.etcd.url, NAMES.index(name) + 1)
        host.population.add_network("blue")
        self.hosts[name] = host
        self.lives.append(host)
        await host.cluster.start()

    async def happen(self) -> None:
        """One thing that happens."""
        host = self.hosts[self.chance.choice(NAMES)]
        mac = self.chance.choice(MACS)
        what = self.chance.random()
        if what < 0.6:
            host.population.put_local("blue", mac, [self.chance.randbytes(16)])
        elif what < 0.85:
            host.population.drop_local("blue", mac)
        elif what < 0.88:
            await host.cluster.close()
            await self.bear(host.cluster.host)
        elif what < 0.90:
            await asyncio.to_thread(self.etcd.kill)
            await self.calm()
            await asyncio.to_thread(self.etcd.start)
        elif what < 0.92:
            self.etcd.pause(True)
            await self.calm()
            self.etcd.pause(False)
        elif what < 0.94:
            await asyncio.to_thread(self.etcd.put, "/other", "")  # each revision once only
            await asyncio.to_thread(self.etcd.compact)
        elif what < 0.95:
            await asyncio.to_thread(self.etcd.lose_everything)
        else:
            await self.calm()

    async def calm(self) -> None:
        """Some time in which hosts hear of each other."""
        await asyncio.sleep(self.chance.uniform(0, 0.3))

    def true(self) -> bool:
        """Whether every host knows what each has, and nothing else."""
        have = {name: {one.mac: (one.generation, name, one.ips)
                       for one in host.population.local()} for name, host in self.hosts.items()}
        for name, host in self.hosts.items():
            others = {other for other in NAMES if other != name}
            if set(host.overlay.tunnels) != others:
                return False
            expected = {("blue", mac): (ips, None) for mac, (_, _, ips) in have[name].items()}
            for mac in {mac for other in others for mac in have[other]} - set(have[name]):
                _, owner, ips = max(have[other][mac] for other in others if mac in have[other])
                expected["blue", mac] = (ips, owner)
            if host.overlay.entries != expected:
                return False
        return True


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_the_end_every_host_knows_what_is_true(etcd: EtcdServer, seed: int) -> None:
    async def test() -> None:
        chaos = Chaos(etcd, seed)
        try:
            for name in NAMES:
                await chaos.bear(name)
            for _ in range(STEPS):
                await chaos.happen()
            await until(lambda: all(host.status()["presence"] == "joined"
                                    for host in chaos.hosts.values()), 60)
            await until(chaos.true, 60)
        finally:
            for host in chaos.lives:
                await host.cluster.close()

    asyncio.run(test())
