# SPDX-License-Identifier: Apache-2.0
"""The text that nft is given, and what cannot be asked of it."""

import pytest

from byway.nat import NatError, Publication, Table
from byway.nat.rules import (
    addition,
    deletion,
    parse_subnets,
    publication_elements,
    removal,
    skeleton,
    subnet_elements,
)


def chain(text: str, name: str) -> list[str]:
    """The rules of a chain: its last mention in the text has them."""
    body = text.rpartition(f"    chain {name} {{\n")[2].partition("\n    }")[0]
    return [line.strip() for line in body.splitlines()]


def test_the_skeleton_makes_empties_and_fills_every_chain() -> None:
    text = skeleton("byway-lab")
    for name in ("guard", "published", "prerouting", "output", "forward", "postrouting"):
        made = text.index(f"chain {name} {{")
        emptied = text.index(f"flush chain inet byway-lab {name}\n")
        filled = text.rindex(f"chain {name} {{")
        assert made < emptied < filled
    assert "flush set" not in text  # the elements are the owner's
    assert "flush map" not in text


def test_no_other_table_is_named() -> None:
    words = skeleton("byway-lab").replace("\n", " ").split("inet ")[1:]
    assert {word.split()[0] for word in words} == {"byway-lab"}


def test_who_leaves_a_subnet_gets_the_hosts_address() -> None:
    rules = chain(skeleton("t"), "postrouting")
    assert rules[0] == "ip saddr @subnets4 ip daddr != @subnets4 masquerade"
    assert rules[1] == "ip6 saddr @subnets6 ip6 daddr != @subnets6 masquerade"


def test_only_what_was_led_back_is_masqueraded_within_a_network() -> None:
    rules = chain(skeleton("t"), "postrouting")
    assert rules.index("ct status & dnat == 0 return") \
        < rules.index("ip saddr . ip daddr @within4 masquerade")


def test_a_port_of_one_address_goes_before_one_of_all() -> None:
    rules = chain(skeleton("t"), "published")
    assert [rule.rpartition("@")[2] for rule in rules if "@" in rule] \
        == ["bound4", "bound6", "ports4", "ports6"]
    assert rules[2] == "fib daddr type != local return"  # a port of somebody else's address


def test_the_loopback_address_is_guarded() -> None:
    assert chain(skeleton("t"), "guard") == [
        'iifname != "lo" ip saddr 127.0.0.0/8 drop', 'iifname != "lo" ip daddr 127.0.0.0/8 drop']


def test_a_removal_is_no_error_where_there_is_nothing() -> None:
    assert removal("t") == "table inet t { }\ndelete table inet t\n"


def test_an_address_with_its_length_stands_for_its_network() -> None:
    assert [str(s) for s in parse_subnets(["10.0.0.1/24", "10.0.0.0/24", "fd00::1/64"])] \
        == ["10.0.0.0/24", "fd00::/64"]


def test_the_subnets_of_one_network_reach_each_other() -> None:
    parsed = parse_subnets(["10.0.0.0/24", "10.0.9.0/24", "fd00::/64"])
    assert subnet_elements(parsed) == {
        "subnets4": ["10.0.0.0/24", "10.0.9.0/24"],
        "within4": ["10.0.0.0/24 . 10.0.0.0/24", "10.0.0.0/24 . 10.0.9.0/24",
                    "10.0.9.0/24 . 10.0.0.0/24", "10.0.9.0/24 . 10.0.9.0/24"],
        "subnets6": ["fd00::/64"],
        "within6": ["fd00::/64 . fd00::/64"],
    }


def test_published_ports_by_family_and_by_the_hosts_address() -> None:
    assert publication_elements([
        Publication("tcp", 8080, "10.0.0.2", 80),
        Publication("udp", 5000, "10.0.0.2", 6000, count=2),
        Publication("sctp", 8080, "fd00::2", 80, host="::"),
        Publication("tcp", 8443, "10.0.0.2", 443, host="192.0.2.1"),
        Publication("tcp", 8443, "fd00::2", 443, host="2001:db8::1"),
    ]) == {
        "ports4": ["tcp . 8080 : 10.0.0.2 . 80", "udp . 5000 : 10.0.0.2 . 6000",
                   "udp . 5001 : 10.0.0.2 . 6001"],
        "ports6": ["sctp . 8080 : fd00::2 . 80"],
        "bound4": ["192.0.2.1 . tcp . 8443 : 10.0.0.2 . 443"],
        "bound6": ["2001:db8::1 . tcp . 8443 : fd00::2 . 443"],
    }


def test_elements_are_added_in_one_command_for_each_set() -> None:
    assert addition("t", {"ports4": ["a : b", "c : d"], "ports6": ["e : f"]}) == (
        "add element inet t ports4 { a : b, c : d }\nadd element inet t ports6 { e : f }\n")


def test_what_may_be_missing_is_added_before_it_is_deleted() -> None:
    assert deletion("t", {"subnets4": ["10.0.0.0/24"]}) == (
        "add element inet t subnets4 { 10.0.0.0/24 }\n"
        "delete element inet t subnets4 { 10.0.0.0/24 }\n")


@pytest.mark.parametrize(("values", "sentence"), [
    (("icmp", 1, "10.0.0.2", 1), '"icmp" cannot be published; take tcp, udp or sctp'),
    (("tcp", 0, "10.0.0.2", 1), "outside the range of ports"),
    (("tcp", 1, "10.0.0.2", 65536), "outside the range of ports"),
    (("tcp", 65535, "10.0.0.2", 1, None, 2), r"\*:65535-65536 -> 10.0.0.2:1-2 is outside"),
    (("tcp", 1, "10.0.0.2", 1, None, 0), "outside the range of ports"),
    (("tcp", 1, "10.0.0.2/24", 1), '"10.0.0.2/24" is no IP address; write it as in 10.0.0.2'),
    (("tcp", 1, "10.0.0.2", 1, "::1"), "would change an IPv6 packet into an IPv4 one"),
])
def test_what_cannot_be_published(values: tuple[str | int, ...], sentence: str) -> None:
    with pytest.raises(NatError, match=sentence):
        Publication(*values)  # type: ignore[arg-type]


def test_what_is_no_subnet() -> None:
    with pytest.raises(NatError, match='"blue" is no subnet; write it as'):
        parse_subnets(["blue"])


@pytest.mark.parametrize("name", ["", "1st", "a b", "a;flush ruleset", "a" * 81])
def test_what_is_no_name_of_a_table(name: str) -> None:
    with pytest.raises(NatError, match="no name of a table"):
        Table(name)
