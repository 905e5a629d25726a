# SPDX-License-Identifier: Apache-2.0
"""Which rule matches a frame first? Asked by look-ups, not by a walk through the rules.

Used by translated functions (``rules_match``) and rules_memory.py; rules_build.py makes what is
looked up here. Uses the kernels of fields.

Theory of operation
-------------------
*Goal*: 10,000 rules cost hardly more than 10; the worst frame costs a bounded amount.

A frame is seen by five properties: source, destination, *service* (protocol and destination port,
or ICMP type and code), source port, TCP flags. Rules cut the values of each property into
intervals; values that no rule tells apart have the same *class*. A class is found in a tree of
three levels (16, 8 and 8 bits), an IPv6 address by binary search among the intervals.

1. Five classes name all that the rules see of a frame. Where these five were met before, the
   answer stands in the *memo*, one place for each hash of them: some ten cycles, whatever the
   number of rules. Many flows have the same classes: a port that clients choose is in no rule.
2. Otherwise: each class has a *row*, a bit for each rule, 1 where the rule allows this class. The
   rule that matches first is the lowest bit of the conjunction of five rows. A row begins with its
   *summary*: a bit for each of its words that is not 0. The conjunction of the summaries says which
   words are worth a look (Baboescu and Varghese 2001): 10,000 rules have 157 words, and three words
   of summary. No frame costs more than all words of five rows.

A rule set is in memory as a whole, made anew by each change, and put in place of the old one by one
store, while the instance's lock is held. Rules for IPv4, IPv6 and other frames are sets apart. What
a frame says is not believed: fields answer 0 for what it does not have.
"""

from byway.functions.ip_kernels import (
    get_ip_protocol,
    get_ipv4_dst,
    get_ipv4_src,
    get_ipv6_dst_high,
    get_ipv6_dst_low,
    get_ipv6_src_high,
    get_ipv6_src_low,
    get_is_ipv4,
    get_is_ipv6,
)
from byway.functions.link_kernels import get_eth_type
from byway.functions.transport_kernels import (
    get_icmp_code,
    get_icmp_type,
    get_is_icmp,
    get_is_icmpv6,
    get_is_tcp,
    get_is_udp,
    get_l4_dst,
    get_l4_src,
    get_tcp_flags,
)
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ctz64, ld32, ld64, likely, st64
from byway.packet.flow import mixed

# What an instance has. v4, v6: SETs (0: no rule is about such frames); other: uint32[65536], by
# eth_type the number + 1 of the rule for a frame that is not IP (0: no rule). entries: ENTRY[], one
# for each rule, in order. asked, unmatched: counted.
RULES, rules_at, Q = record("rules", ["v4", "v6", "other", "entries", "asked", "unmatched"])
# source .. sport: trees, or for IPv6's source and destination, BOUNDS. flags: uint32[257], by the
# low 8 bits of TCP's flags, 256: not TCP; 0: no rule is about flags. *_rows: the rows by class.
# stride: bytes from row to row. summary: its words. numbers: uint32[], of each rule of the set its
# number among all rules + 1. memo: MEMO[mask + 1].
SET, set_at, X = record("rule_rows", [
    "source", "destination", "service", "sport", "flags", "source_rows", "destination_rows",
    "service_rows", "sport_rows", "flags_rows", "stride", "summary", "numbers", "memo", "mask"])
# Intervals of IPv6 addresses: where they begin, ascending: high and low halves with their highest
# bits turned round, so that they compare as signed numbers; and their classes (uint32[n]).
BOUNDS, bounds_at, A = record("rule_bounds", ["n", "high", "low", "classes"])
# value: what the function gets; hits: how often.
ENTRY, entry_at, E = record("rule_entry", ["value", "hits"], size=16)
# classes: source | destination << 16 | service << 32, -1: free; found: sport | flags << 16 | (rule
# number + 1) << 32.
MEMO, memo_at, M = record("rule_memo", ["classes", "found"], size=16)
# A tree: uint32[65536] by the highest 16 of 32 bits, then nodes of uint32[256]: a class, or NODE |
# number of a node.
NODE = 1 << 31
ROOT_BYTES, NODE_BYTES = 4 << 16, 4 << 8
HIGHEST = -1 << 63
# Source ports: 16 bits, then what has none, as 24 bits.
SPORT_ICMP, SPORT_NONE = 0x10000, 0x10001
FLAGS_NONE = 256
_TCP, _UDP = 6, 17


@kernel(inline=True)
def class_in(tree, value):
    """The class of a number of 32 bits."""
    word = ld32(tree + 4 * (value >> 16))
    if word & NODE != 0:
        word = ld32(tree + ROOT_BYTES + NODE_BYTES * (word & ~NODE) + 4 * (value >> 8 & 0xFF))
        if word & NODE != 0:
            word = ld32(tree + ROOT_BYTES + NODE_BYTES * (word & ~NODE) + 4 * (value & 0xFF))
    return word


