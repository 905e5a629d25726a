# SPDX-License-Identifier: Apache-2.0
"""The stage of security groups: what may leave a guest, and what may reach it.

Used by worker (staging.py); uses groups_keys.py (which connection), connections.py (the table),
groups_states.py (TCP and others), groups_opening.py (may it be opened?).

    groups_rx(stage, batch)                                     # "egress" rules
    kept = groups_tx(stage, batch, selected, n, counters)       # "ingress" rules

Theory of operation
-------------------
A batch is gone through three times, so that the cache misses of its frames overlap: keys are read
from the heads and hashed, and their buckets fetched; then the entries; then each frame is decided,
in order, because a frame may need what an earlier one of the same batch has begun.

A frame of a known connection passes if it fits the connection's state, whatever its direction; a
frame of none must be one that opens a connection, and be allowed by the rules for its direction.
Reasons: NOT_ALLOWED by the rules; BAD_STATE where the frame is of no connection and begins none, or
does not fit; CONNECTIONS where the port has as many as it may have.

In the middle. TCP segments of no known connection (the switch was restarted, the guest migrated)
are picked up where the rules allow the connection from who sent the segment; others are BAD_STATE.

Rules change. ``valid`` of an entry tells by which rules it was allowed. A frame of a connection
that other rules allowed has them asked again, as if the opener began now; a connection that they do
not allow is removed, and the frame stands for itself. The same is done for a connection that was
allowed because of a member, after members have left. So nothing is walked when rules change, and
all frames after the change obey the new ones.

Room. A port that has as many connections as it may have gives up the oldest of its last openings
that was never answered. A flood of SYNs so throws out its own entries, and no connection that is
assured, and none of another port.

What Byway itself answers (ARP, ND, ICMP errors of the router) goes back to the port that asked, and
passes: BATCH.origin is the port itself.

Threads: any number of workers, see connections.py.
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    cas64,
    ld8,
    ld64,
    ld64_acq,
    ld64_once,
    likely,
    st64,
    st64_once,
    unlikely,
)
from byway.packet.batch import UNDECIDED, R, batch_at, dropped
from byway.packet.counters import count_drops
from byway.packet.layers import HIDDEN, TCP, l4_of
from byway.packet.reason import Reason
from byway.switch.connections import USE, E, S, expired, find, near, nearer, remove, same
from byway.switch.groups_keys import (
    FIRST,
    FLOW,
    FOUND,
    KIND,
    LATER,
    RELATED,
    inner_key,
    note,
    note_any,
    piece_flow,
    piece_place,
)
from byway.switch.groups_opening import allowed, begin, groups_at, open_entry, valid_of
from byway.switch.groups_rules import BY_GROUP, EPOCH_BITS, NO
from byway.switch.groups_states import (
    BAD,
    BY_MEMBER,
    BY_REMOTE,
    K_BAD,
    State,
    after,
    segment_kind,
    with_state,
)

SEEK_BYTES = 64
GRAIN = 8  # coarse ticks (0.2 s) that ``seen`` may be late: a steady flow dirties no line
_NOT_ALLOWED, _BAD_STATE = int(Reason.NOT_ALLOWED), int(Reason.BAD_STATE)
_FRAGMENTS, _LAST_FRAGMENT = int(State.FRAGMENTS), int(State.LAST_FRAGMENT)


# ---------------------------------------------------------------- known connections
@kernel
def still_allowed(stage, seek, entry, state, valid):
    """Ask the rules again about a connection that others allowed; -> its state word (changed where
    another kind of rule allows it now), or 0 where none does."""
    known = ld64_once(entry + E.valid)
    if known >> EPOCH_BITS == valid >> EPOCH_BITS and state & BY_MEMBER == 0:
        return state
    answer = allowed(stage, seek, 0, state & BY_REMOTE != 0)
    if answer == NO:
        return 0
    now_state = state | BY_MEMBER if answer == BY_GROUP else state & ~BY_MEMBER
    if now_state != state and cas64(entry + E.state, state, now_state) != state:
        return state  # somebody else's frame has changed it: the next one asks again
    st64_once(entry + E.valid, valid)
    if unlikely(ld64_acq(entry + E.state) >> USE != state >> USE):
        st64_once(entry + E.valid, 0)  # it has become another's meanwhile: the next frame asks
    return now_state


@kernel
def flow_verdict(stage, row, seek, now, to_guest):
    """A frame that has, or begins, a connection: 0, or why it is dropped."""
    g = groups_at(stage)
    table = g.table
    entry = ld64(seek + S.entry)
    state = 0
    if likely(entry != 0):
        state = same(entry, seek)
    if unlikely(state == 0):
        entry = find(table, seek)
        if entry != 0:
            state = same(entry, seek)
    protocol = ld64(seek + S.flow) >> 48 & 0xFF
    kind = K_BAD
    if protocol == TCP:
        at = ld64(row + R.head) + l4_of(ld64(seek + S.what) >> FOUND)
        kind = segment_kind(ld8(at + 13))
    if state == 0:
        return begin(stage, seek, kind, now, to_guest)
    age = now - ld64_once(entry + E.seen)
    if unlikely(expired(table, state, age)):
        remove(table, entry, state)
        return begin(stage, seek, kind, now, to_guest)
    valid = valid_of(stage)
    if unlikely(ld64_once(entry + E.valid) != valid):
        known = still_allowed(stage, seek, entry, state, valid)
        if known == 0:
            remove(table, entry, state)
            return begin(stage, seek, kind, now, to_guest)
        state = known
    following = after(state, protocol, kind, not to_guest)
    if unlikely(following < 0):
        if following == BAD:
            return dropped(_BAD_STATE)
        remove(table, entry, state)
        return begin(stage, seek, kind, now, to_guest)
    if unlikely(following != state):
        cas64(entry + E.state, state, following)  # where others were faster, theirs counts
        st64_once(entry + E.seen, now)
    elif unlikely(age > GRAIN):
        st64_once(entry + E.seen, now)
    return 0


# ---------------------------------------------------------------- what makes no connection
@kernel
def live(stage, seek, now):
    """The entry with the key sought, hashed here, if it has not aged out; or 0."""
    table = groups_at(stage).table
    near(table, seek)
    entry = find(table, seek)
    if entry != 0:
        state = ld64_acq(entry + E.state)
        if expired(table, state, now - ld64_once(entry + E.seen)):
            remove(table, entry, state)
            entry = 0
    return entry


@kernel
def by_rules(stage, row, seek, to_guest, reason):
    """Rules alone decide about a frame: 0, or dropped for ``reason``."""
    code = 0
    if ld64(seek + S.flow) >> 48 & 0xFF != HIDDEN:  # then it is ICMP
        code = ld8(ld64(row + R.head) + l4_of(ld64(seek + S.what) >> FOUND) + 1)
    return dropped(reason) if allowed(stage, seek, code, to_guest) == NO else 0


@kernel
def is_about_one(stage, row, seek, now, to_guest):
    """Is an ICMP error about a packet of a connection that the rules allow?"""
    g = groups_at(stage)
    if not inner_key(row, seek, g.zone, ld64(seek + S.what) >> FOUND, to_guest):
        return False
    entry = live(stage, seek, now)
    if entry == 0:
        return False
    state = ld64_acq(entry + E.state)
    valid = valid_of(stage)
    if ld64_once(entry + E.valid) == valid or still_allowed(stage, seek, entry, state, valid) != 0:
        return True
    remove(g.table, entry, state)
    return False


@kernel
def related_verdict(stage, row, seek, now, to_guest):
    """An ICMP error: it passes if it is about a connection, or if rules allow it."""
    if is_about_one(stage, row, seek, now, to_guest):
        return 0
    note_any(row, seek, groups_at(stage).zone, to_guest)
    return by_rules(stage, row, seek, to_guest, _BAD_STATE)


@kernel
def piece_verdict(stage, row, seek, now):
    """A later piece of a datagram: it passes if the first one did, by the rules of now."""
    g = groups_at(stage)
    entry = live(stage, seek, now)
    if entry == 0:
        return dropped(_BAD_STATE)
    state = ld64_acq(entry + E.state)
    valid = valid_of(stage)
    if ld64_once(entry + E.valid) >> EPOCH_BITS != valid >> EPOCH_BITS:
        remove(g.table, entry, state)
        return dropped(_BAD_STATE)
    st64_once(entry + E.seen, now)
    if piece_place(row, ld64(seek + S.what) >> FOUND) & 1 == 0:
        cas64(entry + E.state, state, with_state(state, _LAST_FRAGMENT))
    return 0


@kernel
def open_pieces(stage, row, seek, now, to_guest, valid):
    """A first piece has passed, when ``valid`` was so: later ones may; -> 0, or why it is dropped
    after all."""
    g = groups_at(stage)
    st64(seek + S.flow, piece_flow(row, g.zone, ld64(seek + S.what) >> FOUND, to_guest))
    entry = live(stage, seek, now)
    if entry != 0:
        remove(g.table, entry, ld64_acq(entry + E.state))
    return open_entry(stage, seek, _FRAGMENTS, now, valid)


@kernel
def rare_verdict(stage, row, seek, now, to_guest):
    """What is no ordinary frame of a flow: 0, or why it is dropped."""
    what = ld64(seek + S.what)
    kind = what & KIND
    valid = valid_of(stage)
    if kind == LATER:
        return piece_verdict(stage, row, seek, now)
    if kind == RELATED:
        return related_verdict(stage, row, seek, now, to_guest)
    if kind == FLOW:
        out = flow_verdict(stage, row, seek, now, to_guest)
    else:
        out = by_rules(stage, row, seek, to_guest, _NOT_ALLOWED)
    if out == 0 and what & FIRST != 0:
        out = open_pieces(stage, row, seek, now, to_guest, valid)
    return out


@kernel(inline=True)
def verdict(stage, row, seek, now, to_guest):
    """May a row pass, whose SEEK is filled? -> 0, or dropped(reason)."""
    what = ld64(seek + S.what)
    if what <= 0:
        return what
    if likely(what & (KIND | FIRST) == FLOW):
        return flow_verdict(stage, row, seek, now, to_guest)
    return rare_verdict(stage, row, seek, now, to_guest)


# ---------------------------------------------------------------- the stage
@kernel
def groups_rx(stage, batch):
    """Decide about the undecided rows of a batch that the guest sent."""
    b = batch_at(batch)
    g = groups_at(stage)
    rows, n, now, seeks = b.rows, b.n, b.now, b.scratch
    for k in range(n):
        if ld64(rows + 64 * k + R.out) == UNDECIDED:
            seek = seeks + SEEK_BYTES * k
            note(rows + 64 * k, seek, g.zone, False)
            near(g.table, seek)
    for k in range(n):
        if ld64(rows + 64 * k + R.out) == UNDECIDED:
            nearer(g.table, seeks + SEEK_BYTES * k)
    for k in range(n):
        row = rows + 64 * k
        if ld64(row + R.out) == UNDECIDED:
            out = verdict(stage, row, seeks + SEEK_BYTES * k, now, False)
            if out != 0:
                st64(row + R.out, out)


@kernel
def groups_tx(stage, batch, selected, n, counters):
    """Take out of a list of n rows what may not reach the guest; -> how many are left."""
    b = batch_at(batch)
    g = groups_at(stage)
    now, seeks = b.now, b.scratch
    if unlikely(b.origin == g.zone):
        return n
    for k in range(n):
        seek = seeks + SEEK_BYTES * k
        note(ld64(selected + 8 * k), seek, g.zone, True)
        near(g.table, seek)
    for k in range(n):
        nearer(g.table, seeks + SEEK_BYTES * k)
    kept = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        out = verdict(stage, row, seeks + SEEK_BYTES * k, now, True)
        if out == 0:
            st64(selected + 8 * kept, row)
            kept += 1
        else:
            count_drops(counters, dropped(out), 1)
    return kept
