# SPDX-License-Identifier: Apache-2.0
"""From rules to rows: what rules_kernels.py looks up, made from a list of rules.

Used by rules_memory.py. Uses nf.rules and NumPy. Pure work on the control thread: what is made here
is published when it is whole.

Each property of a frame is a line of numbers, and a rule a piece of each line (of the services: up
to two pieces). At the ends of pieces the set of rules that allow a number changes, and only there:
one bit for each end. So the rows of all intervals are running exclusive ors over these changes. For
10,000 rules that is some tenths of a second; memory is (distinct rows) * (rules / 8) bytes for each
property.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from byway.functions.rules_kernels import (
    BOUNDS,
    ENTRY,
    FLAGS_NONE,
    HIGHEST,
    MEMO,
    NODE,
    SET,
    SPORT_ICMP,
    SPORT_NONE,
)
from byway.machine.dual import signed
from byway.machine.layout import address_of, alloc
from byway.nf.rules import IPV4, IPV6, TCP, UDP, Network, Rule

Words: TypeAlias = npt.NDArray[np.uint64]
Classes: TypeAlias = npt.NDArray[np.uint32]
Pieces: TypeAlias = Callable[[Rule], Iterable[tuple[int, int]]]
FEWEST, MOST_MEMOS = 1 << 10, 1 << 13
_WORD = 64


class Line:
    """One property: the intervals that the rules cut it into, the class of each, and their rows."""

    def __init__(self, rules: Sequence[Rule], pieces: Pieces, end: int) -> None:
        """``end``: the first number that is none of the property's."""
        changes: list[tuple[int, int]] = []
        for number, rule in enumerate(rules):
            for first, last in pieces(rule):
                changes.append((first, number))
                if last + 1 < end:
                    changes.append((last + 1, number))
        self.starts = sorted({0, *(place for place, _ in changes)})
        index = {place: k for k, place in enumerate(self.starts)}
        rows = np.zeros((len(self.starts), -(-len(rules) // _WORD)), np.uint64)
        if changes:
            at = np.array([(index[place], number) for place, number in changes], np.int64)
            bits = np.uint64(1) << (at[:, 1] & 63).astype(np.uint64)
            np.bitwise_xor.at(rows, (at[:, 0], at[:, 1] >> 6), bits)
        np.bitwise_xor.accumulate(rows, axis=0, out=rows)
        self.classes, self.rows = _distinct(rows)


def _distinct(rows: Words) -> tuple[Classes, Words]:
    """Equal rows once: the class of each, and the rows by class, with their summaries in front."""
    known: dict[bytes, int] = {}
    classes = np.array([known.setdefault(row.tobytes(), len(known)) for row in rows], np.uint32)
    width = rows.shape[1]
    summary = -(-width // _WORD)
    stride = -(-(summary + width) // 8) * 8
    packed = alloc(np.dtype("<u8"), len(known) * stride, 64).reshape(len(known), stride)
    kept = np.frombuffer(b"".join(known), np.uint64).reshape(len(known), width)
    packed[:, summary:summary + width] = kept
    used = np.zeros((len(known), summary * _WORD), np.uint8)
    used[:, :width] = kept != 0
    packed[:, :summary] = np.packbits(used, axis=1, bitorder="little").view(np.uint64)
    return classes, packed


def tree(starts: Sequence[int], classes: Classes) -> Classes:
    """The tree over numbers of 32 bits; intervals begin at ``starts``, the first of them 0."""
    begins = np.array(starts, np.int64)

    def level(bases: npt.NDArray[np.int64], width: int, shift: int) -> tuple[Any, Any]:
        """Nodes of ``width`` children that begin at ``bases``: the index of the interval at the
        beginning of each child, and whether all of the child is in it."""
        heads = (bases[:, None] + (np.arange(width, dtype=np.int64) << shift)).ravel()
        first = np.searchsorted(begins, heads, side="right") - 1
        last = np.searchsorted(begins, heads + (1 << shift), side="left") - 1
        return heads, (first, first == last)

    made: list[Classes] = []
    heads, (first, whole) = level(np.zeros(1, np.int64), 1 << 16, 16)
    count = 0
    for shift in (8, 0, -1):
        words = classes[first]
        inner = heads[~whole]
        words[~whole] = NODE | (count + np.arange(len(inner), dtype=np.uint32))
        made.append(words)
        if shift < 0 or not len(inner):
            break
        count += len(inner)
        heads, (first, whole) = level(inner, 1 << 8, shift)
    return np.concatenate(made)


class RuleSet:
    """The rules of one IP version, as a SET record at ``address``."""

    def __init__(self, rules: Sequence[Rule], numbers: Sequence[int], version: int) -> None:
        """``numbers``: which rules of the whole list these are."""
        bits = 32 if version == 4 else 128
        place = _trees if version == 4 else _bounds
        self._kept: list[Any] = []
        self.record = alloc(SET, 1, 64)
        self.address = address_of(self.record)
        row = self.record[0]
        for name, pieces, end in (
                ("source", lambda rule: _addresses(rule.source, bits), 1 << bits),
                ("destination", lambda rule: _addresses(rule.destination, bits), 1 << bits),
                ("service", _services, 1 << 24), ("sport", _sports, 1 << 24)):
            line = Line(rules, pieces, end)
            row[f"{name}_rows"] = self._keep(line.rows)
            starts = line.starts if end > 1 << 24 else [start << 8 for start in line.starts]
            make = place if name in ("source", "destination") else _trees
            row[name] = self._keep(*make(starts, line.classes))
        self._put_flags(rules)
        row["stride"] = 8 * line.rows.shape[1]
        row["summary"] = -(-len(rules) // _WORD**2)
        row["numbers"] = self._keep(np.array(numbers, np.uint32) + np.uint32(1))
        size = FEWEST
        while size < MOST_MEMOS and size < 2 * len(rules):
            size *= 2
        memo = alloc(MEMO, size, 64)
        memo["classes"] = -1
        row["memo"], row["mask"] = self._keep(memo), size - 1

    def _keep(self, *arrays: Any) -> int:
        """Keep memory as long as the set; -> where the last of it begins."""
        self._kept += arrays
        return address_of(arrays[-1])

    def _put_flags(self, rules: Sequence[Rule]) -> None:
        """Rows by TCP flags; where no rule is about them, one row for all."""
        allowed = np.zeros((FLAGS_NONE + 1, -(-len(rules) // _WORD)), np.uint64)
        for number, rule in enumerate(rules):
            bit = np.uint64(1 << number % _WORD)
            if rule.tcp_flags is None:
                allowed[:, number // _WORD] |= bit
                continue
            wanted, looked_at = rule.tcp_flags
            for flags in range(FLAGS_NONE):
                if flags & looked_at == wanted:
                    allowed[flags, number // _WORD] |= bit
        classes, rows = _distinct(allowed)
        self.record[0]["flags_rows"] = self._keep(rows)
        if any(rule.tcp_flags is not None for rule in rules):
            self.record[0]["flags"] = self._keep(classes)


def _trees(starts: Sequence[int], classes: Classes) -> tuple[Any, ...]:
    return (tree(starts, classes),)


def _bounds(starts: Sequence[int], classes: Classes) -> tuple[Any, ...]:
    """BOUNDS and what it points to."""
    high = np.array([signed(start >> 64) ^ HIGHEST for start in starts], np.int64)
    low = np.array([signed(start) ^ HIGHEST for start in starts], np.int64)
    bounds = alloc(BOUNDS, 1, 64)
    row = bounds[0]
    row["n"] = len(starts)
    row["high"], row["low"], row["classes"] = map(address_of, (high, low, classes))
    return high, low, classes, bounds


# ---------------------------------------------------------------- the pieces of a rule
def _addresses(network: Network | None, bits: int) -> Iterable[tuple[int, int]]:
    if network is None:
        return [(0, (1 << bits) - 1)]
    first = int(network.network_address)
    return [(first, first + (1 << bits - network.prefixlen) - 1)]


def _services(rule: Rule) -> Iterable[tuple[int, int]]:
    low, high = 0, 0xFFFF
    protocols = [] if rule.protocol is None else [rule.protocol]
    if rule.has_ports:
        low, high = rule.destination_ports or (low, high)
        protocols = protocols or [TCP, UDP]
    elif rule.icmp_type is not None:
        code = rule.icmp_code
        low = rule.icmp_type << 8 | (code or 0)
        high = rule.icmp_type << 8 | (0xFF if code is None else code)
    if not protocols:
        return [(0, (1 << 24) - 1)]
    return [(protocol << 16 | low, protocol << 16 | high) for protocol in protocols]


def _sports(rule: Rule) -> Iterable[tuple[int, int]]:
    if rule.icmp_type is not None:
        return [(SPORT_ICMP, SPORT_ICMP)]
    if rule.has_ports:
        return [rule.source_ports or (0, 0xFFFF)]
    return [(0, SPORT_NONE)]


# ---------------------------------------------------------------- the whole
class Built:
    """A list of rules, in order, as what rules_kernels.py looks up; 0 where a set is empty."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.entries = alloc(ENTRY, max(len(rules), 1), 64)
        self.entries["value"][:len(rules)] = [rule.value for rule in rules]
        self._sets = {version: _of_version(rules, version) for version in (4, 6)}
        self._other = _of_others(rules)

    @property
    def addresses(self) -> tuple[int, int, int, int]:
        """v4, v6, other, entries."""
        v4, v6 = (0 if each is None else each.address for each in self._sets.values())
        other = 0 if self._other is None else address_of(self._other)
        return v4, v6, other, address_of(self.entries)


def _of_version(rules: Sequence[Rule], version: int) -> RuleSet | None:
    """The rules that can match IP frames of a version."""
    kind = IPV4 if version == 4 else IPV6
    numbers = [k for k, rule in enumerate(rules)
               if rule.version in (0, version) and rule.eth_type in (None, kind)]
    return RuleSet([rules[k] for k in numbers], numbers, version) if numbers else None


def _of_others(rules: Sequence[Rule]) -> Classes | None:
    """The first rule for frames that are not IP, or not well-formed, by eth_type."""
    first = np.zeros(1 << 16, np.uint32)
    for number in reversed(range(len(rules))):
        rule = rules[number]
        if not rule.of_ip:
            first[slice(None) if rule.eth_type is None else rule.eth_type] = number + 1
    return first if first.any() else None
