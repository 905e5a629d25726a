# SPDX-License-Identifier: Apache-2.0
"""What the daemon and the API need of the cluster that a switch is in.

Used by both; byway.control.cluster is it. Uses nothing.
"""

from typing import Any, Protocol


class Membership(Protocol):
    """Belongs to the control thread. What is put here is kept by the cluster, and applied by each
    host that it concerns, this one too; a call returns when the cluster has it.

    Raises ConfigError (a table is wrong), EngineError (the cluster refuses, or does not answer)."""

    async def start(self) -> None:
        """Begin to follow the cluster; returns also while it does not answer."""

    async def close(self) -> None:
        """Leave it: the others forget this host at once. Idempotent."""

    def publish(self) -> None:
        """Ports or networks have come to this switch, or gone: tell the others."""

    def status(self) -> dict[str, Any]:
        """How it is: ``etcd``, ``host``, ``connected``, ``synced`` and more."""

    async def put_network(self, table: dict[str, Any]) -> dict[str, Any]:
        """Keep a network for all hosts; its ``vni`` may be "auto". -> it, with its vni."""

    async def delete_network(self, name: str) -> None:
        """Keep it no longer."""

    async def put_port(self, host: str, table: dict[str, Any]) -> dict[str, Any]:
        """Keep a port for one host, which opens it; its ``ips`` may be "auto": one address of
        each family that the network has subnets of. -> it, with its ips."""

    async def delete_port(self, host: str, name: str) -> None:
        """Keep it no longer."""
