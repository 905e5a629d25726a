# SPDX-License-Identifier: Apache-2.0
"""Ports of the host that lead to a container (capability portMappings), by byway.nat.

Used by attach and detach. byway.nat is loaded only where there is something to publish: it runs a
program.
"""

import ipaddress
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from byway_cni.attachments import Attachment, Attachments
from byway_cni.problem import CniError, Code
from byway_cni.settings import Settings

if TYPE_CHECKING:
    from byway.nat import Publication

TABLE = "byway-cni"


def publish(kept: Attachments, row: Attachment, settings: Settings,
            addresses: Sequence[str]) -> None:
    """Open the mappings of the settings towards these addresses of a container."""
    from byway.nat import NatError, Table

    wanted = [
        [mapping.protocol, mapping.host_port, address.partition("/")[0], mapping.container_port,
         mapping.host, str(ipaddress.ip_interface(address).network)]
        for mapping in settings.mappings
        for address in addresses
        if not mapping.host or (":" in mapping.host) == (":" in address)
    ]
    try:
        publications = _publications(wanted)
        kept.publish(row, json.dumps(wanted))
        Table(TABLE).publish(publications, settings.gateway_interface, _subnets(wanted))
    except NatError as error:
        raise CniError(Code.REFUSED, error.problem, error.fix) from None


def withdraw(kept: Attachments, row: Attachment | None) -> None:
    """Close what `publish` recorded in a row, if anything. Idempotent."""
    if row is None or not row.published:
        return
    from byway.nat import NatError, Table

    entries = json.loads(row.published)
    # Containers of the same subnets may still have ports: the rules between them stay for those.
    others = any(other.published and other.port != row.port
                 for other in kept.of_network(row.network))
    try:
        Table(TABLE).withdraw([] if others else _subnets(entries), _publications(entries))
    except NatError as error:
        raise CniError(Code.LATER, error.problem, error.fix) from None


def _subnets(entries: list[list[Any]]) -> list[str]:
    return sorted({entry[-1] for entry in entries})


def _publications(entries: list[list[Any]]) -> "list[Publication]":
    from byway.nat import Publication

    return [Publication(protocol, host_port, container, container_port, host or None)
            for protocol, host_port, container, container_port, host, _ in entries]
