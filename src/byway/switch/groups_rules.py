# SPDX-License-Identifier: Apache-2.0
"""Do the rules of a port allow a connection? Rules as sets, which are asked and not walked.

Used by groups.py (the stage); groups_compile.py makes the records, groups_members.py those of
members.

Theory of operation
-------------------
A *policy* is what the security groups of a port say together; ports with the same groups share one.
It has four sets of rules: for each direction and IP version. All rules allow, so a set allows what
any of its rules does. A set answers in three steps, each of constant cost:

1. Protocol and port (of ICMP: type and code) are 24 bits. A tree of 256-way nodes, three at the
   most, gives their *class*: ports that the same rules speak of have the same one.
2. The remote address has a *row*, a string of bits, one for each class: 1 where some rule with a
   prefix around the address, or for any address, allows the class. It is found by longest prefix
   match: a binary search over the lengths that there are (at most 32 or 128: 6 or 8 look-ups in a
   hash table), with markers that say "longer ones may match" (Waldvogel et al. 1997).
3. Where that bit is 0 and the set has rules with remote groups: the address is looked for among the
   members of all groups, and has a *combination* there: the number of the set of groups that it is
   a member of. A combination has a row in each set of rules.

So a member that comes, goes or changes its groups is one store, whatever the number of rules,
ports, and members.

A policy does not change while it is in use, but for rows of new combinations, which nobody has seen
yet. It has a number of its own; an entry of the connection table says in ``valid`` which policy
allowed it, and when its remote address was still a member (``epoch``, which counts departures at
the pace that control chooses).
"""

from typing import Any

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld32, ld64, ld64_acq, ld64_once, st64, st64_rel
from byway.packet.flow import mixed

# number: of the policy. sets: addresses of SETs, at [2 * ingress + (IPv6)].
POLICY, policy_at, P = record("policy", ["number", ("sets", "<i8", (4,))])
# nodes: uint32[][256], the first is the root: class, or NODE | number. cells, mask: CELL[mask + 1],
# the prefixes and markers. lengths: int64[nlengths], ascending. any: the row of addresses in no
# prefix. rows: int64[], first how many, then the row of each combination, or 0; 0 where no rule is
# about a group.
SET, set_at, X = record("rule_set", [
    "nodes", "cells", "mask", "lengths", "nlengths", "any", "rows"])
# An address with ``length`` bits (0: free), and its row.
CELL, cell_at, C = record("prefix_cell", ["high", "low", "length", "row"], size=32)
# cells: memory of members; epoch: departures, at control's pace.
MEMBERS, members_at, M = record("members", ["cells", "epoch"])
# The memory: MEMBERS_HEADER bytes with its mask, then cells. combination: 0 free, GONE.
MEMBER, member_at, E = record("member", ["high", "low", "combination", "spare"], size=32)
CELL_BYTES = 32
MEMBERS_HEADER = 64
GONE = -1
NODE = 1 << 31
NODE_BYTES = 4 * 256
EPOCH_BITS = 16
NO, BY_RULE, BY_GROUP = 0, 1, 2


# ---------------------------------------------------------------- services
@kernel
def class_of(nodes, service):
    """The class of ``service``: protocol << 16 | port, or ICMP type << 8 | code."""
    word = ld32(nodes + 4 * (service >> 16))
    if word & NODE != 0:
        word = ld32(nodes + NODE_BYTES * (word & ~NODE) + 4 * (service >> 8 & 0xFF))
        if word & NODE != 0:
            word = ld32(nodes + NODE_BYTES * (word & ~NODE) + 4 * (service & 0xFF))
    return word


@kernel(inline=True)
def has_bit(row, n):
    """Is bit ``n`` of a row 1?"""
    return ld64(row + 8 * (n >> 6)) >> (n & 63) & 1 != 0


# ---------------------------------------------------------------- prefixes
@kernel(inline=True)
def cell_place(high, low, length, mask):
    """Where the search for a prefix begins."""
    return mixed(high ^ length, low) & mask


@kernel
def prefix_cell(rules, high, low, length):
    """The cell of a prefix or marker, or 0."""
    s = set_at(rules)
    k = cell_place(high, low, length, s.mask)
    found = 0
    for _ in range(s.mask + 1):
        at = s.cells + CELL_BYTES * k
        known = ld64(at + C.length)
        if known == 0:
            break
        if known == length and ld64(at + C.high) == high and ld64(at + C.low) == low:
            found = at
            break
        k = k + 1 & s.mask
    return found


