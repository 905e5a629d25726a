# SPDX-License-Identifier: Apache-2.0
"""What joins this host to others: its underlay, a tunnel to each other host, and the table of who
is behind which.

Used by the engine; its methods from ``set_tunnel`` to ``drop_entry`` by the population, which says
what is true of hosts and addresses (population.py). Uses networks, plans, and the ports that carry
tunnels (tunnels.py).

A tunnel has a number as ports have one, from FIRST_TUNNEL on, and is one for all networks. Nothing
here is told to workers before the engine publishes, but for the tables of addresses (population,
VNIs, remote hosts), which workers read while they change. Whoever makes many changes at once does
so inside ``changing``: one exchange with the workers for all of them.
"""

import contextlib
import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from byway.control.actions import (
    Action,
    AddEntry,
    AddHost,
    RemoveEntry,
    RemoveHost,
    SetUnderlay,
)
from byway.control.model import EntryConfig, HostConfig, entry_name
from byway.control.networks import Networks
from byway.control.plans import Plans
from byway.control.population import Population
from byway.control.tunnels import TunnelHost, Tunnels
from byway.machine.layout import CACHE_LINE, alloc
from byway.ports.port import Port
from byway.ports.underlay import Underlay
from byway.switch import population as table
from byway.switch.fdb import mac_text
from byway.switch.responder import Responder
from byway.switch.stages import STAGES

# The population's sources for what the user says to this switch, and for what it hears itself.
FILE, HEARD = "file", "heard"


