# SPDX-License-Identifier: Apache-2.0
"""What a worker tells control: addresses that it learned, and IP addresses that guests claim.

Used by decide.py and responder.py (``tell``), and by worker/events.py, which is the other end.

Theory of operation
-------------------
Each worker has a ring of events: the worker writes, the control thread reads. The worker wakes the
control thread by an event fd, once for all that comes until it looks: whoever reads clears ``told``
and then looks at the ring; whoever writes stores the event and then looks at ``told``; a full fence
stands in between on either side, so no wake-up is lost.

A guest chooses how many events there are. So each port may tell SHARE of them a tick of the coarse
clock (25 ms), and what is over that, or finds the ring full, is not told but counted as missed: a
port that invents addresses costs the control thread little, and takes nothing from other ports.
Where something was missed the forwarding databases still know it (worker/events.py).
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import fence, ld64, ld64_acq, st64, st64_rel, unlikely
from byway.machine.system import SYS_WRITE, syscall3

# head: events written. tail: events read. events: address of ``mask`` + 1 of them. shares: int64[]
# by port number: tick << 16 | events told in it. fd: of the reader's event fd. told: it was woken.
# one: what is written to the fd. missed: events that were not told.
RING, ring_at, G = record("ring", [
    "head", "tail", "events", "mask", "shares", "fd", "told", "one", "missed"], size=128)
# An event: kind | port << 16 | network << 32, MAC address (48 bits), IP address (high, low).
EVENT = 32
LEARNED, MOVED, SAID = 1, 2, 3
SHARE = 64


@kernel
def may_tell(ring, now, port):
    """Has the port told less than its share in this tick? Count one more."""
    cell = ld64(ring + G.shares) + 8 * port
    counted = ld64(cell)
    if counted >> 16 != now:
        counted = now << 16
    if counted & 0xFFFF >= SHARE:
        return False
    st64(cell, counted + 1)
    return True


@kernel
def tell(ring, now, kind, network, port, mac, high, low):
    """Have control know (``ring`` 0: nobody wants to): ``mac`` (48 bits) was learned behind a port,
    moved there, or an IP address is said to be its own."""
    if ring == 0:
        return
    r = ring_at(ring)
    head = r.head
    if unlikely(not may_tell(ring, now, port) or head - ld64_acq(ring + G.tail) > r.mask):
        r.missed += 1
        return
    event = r.events + EVENT * (head & r.mask)
    st64(event, kind | port << 16 | network << 32)
    st64(event + 8, mac)
    st64(event + 16, high)
    st64(event + 24, low)
    st64_rel(ring + G.head, head + 1)
    fence()  # the event is there before we look whether somebody is awake to see it
    if ld64_acq(ring + G.told) == 0:
        st64_rel(ring + G.told, 1)
        syscall3(SYS_WRITE, r.fd, ring + G.one, 8)


@kernel(entry=True)
def take_events(ring, destination, room):
    """Move at most ``room`` events to ``destination``; -> how many. The control thread's."""
    st64_rel(ring + G.told, 0)
    fence()
    tail = ld64(ring + G.tail)
    n = min(ld64_acq(ring + G.head) - tail, room)
    events, mask = ld64(ring + G.events), ld64(ring + G.mask)
    for k in range(n):
        event = events + EVENT * ((tail + k) & mask)
        for word in range(0, EVENT, 8):
            st64(destination + EVENT * k + word, ld64(event + word))
    st64_rel(ring + G.tail, tail + n)
    return n


ENTRIES = (take_events,)
