# SPDX-License-Identifier: Apache-2.0
"""How much the router sends of its own accord: errors, and requests for MAC addresses.

Used by router.py and icmp_errors.py; uses machine and packet.

Theory of operation
-------------------
Each port has two limits, one for ICMP errors (RFC 4443, 2.4 (f); RFC 1812, 4.3.2.8) and one for the
requests that its packets make the router send: a guest that scans a network uses up its own. A
limit is one word, the time by which what was sent so far is paid for; each sending moves it on by
``interval``, and it may be ``burst`` ahead of now. Time is the batch's coarse clock, with FRACTION
bits behind the point.

No address is asked for more than once a second (RFC 1122, 2.3.2.1; RFC 4861, 7.2.2), whoever wants
it. When an address was last asked for stands in one of ASKED words, chosen by a hash with a secret
seed: addresses that share a word share the second, so there are at most ASKED requests a second in
all, and one port can use up no more of these words than its limit lets it.

Threads: any worker. A word is changed by compare-and-swap, and whoever loses sends nothing.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import cas64, ld64_once, wadd64
from byway.packet.batch import batch_at
from byway.packet.flow import mixed

# The router's record, one for a switch. networks: address of int64[1 + n]: n, then by the number of
# a network its GATEWAY (0: it has none). population: POPULATION. limits: int64[2] by port number:
# of errors, of requests. asked: int64[ASKED], times. second: ticks of the coarse clock. The rest:
# of the limits, see above.
ROUTER, router_at, X = record("router", [
    "networks", "population", "limits", "asked", "second", "seed", "error_interval", "error_burst",
    "ask_interval", "ask_burst"])
ASKED = 4096
FRACTION = 10
LIMITS = 16  # bytes of a port's limits


@kernel
def allowed(limit, now, interval, burst):
    """May one more be sent? Counts it then. ``limit``: address of the word."""
    then = now << FRACTION
    paid = ld64_once(limit)
    start = max(paid, then)
    return start - then <= burst and cas64(limit, paid, start + interval) == paid


@kernel
def may_send_error(router, batch):
    """May the port that the rows at hand came from have one more error?"""
    x = router_at(router)
    b = batch_at(batch)
    return allowed(x.limits + LIMITS * b.origin, b.now, x.error_interval, x.error_burst)


@kernel
def may_send_request(router, batch):
    """May one more request be sent for the port that the rows at hand came from?"""
    x = router_at(router)
    b = batch_at(batch)
    return allowed(x.limits + LIMITS * b.origin + 8, b.now, x.ask_interval, x.ask_burst)


@kernel
def asked_word(router, network, high, low):
    """-> the address of the word that says when an address was last asked for."""
    x = router_at(router)
    return x.asked + 8 * (mixed(wadd64(high, network), low ^ x.seed) & (ASKED - 1))


@kernel
def may_ask(router, batch, network, high, low):
    """May an address of a network be asked for now? Notes that it is."""
    x = router_at(router)
    now = batch_at(batch).now
    word = asked_word(router, network, high, low)
    last = ld64_once(word)
    if last != 0 and now - last < x.second:
        return False
    return may_send_request(router, batch) and cas64(word, last, now) == last


@kernel
def was_asked(router, batch, network, high, low):
    """Have we asked for an address lately? (Then what answers is the answer.)"""
    x = router_at(router)
    last = ld64_once(asked_word(router, network, high, low))
    return last != 0 and batch_at(batch).now - last <= 2 * x.second
