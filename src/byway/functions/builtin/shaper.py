# SPDX-License-Identifier: Apache-2.0
"""``byway.shaper``: brings senders down to a rate by early marks, and holds no frames.

A built-in network function, written on the author's page (byway.nf) alone.

Theory of operation
-------------------
A shaper in the usual sense delays frames in a queue. Nothing waits in Byway: what is borrowed from
a sender goes back in the same pass. So this is the queue's signal without the queue. A *virtual
queue* is a number: it grows by each frame that passes and falls at the rate, as a queue in front of
a link of that rate would. From ``mark_from`` bytes on, senders are told to slow down, with a
probability that grows to 1 at ``limit``: by the mark "congestion experienced" where the sender
understands it (ECN, RFC 3168), by a drop where it does not (as RED does; RFC 7567). Beyond
``limit``, frames are dropped. Frames leave as fast as they came.

The backlog is counted in tokens of a bit and a thousand-millionth of a second, so that rate times
nanoseconds needs no division. At most 2^28 bytes: 2.1e18 tokens.

The size of a frame is its whole length, from the destination address on.
"""

from typing import Annotated

from byway import nf

SECOND = 1_000_000_000
CONGESTED = 3  # ECN's code points: 0 not capable, 1 and 2 capable, 3 congestion experienced
# Places in the queue's array.
BACKLOG, LAST = 0, 1


@nf.function
class Shaper:
    """Keep senders to a rate by ECN marks and early drops, from a queue that is only counted."""

    rate: Annotated[int, nf.Range(1, 1_000_000_000_000)] = 1_000_000_000  # bits a second
    mark_from: Annotated[int, nf.Range(0, 1 << 28)] = 50_000  # bytes
    limit: Annotated[int, nf.Range(1, 1 << 28)] = 500_000  # bytes
    ecn: bool = True  # False: drop where a mark would do

    queue = nf.Array(value="u64", size=2)
    marked = nf.Counter()

    def process(self, frame):
        self.drain()
        backlog = self.queue[BACKLOG]
        cost = 8 * frame.length * SECOND
        if backlog + cost > 8 * self.limit * SECOND:
            return nf.DROP("over the limit")
        if self.is_to_slow_down(backlog // (8 * SECOND)):
            if not (self.ecn and frame.is_ip and frame.ip_ecn != 0):
                return nf.DROP("early")
            if frame.ip_ecn != CONGESTED:
                frame.ip_ecn = CONGESTED
                self.marked.add()
        self.queue[BACKLOG] = backlog + cost
        return nf.PASS

    def drain(self):
        """Take off what the link would have sent since the last frame."""
        now = nf.now()
        passed = now - self.queue[LAST]
        self.queue[LAST] = now
        backlog = self.queue[BACKLOG]
        if passed <= 0 or backlog == 0:
            return
        if passed > backlog // self.rate:
            self.queue[BACKLOG] = 0
        else:
            self.queue[BACKLOG] = backlog - passed * self.rate

    def is_to_slow_down(self, length):
        """Draw whether a frame that finds ``length`` bytes queued is a signal."""
        if length <= self.mark_from:
            return False
        return nf.random(max(self.limit - self.mark_from, 1)) < length - self.mark_from
