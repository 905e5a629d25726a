# SPDX-License-Identifier: Apache-2.0
"""What a chain does around its functions: locks, the time, and what a verdict makes of a row.

Used by the code that compose.py writes. Uses verdicts, instance, packet and switch.

What a function's verdict costs is paid by the frames that get another one than PASS. Counters of
an instance are added to atomically: a chain without state has no lock.
"""

from byway.functions.instance import VERDICT, I
from byway.functions.verdicts import CLONE, DROP, REDIRECT, REPLY, kind_of, value_of
from byway.machine.jit import kernel
from byway.machine.lock import acquire
from byway.machine.mem import (
    add64,
    ld16be,
    ld32be,
    ld64,
    ld64be,
    likely,
    st16be,
    st32be,
    st64,
    st64_rel,
    unlikely,
)
from byway.packet.batch import (
    BUFFER,
    CLONES,
    ROWS,
    UNDECIDED,
    R,
    batch_at,
    copy_row,
    copy_whole,
    dropped,
)
from byway.packet.offload import checked
from byway.packet.reason import Reason
from byway.switch.chain import SCALE_SHIFT, C
from byway.switch.decide import GROUP_BIT, MAC_MASK, learn_source, over_mtu
from byway.switch.fdb import MAX_PORTS
from byway.switch.network import network_at

_PORT_DOWN = int(Reason.PORT_DOWN)
# What stands in R.out for a frame that a function drops, or goes wrong with.
DROPPED, FAULT = -1 - int(Reason.FUNCTION), -1 - int(Reason.FUNCTION_FAULT)
OVER_MTU, BAD_SOURCE = -1 - int(Reason.OVER_MTU), -1 - int(Reason.BAD_SOURCE)
UNFIT = -1 - int(Reason.BAD_OFFLOAD)  # or for one of which what is left to do does not fit
LEFT_OUT = 0


@kernel
def hold_all(chain):
    """Take the locks of a chain; they are in the order of their addresses, as everywhere."""
    locks = ld64(chain + C.locks)
    for k in range(ld64(chain + C.nlocks)):
        acquire(ld64(locks + 8 * k))


@kernel
def release_all(chain):
    """Give them back."""
    locks = ld64(chain + C.locks)
    for k in range(ld64(chain + C.nlocks)):
        st64_rel(ld64(locks + 8 * k), 0)


@kernel
def time_of(chain, ticks):
    """Nanoseconds for a time of the time stamp counter. ``scale`` is below 2 ** (SCALE_SHIFT + 4),
    so the upper and the lower half are scaled apart."""
    scale = ld64(chain + C.scale)
    high, low = ticks >> 32, ticks & 0xFFFFFFFF
    return (high * scale << 32 - SCALE_SHIFT) + (low * scale >> SCALE_SHIFT)


@kernel(entry=True)
def add_word(address, n):
    """Add n to a word that workers may be adding to; -> what it was. Control's."""
    return add64(address, n)


@kernel
def went_wrong(instance):
    """Has the function gone wrong with the frame at hand? Then that is counted, and over."""
    fault = ld64(instance + I.fault)
    if likely(fault == 0):
        return False
    st64(instance + I.fault, 0)
    st64(instance + I.last_fault, fault)
    add64(instance + I.faults, 1)
    return True


@kernel
def source_of(row):
    """The address that a frame comes from (MAC << 16)."""
    return ld64be(ld64(row + R.head) + 6) & MAC_MASK


@kernel
def turn_round(row):
    """Have the frame go back to its sender: its MAC addresses change places."""
    head = ld64(row + R.head)
    high, low = ld16be(head), ld32be(head + 2)
    st16be(head, ld16be(head + 6))
    st32be(head + 2, ld32be(head + 8))
    st16be(head + 6, high)
    st32be(head + 8, low)


@kernel
def to_port(instance, number):
    """What stands in R.out for a frame that is to go to port ``number``; -1: one that is not there.
    """
    if number == -1:
        return dropped(_PORT_DOWN)
    if unlikely(number < 0 or number >= MAX_PORTS):
        st64(instance + I.last_fault, VERDICT << 32)
        add64(instance + I.faults, 1)
        return FAULT
    return number


