# SPDX-License-Identifier: Apache-2.0
"""The tables of nat44.py: flows with their twins, and outside ports. ``nat``: the function.

Written on the author's page: plain functions, compiled into the function. nat44.py says how it all
goes together.
"""

from byway import nf
from byway.functions.builtin.nat44_packets import ICMP

TCP = 6
LOW = 0xFFFFFFFF
END = (1 << 48) - 1  # an end: address | port << 32
# An entry's word: end | what it replaces << 48 | state << 50 | the second it was last kept << 52.
RESULT = (1 << 50) - 1
CHANGES, STATE, KEPT = 48, 50, 52
SOURCE, DESTINATION, BOTH = 1, 2, 3  # what is replaced (both: hairpin)
ASKS, ANSWERS, ENDS, NOTE = 0, 1, 2, 3  # a TCP flow: whose packets it has, or that it ends
SECONDS = 0xFFF
SECOND_BITS = 30  # nanoseconds of a second, roughly
NONE = -1  # no port
MOST_TRIES = 64  # ports that are looked at for a free one


def source_after(nat, word, source, target, protocol):
    """The source of a packet when its flow's word was carried out."""
    changes = word >> CHANGES & 3
    if changes == SOURCE:
        return word & END
    if changes == BOTH:
        return nat.outside | nat.hairpins.get((source, target, protocol)) << 32
    return source


def target_after(nat, word, target):
    """The destination of it."""
    return word & END if word >> CHANGES & DESTINATION else target


def known(nat, source, target, protocol):
    """The word of a flow, 0: there is none."""
    word = 0
    if protocol == TCP:
        word = nat.lasting.get((source, source >> 32, target, target >> 32, protocol))
    if word == 0:
        word = nat.brief.get((source, source >> 32, target, target >> 32, protocol))
    return word


def enter(nat, source, target, protocol, result):
    """Enter a flow, or keep it alive; -> is there room?"""
    word = result & (1 << KEPT) - 1 | (nf.now() >> SECOND_BITS) << KEPT
    return nat.brief.set((source, source >> 32, target, target >> 32, protocol), word)


def keep_one(nat, source, target, protocol):
    """Keep a flow alive, where it is; -> its word."""
    kept = (nf.now() >> SECOND_BITS) << KEPT
    if protocol == TCP:
        word = nat.lasting.get((source, source >> 32, target, target >> 32, protocol))
        if word != 0:
            nat.lasting.set((source, source >> 32, target, target >> 32, protocol),
                             word & (1 << KEPT) - 1 | kept)
            return word
    word = nat.brief.get((source, source >> 32, target, target >> 32, protocol))
    if word != 0:
        enter(nat, source, target, protocol, word)
    return word


def keep(nat, source, target, protocol):
    """A flow is used: so are its twin and the ports that it has."""
    word = keep_one(nat, source, target, protocol)
    changes = word >> CHANGES & 3
    new_source = source_after(nat, word, source, target, protocol)
    new_target = target_after(nat, word, target)
    keep_one(nat, new_target, new_source, protocol)
    if changes == BOTH:
        nat.hairpins.add((source, target, protocol), 0)
        nat.hairpins.add((new_target, new_source, protocol), 0)
    if changes & SOURCE:
        owner = nat.owners.find((new_source >> 32, protocol))
        nat.bindings.find((owner.ip, owner.port, protocol))
    if changes & DESTINATION:
        binding = nat.bindings.find((new_target, new_target >> 32, protocol))
        nat.owners.find((binding.port, protocol))


def pair(nat, source, target, protocol, word, port):
    """Enter a flow and its twin; ``port``: of the source, where both ends change. -> is there
    room for both, and is the twin no other's?"""
    changes = word >> CHANGES & 3
    twin = target | SOURCE << CHANGES
    new_source = source
    new_target = word & END
    if changes == SOURCE:
        twin = source | DESTINATION << CHANGES
        new_source = word & END
        new_target = target
    if changes == BOTH:
        twin = source | BOTH << CHANGES
        new_source = nat.outside | port << 32
    if not is_free(nat, new_target, new_source, protocol, twin, target >> 32):
        return False
    if changes == BOTH:
        if not nat.hairpins.set((source, target, protocol), port):
            return False
        if not nat.hairpins.set((new_target, new_source, protocol), target >> 32):
            return False
    if not enter(nat, source, target, protocol, word | ASKS << STATE):
        return False
    if not enter(nat, new_target, new_source, protocol, twin | ANSWERS << STATE):
        nat.brief.delete((source, source >> 32, target, target >> 32, protocol))
        return False
    nat.opened.add()
    return True


def is_free(nat, source, target, protocol, word, port):
    """Is no flow known with these ends that has another result?"""
    found = known(nat, source, target, protocol)
    if found == 0 or found >> STATE & 3 == NOTE:
        return True
    if word >> CHANGES & 3 == BOTH and nat.hairpins.get((source, target, protocol)) != port:
        return False
    return (found ^ word) & RESULT == 0


def port_for(nat, source, peer, protocol):
    """The outside port (or identifier) of an inside end, for a peer; -1: none is free."""
    mine = source | DESTINATION << CHANGES
    binding = nat.bindings.find((source, source >> 32, protocol))
    if binding and is_free(nat, peer, nat.outside | binding.port << 32, protocol, mine, 0):
        nat.owners.find((binding.port, protocol))
        return binding.port
    count = nat.last_port - nat.first_port + 1
    if count < 1:
        return NONE
    port = source >> 32
    if protocol != ICMP and (port < nat.first_port or port > nat.last_port):
        port = nat.first_port + nf.random(count)
    for _ in range(min(MOST_TRIES, count)):
        if (port, protocol) not in nat.owners and (protocol, port) not in nat.forwards:
            if is_free(nat, peer, nat.outside | port << 32, protocol, mine, 0):
                return bind(nat, source, port, protocol)
        port = nat.first_port + nf.random(count)
    return NONE


def bind(nat, source, port, protocol):
    """The outside port belongs to the inside end from now on; -> it, or -1: no room."""
    owner = nat.owners.make((port, protocol))
    binding = nat.bindings.make((source, source >> 32, protocol))
    if not owner or not binding:
        nat.owners.delete((port, protocol))
        return NONE
    owner.ip = source
    owner.port = source >> 32
    binding.port = port
    return port