@kernel
def prefix_row(rules, high, low):
    """The row of an address: of the longest prefix around it."""
    s = set_at(rules)
    row = s.any
    first = 0
    last = s.nlengths - 1
    while first <= last:
        middle = first + last >> 1
        length = ld64(s.lengths + 8 * middle)
        if length <= 64:
            at = prefix_cell(rules, high & -1 << 64 - length, 0, length)
        else:
            at = prefix_cell(rules, high, low & -1 << 128 - length, length)
        if at != 0:
            row = ld64(at + C.row)
            first = middle + 1
        else:
            last = middle - 1
    return row


@kernel(entry=True)
def prefix_put(rules, high, low, length, row):
    """Put a prefix or a marker, which is not there, into a set that nobody uses yet; -> 0."""
    s = set_at(rules)
    k = cell_place(high, low, length, s.mask)
    while ld64(s.cells + CELL_BYTES * k + C.length) != 0:
        k = k + 1 & s.mask
    at = s.cells + CELL_BYTES * k
    st64(at + C.high, high)
    st64(at + C.low, low)
    st64(at + C.length, length)
    st64(at + C.row, row)
    return 0


# ---------------------------------------------------------------- members
@kernel
def member_cell(cells, high, low):
    """-> the cell of an address in a memory of members, or the free one where it would be."""
    mask = ld64(cells)
    k = mixed(high, low) & mask
    at = cells + MEMBERS_HEADER + CELL_BYTES * k
    for _ in range(mask + 1):
        if ld64_acq(at + E.combination) == 0:
            break
        if ld64(at + E.high) == high and ld64(at + E.low) == low:
            break
        k = k + 1 & mask
        at = cells + MEMBERS_HEADER + CELL_BYTES * k
    return at


@kernel
def combination_of(members, high, low):
    """The combination of groups that an address is a member of; 0 or GONE: of none."""
    return ld64_acq(member_cell(ld64_acq(members + M.cells), high, low) + E.combination)


@kernel(entry=True)
def members_put(cells, high, low, combination):
    """Say which combination an address belongs to (GONE: none), in a memory with free cells; -> 1
    where the address was never there before, else 0."""
    at = member_cell(cells, high, low)
    new = 1 if ld64(at + E.combination) == 0 else 0
    if new != 0:
        st64(at + E.high, high)
        st64(at + E.low, low)
    st64_rel(at + E.combination, combination)
    return new


@kernel(entry=True)
def members_copy(source, destination):
    """Copy all members but those that are gone into an empty memory; -> how many."""
    n = 0
    for k in range(ld64(source) + 1):
        at = source + MEMBERS_HEADER + CELL_BYTES * k
        combination = ld64(at + E.combination)
        if combination > 0:
            high, low = ld64(at + E.high), ld64(at + E.low)
            to = member_cell(destination, high, low)
            st64(to + E.high, high)
            st64(to + E.low, low)
            st64(to + E.combination, combination)
            n += 1
    return n


# ---------------------------------------------------------------- the answer
@kernel
def set_allows(rules, members, service, high, low):
    """Does a set of rules allow ``service`` with a remote address? -> NO, BY_RULE, BY_GROUP."""
    s = set_at(rules)
    number = class_of(s.nodes, service)
    if number == 0:
        return NO
    if has_bit(prefix_row(rules, high, low), number):
        return BY_RULE
    rows = ld64_acq(rules + X.rows)
    if rows == 0:
        return NO
    combination = combination_of(members, high, low)
    if combination <= 0 or combination > ld64(rows):
        return NO
    row = ld64_acq(rows + 8 * combination)
    return BY_GROUP if row != 0 and has_bit(row, number) else NO


@kernel(inline=True)
def rules_of(policy, ingress, v6):
    """The SET of a policy for a direction and IP version."""
    return ld64(policy + P.sets + (16 if ingress else 0) + (8 if v6 else 0))


@kernel(inline=True)
def valid_now(policy, members):
    """What ``valid`` is of an entry that the rules have just allowed."""
    return ld64(policy + P.number) << EPOCH_BITS \
        | ld64_once(members + M.epoch) & (1 << EPOCH_BITS) - 1


ENTRIES: tuple[Any, ...] = (prefix_put, members_put, members_copy)
