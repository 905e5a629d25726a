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
database may hold. Who is heard when there is no more room takes the place of one of its own port or
tunnel, if that has its share already, else of one of whoever has most; in either case of the
address that was silent longest. So who invents addresses only loses its own.
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


class _Addresses:
    """Those of one network; by place in the order of their last word."""

    def __init__(self) -> None:
        self.by_mac: dict[int, _Address] = {}
        self._places: dict[int, OrderedDict[int, None]] = {}

    def put(self, mac: int, place: int) -> tuple[_Address, bool]:
        """The address was heard there just now; -> it, and whether it was elsewhere before."""
        address = self.by_mac.setdefault(mac, _Address(place, OrderedDict(), 0.0))
        moved, before = address.place != place, address.place
        if moved:
            self._leave(mac, before)
            address.place = place
        there = self._places.setdefault(place, OrderedDict())
        there[mac] = None
        there.move_to_end(mac)
        return address, moved

    def pop(self, mac: int) -> _Address:
        """Forget an address."""
        address = self.by_mac.pop(mac)
        self._leave(mac, address.place)
        return address

    def _leave(self, mac: int, place: int) -> None:
        there = self._places[place]
        del there[mac]
        if not there:
            del self._places[place]

    def at(self, place: int) -> list[int]:
        """The addresses heard there."""
        return list(self._places.get(place, ()))

    def least(self, place: int) -> int:
        """The address that makes way for another one from this place, where there is no room."""
        own = self._places.get(place, OrderedDict())
        if len(own) * len(self._places) >= len(self.by_mac):
            return next(iter(own))
        most: OrderedDict[int, None] = max(self._places.values(), key=lambda there: len(there))
        return next(iter(most))


class Heard:
    """What was heard in all networks of a switch. Belongs to the control thread."""

    def __init__(self, networks: Networks, overlay: Overlay,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._networks = networks
        self._overlay = overlay
        self._clock = clock
        self._swept = clock()
        self._known: dict[str, _Addresses] = {}  # by network
        self._owners: dict[str, dict[bytes, int]] = {}  # MAC by network, IP

    def hear(self, event: Event) -> None:
        """A worker tells."""
        network = self._networks.numbered(event.network)
        if network is None or event.mac == self._networks.gateway_of(network):
            return  # the network has gone meanwhile, or it is this switch's own router
        if event.port < FIRST_TUNNEL and event.port not in network.members:
            return  # its port has gone meanwhile
        name = network.config.name
        known = self._known.setdefault(name, _Addresses())
        if event.mac not in known.by_mac and len(known.by_mac) >= network.config.fdb_limit:
            self._forget(name, known.least(event.port))
        address, moved = known.put(event.mac, event.port)
        address.said = self._clock()
        if event.kind is Told.SAID and event.ip:
            self._own(name, event.mac, address, event.ip)
        self._tell(name, event.mac, address, moved)

    def _own(self, name: str, mac: int, address: _Address, ip: bytes) -> None:
        """The IP belongs to this MAC address now."""
        owners = self._owners.setdefault(name, {})
        before = owners.get(ip)
        if before not in (None, mac) and (other := self._known[name].by_mac.get(before)):
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
    def leave(self, places: set[int]) -> None:
        """These ports are gone; their numbers may be others' soon."""
        for name, known in self._known.items():
            for mac in [mac for place in places for mac in known.at(place)]:
                self._forget(name, mac)

    @property
    def due(self) -> bool:
        """Is it time for a sweep, even where the forwarding databases have not forgotten any?"""
        return self._clock() >= self._swept + SWEEP_SECONDS

    def sweep(self) -> None:
        """Forget what is no longer in the forwarding databases, or was not said for long; and hear
        what is there, and was learned when its port had told too much."""
        self._swept = self._clock()
        for name in list(self._known):
            network = self._networks.get(name)
            if network is None:
                for mac in list(self._known[name].by_mac):
                    self._forget(name, mac)
                del self._known[name]
            else:
                self._sweep_network(network)

    def _sweep_network(self, network: Network) -> None:
        name, known = network.config.name, self._known[network.config.name].by_mac
        here = {mac: port for mac, port, _ in network.fdb.entries()}
        oldest = self._clock() - network.config.ageing
        for mac, address in list(known.items()):
            if address.place < FIRST_TUNNEL:
                gone = here.get(mac) != address.place
            else:
                gone = address.said < oldest
            if gone:
                self._forget(name, mac)
        for mac, port in here.items():
            if mac not in known and port < FIRST_TUNNEL:
                self.hear(Event(Told.LEARNED, network.number, port, mac))
