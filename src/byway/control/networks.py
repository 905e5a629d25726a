# SPDX-License-Identifier: Apache-2.0
"""The networks of a running switch: their numbers, their tables, how they decide.

Used by the engine and by what ties ports and tunnels to networks (overlay, policy). Uses plans and
switch. Belongs to the control thread; the engine publishes what is changed here.
"""

from collections.abc import Iterator
from typing import Any

from byway.control.model import NetworkConfig
from byway.control.numbers import Numbers
from byway.control.plans import Plans
from byway.control.problem import EngineError
from byway.machine.clock import tsc
from byway.packet.ethernet import untagged_frame
from byway.packet.tunnels import Vnis
from byway.switch.fdb import CLOCK_SHIFT, Fdb, mac_text
from byway.switch.network import DROP_UNKNOWN, LEARNING, RESPONDS
from byway.worker.plan import MAX_NETWORKS


class Network:
    """One network: its configuration, its number in plans, its table, its ports."""

    def __init__(self, config: NetworkConfig, number: int) -> None:
        self.config = config
        self.number = number
        self.fdb = Fdb(config.fdb_limit)
        self.members: dict[int, str] = {}  # the names of its ports by number


class Networks:
    """All of them, by name. ``population``: the address of the switch's."""

    def __init__(self, plans: Plans, hz: float, population: int) -> None:
        self.in_cluster = False
        self.vnis = Vnis()
        self._plans = plans
        self._hz = hz
        self._population = population
        self._networks: dict[str, Network] = {}
        self._by_number: dict[int, Network] = {}
        self._numbers = Numbers(MAX_NETWORKS)

    def __getitem__(self, name: str) -> Network:
        """EngineError: there is none of that name."""
        if name not in self._networks:
            raise EngineError(f'there is no network "{name}"', "add it first")
        return self._networks[name]

    def __iter__(self) -> Iterator[Network]:
        return iter(self._networks.values())

    @staticmethod
    def gateway_of(network: Network) -> int:
        """The MAC address of its gateway (a 48-bit number), -1: it has none."""
        config = network.config
        return int.from_bytes(gateway_mac(config), "big") if config.gateway else -1

    def get(self, name: str | None) -> Network | None:
        """The network, if there is one."""
        return self._networks.get(name) if name else None

    def numbered(self, number: int) -> Network | None:
        """The network with this number in plans, if there is one."""
        return self._by_number.get(number)

    # ------------------------------------------------------------ changes
    def join_cluster(self) -> None:
        """A cluster tells from now on who is where: networks need not learn it from tunnels."""
        self.in_cluster = True
        for network in self:
            self._set_policy(network)

    def add(self, config: NetworkConfig) -> Network:
        """Create a network."""
        if config.name in self._networks:
            raise EngineError(f'network "{config.name}" exists already', "take another name")
        if not self._numbers.left:
            raise EngineError(f"the switch has {MAX_NETWORKS} networks already",
                              "remove some first")
        network = self._networks[config.name] = Network(config, self._numbers.take())
        self._by_number[network.number] = network
        longest = untagged_frame(config.mtu)
        self._plans.set_network(network.number, network.fdb.address, longest, config.vni or 0)
        self._set_policy(network)
        if config.vni:
            self.vnis.set(config.vni, network.number, longest)
        return network

    def change(self, config: NetworkConfig) -> None:
        """Other values of what need not be made anew."""
        network = self[config.name]
        network.config = config
        self._set_policy(network)

    def remove(self, name: str) -> Network:
        """Remove a network without ports; its number may be given again once the workers know."""
        network = self[name]
        if network.members:
            raise EngineError(f'network "{name}" has {len(network.members)} ports',
                              "remove its ports first")
        del self._networks[name], self._by_number[network.number]
        if network.config.vni:
            self.vnis.drop(network.config.vni)
        self._plans.drop_network(network.number)
        self._numbers.give_back(network.number)
        return network

    def _set_policy(self, network: Network) -> None:
        config = network.config
        flags = LEARNING if config.learns(self.in_cluster) else 0
        flags |= DROP_UNKNOWN if config.unknown == "drop" else 0
        known = self._population if config.vni or config.responds else 0
        flags |= RESPONDS if config.responds else 0
        gateway = max(0, self.gateway_of(network))
        self._plans.set_policy(network.number, known, flags, gateway)

    # ------------------------------------------------------------ their tables
    def expire(self, now: int) -> int:
        """Remove fdb entries that at tick ``now`` are older than their network's ageing time;
        -> how many."""
        return sum(
            network.fdb.expire((now - int(network.config.ageing * self._hz)) >> CLOCK_SHIFT)
            for network in self if len(network.fdb))

    def forget(self, name: str, port: int) -> None:
        """What was learned at a port of a network is not true any more."""
        if network := self.get(name):
            network.fdb.forget(port)

    # ------------------------------------------------------------ what there is
    def shown(self) -> list[dict[str, Any]]:
        """Every network with the names of its ports."""
        return [self.show(network) for network in self]

    @staticmethod
    def show(n: Network) -> dict[str, Any]:
        """One network with the names of its ports."""
        return {
            "name": n.config.name, "vni": n.config.vni, "mtu": n.config.mtu,
            "ageing": n.config.ageing,
            "ports": [n.members[k] for k in sorted(n.members)],
            "fdb_entries": len(n.fdb), "fdb_limit": n.config.fdb_limit,
            "fdb": n.fdb.statistics(),
        }

    def learned(self, name: str | None, tunnels: dict[int, str]) -> list[dict[str, Any]]:
        """The learned addresses of one network, or of all; ``age`` in seconds. Behind a tunnel
        (by number in ``tunnels``) it says the host instead of the port."""
        chosen = [self[name]] if name else list(self)
        now, tick = int(tsc()) >> CLOCK_SHIFT, (1 << CLOCK_SHIFT) / self._hz
        return [{
            "network": n.config.name, "mac": mac_text(mac),
            "port": n.members.get(port), "host": tunnels.get(port),
            "age": round(max(0, now - seen) * tick, 1),
        } for n in chosen for mac, port, seen in n.fdb.entries()
            if port in n.members or port in tunnels]


def gateway_mac(config: NetworkConfig) -> bytes:
    """The MAC address of the network's gateway: as configured, or the same on every host, locally
    administered, made of the VNI (0 where the network ends at this host)."""
    if config.gateway_mac:
        return bytes.fromhex(config.gateway_mac.replace(":", ""))
    return b"\x02\x62\x77" + (config.vni or 0).to_bytes(3, "big")
