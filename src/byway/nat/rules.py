# SPDX-License-Identifier: Apache-2.0
"""The text of a table of ours, for `nft -f -`: pure functions. See nft(8).

Used by table. Uses publication.

Theory of operation
-------------------
A table has rules that never change, and sets and maps that they look into. To publish a port is to
add an element to a map: what a packet costs, and what a change costs, is the same for one
published port and for ten thousand. The names, each once for IPv4 and once for IPv6:

    subnets   the networks whose frames leave the host behind its address
    within    pairs (source, destination) of subnets that are one network
    ports     protocol, port -> container and its port, for every address of the host
    bound     the same for one address of the host

Every change is one transaction. It begins with `skeleton`, which makes what is missing and writes
the rules anew, so that it does not matter who was killed at what point before. Elements are added
again without harm; an element is removed by adding and deleting it, so that one that is not there
is no error (nft learned `destroy` only in 1.0.7).

The rules say:

* prerouting, output: who calls a published port of an address of this host (of any port of the
  family that is *local*, by the routing table; 127.0.0.0/8 included) is led to the container. Calls
  to ::1 stay the host's: IPv6 has no route_localnet, their answers would find no way back.
* postrouting: who leaves a subnet for elsewhere gets the host's address; so does a container that
  was led back into its own network (otherwise its peer would answer it directly, past the
  translation), and the host itself where it called by a loopback address.
* forward: networks of one table reach each other by published ports only.
* guard: route_localnet, which the host's own calls by 127.0.0.1 need, would let containers send to
  127.0.0.1 of the host. No packet from outside has such an address.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from itertools import product

from byway.nat.publication import NatError, Publication

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_SETS = """\
table inet {name} {{
    set subnets4 {{ type ipv4_addr; flags interval; }}
    set subnets6 {{ type ipv6_addr; flags interval; }}
    set within4 {{ type ipv4_addr . ipv4_addr; flags interval; }}
    set within6 {{ type ipv6_addr . ipv6_addr; flags interval; }}
    map ports4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
    map ports6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
    map bound4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
    map bound6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
    chain published {{ }}
    chain guard {{ type filter hook prerouting priority -300; }}
    chain prerouting {{ type nat hook prerouting priority -100; }}
    chain output {{ type nat hook output priority -100; }}
    chain forward {{ type filter hook forward priority 0; }}
    chain postrouting {{ type nat hook postrouting priority 100; }}
}}
"""

_RULES = """\
table inet {name} {{
    chain guard {{
        iifname != "lo" ip saddr 127.0.0.0/8 drop
        iifname != "lo" ip daddr 127.0.0.0/8 drop
    }}
    chain published {{
        dnat ip to ip daddr . meta l4proto . th dport map @bound4
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6
        fib daddr type != local return
        dnat ip to meta l4proto . th dport map @ports4
        dnat ip6 to meta l4proto . th dport map @ports6
    }}
    chain prerouting {{
        jump published
    }}
    chain output {{
        ip6 daddr ::1 return
        jump published
    }}
    chain forward {{
        ct status & dnat != 0 return
        ip saddr @subnets4 ip daddr @subnets4 ip saddr . ip daddr != @within4 drop
        ip6 saddr @subnets6 ip6 daddr @subnets6 ip6 saddr . ip6 daddr != @within6 drop
    }}
    chain postrouting {{
        ip saddr @subnets4 ip daddr != @subnets4 masquerade
        ip6 saddr @subnets6 ip6 daddr != @subnets6 masquerade
        ct status & dnat == 0 return
        ip saddr . ip daddr @within4 masquerade
        ip6 saddr . ip6 daddr @within6 masquerade
        ip saddr 127.0.0.0/8 masquerade
    }}
}}
"""
_CHAINS = ("guard", "published", "prerouting", "output", "forward", "postrouting")


def skeleton(name: str) -> str:
    """The table with all its rules, whether it was there or not; its elements stay."""
    flush = "".join(f"flush chain inet {name} {chain}\n" for chain in _CHAINS)
    return _SETS.format(name=name) + flush + _RULES.format(name=name)


def removal(name: str) -> str:
    """The table goes, with all that is in it, whether it is there or not."""
    return f"table inet {name} {{ }}\ndelete table inet {name}\n"


def parse_subnets(texts: Iterable[str]) -> list[Subnet]:
    """Networks such as "10.0.0.0/24"; an address with its prefix length stands for its network."""
    made: dict[Subnet, None] = {}
    for text in texts:
        try:
            made[ipaddress.ip_interface(text).network] = None
        except ValueError:
            raise NatError(f'"{text}" is no subnet', "write it as in 10.0.0.0/24") from None
    return list(made)


def subnet_elements(subnets: Sequence[Subnet]) -> dict[str, list[str]]:
    """{set: elements} of the subnets of one network."""
    elements: dict[str, list[str]] = {}
    for subnet in subnets:
        elements.setdefault(f"subnets{subnet.version}", []).append(str(subnet))
    return elements | within_elements(subnets)


def within_elements(subnets: Sequence[Subnet]) -> dict[str, list[str]]:
    """{set: elements} by which a network is told from others."""
    elements: dict[str, list[str]] = {}
    for one, other in product(subnets, subnets):
        if one.version == other.version:
            elements.setdefault(f"within{one.version}", []).append(f"{one} . {other}")
    return elements


def publication_elements(publications: Iterable[Publication]) -> dict[str, list[str]]:
    """{map: elements} of published ports, a range port by port."""
    elements: dict[str, list[str]] = {}
    for publication in publications:
        version = publication.container_address.version
        host = publication.host_address
        kind = "ports" if host is None else "bound"
        key = "" if host is None else f"{host} . "
        elements.setdefault(f"{kind}{version}", []).extend(
            f"{key}{one.protocol} . {one.host_port} :"
            f" {one.container_address} . {one.container_port}"
            for one in publication.single()
        )
    return elements


def addition(name: str, elements: dict[str, list[str]]) -> str:
    """Elements are in their sets afterwards; an error where one means something else there."""
    return "".join(f"add element inet {name} {place} {{ {', '.join(texts)} }}\n"
                   for place, texts in elements.items())


def deletion(name: str, elements: dict[str, list[str]]) -> str:
    """Elements are gone afterwards, whether they were there or not."""
    return addition(name, elements) + addition(name, elements).replace("add ", "delete ")
