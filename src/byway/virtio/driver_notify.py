# SPDX-License-Identifier: Apache-2.0
"""Notifications, the driver's half: when to kick, how to ask for calls and to refuse them.

Used by ports and byway.testing. The device's half and the reasons why no wake-up is lost stand in
notify.py. VIRTIO 1.2: 2.7.7, 2.7.10 (split), 2.8.10, 2.8.14 (packed).
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence, ld16_once, ld64_acq, ld64_once, st16_once, st16_rel, st64_once
from byway.machine.system import EINTR, SYS_WRITE, syscall3
from byway.virtio.driver_ring import used_more
from byway.virtio.notify import crossed, event_wanted, want_events
from byway.virtio.ring import (
    AVAIL_NO_INTERRUPT,
    ENTRIES,
    EVENT_DISABLE,
    EVENT_FLAGS,
    USED_NO_NOTIFY,
    D,
    RingError,
    driver_at,
)

# A write that the peer made wait was interrupted (machine.interrupt).
_BLOCKED = int(RingError.BLOCKED)


@kernel
def kick_device(queue):
    """Tell the device about available buffers, if it wants to know.

    After the index is published and a full fence; several workers as in call_driver. A packed
    ring's positions say how many slots lie between them, more than a lap perhaps: then whatever
    slot the device waits for was passed.
    """
    d = driver_at(queue)
    new = ld64_acq(queue + D.avail_idx)
    old = ld64_once(queue + D.kicked)
    if d.kick < 0 or new == old:
        return
    st64_once(queue + D.kicked, new)
    wanted = False
    if d.packed != 0:
        known = (new >> 16) - (old >> 16) <= d.size
        wanted = event_wanted(d.used, d.event_idx, d.size, known, new, old)
    elif d.event_idx != 0:
        wanted = crossed(ld16_once(d.used + ENTRIES + 8 * d.size), new, old)
    else:
        wanted = ld16_once(d.used) & USED_NO_NOTIFY == 0
    if wanted:
        d.kicks += 1
        if syscall3(SYS_WRITE, d.kick, d.one, 8) == -EINTR:
            d.error = _BLOCKED


@kernel
def want_calls(queue):
    """Ask the device for calls; -> True where it used something meanwhile."""
    d = driver_at(queue)
    if d.packed != 0:
        want_events(d.avail, d.event_idx, d.used_seen)
    elif d.event_idx != 0:
        st16_once(d.avail + ENTRIES + 2 * d.size, d.used_seen)
    else:
        st16_once(d.avail, 0)
    fence()
    return used_more(queue)


@kernel
def refuse_calls(queue):
    """Polling: calls are not needed."""
    d = driver_at(queue)
    if d.packed != 0:
        st16_rel(d.avail + EVENT_FLAGS, EVENT_DISABLE)
    elif d.event_idx == 0:
        st16_once(d.avail, AVAIL_NO_INTERRUPT)
