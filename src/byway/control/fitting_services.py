# SPDX-License-Identifier: Apache-2.0
"""What does not fit together of services, their appliances' ports and the ports that have them.

Used by fitting. Uses the model.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from byway.control.model import AnyPort, ServiceConfig
from byway.control.parts import Key, Part
from byway.control.problem import Problem

# Keys of a port that mean nothing, or harm, where an appliance is behind it.
_NOT_OF_APPLIANCES = ("services", "vlans", "security_groups", "port_security", "chain", "chain_tx")


class View(Protocol):
    """The state after a change."""

    def get(self, key: Key) -> Part | None:
        """One of its parts."""


def of_service(view: View, service: ServiceConfig, where: str) -> Iterator[Problem]:
    """The ports of all appliances are in one network, and are nothing but that."""
    networks: dict[str, str] = {}
    for number, one in enumerate(service.appliances, 1):
        for side in ("left", "right"):
            name = getattr(one, side)
            port: Any = view.get(Key("port", name))
            if port is None:
                continue
            key = f"{where}: appliances[{number}].{side}"
            networks.setdefault(port.network, name)
            if len(networks) > 1 and networks[port.network] == name:
                first = next(iter(networks))
                yield Problem(key, f'port "{name}" is in network "{port.network}", port'
                              f' "{networks[first]}" in "{first}"',
                              "the appliances of a service are in one network")
            for other in _NOT_OF_APPLIANCES:
                if getattr(port, other):
                    yield Problem(key, f'port "{name}" has {other}',
                                  f"leave {other} out: frames pass an appliance as they are")


def of_port(view: View, port: AnyPort, where: str) -> Iterator[Problem]:
    """The services of a port are in its network."""
    for name in port.services:
        service: Any = view.get(Key("service", name))
        for inner in service.ports[:1] if service else ():
            of: Any = view.get(Key("port", inner))
            if of is not None and of.network != port.network:
                yield Problem(f"{where}: services", f'the appliances of "{name}" are in network'
                              f' "{of.network}", the port is in "{port.network}"',
                              "a port's services are in its network")
