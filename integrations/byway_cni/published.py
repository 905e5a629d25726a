# SPDX-License-Identifier: Apache-2.0
"""Ports of the host that lead to a container (capability portMappings), by byway.nat.

Used by attach and detach. byway.nat is loaded only where there is something to publish: it runs a
program.
"""

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
        [mapping.protocol, mapping.host_port, address, mapping.container_port, mapping.host]
        for mapping in settings.mappings
        for address in (text.partition("/")[0] for text in addresses)
        if not mapping.host or (":" in mapping.host) == (":" in address)
    ]
    try:
        publications = _publications(wanted)
        kept.publish(row, json.dumps(wanted))
        Table(TABLE).publish(publications, settings.gateway_interface)
    except NatError as error:
        raise CniError(Code.REFUSED, error.problem, error.fix) from None


def withdraw(recorded: str) -> None:
    """Close what `publish` recorded; an empty text is nothing. Idempotent."""
    if not recorded:
        return
    from byway.nat import NatError, Table

    try:
        Table(TABLE).withdraw(publications=_publications(json.loads(recorded)))
    except NatError as error:
        raise CniError(Code.LATER, error.problem, error.fix) from None


def _publications(entries: list[list[Any]]) -> "list[Publication]":
    from byway.nat import Publication

    return [Publication(protocol, host_port, container, container_port, host or None)
            for protocol, host_port, container, container_port, host in entries]
