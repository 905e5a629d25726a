# SPDX-License-Identifier: Apache-2.0
"""The kernels of security groups as tests and benches call them: cached entries of int64 arguments.

See the function that each one calls.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64, ld64_acq, ld64_once, st8, st16be, st32be, st64
from byway.machine.system import rdtsc
from byway.packet.batch import ROWS, UNDECIDED, R, batch_at
from byway.packet.flow import mixed
from byway.switch.connections import (
    E,
    S,
    bucket_of,
    find,
    hash_of,
    insert,
    near,
    remove,
    same,
)
from byway.switch.fdb import CLOCK_SHIFT
from byway.switch.groups import groups_rx, groups_tx
from byway.switch.groups_rules import combination_of, set_allows
from byway.switch.groups_states import after

# What ``many_flows`` works on. flows: int64[n], the number of each frame's flow. flags: of TCP.
# back: not 0 for frames to the guest. passed: frames that passed, added up. ticks: int64[], what
# each batch took.
FLOWS, flows_at, F = record("groups_flows", [
    "stage", "batch", "selected", "counters", "flows", "n", "flags", "back", "passed", "ticks"])


@kernel(entry=True)
def stage_rx(stage, batch):
    """Decide about what a guest sent."""
    groups_rx(stage, batch)
    return 0


@kernel(entry=True)
def stage_tx(stage, batch, selected, n, counters):
    """-> how many of a list may reach the guest."""
    return groups_tx(stage, batch, selected, n, counters)


@kernel(entry=True)
def rules_allow(rules, members, service, high, low):
    """What a set of rules says."""
    return set_allows(rules, members, service, high, low)


@kernel(entry=True)
def member_of(members, high, low):
    """-> the combination of an address."""
    return combination_of(members, high, low)


@kernel(entry=True)
def bucket_number(table, key):
    """-> the number of the bucket of a key."""
    return bucket_of(table, hash_of(table, key)) - bucket_of(table, 0) >> 6


@kernel(entry=True)
def table_find(table, seek):
    """-> the entry with a key, or 0."""
    near(table, seek)
    return find(table, seek)


@kernel(entry=True)
def table_insert(table, seek, state, now, valid):
    """-> the new entry of a key, or 0."""
    near(table, seek)
    return insert(table, seek, state, now, valid)


@kernel(entry=True)
def table_remove(table, entry):
    """-> 1 where an entry was removed."""
    return 1 if remove(table, entry, ld64(entry + E.state)) else 0


@kernel(entry=True)
def table_storm(table, seek, seed, rounds, state):
    """Find, insert and remove few keys in random order, as several workers do; -> how often what
    was found did not have the key."""
    failed = 0
    x = seed
    for k in range(rounds):
        x = mixed(x, k)
        st64(seek + S.guest_low, x >> 8 & 15)
        st64(seek + S.flow, 1 << 32 | x >> 16 & 7)
        near(table, seek)
        entry = find(table, seek)
        if entry == 0:
            insert(table, seek, state, k, 0)
        else:
            word = same(entry, seek)
            if word != 0 and x & 1 == 0:
                remove(table, entry, word)
            elif word != 0:
                other = ld64_once(entry + E.guest_low) != ld64(seek + S.guest_low) \
                    or ld64_once(entry + E.flow) != ld64(seek + S.flow)
                if other and ld64_acq(entry + E.state) == word:
                    failed += 1
    return failed


@kernel(entry=True)
def state_after(word, protocol, kind, by_guest):
    """-> the state word after a frame, BAD or REOPEN."""
    return after(word, protocol, kind, by_guest != 0)


@kernel(entry=True)
def allow_many(rules, members, services, addresses, n):
    """Ask a set of rules n questions: int64[n] services, int64[n][2] addresses; -> ticks."""
    began = rdtsc()
    total = 0
    for k in range(n):
        total += set_allows(rules, members, ld64(services + 8 * k), ld64(addresses + 16 * k),
                            ld64(addresses + 16 * k + 8))
    st64(services, ld64(services) + (total & 0))
    return rdtsc() - began


@kernel
def write_flow(head, number, flags, back):
    """Make the TCP segment at ``head`` one of flow ``number``: a remote address and port each."""
    address = 0x0B000000 + (number >> 4)
    port = 1024 + (number & 15)
    st32be(head + (26 if back else 30), address)
    st32be(head + (30 if back else 26), 0x0A000001)
    st16be(head + (34 if back else 36), port)
    st16be(head + (36 if back else 34), 40000)
    st8(head + 47, flags)


@kernel(entry=True)
def many_flows(arguments):
    """Have n frames of many flows go through the stage, a batch at a time; -> batches. The rows'
    heads hold a TCP segment without options."""
    f = flows_at(arguments)
    b = batch_at(f.batch)
    batches = 0
    first = 0
    while first < f.n:
        b.n = min(ROWS, f.n - first)
        for k in range(b.n):
            row = b.rows + 64 * k
            write_flow(ld64(row + R.head), ld64(f.flows + 8 * (first + k)), f.flags, f.back != 0)
            st64(row + R.out, UNDECIDED)
            st64(f.selected + 8 * k, row)
        began = rdtsc()
        b.now = began >> CLOCK_SHIFT
        if f.back != 0:
            f.passed += groups_tx(f.stage, f.batch, f.selected, b.n, f.counters)
        else:
            groups_rx(f.stage, f.batch)
        st64(f.ticks + 8 * batches, rdtsc() - began)
        batches += 1
        if f.back == 0:
            for k in range(b.n):
                if ld64(b.rows + 64 * k + R.out) == UNDECIDED:
                    f.passed += 1
        first += b.n
    return batches
