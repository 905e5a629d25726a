# SPDX-License-Identifier: Apache-2.0
"""Who claims which MAC address: a table that takes little memory an entry, and the best of claims.

Used by population, which explains what a claim is. Uses nothing.

With 100,000 addresses the memory counts, so a network is a dict from the MAC address, as a number,
to its one claim, or to a list where several hosts claim it. IP addresses are one bytes object.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

IP_SIZE = 16


class Peer:
    """A host as one source sees it. `host` None: this switch; `address` None: not there."""

    __slots__ = ("address", "claims", "host", "mark", "networks", "rank", "source")

    def __init__(self, source: str, host: str | None, rank: int) -> None:
        self.source = source
        self.host = host
        self.rank = rank
        self.address: str | None = None
        self.networks: frozenset[str] = frozenset()
        self.claims = 0  # how many there are in the table
        self.mark = 0


class Claim:
    """That a MAC address, with IP addresses, is behind a peer. `mark`: of the last sync that told
    it; of a local claim, 1 where it is firm."""

    __slots__ = ("generation", "groups", "ips", "mark", "peer")

    def __init__(self, peer: Peer, ips: tuple[bytes, ...], generation: int, mark: int,
                 groups: tuple[str, ...] = ()) -> None:
        self.peer = peer
        self.ips = b"".join(ips)
        self.generation = generation
        self.mark = mark
        self.groups = groups  # security groups; equal ones should be one object

    def addresses(self) -> tuple[bytes, ...]:
        """Its IP addresses, 16 bytes each."""
        return tuple(self.ips[i : i + IP_SIZE] for i in range(0, len(self.ips), IP_SIZE))

    def same(self, other: "Claim") -> bool:
        """Whether both say the same, whenever they were told."""
        return (self.peer is other.peer and self.ips == other.ips
                and self.generation == other.generation and self.groups == other.groups)


class Shown(NamedTuple):
    """What the overlay is told of an address."""

    host: str | None
    ips: tuple[bytes, ...]
    groups: tuple[str, ...] = ()

    def members(self) -> set[tuple[str, bytes]]:
        """Its places in security groups; local ports see to their own."""
        if self.host is None or not self.groups:
            return set()
        return {(group, ip) for group in self.groups for ip in self.ips}


Claims: TypeAlias = Claim | list[Claim]


def shown(claims: Claims | None, tunnels: Mapping[str, str]) -> Shown | None:
    """The best of claims whose host has a tunnel; None where nobody has."""
    if claims is None:
        return None
    if isinstance(claims, list):
        reachable = [c for c in claims if c.peer.host is None or c.peer.host in tunnels]
        if not reachable:
            return None
        claims = max(reachable, key=lambda c: (c.peer.rank, c.generation, c.peer.host or ""))
    elif claims.peer.host is not None and claims.peer.host not in tunnels:
        return None
    return Shown(claims.peer.host, claims.addresses(), claims.groups)


class ClaimTable:
    """Claims by network and MAC address; of each peer at most one to an address."""

    def __init__(self) -> None:
        self._networks: dict[str, dict[int, Claims]] = {}
        self.count = 0

    def of(self, network: str) -> dict[int, Claims]:
        """The claims of one network by MAC address, to be read only."""
        return self._networks.get(network, {})

    def claims(self, network: str, mac: int) -> list[Claim]:
        """All claims to one address."""
        found = self.of(network).get(mac)
        return found if isinstance(found, list) else [found] if found is not None else []

    def find(self, network: str, mac: int, peer: Peer) -> Claim | None:
        """The claim of one peer to one address."""
        return next((c for c in self.claims(network, mac) if c.peer is peer), None)

    def put(self, network: str, mac: int, claim: Claim) -> None:
        """This claim, in place of another of the same peer."""
        table = self._networks.setdefault(network, {})
        others = [c for c in self.claims(network, mac) if c.peer is not claim.peer]
        added = 1 + len(others) - len(self.claims(network, mac))
        self.count += added
        claim.peer.claims += added
        table[mac] = [*others, claim] if others else claim

    def remove(self, network: str, mac: int, peer: Peer) -> None:
        """The claim of one peer, if it is there."""
        present = self.claims(network, mac)
        others = [c for c in present if c.peer is not peer]
        if len(others) == len(present):
            return
        self.count -= 1
        peer.claims -= 1
        table = self._networks[network]
        if others:
            table[mac] = others if len(others) > 1 else others[0]
        else:
            del table[mac]
            if not table:
                del self._networks[network]

    def all(self) -> Iterator[tuple[str, int, Claim]]:
        """Every claim, with its network and MAC address."""
        for network, table in self._networks.items():
            for mac, claims in table.items():
                if isinstance(claims, list):
                    for claim in claims:
                        yield network, mac, claim
                else:
                    yield network, mac, claims

    def by(self, peer: Peer) -> Iterator[tuple[str, int, Claim]]:
        """The claims of one peer."""
        return (found for found in self.all() if found[2].peer is peer) if peer.claims else iter(())

    def winners(self, tunnels: Mapping[str, str]) -> Iterator[tuple[str, int, Shown]]:
        """The best claim to every address that somebody reachable has."""
        for network, table in self._networks.items():
            for mac, claims in table.items():
                if told := shown(claims, tunnels):
                    yield network, mac, told
