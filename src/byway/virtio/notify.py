# SPDX-License-Identifier: Apache-2.0
"""Notifications: when to call or kick, how to ask for and to refuse them, in both ring formats.

Used by ports and worker; VIRTIO 1.2, sections 2.7.7 and 2.7.10 (split), 2.8.10 and 2.8.14 (packed),
and 2.7.13.4.1 for fences.

Both directions are alike: a side publishes an index, then (after a full fence) reads what the
other side asked for. A side that wants to sleep asks for notifications, then (after a full fence)
looks at the index once more. One of the two always sees the other: no wake-up is lost.
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    fence,
    ld16_acq,
    ld16_once,
    ld64_acq,
    ld64_once,
    st16_once,
    st16_rel,
    st64_once,
)
from byway.machine.system import EINTR, SYS_WRITE, syscall3
from byway.virtio.dirty import log_write
from byway.virtio.ring import (
    AVAIL,
    AVAIL_NO_INTERRUPT,
    DESCRIPTOR,
    ENTRIES,
    EVENT_AT_SLOT,
    EVENT_DISABLE,
    EVENT_ENABLE,
    EVENT_FLAGS,
    EVENT_WORD,
    INDEX,
    USED,
    USED_NO_NOTIFY,
    WRAP,
    Q,
    RingError,
    vq_at,
)

# A write that the peer made wait was interrupted (machine.interrupt).
_BLOCKED = int(RingError.BLOCKED)


@kernel
def crossed(event, new, old):
    """Does the way from index ``old`` to ``new`` pass ``event`` + 1? (2.7.10: vring_need_event)"""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


@kernel
def crossed_slot(size, event, new, old):
    """The same for the positions of a packed ring, each slot | WRAP (2.8.10)."""
    new_slot = new & (WRAP - 1)
    old_slot = old & (WRAP - 1)
    event_slot = event & (WRAP - 1)
    if new_slot <= old_slot:
        old_slot -= size
    if (new ^ event) & WRAP != 0:
        event_slot -= size
    return (new_slot - event_slot - 1) & 0xFFFF < (new_slot - old_slot) & 0xFFFF


@kernel
def event_wanted(area, event_idx, size, known, new, old):
    """What the event suppression structure at ``area`` says of the way from ``old`` to ``new``."""
    flags = ld16_acq(area + EVENT_FLAGS)
    if flags == EVENT_AT_SLOT and event_idx != 0 and known:
        return crossed_slot(size, ld16_once(area + EVENT_WORD), new, old)
    return flags != EVENT_DISABLE


@kernel
def want_events(area, event_idx, position):
    """Ask the other side for a notification when it passes ``position`` of a packed ring."""
    if event_idx != 0:
        st16_once(area + EVENT_WORD, position)
        st16_rel(area + EVENT_FLAGS, EVENT_AT_SLOT)
    else:
        st16_once(area + EVENT_FLAGS, EVENT_ENABLE)


@kernel
def call_driver(queue):
    """Tell the driver about used buffers, if it wants to know.

    After the index is published and a full fence; one fence serves all queues of a batch. Several
    workers may deliver to one queue and call at once: each index is read once, and our own is
    stored after the ring's, so whoever sees it speaks for it. (After a (re)start it is unknown
    what the driver was told: call once.)
    """
    q = vq_at(queue)
    packed = q.packed != 0
    new = ld64_acq(queue + (Q.published if packed else Q.used_idx))
    old = ld64_once(queue + Q.signalled)
    known = q.signalled_valid != 0
    if known and new == old:
        return
    st64_once(queue + Q.signalled, new)
    q.signalled_valid = 1
    if q.call < 0:
        return
    wanted = False
    if packed:  # more than a lap has certainly passed what the driver waits for
        known = known and (new >> 16) - (old >> 16) <= q.size
        wanted = event_wanted(q.avail, q.event_idx, q.size, known, new & 0xFFFF, old & 0xFFFF)
    elif q.event_idx != 0:
        wanted = not known or crossed(ld16_once(q.avail + ENTRIES + 2 * q.size), new, old)
    else:
        wanted = ld16_once(q.avail) & AVAIL_NO_INTERRUPT == 0
    if wanted:
        q.calls += 1
        if syscall3(SYS_WRITE, q.call, q.one, 8) == -EINTR:
            q.error = _BLOCKED


@kernel
def waiting(queue):
    """Has the driver made something available that was not taken yet?"""
    q = vq_at(queue)
    if q.packed == 0:
        return ld16_acq(q.avail + INDEX) != q.last_avail
    flags = ld16_acq(q.desc + DESCRIPTOR * (q.last_avail & (WRAP - 1)) + 14)
    return flags & (AVAIL | USED) == (AVAIL if q.last_avail & WRAP != 0 else USED)


@kernel
def want_kicks(queue):
    """Ask the driver for kicks; -> True where it made something available meanwhile."""
    q = vq_at(queue)
    if q.packed != 0:
        want_events(q.used, q.event_idx, q.last_avail)
    elif q.event_idx != 0:
        st16_once(q.used + ENTRIES + 8 * q.size, q.last_avail)
    else:
        st16_once(q.used, 0)
    log_used_area(queue)
    fence()
    return waiting(queue)


@kernel
def refuse_kicks(queue):
    """Polling: kicks are not needed. (A split ring with EVENT_IDX: a stale event does that; it is
    crossed once in 65536 entries, and a spurious kick costs nothing.)"""
    q = vq_at(queue)
    if q.packed != 0:
        st16_once(q.used + EVENT_FLAGS, EVENT_DISABLE)
    elif q.event_idx == 0:
        st16_once(q.used, USED_NO_NOTIFY)
    log_used_area(queue)


@kernel
def log_used_area(queue):
    """Note in the dirty log that what asks for kicks, or refuses them, was written."""
    q = vq_at(queue)
    if q.log != 0:
        log_write(q.log, q.used, 4)
        if q.packed == 0 and q.event_idx != 0:
            log_write(q.log, q.used + ENTRIES + 8 * q.size, 2)
