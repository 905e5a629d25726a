# SPDX-License-Identifier: Apache-2.0
"""testpmd as a back end: DPDK's net_vhost ports, each of which sends back what it receives.

Used by the tests of Byway's front end. What comes in at a port goes out of the same one with its
addresses swapped (`macswap`, topology `loop`), on the queue of the same number; peers.mirror looks
into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.system.peers import testpmd

QUEUES = 4


@dataclass(frozen=True)
class Vhost:
    """A net_vhost port: the device's side of a vhost-user socket, in DPDK.

    `client`: it connects, and the front end listens.
    """

    path: Path
    client: bool = False

    def vdev(self, index: int) -> str:
        """The device's argument (DPDK 22.11, vhost PMD guide, "Vhost PMD arguments")."""
        return f"net_vhost{index},iface={self.path},queues={QUEUES},client={self.client:d}"


class NetVhost(testpmd.Testpmd):
    """A testpmd with these ports."""

    def __init__(self, folder: Path, ports: Sequence[Vhost], *, cpu: int, name: str) -> None:
        eal = []
        for index, port in enumerate(ports):
            eal += ["--vdev", port.vdev(index)]
        app = ["--forward-mode=macswap", "--port-topology=loop", f"--rxq={QUEUES}"]
        app += [f"--txq={QUEUES}"]
        self.ports = len(ports)
        super().__init__(name, folder, cpu, 384, False, eal, app)

    def reflect(self) -> None:
        """Start forwarding."""
        last = self.ports - 1
        self.command("start", rf"port {last}: RX queue number.*TX RS bit threshold=0\s")
