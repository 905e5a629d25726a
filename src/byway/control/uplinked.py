# SPDX-License-Identifier: Apache-2.0
"""Tunnels over an uplink: their stages, and what the uplink asks its neighbours.

Used by the overlay, which makes the tunnels; uses uplink.py (addresses and next hops) and plans.

Theory of operation
-------------------
A tunnel over an uplink is to the workers what a VLAN of a trunk is: a *sub-port* of the uplink's
port. Its frames pass through its stages, the last of which writes the outer headers (its WAY), and
leave by the port's queues. So where the port goes down the tunnels do, and come back with it.

The uplink stays what it is as long as its port exists: whoever changes the port's configuration
takes the underlay down before and up again (diff.py).
"""

import ipaddress
from typing import Any

from byway.control.model import UnderlayConfig
from byway.control.plans import Plans
from byway.control.uplink import Uplink, UplinkAddress, mac_for
from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.packet.tunnels import Remotes, Vnis
from byway.ports.port import Port
from byway.switch.stages import STAGES


class Uplinked:
    """The uplink of an overlay, and the tunnels over it. ``stages``: STAGES as tunnels have them
    elsewhere."""

    def __init__(self, config: UnderlayConfig, port: Port, plans: Plans, stages: Any, vnis: Vnis,
                 remotes: Remotes) -> None:
        assert config.mtu is not None
        ip = _packed(config.address)
        sums = config.checksum == "yes" or (config.checksum == "auto" and config.family == 6)
        own = UplinkAddress(
            ip=ip, mac=mac_for(ip), mtu=config.mtu, port=config.port, sums=sums,
            strict=config.checksum == "yes" and config.family == 6,
            gateway=_packed(config.gateway) if config.gateway else None,
            dont_fragment=config.dont_fragment, ttl=config.ttl)
        self.port = port
        self._plans = plans
        self._stages = stages
        self._announced = False
        self._tunnels: dict[int, tuple[Any, bytes]] = {}  # by number: STAGES, the host's address
        self.uplink = Uplink(own, port.index, int(port.record["network"][0]), vnis, remotes,
                             plans.settle)

    # ------------------------------------------------------------ tunnels
    def carry(self, tunnel: Port, address: str) -> None:
        """Frames for the tunnel go to the host at this address. It is no sub-port yet."""
        remote = _packed(address)
        made = alloc(STAGES, 1, CACHE_LINE)
        made[0] = self._stages[0]
        made["parent"] = self.port.address
        made["way"] = self.uplink.way(remote, address_of(tunnel.tx))
        tunnel.record["stages"] = address_of(made)
        tunnel.record["shared"] = self._plans.workers > 1
        self._tunnels[tunnel.index] = made, remote
        self._plans.add_sub_port(self.port, tunnel.index, tunnel.address)

    def let_go(self, tunnel: Port) -> None:
        """Frames for the tunnel, which is carried, go nowhere. Returns when no worker sends any."""
        made, remote = self._tunnels.pop(tunnel.index)
        self._plans.remove_sub_port(self.port, tunnel.index)
        self._plans.settle()
        self.uplink.drop(remote)
        tunnel.record["stages"] = address_of(self._stages)
        del made

    # ------------------------------------------------------------ neighbours
    def questions(self, now: float) -> list[bytes]:
        """What is to be sent out of the port now (seconds), once a second, where it is up."""
        if not self._plans.known(self.port):
            self._announced = False
            return []
        frames = self.uplink.tick(now)
        if not self._announced:
            self._announced = True
            frames.insert(0, self.uplink.announcement())
        return frames


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed
