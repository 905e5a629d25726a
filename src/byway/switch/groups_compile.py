# SPDX-License-Identifier: Apache-2.0
"""From rules to sets: what security groups say, compiled to the records of groups_rules.py.

Used by groups_control.py. Pure work on the control thread; a policy is published when it is whole.

    policy = Policy(number, rules)
    policy.note(combination, frozenset({"web"}))    # a row for a new combination of groups

Bits of rows are Python's long integers here: a prefix allows what the prefixes around it allow, and
its own. Classes are the intervals between the ends of all rules' ports. So 10,000 rules take some
tenths of a second, and memory for (distinct rows) * (classes) bits.
"""

import ipaddress
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.machine.dual import signed
from byway.machine.layout import address_of, alloc
from byway.switch.groups_rules import CELL, NODE, POLICY, SET, prefix_put

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ALL_SERVICES = 1 << 24
MAPPED = 0xFFFF << 32
FEW_ROWS = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is allowed, for one direction and IP version. None: all.

    ``ingress``: to the guest. ``ports``: of the destination, lowest and highest. ``remote``: the
    other side is in there; ``remote_group``: it is a member of that group.
    """

    ingress: bool
    version: int
    protocol: int | None = None
    ports: tuple[int, int] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    remote: Network | None = None
    remote_group: str | None = None

    @property
    def services(self) -> tuple[int, int]:
        """The first and the last service: protocol << 16 | port, or ICMP type << 8 | code."""
        if self.protocol is None:
            return 0, ALL_SERVICES - 1
        first, last = self.ports or (0, 0xFFFF)
        if self.icmp_type is not None:
            code = self.icmp_code
            first = self.icmp_type << 8 | (code or 0)
            last = self.icmp_type << 8 | (0xFF if code is None else code)
        return self.protocol << 16 | first, self.protocol << 16 | last


def halves(address: int) -> tuple[int, int]:
    """A 128-bit address as two int64, as ld64be would load them."""
    return signed(address >> 64), signed(address)


def number_of(network: Network) -> tuple[int, int]:
    """A network as (128-bit number, prefix length), IPv4 as ::ffff:a.b.c.d; 0 for all addresses."""
    address, length = int(network.network_address), network.prefixlen
    if length == 0:
        return 0, 0
    return (MAPPED | address, 96 + length) if network.version == 4 else (address, length)


def cut(address: int, length: int) -> int:
    """The first ``length`` bits of a 128-bit address."""
    return address >> 128 - length << 128 - length


class Services:
    """The tree of services: intervals become classes, from 1 on."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        ends = {0, ALL_SERVICES}
        for rule in rules:
            first, last = rule.services
            ends |= {first, last + 1}
        self._starts = sorted(ends)
        self._nodes = [np.zeros(256, np.uint32)]
        for k, first in enumerate(self._starts[:-1]):
            self._paint(0, 16, first, self._starts[k + 1] - 1, k + 1)
        self.memory = np.concatenate(self._nodes)

    @property
    def classes(self) -> int:
        return len(self._starts) - 1

    def bits(self, rule: Rule) -> int:
        """The classes that a rule speaks of, as bits."""
        first, last = rule.services
        low = bisect_left(self._starts, first)
        n = bisect_left(self._starts, last + 1) - low
        return (1 << n) - 1 << low + 1

    def _paint(self, node: int, shift: int, first: int, last: int, number: int) -> None:
        """Services first to last (relative to a node whose children take ``shift`` bits)."""
        low, high = first >> shift, last >> shift
        part = (1 << shift) - 1
        begins, ends = first & part == 0, last & part == part
        if low == high and not (begins and ends):
            self._paint(self._child(node, low), shift - 8, first & part, last & part, number)
            return
        if not begins:
            self._paint(self._child(node, low), shift - 8, first & part, part, number)
        if not ends:
            self._paint(self._child(node, high), shift - 8, 0, last & part, number)
        self._nodes[node][low + (not begins) : high + ends] = number

    def _child(self, node: int, k: int) -> int:
        if not self._nodes[node][k] & NODE:
            self._nodes[node][k] = NODE | len(self._nodes)
            self._nodes.append(np.zeros(256, np.uint32))
        return int(self._nodes[node][k]) & ~NODE


class Rows:
    """Strings of bits in memory, equal ones once."""

    def __init__(self, classes: int) -> None:
        self._words = (classes + 64) // 64
        self._known: dict[int, Any] = {}

    def address(self, bits: int) -> int:
        """Where these bits stand."""
        if bits not in self._known:
            octets = bits.to_bytes(8 * self._words, "little")
            self._known[bits] = np.frombuffer(octets, "<i8").copy()
        return address_of(self._known[bits])


