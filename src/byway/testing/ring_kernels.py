# SPDX-License-Identifier: Apache-2.0
"""The device's side of virtqueues as tests call it: entries of int64 arguments, as in kernels.py.

Used by byway.testing.device, the hostile guest and tests; both ring formats.
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence, ld16_once, ld64, ld64_acq, shr64, st16_once, st64_once
from byway.packet.batch import UNDECIDED, R, batch_at, clear, copy_whole, dropped, look
from byway.packet.counters import count_drops
from byway.packet.offload import check_offloads
from byway.packet.segment import F, finish_begin, finish_next
from byway.virtio.device_rx import device_give_back, device_rx
from byway.virtio.device_tx import device_tx
from byway.virtio.notify import call_driver, crossed, crossed_slot, refuse_kicks, want_kicks
from byway.virtio.ring import vq_at


# ---------------------------------------------------------------- one call of the device
@kernel
def borrow(queue, batch):
    """Borrow frames as a worker does: heads copied, offloads checked; -> rows."""
    clear(batch)
    n = device_rx(queue, batch)
    if n > 0:
        look(batch)
        if batch_at(batch).offloads != 0:
            check_offloads(batch)
    return n


@kernel(entry=True)
def look_at(batch):
    """Copy the heads of a batch; -> rows."""
    look(batch)
    return batch_at(batch).n


@kernel(entry=True)
def device_borrow(queue, batch):
    """Borrow frames from a guest; -> rows."""
    return borrow(queue, batch)


@kernel(entry=True)
def device_return(queue, batch):
    """Give the borrowed buffers back, and call the driver if it wants that."""
    device_give_back(queue, batch, 0, batch_at(batch).n)
    fence()
    call_driver(queue)
    return 0


@kernel(entry=True)
def device_deliver(queue, batch, selected, n):
    """Deliver n rows into a guest's receive buffers, call the driver; -> frames delivered."""
    sent = device_tx(queue, batch, selected, n)
    fence()
    call_driver(queue)
    return sent


@kernel(entry=True)
def device_fill(queue, batch, selected, n):
    """Deliver n rows into a guest's receive buffers without a call, as a worker does several times
    for one batch; -> frames delivered."""
    return device_tx(queue, batch, selected, n)


@kernel(entry=True)
def device_call(queue):
    """Call the driver if it wants that."""
    fence()
    call_driver(queue)
    return 0


@kernel(entry=True)
def device_sleep(queue):
    """Ask for kicks; -> 1 where there is work already."""
    return 1 if want_kicks(queue) else 0


@kernel(entry=True)
def device_wake(queue):
    """Polling again."""
    refuse_kicks(queue)
    return 0


@kernel(entry=True)
def has_crossed(event, new, old):
    """-> 1 where the way from old to new passes event + 1."""
    return 1 if crossed(event, new, old) else 0


@kernel(entry=True)
def has_crossed_slot(size, event, new, old):
    """-> 1 where the way from position old to new of a packed ring passes the one at event."""
    return 1 if crossed_slot(size, event, new, old) else 0


# ---------------------------------------------------------------- many calls of the device
@kernel
def read_frame(row, sink, room, place):
    """Copy a frame to ``place`` in the ``room`` bytes at ``sink``, from the start again where it
    does not fit; -> the place behind it."""
    length = ld64(row + R.len)
    if place + length > room:
        place = 0
    copy_whole(row, sink + place)
    return place + length


@kernel
def finish_frame(finisher, row, sink, room, place):
    """Finish what the row's sender left to do and read all that it becomes; -> the place behind."""
    if finish_begin(finisher, row, 0) != 0:
        return place
    while True:
        n = finish_next(finisher)
        if n == 0:
            return place
        for k in range(n):
            place = read_frame(ld64(ld64(finisher + F.selected) + 8 * k), sink, room, place)


@kernel(entry=True)
def consume(queue, batch, sink, room, passes):
    """Take from a guest for some passes, as a worker does; -> bytes of all frames.

    Every frame is read to its end, and finished where its sender left something to do, into the
    ``room`` bytes at ``sink``, so that any row outside memory shows. Drops are counted.
    """
    octets = 0
    place = 0
    for _ in range(passes):
        n = borrow(queue, batch)
        b = batch_at(batch)
        for k in range(n):
            row = b.rows + 64 * k
            if ld64(row + R.out) == UNDECIDED:
                if ld64(row + R.offload) != 0:
                    place = finish_frame(b.finisher, row, sink, room, place)
                place = read_frame(row, sink, room, place)
            else:
                count_drops(vq_at(queue).counters, dropped(ld64(row + R.out)), 1)
            octets += ld64(row + R.len)
        if n > 0:
            device_give_back(queue, batch, 0, n)
            fence()
            call_driver(queue)
        if vq_at(queue).error != 0:
            break
    return octets


# ---------------------------------------------------------------- a guest that does not wait
@kernel
def shuffled(state):
    """The next of a sequence of numbers that look random (xorshift64)."""
    state ^= state << 13
    state ^= shr64(state, 7)
    return state ^ (state << 17)


@kernel(entry=True)
def scribble(stop, desc, avail, used, size, gpa, span, seed):
    """A guest that changes its split ring all the time, until the int64 at ``stop`` is not 0.

    Descriptors get addresses in and around guest [gpa, gpa + span), any length and any flags; the
    available index and ring get anything plausible. -> writes.
    """
    state = seed | 1
    writes = 0
    while ld64_acq(stop) == 0:
        state = shuffled(state)
        at = desc + 16 * (state & (size - 1))
        word = shr64(state, 20)
        what = shr64(state, 12) & 7
        if what == 0:
            st64_once(at, gpa + (word & (2 * span - 1)) - 64)
        elif what == 1:
            st64_once(at, state)
        elif what == 2:
            st64_once(at + 8, word)
        elif what == 3:
            st64_once(at + 8, (word & 0xFFF) | (word & 7) << 32 | (word & (size - 1)) << 48)
        elif what == 4:
            st16_once(avail + 4 + 2 * (word & (size - 1)), shr64(word, 16) & (size - 1))
        elif what == 5:
            st16_once(avail + 2, ld16_once(used + 2) + (word & (size - 1)))
        elif what == 6 and word & 0xFFFF == 0:
            st16_once(avail + 2, word)
        elif what == 7 and word & 0xFFFF == 0:
            st16_once(avail + 4 + 2 * (word & (size - 1)), word)
        writes += 1
    return writes


@kernel(entry=True)
def scribble_packed(stop, desc, avail, size, gpa, span, seed):
    """As ``scribble``, for a packed ring of any size: descriptors of any address, length, id and
    flags, wrap bits that flip, chains that come and go; -> writes."""
    state = seed | 1
    writes = 0
    while ld64_acq(stop) == 0:
        state = shuffled(state)
        at = desc + 16 * ((state & 0xFFFF) * size >> 16)
        word = shr64(state, 20)
        what = shr64(state, 17) & 7
        if what <= 1:
            st64_once(at, gpa + (word & (2 * span - 1)) - 64)
        elif what == 2:
            st64_once(at, state)
        elif what == 3:
            st64_once(at + 8, word)
        elif what <= 5:  # plausible: up to 4 KiB, NEXT and WRITE, any lap
            st64_once(at + 8, (word & 0xFFF) | (word & 0xFFFF) << 32
                      | (shr64(word, 16) & 0x8083) << 48)
        elif what == 6:
            st16_once(at + 14, ld16_once(at + 14) ^ (shr64(word, 8) & 0x8087))
        else:
            st16_once(avail, word)
            st16_once(avail + 2, word & 3)
        writes += 1
    return writes
