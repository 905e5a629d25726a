# SPDX-License-Identifier: Apache-2.0
"""The ring of an nf.Event: compiled functions write, control reads.

Used by translated functions, and by event_memory.py, which is the other end. Uses machine, packet.

Theory of operation
-------------------
A slot of the ring is the time, then the event's fields: a word each (IPv6 addresses two: high,
low); bytes of a frame: a word that says how many, then the bytes. A function asks for a slot
(``event_begin``), stores into it, and gives it away (``event_end``). Where ``capacity`` of them
wait it gets a slot that nobody reads, and the event counts as lost.

Who reads is woken by an event fd, once for all that comes until it looks: whoever reads clears
``told`` and then looks at the ring; whoever writes stores the event and then looks at ``told``; a
full fence stands in between on either side, so no wake-up is lost.

Threads: whoever writes holds the instance's lock; one thread reads, without it.
"""

from byway.functions.map_kernels import cut
from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import fence, ld64, ld64_acq, likely, st64, st64_rel, unlikely
from byway.machine.system import SYS_WRITE, syscall3
from byway.packet.batch import HEAD, SEGMENT, R

# head: events written. tail: events read. slots: address of ``mask`` + 1 of them and a spare one.
# fd: of the reader's event fd. told: it was woken. one: what is written to the fd.
RING, ring_at, G = record("event_ring", [
    "head", "slots", "mask", "size", "capacity", "lost", "fd", "one", "tail", "told"], size=128)


@kernel(inline=True)
def event_begin(state, now):
    """-> where the first field of an event is to be stored."""
    r = ring_at(state)
    slot = r.slots + r.size * (r.head & r.mask)
    if unlikely(r.head - ld64_acq(state + G.tail) >= r.capacity):
        r.lost += 1
        slot = r.slots + r.size * (r.mask + 1)
    st64(slot, now)
    return slot + 8


@kernel(inline=True)
def event_number(at, value, bits):
    """Store a number of so many bits."""
    st64(at, cut(value, bits))


@kernel
def event_bytes(at, most, row, skip, n):
    """Store of the first ``n`` bytes of a row's frame those after ``skip``, at most so many."""
    n = min(n, ld64(row + R.len)) - skip
    n = min(n, most)
    if n <= 0 or skip < 0:
        st64(at, 0)
        return
    st64(at, n)
    copy_part(row, at + 8, skip, n)


@kernel
def copy_part(row, destination, skip, n):
    """Copy n bytes of a row's frame from offset ``skip`` on; its head is the row's own."""
    if skip < HEAD:
        piece = min(n, HEAD - skip)
        copy_frame(destination, ld64(row + R.head) + skip, piece)
        destination += piece
        skip += piece
        n -= piece
    nsegs = ld64(row + R.nsegs)
    if nsegs == 0:
        if n > 0:
            copy_frame(destination, ld64(row + R.addr) + skip, n)
        return
    segs = ld64(row + R.segs)
    for k in range(nsegs):
        length = ld64(segs + SEGMENT * k + 8)
        piece = min(length - skip, n)
        if piece > 0:
            copy_frame(destination, ld64(segs + SEGMENT * k) + skip, piece)
            destination += piece
            n -= piece
        skip = max(0, skip - length)


@kernel
def event_end(state, at):
    """The event whose fields begin at ``at`` is complete."""
    r = ring_at(state)
    if unlikely(at - 8 == r.slots + r.size * (r.mask + 1)):
        return
    st64_rel(state + G.head, r.head + 1)
    fence()  # the event is there before we look whether somebody is awake to see it
    if likely(ld64_acq(state + G.told) != 0):
        return
    st64_rel(state + G.told, 1)
    syscall3(SYS_WRITE, r.fd, state + G.one, 8)


@kernel(entry=True)
def take_slots(state, destination, room):
    """Move at most ``room`` slots to ``destination``; -> how many."""
    r = ring_at(state)
    st64_rel(state + G.told, 0)
    fence()
    tail = ld64(state + G.tail)
    n = min(ld64_acq(state + G.head) - tail, room)
    for k in range(n):
        copy_frame(destination + r.size * k, r.slots + r.size * (tail + k & r.mask), r.size)
    st64_rel(state + G.tail, tail + n)
    return n
