# SPDX-License-Identifier: Apache-2.0
"""What the population tells: the data path (an `Overlay`), and the other hosts (`Announcement`).

Used by population, by the engine's overlay, which is one, and by the cluster. Uses nothing.
"""

from dataclasses import dataclass
from typing import Protocol


class Overlay(Protocol):
    """What the population tells the data path; every call is quick, on the control thread.

    MAC addresses are 48-bit numbers, IP addresses 16 bytes (IPv4 as ::ffff:a.b.c.d). An IP address
    may be told of two MAC addresses in turn: the last one counts, and goes with that one only."""

    def set_tunnel(self, host: str, address: str) -> None:
        """The host is at this underlay address; replaces another address."""

    def drop_tunnel(self, host: str) -> None:
        """Nothing goes to this host any more."""

    def flood(self, network: str, host: str, on: bool) -> None:
        """Whether frames to all members of the network go to this host as well."""

    def set_entry(self, network: str, mac: int, ips: tuple[bytes, ...], host: str | None,
                  gone: tuple[bytes, ...] = ()) -> None:
        """The address is behind `host` (None: at a local port) and nowhere else; replaces. `gone`:
        the IP addresses that it was told with, and has no more."""

    def drop_entry(self, network: str, mac: int, ips: tuple[bytes, ...]) -> None:
        """Nobody has the address any more, nor the IP addresses that it was told with."""

    def member(self, group: str, ip: bytes, on: bool) -> None:
        """A security group has this address of a port on another host as a member; each time that
        it is told to join is followed by one that it leaves."""


@dataclass(frozen=True)
class Announcement:
    """A local address to tell the others of; without `ips` (None): it left.
    `groups`: security groups of its port."""

    network: str
    mac: int
    ips: tuple[bytes, ...] | None
    generation: int
    groups: tuple[str, ...] = ()