class RuleSet:
    """The rules for one direction and IP version, as a SET record at ``address``."""

    def __init__(self, rules: list[Rule]) -> None:
        self._services = Services(rules)
        self._rows = Rows(self._services.classes)
        self._groups: dict[str, int] = {}
        prefixes: dict[tuple[int, int], int] = {(0, 0): 0}
        for rule in rules:
            bits = self._services.bits(rule)
            if rule.remote_group is not None:
                self._groups[rule.remote_group] = self._groups.get(rule.remote_group, 0) | bits
            else:
                place = (0, 0) if rule.remote is None else number_of(rule.remote)
                prefixes[place] = prefixes.get(place, 0) | bits
        self.record = alloc(SET, 1, 64)
        self.address = address_of(self.record)
        row = self.record[0]
        row["nodes"] = address_of(self._services.memory)
        row["any"] = self._rows.address(prefixes[0, 0])
        self._put_prefixes(prefixes)
        self._combinations = np.zeros(1, np.int64)
        if self._groups:
            self._make_room(FEW_ROWS)

    def _put_prefixes(self, prefixes: dict[tuple[int, int], int]) -> None:
        chains = _chains(prefixes)
        self._lengths = np.array(sorted({length for _, length in prefixes} - {0}), np.int64)
        lengths = self._lengths.tolist()
        cells: dict[tuple[int, int], int] = {}
        for place, chain in chains.items():
            if place[1]:
                for cell in _search_path(place, lengths):
                    around = next(known for known in chain if known[1] <= cell[1])
                    cells[cell] = prefixes[around]
        size = 1 << (2 * len(cells)).bit_length()
        self._cells = alloc(CELL, size, 64)
        row = self.record[0]
        row["cells"], row["mask"] = address_of(self._cells), size - 1
        row["lengths"], row["nlengths"] = address_of(self._lengths), len(lengths)
        for (address, length), bits in cells.items():
            prefix_put(self.address, *halves(address), length, self._rows.address(bits))

    def _make_room(self, combinations: int) -> Any:
        """-> memory that must be kept until no worker reads it."""
        before = self._combinations
        self._combinations = np.zeros(combinations + 1, np.int64)
        self._combinations[1 : len(before)] = before[1:]
        self._combinations[0] = combinations
        self.record["rows"] = address_of(self._combinations)
        return before

    def note(self, combination: int, groups: frozenset[str]) -> Any:
        """What members of ``groups``, which are ``combination``, may; -> memory to be kept."""
        if not self._groups:
            return None
        kept = None
        if combination >= len(self._combinations):
            kept = self._make_room(2 * combination)
        bits = 0
        for name in groups & self._groups.keys():
            bits |= self._groups[name]
        self._combinations[combination] = self._rows.address(bits) if bits else 0
        return kept


def _chains(prefixes: dict[tuple[int, int], int]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """For each prefix itself and those around it, longest first. Adds to each what those around it
    allow."""
    chains: dict[tuple[int, int], list[tuple[int, int]]] = {}
    stack: list[tuple[int, int]] = []
    for place in sorted(prefixes):
        while stack and cut(place[0], stack[-1][1]) != stack[-1][0]:
            stack.pop()
        if stack:
            prefixes[place] |= prefixes[stack[-1]]
        stack.append(place)
        chains[place] = stack[::-1]
    return chains


def _search_path(place: tuple[int, int], lengths: list[int]) -> Iterable[tuple[int, int]]:
    """Where the binary search for a prefix must find something: markers, then the prefix."""
    address, length = place
    first, last = 0, len(lengths) - 1
    while first <= last:
        middle = first + last >> 1
        if lengths[middle] <= length:
            yield cut(address, lengths[middle]), lengths[middle]
            first = middle + 1
        else:
            last = middle - 1


class Policy:
    """What some security groups allow together, as a POLICY record at ``address``."""

    def __init__(self, number: int, rules: Iterable[Rule]) -> None:
        """``number``: that no other policy of the switch has or had."""
        kinds: list[list[Rule]] = [[], [], [], []]
        for rule in rules:
            kinds[2 * rule.ingress + (rule.version == 6)].append(rule)
        self.sets = [RuleSet(kind) for kind in kinds]
        self.record = alloc(POLICY, 1, 64)
        self.record["number"] = number
        self.record["sets"] = [each.address for each in self.sets]
        self.address = address_of(self.record)

    def note(self, combination: int, groups: frozenset[str]) -> list[Any]:
        """What members of ``groups``, which are ``combination``, may: to be said before an address
        has that combination. -> memory to be kept until no worker reads it."""
        kept = (each.note(combination, groups) for each in self.sets)
        return [memory for memory in kept if memory is not None]