@kernel
def refit(row):
    """A function may have moved headers of a frame that its sender did not finish: does what is
    left to do fit it still?"""
    word = checked(row)
    if word >= 0:
        st64(row + R.offload, word)
    return word >= 0


@kernel
def clone(instance, batch, row, number):
    """Have a port get a copy of the frame as it is now; -> the copy, 0 where there is no room."""
    b = batch_at(batch)
    if unlikely(b.nclones >= CLONES or number < 0 or number >= MAX_PORTS):
        add64(instance + I.lost, 1)
        return 0
    copy = b.clones + 64 * b.nclones
    copy_row(row, copy)
    if unlikely(ld64(copy + R.offload) != 0) and not refit(copy):
        add64(instance + I.lost, 1)
        return 0
    places = b.payloads
    if unlikely(places <= ld64(row + R.addr) < places + 2 * ROWS * BUFFER):
        at = places + (2 * ROWS + b.nclones) * BUFFER  # functions may go on to write there
        copy_whole(row, at)
        st64(copy + R.addr, at)
        st64(copy + R.nsegs, 0)
    b.nclones += 1
    st64(copy + R.out, number)
    return copy


@kernel
def clone_away(instance, batch, row, number, word):
    """As ``clone``, of a row that leaves the chain with a verdict: what is a reply is turned round,
    but not the row itself, which others may get too."""
    copy = clone(instance, batch, row, number)
    if copy != 0 and kind_of(word) == REPLY:
        turn_round(copy)
    return copy


@kernel
def sent(batch, row, source, out):
    """A function sends a frame to a port: what is to stand in R.out. What decide asks of frames is
    asked here, since it does not see this one (nothing where a chain is tried without a network).
    """
    here = batch_at(batch).here
    if here == 0:
        return out
    longest = network_at(here).max_frame
    if ld64(row + R.len) > longest and over_mtu(row, ld64(row + R.head), longest):
        return OVER_MTU
    if source & GROUP_BIT != 0 or source == 0:
        return BAD_SOURCE
    learn_source(batch, source)
    return out


@kernel
def settle_rx(instance, reasons, batch, row, word, source):
    """Carry out a verdict on a row that came in; -> what is to stand in R.out, UNDECIDED where the
    frame goes on. ``reasons``: bytes to the counter of the first one; ``source``: the address that
    the frame came with (MAC << 16), which is learned here where decide does not see it."""
    kind, value = kind_of(word), value_of(word)
    out = UNDECIDED
    if kind == DROP:
        add64(instance + reasons + 8 * value, 1)
        out = DROPPED
    elif kind == REDIRECT:
        out = to_port(instance, value)
    elif kind == CLONE:
        clone(instance, batch, row, value)
    else:
        turn_round(row)
        out = batch_at(batch).origin
    if out >= 0:
        out = sent(batch, row, source, out)
    return out


@kernel
def goes_away(word):
    """Does a verdict have a frame that is to go out go elsewhere instead?"""
    kind, value = kind_of(word), value_of(word)
    return kind == REPLY or (kind == REDIRECT and value >= 0 and value < MAX_PORTS)


@kernel
def settle_tx(instance, reasons, batch, row, word):
    """As ``settle_rx``, for a row that is to go out: it is not changed, others may get it too.
    Where it goes elsewhere instead, that is a copy's way, and the row is left out (LEFT_OUT)."""
    kind, value = kind_of(word), value_of(word)
    out = UNDECIDED
    if kind == CLONE:
        clone(instance, batch, row, value)
    elif kind == DROP:
        add64(instance + reasons + 8 * value, 1)
        out = DROPPED
    elif kind == REDIRECT:
        out = to_port(instance, value)
        if out >= 0:
            clone(instance, batch, row, value)
            out = LEFT_OUT
    else:
        clone_away(instance, batch, row, batch_at(batch).origin, word)
        out = LEFT_OUT
    return out


@kernel
def own_row(batch, row, k):
    """A copy of a row that a chain may change for one destination."""
    copy = batch_at(batch).altered + 64 * k
    copy_row(row, copy)
    return copy
