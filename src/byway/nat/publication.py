# SPDX-License-Identifier: Apache-2.0
"""What can be asked of address translation: a published port; and how it is refused.

Used by rules and table, and by whoever publishes ports. Uses the standard library only.
"""

import ipaddress
from dataclasses import dataclass

PROTOCOLS = ("tcp", "udp", "sctp")
_LAST_PORT = 0xFFFF

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NatError(Exception):
    """Address translation cannot be had: ``problem`` and ``fix`` are sentences for the user."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem, self.fix = problem, fix


@dataclass(frozen=True)
class Publication:
    """A port of a container that stands open on the host, or ``count`` of them in a row.

    ``host_port`` + k leads to ``container_port`` + k at the address ``container``. ``host`` is one
    address of the host; None (or "", "0.0.0.0", "::") is any address of the container's family.
    Raises NatError where a value is none.
    """

    protocol: str
    host_port: int
    container: str
    container_port: int
    host: str | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise NatError(f'"{self.protocol}" cannot be published', "take tcp, udp or sctp")
        last = _LAST_PORT + 1 - self.count
        ports = (self.host_port, self.container_port)
        if self.count < 1 or min(ports) < 1 or max(ports) > last:
            raise NatError(f"{self} is outside the range of ports", f"take ports 1 to {_LAST_PORT}")
        container = self.container_address
        if self.host_address and self.host_address.version != container.version:
            raise NatError(f"{self} would change an IPv{self.host_address.version} packet into an"
                           f" IPv{container.version} one", "take two addresses of one family")

    @property
    def container_address(self) -> Address:
        """The container's address."""
        return _address(self.container)

    @property
    def host_address(self) -> Address | None:
        """The host's address, None where it is any."""
        address = _address(self.host) if self.host else None
        return None if address is None or address.is_unspecified else address

    def single(self) -> "list[Publication]":
        """The same, port by port."""
        return [
            Publication(self.protocol, self.host_port + k, self.container,
                        self.container_port + k, self.host)
            for k in range(self.count)
        ]

    def __str__(self) -> str:
        host = _with_port(self.host or "*", self.host_port, self.count)
        return f"{self.protocol} {host} -> " \
               f"{_with_port(self.container, self.container_port, self.count)}"


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise NatError(f'"{text}" is no IP address', "write it as in 10.0.0.2 or fd00::2") from None


def _with_port(address: str, port: int, count: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" + (f"-{port + count - 1}" if count > 1 else "")
