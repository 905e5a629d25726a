# SPDX-License-Identifier: Apache-2.0
"""Kernels one by one, as tests call them: each a cached entry of int64 arguments.

Used by tests; those of the device's side of virtqueues stand in ring_kernels.py. Calling a building
block from Python would compile it anew in every process; these are compiled once and kept. See the
function that each one calls.
"""

from byway.machine.copying import copy_frame, copy_portable
from byway.machine.jit import kernel
from byway.machine.mem import (
    add64,
    cas64,
    copy_masked,
    crc32c,
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
from byway.packet.batch import R, copy_whole, origin_word
from byway.ports.dispatch import tell_tx
from byway.ports.record import P, X
from byway.ports.tx import port_tx
from byway.switch.decide import decide
from byway.switch.fdb import learn, lookup
from byway.virtio.driver import reap
from byway.worker.deliver import deliver
from byway.worker.flood import AT_ONCE, flood, flood_on, may_spend
from byway.worker.plan import enter

# ---------------------------------------------------------------- machine
LOADS, STORES = 15, 14


@kernel(entry=True)
def checksum(crc, source, words):
    """-> the CRC-32C that goes on with so many words of 8 bytes."""
    for k in range(words):
        crc = crc32c(crc, ld64(source + 8 * k))
    return crc


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


@kernel
def enter_from(plan, rxq, batch):
    """The rows came in on the port of this rx queue."""
    port = ld64(rxq + X.port)
    enter(plan, batch, origin_word(ld64(port + P.network), ld64(port + P.index)))


@kernel(entry=True)
def deliver_batch(plan, rxq, batch, sort):
    """Deliver a decided batch; floods may spend what they may in a pass."""
    may_spend(plan, AT_ONCE)
    enter_from(plan, rxq, batch)
    deliver(plan, rxq, batch, sort)
    return 0


@kernel(entry=True)
def flood_rows(plan, rxq, batch, selected, n, units):
    """Flood n rows, spending so much at once."""
    may_spend(plan, units)
    enter_from(plan, rxq, batch)
    flood(plan, rxq, batch, selected, n)
    return 0


@kernel(entry=True)
def flood_more(plan, batch, units):
    """Spend so much on what waits; -> 1 where something did."""
    return 1 if flood_on(plan, batch, units) else 0


# ---------------------------------------------------------------- virtio
@kernel(entry=True)
def port_deliver(port, batch, selected, n, rounds):
    """Deliver n rows to a port and notify its peer, as one of several workers; -> frames."""
    sent = 0
    for _ in range(rounds):
        sent += port_tx(port, batch, selected, n)
        fence()
        tell_tx(port)
    return sent


@kernel(entry=True)
def driver_reap(queue):
    """Take back transmit buffers."""
    reap(queue)
    return 0
