# SPDX-License-Identifier: Apache-2.0
"""The kernels of security groups as tests and benches call them: cached entries of int64 arguments.

See the function that each one calls.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64, st64
from byway.machine.system import rdtsc
from byway.switch.connections import bucket_of, hash_of
from byway.switch.groups import groups_rx, groups_tx
from byway.switch.groups_rules import combination_of, set_allows
from byway.switch.groups_states import after

ARGUMENTS, arguments_at, A = record("groups_arguments", [
    "stage", "batch", "selected", "counters", "frames", "length", "first", "flows"])


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
