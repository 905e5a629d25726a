# SPDX-License-Identifier: Apache-2.0
"""Opening connections: what the rules of a port allow, and how many it may have.

Used by groups.py (frames of no known connection) and groups_control.py (the record of a port); uses
groups_rules.py, connections.py and groups_states.py.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import add64, cas64, ld64, ld64_acq, ld64_once, st64_once, unlikely
from byway.packet.batch import dropped
from byway.packet.layers import TCP
from byway.packet.reason import Reason
from byway.switch.connections import (
    ENTRY_BYTES,
    LOW,
    TAG,
    USE,
    V6,
    E,
    S,
    T,
    insert,
    may_open,
    remove,
)
from byway.switch.groups_keys import ANSWER, ASKED_BY_REMOTE, ICMP, ICMPV6, has_ports
from byway.switch.groups_rules import BY_GROUP, NO, rules_of, set_allows, valid_now
from byway.switch.groups_states import (
    BAD,
    BY_MEMBER,
    BY_REMOTE,
    K_ACK,
    assured,
    first_state,
)

# Of one port. table, policy, members: addresses. zone: the port's number. limit: connections that
# it may have. ring: int64[mask + 1], its last openings (use << 32 | number of the entry), opened:
# how many there ever were, hand: the next one that may be given up. evicted: how many were.
# policy is changed by one store while workers run.
GROUPS, groups_at, G = record("groups", [
    "table", "policy", "members", "zone", "limit", "ring", "mask", "opened", "hand", "evicted"])
LOOKS = 8  # openings that one new connection looks at to find one to give up
_NOT_ALLOWED, _BAD_STATE = int(Reason.NOT_ALLOWED), int(Reason.BAD_STATE)
_CONNECTIONS = int(Reason.CONNECTIONS)


@kernel
def service_of(flow, code, by_remote):
    """What the rules are asked about a connection: protocol << 16 | port, or ICMP's numbers."""
    protocol = flow >> 48 & 0xFF
    port = 0
    if has_ports(protocol):
        port = flow & 0xFFFF if by_remote else flow >> 16 & 0xFFFF
    elif (protocol == ICMP and flow & V6 == 0) or (protocol == ICMPV6 and flow & V6 != 0):
        port = (flow >> 16 & ASKED_BY_REMOTE - 1) << 8 | code
    return protocol << 16 | port


@kernel(inline=True)
def valid_of(stage):
    """What ``valid`` is of an entry that the rules allow now; to be taken before they are asked."""
    return valid_now(ld64_acq(stage + G.policy), ld64(stage + G.members))


@kernel
def allowed(stage, seek, code, by_remote):
    """Do the rules allow what is sought, begun by the guest or the remote side?"""
    flow = ld64(seek + S.flow)
    rules = rules_of(ld64_acq(stage + G.policy), by_remote, flow & V6 != 0)
    return set_allows(rules, ld64(stage + G.members), service_of(flow, code, by_remote),
                      ld64(seek + S.remote_high), ld64(seek + S.remote_low))


@kernel
def give_up(stage):
    """Remove the oldest of the port's last openings that is not assured; -> True where there was
    one among the next LOOKS."""
    g = groups_at(stage)
    entries = ld64(g.table + T.entries)
    for _ in range(LOOKS):
        opened = ld64_once(stage + G.opened)
        hand = ld64_once(stage + G.hand)
        if hand >= opened:
            break
        oldest = max(hand, opened - g.mask - 1)
        if cas64(stage + G.hand, hand, oldest + 1) != hand:
            continue
        word = ld64_once(g.ring + 8 * (oldest & g.mask))
        entry = entries + (word & LOW) * ENTRY_BYTES
        state = ld64_acq(entry + E.state)
        if state >> USE & TAG == word >> 32 and not assured(state):
            if remove(g.table, entry, state):
                add64(stage + G.evicted, 1)
                return True
    return False


@kernel
def open_entry(stage, seek, state, now, valid):
    """Make an entry of the key sought; -> 0, or why the frame is dropped.

    ``valid``: as it was before the rules were asked, so that rules which came meanwhile are.
    """
    g = groups_at(stage)
    if unlikely(not may_open(g.table, g.zone, g.limit)) and not give_up(stage):
        return dropped(_CONNECTIONS)
    entry = insert(g.table, seek, state, now, valid)
    if entry == 0:
        return dropped(_CONNECTIONS)
    use = ld64_acq(entry + E.state) >> USE & TAG
    number = entry - ld64(g.table + T.entries) >> 6
    place = add64(stage + G.opened, 1)
    st64_once(g.ring + 8 * (place & g.mask), use << 32 | number)
    return 0


@kernel
def begin(stage, seek, kind, now, to_guest):
    """A frame of no connection: may it begin one? -> 0, or why it is dropped."""
    protocol = ld64(seek + S.flow) >> 48 & 0xFF
    if ld64(seek + S.what) & ANSWER != 0:
        return dropped(_BAD_STATE)
    icmp = protocol == ICMP or protocol == ICMPV6
    state = first_state(protocol, kind, icmp)
    if state == BAD:
        return dropped(_BAD_STATE)
    valid = valid_of(stage)
    answer = allowed(stage, seek, 0, to_guest)
    if answer == NO:
        return dropped(_BAD_STATE if protocol == TCP and kind == K_ACK else _NOT_ALLOWED)
    if to_guest:
        state |= BY_REMOTE
    if answer == BY_GROUP:
        state |= BY_MEMBER
    return open_entry(stage, seek, state, now, valid)
