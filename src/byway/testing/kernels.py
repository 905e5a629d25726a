# SPDX-License-Identifier: Apache-2.0
"""Kernels one by one, as tests call them: each a cached entry of int64 arguments.

Used by tests and by byway.testing.hostile. Calling a building block from Python would compile it
anew in every process; these are compiled once and kept. See the function that each one calls.
"""

from byway.machine.copying import copy_frame, copy_portable
from byway.machine.jit import kernel
from byway.machine.mem import (
    add64,
    cas64,
    copy_masked,
    ctz64,
    fence,
    ld8,
    ld8_once,
    ld16,
    ld16_acq,
    ld16_once,
    ld16be,
    ld32,
    ld32_acq,
    ld32_once,
    ld32be,
    ld64,
    ld64_acq,
    ld64_once,
    ld64be,
    memzero,
    mul64,
    shr64,
    st8,
    st8_once,
    st16,
    st16_once,
    st16_rel,
    st16be,
    st32,
    st32_once,
    st32_rel,
    st32be,
    st64,
    st64_once,
    st64_rel,
    st64be,
    wadd64,
    xchg64,
)
from byway.machine.system import SYS_SCHED_YIELD, pause, rdtsc, syscall0
from byway.packet.batch import B, R, batch_at, copy_whole, dropped, look
from byway.packet.counters import count_drops
from byway.ports.dispatch import port_tell_tx, port_tx
from byway.switch.decide import decide
from byway.switch.fdb import learn, lookup
from byway.virtio.device_rx import device_give_back, device_rx
from byway.virtio.device_tx import device_tx
from byway.virtio.driver import reap
from byway.virtio.memtab import reach, xlate
from byway.virtio.notify import call_driver, crossed, refuse_kicks, want_kicks
from byway.virtio.ring import vq_at
from byway.worker.deliver import deliver

# ---------------------------------------------------------------- machine
LOADS, STORES = 15, 14


@kernel(entry=True)
def every_load(source, results):
    """Load the 8 bytes at ``source`` in every way; -> LOADS results written."""
    st64(results, ld8(source))
    st64(results + 8, ld16(source))
    st64(results + 16, ld32(source))
    st64(results + 24, ld64(source))
    st64(results + 32, ld16be(source))
    st64(results + 40, ld32be(source))
    st64(results + 48, ld64be(source))
    st64(results + 56, ld8_once(source))
    st64(results + 64, ld16_once(source))
    st64(results + 72, ld32_once(source))
    st64(results + 80, ld64_once(source))
    st64(results + 88, ld16_acq(source))
    st64(results + 96, ld32_acq(source))
    st64(results + 104, ld64_acq(source))
    st64(results + 112, ctz64(ld64(source)))
    return LOADS


@kernel(entry=True)
def every_store(value, results):
    """Store ``value`` in every way, 8 bytes apart; -> STORES."""
    st8(results, value)
    st16(results + 8, value)
    st32(results + 16, value)
    st64(results + 24, value)
    st16be(results + 32, value)
    st32be(results + 40, value)
    st64be(results + 48, value)
    st8_once(results + 56, value)
    st16_once(results + 64, value)
    st32_once(results + 72, value)
    st64_once(results + 80, value)
    st16_rel(results + 88, value)
    st32_rel(results + 96, value)
    st64_rel(results + 104, value)
    fence()
    return STORES


@kernel(entry=True)
def every_atomic(cell, expected, value, results):
    """add64, xchg64, cas64 on the int64 at ``cell``, and the wrapping operations; -> 6."""
    st64(results, add64(cell, value))
    st64(results + 8, xchg64(cell, value))
    st64(results + 16, cas64(cell, expected, -1))
    st64(results + 24, mul64(expected, value))
    st64(results + 32, wadd64(expected, value))
    st64(results + 40, shr64(value, expected & 63))
    return 6


@kernel(entry=True)
def zero_bytes(destination, n):
    """memzero."""
    memzero(destination, n)
    return 0


@kernel(entry=True)
def copy_bytes(destination, source, n):
    """copy_frame as this processor does it."""
    copy_frame(destination, source, n)
    return 0


@kernel(entry=True)
def copy_bytes_portable(destination, source, n):
    """copy_frame as processors without AVX-512 do it."""
    copy_portable(destination, source, n)
    return 0


@kernel(entry=True)
def copy_bytes_masked(destination, source, n):
    """1 to 64 bytes by one masked load and store."""
    copy_masked(destination, source, n)
    return 0


