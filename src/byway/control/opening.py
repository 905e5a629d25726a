# SPDX-License-Identifier: Apache-2.0
"""Which class a kind of port has; how a port is opened; those that could not be opened yet.

Used by the engine. Uses every kind of port.
"""

from collections.abc import Callable, Iterable, Iterator

from byway.control.actions import Action, AddPort, RemovePort, SetUnderlay
from byway.control.model import KINDS, UnderlayConfig
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
    """Ports that are there but could not be opened, or must not be open, in turn. ``why_shut``: why
    a port must not be opened now; empty: it may be."""

    def __init__(self, why_shut: Callable[[Port], str] = lambda port: "") -> None:
        self._why_shut = why_shut
        self._ports: dict[str, Port] = {}
        self._held: dict[str, Port] = {}  # those of them that nobody has tried yet

    def open(self, port: Port, patient: bool) -> None:
        """Open a port. Where it cannot be and we are patient, or where it must not be, it is to be
        tried again, and says why."""
        try:
            if shut := self._why_shut(port):
                port.state, port.reason = "down", shut
                self._ports[port.name] = self._held[port.name] = port
            else:
                open_port(port)
        except EngineError as why:
            if not patient:
                raise
            port.state, port.reason = "down", str(why)
            self._ports[port.name] = port

    def shut(self, ports: Iterable[Port]) -> None:
        """Close those that must not be open any more, and say why; they are opened anew when they
        may be."""
        for port in [port for port in ports if port.name not in self._ports]:
            port.close()
            port.state, port.reason = "down", self._why_shut(port)
            self._ports[port.name] = port

    def discard(self, name: str) -> None:
        """It is gone, or open."""
        self._ports.pop(name, None)
        self._held.pop(name, None)

    def open_held(self) -> None:
        """Open those that must not be opened before, and now may be: however many they are."""
        for name, port in [one for one in self._held.items() if not self._shut(one[1])]:
            self.discard(name)
            self.open(port, patient=True)

    def again(self, underlay: UnderlayConfig | None) -> Iterator[list[Action]]:
        """The changes by which those are tried that are to be tried now."""
        for name, port in [one for one in self._ports.items() if not self._shut(one[1])][:TRIES]:
            actions: list[Action] = [RemovePort(name), AddPort(port.config, patient=True)]
            if underlay and underlay.uplink == name:  # it must not be left with a port that is gone
                actions = [SetUnderlay(None), *actions, SetUnderlay(underlay)]
            yield actions

    def _shut(self, port: Port) -> bool:
        shut = self._why_shut(port)
        if shut:
            port.reason = shut
        return bool(shut)