@kernel
def class_among(bounds, high, low):
    """The class of an IPv6 address: of the last interval that begins at or before it."""
    b = bounds_at(bounds)
    high ^= HIGHEST
    low ^= HIGHEST
    first = 0
    n = b.n
    while n > 1:
        half = n >> 1
        there = ld64(b.high + 8 * (first + half))
        before = there < high or (there == high and ld64(b.low + 8 * (first + half)) <= low)
        first = first + half if before else first
        n -= half
    return ld32(b.classes + 4 * first)


@kernel
def first_of(rules, source, destination, service, sport, flags):
    """The number + 1 (among all rules) of the first rule of a set that allows all five classes; 0:
    none does."""
    s = set_at(rules)
    a = s.source_rows + s.stride * source
    b = s.destination_rows + s.stride * destination
    c = s.service_rows + s.stride * service
    d = s.sport_rows + s.stride * sport
    e = s.flags_rows + s.stride * flags
    found = 0
    for k in range(s.summary):
        at = 8 * k
        worth = ld64(a + at) & ld64(b + at) & ld64(c + at) & ld64(d + at) & ld64(e + at)
        while worth != 0 and found == 0:
            number = 64 * k + ctz64(worth)
            worth &= worth - 1
            at = 8 * (s.summary + number)
            word = ld64(a + at) & ld64(b + at) & ld64(c + at) & ld64(d + at) & ld64(e + at)
            if word != 0:
                found = ld32(s.numbers + 4 * (64 * number + ctz64(word)))
        if found != 0:
            break
    return found


@kernel
def remembered(rules, source, destination, service, sport, flags):
    """As ``first_of``, by the memo where it knows."""
    s = set_at(rules)
    classes = source | destination << 16 | service << 32
    others = sport | flags << 16
    at = s.memo + 16 * (mixed(classes, others) & s.mask)
    known = ld64(at + M.found)
    if likely(ld64(at + M.classes) == classes and known & 0xFFFFFFFF == others):
        return known >> 32
    found = first_of(rules, source, destination, service, sport, flags)
    st64(at + M.classes, classes)
    st64(at + M.found, others | found << 32)
    return found


@kernel(inline=True)
def in_set(rules, row, frame, source, destination):
    """The number + 1 of the first rule of a set that matches an IP frame; 0: none."""
    s = set_at(rules)
    protocol = get_ip_protocol(row, frame)
    service = protocol << 16
    sport = SPORT_NONE
    flags = FLAGS_NONE
    tcp = protocol == _TCP and get_is_tcp(row, frame)
    if tcp or (protocol == _UDP and get_is_udp(row, frame)):
        service |= get_l4_dst(row, frame)
        sport = get_l4_src(row, frame)
        if tcp:
            flags = get_tcp_flags(row, frame) & 0xFF
    elif get_is_icmp(row, frame) or get_is_icmpv6(row, frame):
        service |= get_icmp_type(row, frame) << 8 | get_icmp_code(row, frame)
        sport = SPORT_ICMP
    flag_class = 0
    if s.flags != 0:
        flag_class = ld32(s.flags + 4 * flags)
    return remembered(rules, source, destination, class_in(s.service, service << 8),
                      class_in(s.sport, sport << 8), flag_class)


@kernel
def rule_of(state, row, frame):
    """The number + 1 of the first rule that matches a frame; 0: none."""
    q = rules_at(state)
    found = 0
    if likely(get_is_ipv4(row, frame)):
        if q.v4 != 0:
            s = set_at(q.v4)
            found = in_set(q.v4, row, frame, class_in(s.source, get_ipv4_src(row, frame)),
                           class_in(s.destination, get_ipv4_dst(row, frame)))
    elif get_is_ipv6(row, frame):
        if q.v6 != 0:
            s = set_at(q.v6)
            source = class_among(s.source, get_ipv6_src_high(row, frame),
                                 get_ipv6_src_low(row, frame))
            destination = class_among(s.destination, get_ipv6_dst_high(row, frame),
                                      get_ipv6_dst_low(row, frame))
            found = in_set(q.v6, row, frame, source, destination)
    elif q.other != 0:
        found = ld32(q.other + 4 * get_eth_type(row, frame))
    return found


@kernel
def rules_match(state, row, frame, default):
    """The value of the first rule that matches the frame, or ``default``."""
    q = rules_at(state)
    q.asked += 1
    found = rule_of(state, row, frame)
    if found == 0:
        q.unmatched += 1
        return default
    at = q.entries + 16 * (found - 1)
    e = entry_at(at)
    e.hits += 1
    return e.value