@kernel(entry=True)
def yield_and_count(rounds):
    """A system call without arguments a round; -> ticks it took, at least 1."""
    began = rdtsc()
    for _ in range(rounds):
        syscall0(SYS_SCHED_YIELD)
        pause()
    return max(rdtsc() - began, 1)


# ---------------------------------------------------------------- packet and switch
@kernel(entry=True)
def look_at(batch):
    """Copy the heads of a batch."""
    look(batch)
    return ld64(batch + B.n)


@kernel(entry=True)
def copy_row(row, destination):
    """Copy one frame, head first; -> its bytes."""
    copy_whole(row, destination)
    return ld64(row + R.len)


@kernel(entry=True)
def learn_address(fdb, key, port, now):
    """Learn one address."""
    learn(fdb, key, port, now)
    return 0


@kernel(entry=True)
def learn_many(fdb, first, n, port, rounds):
    """Learn n addresses from ``first`` on, many times, scattered as a worker would; -> how many."""
    for k in range(rounds):
        learn(fdb, (first + (k * 7919) % n) << 16, port, k)
    return rounds


@kernel(entry=True)
def look_up(fdb, key):
    """-> the port behind an address, or -1."""
    return lookup(fdb, key)


@kernel(entry=True)
def decide_batch(batch, network, port):
    """Decide about a batch."""
    decide(batch, network, port)
    return 0


@kernel(entry=True)
def deliver_batch(plan, port, batch, sort):
    """Deliver a decided batch."""
    deliver(plan, port, batch, sort)
    return 0


# ---------------------------------------------------------------- virtio
@kernel(entry=True)
def translate(memtab, gpa, n):
    """-> host address of n bytes, or 0."""
    return xlate(memtab, gpa, n)


@kernel(entry=True)
def bytes_from(memtab, gpa):
    """-> bytes from there to the end of the region."""
    return reach(memtab, gpa)


@kernel(entry=True)
def has_crossed(event, new, old):
    """-> 1 where the way from old to new passes event + 1."""
    return 1 if crossed(event, new, old) else 0


@kernel(entry=True)
def device_borrow(queue, batch):
    """Borrow frames from a guest, heads copied; -> rows."""
    n = device_rx(queue, batch)
    if n > 0:
        look(batch)
    return n


@kernel(entry=True)
def device_return(queue, batch):
    """Give the borrowed buffers back, and call the driver if it wants that."""
    device_give_back(queue, batch)
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
def device_sleep(queue):
    """Ask for kicks; -> 1 where there is work already."""
    return 1 if want_kicks(queue) else 0


@kernel(entry=True)
def device_wake(queue):
    """Polling again."""
    refuse_kicks(queue)
    return 0


@kernel(entry=True)
def port_deliver(port, batch, selected, n, rounds):
    """Deliver n rows to a port and notify its peer, as one of several workers; -> frames."""
    sent = 0
    for _ in range(rounds):
        sent += port_tx(port, batch, selected, n)
        fence()
        port_tell_tx(port)
    return sent


@kernel(entry=True)
def driver_reap(queue):
    """Take back transmit buffers."""
    reap(queue)
    return 0


@kernel(entry=True)
def consume(queue, batch, sink, room, passes):
    """Take from a guest for some passes, as a worker does; -> bytes of all frames.

    Every frame is read to its end, into ``sink`` as long as the ``room`` bytes there last (then
    again from the start), so that any row outside memory shows. Drops are counted.
    """
    octets = 0
    for _ in range(passes):
        n = device_rx(queue, batch)
        if vq_at(queue).error != 0 and n == 0:
            break
        if n > 0:
            look(batch)
            rows = batch_at(batch).rows
            place = 0
            for k in range(n):
                row = rows + 64 * k
                length = ld64(row + R.len)
                if length > 0:
                    if place + length > room:
                        place = 0
                    copy_whole(row, sink + place)
                    place += length
                    octets += length
                else:
                    count_drops(vq_at(queue).counters, dropped(ld64(row + R.out)), 1)
            device_give_back(queue, batch)
            fence()
            call_driver(queue)
    return octets


@kernel
def shuffled(state):
    """The next of a sequence of numbers that look random (xorshift64)."""
    state ^= state << 13
    state ^= shr64(state, 7)
    return state ^ (state << 17)


@kernel(entry=True)
def scribble(stop, desc, avail, used, size, gpa, span, seed):
    """A guest that changes its ring all the time, until the int64 at ``stop`` is not 0; -> writes.

    Descriptors get addresses in and around guest [gpa, gpa + span), any length and any flags; the
    available index and ring get anything plausible.
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
