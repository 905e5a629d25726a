# SPDX-License-Identifier: Apache-2.0
"""Prefixes and ranges of addresses as pairs of integers: what a pool is, and what it may give.

Used by pools and choose. Uses the standard library's ipaddress to read and write addresses; no
function here lists the addresses of a prefix, of which IPv6 has too many.

Never given unless asked for by its name is what Linux or a standard has another use for: the first
and the last address of an IPv4 prefix (network and broadcast, RFC 1122 3.2.1.3), the first one of
an IPv6 prefix (the routers' anycast address, RFC 4291 2.6.1). Prefixes of one or two addresses
have none of those (RFC 3021, RFC 6164).
"""

import ipaddress
from typing import NamedTuple

from byway.ipam.problem import IpamError

_BITS = {4: 32, 6: 128}


class Span(NamedTuple):
    """The addresses from `first` to `last`, both inclusive."""

    first: int
    last: int

    def overlaps(self, other: "Span") -> bool:
        """Whether an address is in both."""
        return self.first <= other.last and other.first <= self.last

    def holds(self, other: "Span") -> bool:
        """Whether all of `other` is in this one."""
        return self.first <= other.first and other.last <= self.last


class Pool(NamedTuple):
    """A prefix of an address space, of which `choice` is what may be chosen from.

    `sub_pool` is the range that was asked for, as it was written; empty: the whole prefix."""

    id: str
    space: str
    prefix: str  # "10.0.0.0/24"
    sub_pool: str
    version: int  # 4 or 6
    span: Span
    choice: Span

    @property
    def length(self) -> int:
        """The prefix length."""
        return int(self.prefix.rpartition("/")[2])

    def cidr(self, address: int) -> str:
        """An address as the answer to a request: with the prefix length."""
        return f"{address_text(address, self.version)}/{self.length}"


def make_pool(space: str, prefix: str, sub_pool: str) -> Pool:
    """The pool of these texts; IpamError where they say nothing that could be one."""
    version, span = read_prefix(prefix)
    prefix = prefix_text(span.first, length_of(span, version), version)
    choice = usable(span, version)
    if sub_pool:
        part = _read_range(sub_pool, version)
        if not span.holds(part):
            raise IpamError(f"the range {sub_pool} is not within the pool {prefix}",
                            "choose a range of the pool's own addresses")
        choice = Span(max(part.first, choice.first), min(part.last, choice.last))
        if choice.first > choice.last:
            raise IpamError(f"the range {sub_pool} has no address that may be given",
                            "choose a larger range")
    name = f"{space}/{prefix}" + (f"/{sub_pool}" if sub_pool else "")
    return Pool(name, space, prefix, sub_pool, version, span, choice)


def usable(span: Span, version: int) -> Span:
    """What of a prefix may be chosen."""
    if span.last - span.first < 2:
        return span
    return Span(span.first + 1, span.last - 1 if version == 4 else span.last)


def read_prefix(text: str) -> tuple[int, Span]:
    """"10.0.0.0/24" -> (4, its addresses)."""
    fix = 'write it as in "10.0.0.0/24" or "fd00:1::/64"'
    if not isinstance(text, str) or "/" not in text or "%" in text:
        raise IpamError(f"{text!r} is no pool of addresses", fix)
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise IpamError(f"{text!r} is no pool of addresses", fix) from None
    first = int(found.network_address)
    if int(ipaddress.ip_address(text.partition("/")[0])) != first:
        raise IpamError(f"{text} has bits set behind its prefix length", f"write {found}")
    return found.version, Span(first, int(found.broadcast_address))


def read_address(text: str, version: int) -> int:
    """An address, with or without a prefix length, of this IP version."""
    try:
        if "%" in text:
            raise ValueError(text)
        found = ipaddress.ip_address(text.partition("/")[0])
    except (ValueError, AttributeError, TypeError):
        raise IpamError(f"{text!r} is no IP address", 'write it as in "10.0.0.2"') from None
    if found.version != version:
        raise IpamError(f"{text} is no IPv{version} address",
                        f"ask a pool of IPv{found.version} for it")
    return int(found)


def _read_range(text: str, version: int) -> Span:
    """"10.0.0.64/26", or "10.0.0.10-10.0.0.20"."""
    if "-" in text:
        first, _, last = text.partition("-")
        span = Span(read_address(first.strip(), version), read_address(last.strip(), version))
        if span.first > span.last:
            raise IpamError(f"the range {text} ends before it begins", "exchange its two ends")
        return span
    found, span = read_prefix(text)
    if found != version:
        raise IpamError(f"the range {text} is no IPv{version} one", "take one of the pool's own")
    return span


def length_of(span: Span, version: int) -> int:
    """The prefix length of a span that is a prefix."""
    return _BITS[version] - (span.last - span.first).bit_length()


def prefix_text(first: int, length: int, version: int) -> str:
    """(0x0A000000, 24, 4) -> "10.0.0.0/24"."""
    return f"{address_text(first, version)}/{length}"


def address_text(address: int, version: int) -> str:
    """An address as people write it."""
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return str(kind(address))


def size_of(length: int, version: int) -> int:
    """How many addresses a prefix of this length has."""
    return int(1 << (_BITS[version] - length))


def packed(address: int, version: int) -> bytes:
    """An address as bytes that sort as addresses do."""
    return address.to_bytes(_BITS[version] // 8, "big")