class Overlay:
    """The overlay of one switch. Belongs to the control thread."""

    def __init__(self, engine: TunnelHost, plans: Plans, networks: Networks,
                 entries: table.Population) -> None:
        self._engine = engine
        self._plans = plans
        self._networks = networks
        self._table = entries
        self._table.on_moved(self.keep)
        self.responder = Responder(entries)
        self.stages = alloc(STAGES, 1, CACHE_LINE)  # of all tunnels
        self.stages["responder"] = self.responder.address
        self.tunnels = Tunnels(engine, plans, self.stages, networks.vnis, self.keep)
        self._tunnels = self.tunnels.by_host
        self.left_out = 0  # entries that found no room
        self._floods: set[tuple[str, str]] = set()  # network, host
        self._kept: list[Any] = []  # memory that a worker may still be reading
        self._member: Callable[[str, bytes, bool], None] = lambda group, ip, on: None
        self.population = Population(self)
        self.population.add_source(FILE, rank=1)
        self.population.add_source(HEARD, rank=-1)
        self._said = 0  # by the configuration: the version of what it said last
        self._hosts: dict[str, HostConfig] = {}
        self._entries: dict[str, EntryConfig] = {}
        self._local: dict[tuple[str, int], int] = {}  # port numbers by network and MAC
        self._macs: dict[int, set[tuple[str, int]]] = {}  # networks and MACs by port number
        self._ports: dict[int, Port] = {}  # of the configuration, by number
        self._said_ips: dict[tuple[str, int], tuple[bytes, ...]] = {}  # besides the configured ones
        self._firm: dict[tuple[str, int], tuple[bytes, ...]] = {}  # configured ones: their IPs
        self._owners: dict[tuple[str, bytes], int] = {}  # and whose those are
        self._remote: dict[tuple[str, int], str] = {}  # hosts of those heard through tunnels

    # ------------------------------------------------------------ what the user says
    def carry_out(self, action: Action) -> None:
        """The underlay, hosts and entries of the configuration."""
        self._said += 1
        match action:
            case SetUnderlay(config):
                self.tunnels.set_underlay(config)
            case AddHost(host):
                self.tunnels.check(host.name, host.address)
                self._hosts[host.name] = host
                self.population.put_host(FILE, self._said, host.name, host.address, host.networks)
            case RemoveHost(name):
                del self._hosts[name]
                self.population.drop_host(FILE, self._said, name)
            case AddEntry(entry):
                self._entries[entry.name] = entry
                self.population.put_entry(
                    FILE, self._said, entry.network, entry.host, mac_number(entry.mac),
                    [ip_bytes(ip) for ip in entry.ips], 0)
            case RemoveEntry(network, mac):
                entry = self._entries.pop(entry_name(network, mac))
                self.population.drop_entry(FILE, self._said, network, entry.host,
                                           mac_number(mac))
        self.population.reached(FILE, self._said)

    def undo(self, action: Action) -> Action:
        """What takes back an action that is about to be carried out."""
        match action:
            case AddHost(host):
                return RemoveHost(host.name)
            case RemoveHost(name):
                return AddHost(self._hosts[name])
            case AddEntry(entry):
                return RemoveEntry(entry.network, entry.mac)
            case RemoveEntry(network, mac):
                return AddEntry(self._entries[entry_name(network, mac)])
            case _:
                return SetUnderlay(self.tunnels.config)

    # ------------------------------------------------------------ local ports
    def admit(self, port: Port) -> None:
        """The addresses that a port has by its configuration are its own, and nobody else's; said
        again, they are others of the same port. They are here while it is up."""
        config = port.config
        self._ports |= dict.fromkeys(_numbers(port), port)
        if config.mac:
            pair = config.network, mac_number(config.mac)
            self._put_local(pair, port.index)
            self._release(pair)
            self._firm[pair] = tuple(ip_bytes(ip) for ip in config.known_ips)
            self._owners |= {(config.network, ip): pair[1] for ip in self._firm[pair]}
        if port.state == "up":
            self.port_up(port, evidence=False)

    def port_up(self, port: Port, *, evidence: bool = True) -> None:
        """Whoever has the port's addresses is there. So where a guest is moved to another host, its
        address moves when the guest does, and not when its new port is made. ``evidence``: the
        guest itself has shown up."""
        config = port.config
        if port.index in self._ports and config.mac:
            pair = config.network, mac_number(config.mac)
            ips = dict.fromkeys((*self._firm[pair], *self._said_ips.get(pair, ())))
            self.population.put_local(*pair, ips, firm=True, groups=config.security_groups,
                                      evidence=evidence)

    def port_down(self, port: Port) -> None:
        """No address is at this port now; what is configured stays its own."""
        for pair in self._at(port):
            self.population.drop_local(*pair)
            self._said_ips.pop(pair, None)
            if pair not in self._firm:
                self._drop_local(pair)

    def _put_local(self, pair: tuple[str, int], number: int) -> None:
        if self._local.get(pair) != number:
            self._drop_local(pair)
        self._local[pair] = number
        self._macs.setdefault(number, set()).add(pair)

    def _drop_local(self, pair: tuple[str, int]) -> bool:
        """-> whether the address was at a local port."""
        number = self._local.pop(pair, None)
        if number is None:
            return False
        self._macs[number].discard(pair)
        if not self._macs[number]:
            del self._macs[number]
        return True

    def _at(self, port: Port) -> list[tuple[str, int]]:
        return [pair for number in _numbers(port) for pair in self._macs.get(number, ())]

    def dismiss(self, port: Port) -> None:
        """The port is removed."""
        self.port_down(port)
        for number in _numbers(port):
            self._ports.pop(number, None)
        for pair in self._at(port):
            self._drop_local(pair)
            self._release(pair)

    def _release(self, pair: tuple[str, int]) -> None:
        """What is configured of an address is so no more."""
        network, mac = pair
        for ip in self._firm.pop(pair, ()):
            if self._owners.get((network, ip)) == mac:
                del self._owners[network, ip]

    def hear_local(self, network: str, mac: int, ips: Iterable[bytes], index: int,
                   moved: bool) -> None:
        """An address was heard at a local port. What is configured stays, and may have more IPs;
        nobody else can say that he has one of those that are."""
        pair, port = (network, mac), self._ports.get(index)
        if port is None or network not in port.config.networks:
            return  # said before it was removed
        self._forget_remote(pair)
        firm = self._firm.get(pair)
        ips = [ip for ip in ips if self._owners.get((network, ip), mac) == mac]
        if firm is None:
            self._put_local(pair, index)
            self.population.put_local(network, mac, ips)
            if moved:
                self._table.set_mac(self._networks[network].number, mac, index)
        elif self._local[pair] == index:
            self._said_ips[pair] = tuple(ip for ip in ips if ip not in firm)
            self.port_up(port)

    def hear_remote(self, network: str, mac: int, ips: Iterable[bytes], index: int) -> None:
        """An address was heard through a tunnel."""
        pair, host = (network, mac), self.names.get(index)
        if host is None or pair in self._firm:
            return
        self._said += 1
        if self._remote.get(pair, host) != host:
            self.population.drop_entry(HEARD, self._said, network, self._remote[pair], mac)
        self._remote[pair] = host
        ips = [ip for ip in ips if (network, ip) not in self._owners]
        self.population.put_entry(HEARD, self._said, network, host, mac, ips, 0)
        self.population.reached(HEARD, self._said)

    def _forget_remote(self, pair: tuple[str, int]) -> None:
        if host := self._remote.pop(pair, None):
            self._said += 1
            self.population.drop_entry(HEARD, self._said, pair[0], host, pair[1])
            self.population.reached(HEARD, self._said)

    def unhear(self, network: str, mac: int) -> None:
        """An address was not heard for long."""
        pair = network, mac
        self._forget_remote(pair)
        if pair in self._firm:
            self._said_ips.pop(pair, None)
            port = self._ports[self._local[pair]]
            if port.state == "up":
                self.port_up(port, evidence=False)
        elif self._drop_local(pair):
            self.population.drop_local(network, mac)

    # ------------------------------------------------------------ tunnels
    @property
    def underlay(self) -> Underlay | None:
        """What carries the tunnels."""
        return self.tunnels.underlay

    def set_tunnel(self, host: str, address: str) -> None:
        """The host is at this underlay address; replaces another address."""
        self.tunnels.set(host, address)

    def drop_tunnel(self, host: str) -> None:
        """Nothing goes to this host any more."""
        for name, other in [pair for pair in self._floods if pair[1] == host]:
            self.flood(name, other, False)
        if tunnel := self._tunnels.pop(host, None):
            self.tunnels.shut(tunnel, "removed")
            del self.tunnels.names[tunnel.index]
            self._table.forget_port(tunnel.index)
            for network in self._networks:
                network.fdb.forget(tunnel.index)
            self.tunnels.number_back(tunnel)

    def flood(self, network: str, host: str, on: bool) -> None:
        """Whether frames to all members of the network go to this host as well."""
        pair = network, host
        if on == (pair in self._floods):
            return
        tunnel, found = self._tunnels.get(host), self._networks.get(network)
        if on and tunnel and found:
            self._floods.add(pair)
            self._plans.join(found.number, tunnel.index)
        elif not on:
            self._floods.discard(pair)
            if found and tunnel:
                self._plans.leave(found.number, tunnel.index)
        self._engine.publish()

    # ------------------------------------------------------------ entries
    def set_entry(self, network: str, mac: int, ips: tuple[bytes, ...], host: str | None,
                  gone: tuple[bytes, ...] = ()) -> None:
        """The address is behind `host` (None: at a local port) and nowhere else; `gone`: IP
        addresses that it had and has no more. Pauses no worker."""
        found = self._networks.get(network)
        if found is None:
            return
        if host is None:
            port = self._local.get((network, mac), -1)
        else:
            port = self._tunnels[host].index if host in self._tunnels else -1
            found.fdb.forget_mac(mac)  # it may have been here
        for ip in gone:
            self._table.drop_ip(found.number, ip, mac)
        try:
            if port >= 0:
                self._table.set_mac(found.number, mac, port)
            for ip in ips:
                self._table.set_ip(found.number, ip, mac)
        except table.PopulationFullError as error:
            self._leave_out(error)

    def _leave_out(self, error: table.PopulationFullError) -> None:
        """An entry for which there is no room: frames to it are flooded. Said once."""
        if not self.left_out:
            self._engine.loop.call_exception_handler({"message": str(error), "exception": error})
        self.left_out += 1

    def drop_entry(self, network: str, mac: int, ips: tuple[bytes, ...] = ()) -> None:
        """Nobody has the address any more, nor these IP addresses of it. Pauses no worker."""
        if found := self._networks.get(network):
            self._table.drop_mac(found.number, mac)
            for ip in ips:
                self._table.drop_ip(found.number, ip, mac)

    @property
    def table_address(self) -> int:
        """The address of the switch's POPULATION."""
        return self._table.address

    def keep(self, memory: Any) -> None:
        """What workers may still be reading lives until every one has ended a pass."""
        self._kept.append(memory)
        self._plans.settle()
        self._kept.clear()

    def member(self, group: str, ip: bytes, on: bool) -> None:
        """A port of another host has this address and this security group, or no more."""
        self._member(group, ip, on)

    def on_member(self, callback: Callable[[str, bytes, bool], None]) -> None:
        """Who is told of members on other hosts."""
        self._member = callback

    # ------------------------------------------------------------ networks
    def add_network(self, name: str) -> None:
        """What is known of a network becomes true of it."""
        self.population.add_network(name)

    def remove_network(self, name: str) -> None:
        """Nothing of it is left in the tables."""
        self.population.remove_network(name)
        for network, host in [pair for pair in self._floods if pair[0] == name]:
            self.flood(network, host, False)
        self._table.forget_network(self._networks[name].number)

    # ------------------------------------------------------------ what there is
    def changing(self) -> contextlib.AbstractContextManager[None]:
        """Everything in the body is one exchange with the workers."""
        return self._engine.together()

    @property
    def ports(self) -> list[Port]:
        """The underlay and the tunnels."""
        return [*([self.underlay] if self.underlay else []), *self._tunnels.values()]

    @property
    def names(self) -> dict[int, str]:
        """The hosts' names by the numbers of their tunnels."""
        return self.tunnels.names

    def hosts(self) -> list[dict[str, Any]]:
        """Every host with a tunnel: its address, its networks, its counters."""
        return [{
            **tunnel.status(),
            "networks": sorted(network for network, other in self._floods if other == host),
        } for host, tunnel in self._tunnels.items()]

    def known(self, network: str | None) -> list[dict[str, Any]]:
        """Who is known to be where, in one network or in all."""
        names = {index: port.name for index, port in self._ports.items()}
        return [{
            "network": name, "mac": mac_text(mac), "ips": [ip_text(ip) for ip in told.ips],
            "host": told.host,
            "port": names.get(self._local.get((name, mac), -1)) if told.host is None else None,
        } for name, mac, told in self.population.entries(network)]

    def close(self) -> None:
        """No tunnels, no underlay. Idempotent."""
        self.tunnels.close()
        self._floods.clear()


def _numbers(port: Port) -> set[int]:
    """A port's number, and those of its VLAN tags."""
    return {port.index, *(number for number, _ in port.sub_ports)}


def mac_number(text: str) -> int:
    """02:00:00:00:00:01 as a number of 48 bits."""
    return int(text.replace(":", ""), 16)


def ip_text(packed: bytes) -> str:
    """The inverse of ip_bytes."""
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def ip_bytes(text: str) -> bytes:
    """An IP address as 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
