# SPDX-License-Identifier: Apache-2.0
"""Which class a kind of port has; how a port is opened; those that could not be opened yet.

Used by the engine. Uses every kind of port.
"""

from collections import deque

from byway.control.model import KINDS
from byway.control.problem import EngineError
from byway.ports.af_packet import AfPacketPort
from byway.ports.af_xdp import AfXdpPort
from byway.ports.null import NullPort
from byway.ports.pcap import PcapPort
from byway.ports.port import Port, PortError
from byway.ports.tap_port import TapPort
from byway.ports.udp import UdpPort
from byway.ports.vhost_kernel import VhostKernelPort
from byway.ports.vhost_user import VhostUserPort
from byway.ports.virtio_user import VirtioUserPort

PORT_CLASSES: dict[str, type[Port]] = {
    "vhost-user": VhostUserPort, "virtio-user": VirtioUserPort, "vhost-kernel": VhostKernelPort,
    "tap": TapPort, "null": NullPort, "pcap": PcapPort,
    "af-packet": AfPacketPort, "af-xdp": AfXdpPort, "udp": UdpPort,
}
assert set(PORT_CLASSES) == set(KINDS)
TRIES = 8  # ports that are tried again at once, so that many of them keep nobody waiting


def open_port(port: Port) -> None:
    """Open a port; EngineError says to the user why it cannot be."""
    try:
        port.open()
    except PortError as error:
        raise EngineError(f'port "{port.name}": {error.key}: {error.problem}', error.fix) from None
    except OSError as error:
        raise EngineError(f'port "{port.name}" cannot be opened: {error}',
                          "see `byway doctor` for limits of this machine") from None


class Unopened:
    """The names of ports that are there but could not be opened, in turn."""

    def __init__(self) -> None:
        self._names: deque[str] = deque()

    def open(self, port: Port, patient: bool) -> None:
        """Open a port. Where it cannot be and we are patient, it is to be tried again, and says
        why."""
        try:
            open_port(port)
        except EngineError as why:
            if not patient:
                raise
            port.state, port.reason = "down", str(why)
            self._names.append(port.name)

    def discard(self, name: str) -> None:
        """It is gone, or open."""
        if name in self._names:
            self._names.remove(name)

    def due(self) -> list[str]:
        """Those that are to be tried now."""
        return list(self._names)[:TRIES]
