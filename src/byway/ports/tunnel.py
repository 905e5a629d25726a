# SPDX-License-Identifier: Apache-2.0
"""A tunnel: the way to one remote host, as a port that frames are sent to.

Used by control.overlay; uses its underlay (sockets, or an uplink) and tunnel_send.py. What comes
from the host is received by the underlay, which knows it by its address (packet.tunnels), and
counted here.

A tunnel is one for all networks: which one a frame is of stands in the batch (BATCH.vni). It has as
many tx queues as the underlay has sockets to send by; frames are spread over them by flow, so that
each flow keeps one source port. What its sender left undone of a frame is done before (takes = 0).
"""

import ipaddress
from typing import Any

import numpy as np

from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.packet.counters import COUNTERS
from byway.ports.port import Port, PortError
from byway.ports.record import RXQ, Kind
from byway.ports.tunnel_code import tunnels
from byway.ports.tunnel_send import MOST, SENDER
from byway.ports.underlay import Carrier, Underlay
from byway.ports.underlay_sockets import SOURCES, name_of

# How ECN is said with a message, type << 32 | level: IP_TOS of SOL_IP, IPV6_TCLASS of SOL_IPV6.
ECN = {4: 1 << 32, 6: 67 << 32 | 41}


class Tunnel(Port):
    """The way to the host called ``name``, whose underlay address is ``address``."""

    kind = Kind.TUNNEL

    def __init__(self, name: str, address: str, index: int, underlay: Underlay) -> None:
        super().__init__(Carrier(name, SOURCES), index, underlay.host, underlay.mtu)
        self.address_of_host = address
        self.underlay = underlay
        self.serving = []  # nothing comes in here
        self.rxqs, self.rx = alloc(RXQ, 1, CACHE_LINE), alloc(COUNTERS, 1, CACHE_LINE)
        self._senders = alloc(SENDER, SOURCES)
        self._name = np.zeros(1, np.uint8)

    def open(self) -> None:
        self._point_at(self.address_of_host)
        self.record["ntx"] = SOURCES
        self._attach()
        self.state, self.reason = "up", ""
        self._make_known(self.address_of_host)

    def _attach(self) -> None:
        """Frames may be sent here; over an uplink its port sends them, for as long as it is up."""
        if not self.underlay.uplink:
            self.host.attach(self)

    def _point_at(self, address: str) -> None:
        """Fill in where the tx queues send to."""
        underlay = self.underlay
        check_address(underlay, address)
        self._name = np.frombuffer(name_of(address, underlay.settings.port), np.uint8)
        for k, sock in enumerate(underlay.senders):
            row = self._senders[k]
            row["code"], row["fd"], row["tx"] = tunnels()[1].address, sock.fileno(), \
                address_of(self.tx[k:])
            row["name"], row["name_bytes"] = address_of(self._name), len(self._name)
            row["ecn"], row["longest"], row["most"] = ECN[underlay.version], underlay.longest, MOST
            self.txqs[k]["queue"] = address_of(self._senders[k:])

    def _make_known(self, address: str) -> None:
        self.underlay.remotes.set(_packed(address), self.index, address_of(self.rx))

    def close(self) -> None:
        self.underlay.remotes.drop(_packed(self.address_of_host))
        self.take_down("closed")
        self.host.settle()  # a worker may be counting a frame that came from there
        self.txqs["queue"] = 0

    def details(self) -> dict[str, Any]:
        return {"address": self.address_of_host, "peer": self.address_of_host}


def check_address(underlay: Underlay, address: str) -> None:
    """PortError where no other host can have this address on the underlay."""
    own = underlay.settings.address
    if ipaddress.ip_address(address).version != underlay.version:
        raise PortError("address", f"{address} is not of the underlay's family ({own})",
                        f"give an IPv{underlay.version} address")
    if _packed(address) == _packed(own):
        raise PortError("address", f"{address} is this host's own", "leave this host out")


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed
