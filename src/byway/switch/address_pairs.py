# SPDX-License-Identifier: Apache-2.0
"""The addresses that a port may use: pairs of a MAC address and a prefix of IP addresses.

Used by port_security.py; uses machine only.

IPv4 addresses and prefixes are kept as IPv6 ones (::ffff:a.b.c.d), but know what they are: ::/0 is
every IPv6 address and no IPv4 one. Pairs stand in a list: a port has a handful, and what it sends
from steadily is remembered by port_security.py, so that the list is not walked for it.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

from byway.machine.dual import signed
from byway.machine.jit import kernel
from byway.machine.layout import alloc, record
from byway.machine.mem import ld64

# mac: << 16. version: 4, 6, or 0: both. high, low: the prefix; high_mask, low_mask: its bits.
PAIR, _pair_at, P = record("pair", [
    "mac", "version", "high", "low", "high_mask", "low_mask"], size=64)
PAIR_BYTES = 64
MAX_PAIRS = 256
IPV4_MAPPED = 0xFFFF << 32
_WORD = (1 << 64) - 1


@kernel
def has_mac(pairs, n, mac):
    """Is ``mac`` (<< 16) in one of n pairs?"""
    found = False
    for k in range(n):
        if ld64(pairs + PAIR_BYTES * k + P.mac) == mac:
            found = True
            break
    return found


@kernel
def has_pair(pairs, n, mac, version, high, low):
    """Is an IP address of this version, with ``mac`` (<< 16), in one of n pairs?"""
    found = False
    for k in range(n):
        pair = pairs + PAIR_BYTES * k
        kind = ld64(pair + P.version)
        if ld64(pair + P.mac) == mac and (kind == version or kind == 0):
            if (high ^ ld64(pair + P.high)) & ld64(pair + P.high_mask) == 0 \
                    and (low ^ ld64(pair + P.low)) & ld64(pair + P.low_mask) == 0:
                found = True
                break
    return found


Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


def link_local(mac: int) -> Prefix:
    """The link-local address that a station makes of its MAC address (RFC 4291, appendix A)."""
    octets = bytearray(mac.to_bytes(6, "big"))
    octets[0] ^= 2
    return ipaddress.IPv6Network(
        b"\xfe\x80" + bytes(6) + bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:]))


def pairs_of(pairs: Sequence[tuple[int, str | None]]) -> Any:
    """An array of PAIR: (MAC address, prefix or address as text; None: any), each once, and every
    MAC address with its link-local address. ValueError: too many, or no prefix."""
    wanted: dict[tuple[int, Prefix | None], None] = dict.fromkeys(
        (mac, None if prefix is None else ipaddress.ip_network(prefix, strict=False))
        for mac, prefix in pairs)
    wanted |= dict.fromkeys((mac, link_local(mac)) for mac, _ in pairs)
    if not 0 < len(wanted) <= MAX_PAIRS:
        raise ValueError(f"{len(wanted)} pairs of addresses: 1 to {MAX_PAIRS} can be checked, among"
                         " them one link-local address for each MAC address; use prefixes")
    made = alloc(PAIR, len(wanted), 64)
    for row, (mac, prefix) in zip(made, wanted, strict=True):
        row["mac"] = signed(mac << 16)
        if prefix is not None:
            row["version"] = prefix.version
            for name, word in zip(("high", "low", "high_mask", "low_mask"), _words(prefix),
                                  strict=True):
                row[name] = signed(word)
    return made


def _words(prefix: Prefix) -> tuple[int, int, int, int]:
    """A prefix as PAIR has it."""
    if prefix.version == 4:
        return (0, IPV4_MAPPED | int(prefix.network_address),
                _WORD, IPV4_MAPPED | int(prefix.netmask))
    address, mask = int(prefix.network_address), int(prefix.netmask)
    return address >> 64, address & _WORD, mask >> 64, mask & _WORD

