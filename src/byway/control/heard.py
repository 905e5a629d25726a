# SPDX-License-Identifier: Apache-2.0
"""Addresses that nobody configured: heard from guests, and told to the population.

Used by the engine (events of the workers, once a second the sweep). Uses networks and overlay.

A MAC address that a worker learned behind a local port is there as long as the forwarding database
has it. The IP addresses that it says of itself by ARP or neighbour discovery are added, the last
MAX_IPS of them; one that another address of the same network had is its own now, as a virtual
router's or a service's address moves. Configured addresses stay as they are, and may have others
besides.

In a network that learns from tunnels the same is heard of remote guests. That is forgotten when it
has not been said for as long as the network remembers what it learned.

Nobody can make this grow without end: of each network as many addresses are kept as its forwarding
database may hold.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from byway.control.networks import Network, Networks
from byway.control.overlay import Overlay
from byway.switch.fdb import FIRST_TUNNEL
from byway.worker.events import Event, Told

MAX_IPS = 16
SWEEP_SECONDS = 15.0


@dataclass
class _Address:
    """A MAC address: where it was heard, its IPs with the newest last, when it last said one."""

    place: int  # number of the port or tunnel
    ips: OrderedDict[bytes, None]
    said: float


class Heard:
    """What was heard in all networks of a switch. Belongs to the control thread."""

    def __init__(self, networks: Networks, overlay: Overlay,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._networks = networks
        self._overlay = overlay
        self._clock = clock
        self._swept = clock()
        self._known: dict[str, OrderedDict[int, _Address]] = {}  # by network, MAC
        self._owners: dict[str, dict[bytes, int]] = {}  # MAC by network, IP

    def hear(self, event: Event) -> None:
        """A worker tells."""
        network = next((n for n in self._networks if n.number == event.network), None)
        if network is None or event.mac == self._networks.gateway_of(network):
            return  # the network has gone meanwhile, or it is this switch's own router
        name = network.config.name
        known = self._known.setdefault(name, OrderedDict())
        address = known.get(event.mac)
        if address is None:
            if len(known) >= network.config.fdb_limit:
                self._forget(name, next(iter(known)))
            address = known[event.mac] = _Address(event.port, OrderedDict(), 0.0)
        known.move_to_end(event.mac)
        moved, address.place = address.place != event.port, event.port
        address.said = self._clock()
        if event.kind is Told.SAID and event.ip:
            self._own(name, event.mac, address, event.ip)
        self._tell(name, event.mac, address, moved)

    def _own(self, name: str, mac: int, address: _Address, ip: bytes) -> None:
        """The IP belongs to this MAC address now."""
        owners = self._owners.setdefault(name, {})
        before = owners.get(ip)
        if before not in (None, mac) and (other := self._known[name].get(before)):
            other.ips.pop(ip, None)
            self._tell(name, before, other, False)
        owners[ip] = mac
        address.ips[ip] = None
        address.ips.move_to_end(ip)
        if len(address.ips) > MAX_IPS:
            owners.pop(address.ips.popitem(last=False)[0])

    def _tell(self, name: str, mac: int, address: _Address, moved: bool) -> None:
        if address.place < FIRST_TUNNEL:
            self._overlay.hear_local(name, mac, address.ips, address.place, moved)
        else:
            self._overlay.hear_remote(name, mac, address.ips, address.place)

    def _forget(self, name: str, mac: int) -> None:
        address = self._known[name].pop(mac)
        for ip in address.ips:
            self._owners[name].pop(ip, None)
        self._overlay.unhear(name, mac)

    # ------------------------------------------------------------ what is over
    @property
    def due(self) -> bool:
        """Is it time for a sweep, even where the forwarding databases have not forgotten any?"""
        return self._clock() >= self._swept + SWEEP_SECONDS

    def sweep(self) -> None:
        """Forget what is no longer in the forwarding databases, or was not said for long."""
        self._swept = self._clock()
        for name in list(self._known):
            network = self._networks.get(name)
            if network is None:
                del self._known[name]
                self._owners.pop(name, None)
            else:
                self._sweep_network(network)

    def _sweep_network(self, network: Network) -> None:
        name, known = network.config.name, self._known[network.config.name]
        here = {mac: port for mac, port, _ in network.fdb.entries()}
        oldest = self._clock() - network.config.ageing
        for mac, address in list(known.items()):
            if address.place < FIRST_TUNNEL:
                gone = here.get(mac) != address.place
            else:
                gone = address.said < oldest
            if gone:
                self._forget(name, mac)
