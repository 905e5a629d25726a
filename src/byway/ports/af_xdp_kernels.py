# SPDX-License-Identifier: Apache-2.0
"""Frames from and to an AF_XDP socket: four rings and an area of chunks, shared with the kernel.

Used by dispatch.py; xsk.py makes the socket and fills the records. Source: Linux,
Documentation/networking/af_xdp.rst, include/uapi/linux/if_xdp.h and net/xdp/xsk_queue.h.

Theory of operation
-------------------
The area (UMEM) is cut into chunks of one size, each big enough for a frame. The first half is for
frames that come in, the second for those that go out; both know of each chunk whether the kernel
has it. The rings carry no frames but places in the area:

    FILL        we give the kernel empty chunks
    RX          it returns them with frames: the frame in the chunk *is* the batch's row, no copy
    TX          we give it chunks into which frames were copied
    COMPLETION  it returns them when they have gone

Each ring has one writer and one reader, whose positions are free-running 32-bit counters. A chunk
is in a ring at most once, and a ring has as many entries as there are chunks, so none overflows and
the other side's position is needed only where we read.

RX and FILL belong to the worker that serves the queue. TX and COMPLETION belong to the worker that
holds the tx queue's lock; ``xdp_kick`` needs no lock: a system call more does no harm.

In copy mode (the kernel copies between chunks and its own buffers) frames are sent inside the
system call, a few at a time, so it is made until all have gone. Where the driver has no room at
last (``stuck``) the next kick tries again, or the next look at the rx queue, which is not put to
sleep before.

What the kernel says in a ring is checked as a guest's ring is: positions, that a place lies in the
area and was the kernel's to use, and that a frame ends in its chunk. Where it does not the port is
broken (XdpError). A frame longer than a chunk comes in several pieces, all but the last with
CONTINUED.
"""

from byway.machine.copying import copy_frame
from byway.machine.explained import Explained
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    fence,
    ld8,
    ld32_acq,
    ld32_once,
    ld64,
    ld64_once,
    shr64,
    st8,
    st32_rel,
    st64,
    unlikely,
)
from byway.machine.system import prefetch, syscall6
from byway.packet.batch import (
    MAX_CHAIN,
    MAX_FRAME,
    ROWS,
    SEGMENT,
    R,
    batch_at,
    copy_whole,
    look,
    set_row,
)
from byway.packet.counters import count_drops, count_frames
from byway.packet.reason import Reason
from byway.packet.unfinished import mark_undone
from byway.virtio.borrow import MAX_OCTETS

_OVER_MTU = int(Reason.OVER_MTU)
_NO_BUFFERS = int(Reason.NO_BUFFERS)
_SMALL_BUFFER = int(Reason.SMALL_BUFFER)
_SENDTO, _RECVFROM, _DONTWAIT = 44, 45, 0x40
_EINTR, _EAGAIN, _EBUSY, _EOVERFLOW, _ENOBUFS = 4, 11, 16, 75, 105

DESCRIPTOR, PLACE = 16, 8  # bytes of an entry of RX and TX, and of FILL and COMPLETION
# The length's word of a descriptor: its low half, and an option above it.
CONTINUED = 1 << 32
_LENGTH = 0xFFFFFFFF
NEED_WAKEUP = 1  # in a ring's flags
OURS, KERNELS = 0, 1  # who has a chunk
DESCRIPTORS = 256  # that one batch looks at
TRIES = 8  # system calls that send nothing, before it is left for later
CALLS = 1024  # system calls in one kick: others may add frames meanwhile
_COUNTER = 0xFFFFFFFF


class XdpError(Explained):
    """Why an AF_XDP socket is of no use any more."""

    JUMP = 101, "a ring's position is more than the ring ahead"
    STRANGE_PLACE = 102, "a ring names a place that is not the kernel's to use"
    BAD_LENGTH = 103, "a frame is empty, too long, or does not end in its chunk"
    ENDLESS = 104, "a frame has too many pieces"
    NO_INTERFACE = 105, "the kernel does not send on this interface any more"


_JUMP, _STRANGE_PLACE = int(XdpError.JUMP), int(XdpError.STRANGE_PLACE)
_BAD_LENGTH, _ENDLESS = int(XdpError.BAD_LENGTH), int(XdpError.ENDLESS)
_NO_INTERFACE = int(XdpError.NO_INTERFACE)


# umem: host address of the area. shift: of a chunk's size. chunks: those for rx, the first ones.
# states: address of int8[chunks]. producer, consumer, flags: addresses of the rings' words; ring:
# of their entries. next: our position. places: address of int64[2 * DESCRIPTORS], what was read
# from the ring in this batch; then taken[DESCRIPTORS], chunks to be given back. complete: checksums
# that were left undone are to be recognised. sender: the XDP_TX of the same socket.
XDP_RX, xdp_rx_at, XR = record("xdp_rx", [
    "fd", "umem", "shift", "chunks", "states", "error", "counters", "complete",
    "ring", "mask", "producer", "consumer", "next", "fill_ring", "fill_mask", "fill_producer",
    "fill_next", "fill_flags", "places", "taken", "ntaken", "sender", "kicks"], size=192)
# first: number of the first chunk for tx; chunks: how many. free: address of int64[chunks], a stack
# of nfree numbers. pieces: chunks that a frame may take; linear: address of room for such a frame.
# copying: the socket is in copy mode. done_*: the COMPLETION ring.
XDP_TX, xdp_tx_at, XT = record("xdp_tx", [
    "fd", "umem", "shift", "chunks", "states", "error", "counters", "first",
    "ring", "mask", "producer", "consumer", "next", "flags", "done_ring", "done_mask",
    "done_producer", "done_consumer", "done_next", "free", "nfree", "pieces", "linear", "max_frame",
    "copying", "stuck", "kicks"], size=256)


# ---------------------------------------------------------------- receive
@kernel
def read_ring(queue):
    """Read up to DESCRIPTORS entries of the RX ring, once each, and ask for their frames; -> how
    many."""
    x = xdp_rx_at(queue)
    waiting = (ld32_acq(x.producer) - x.next) & _COUNTER
    if unlikely(waiting > x.mask + 1):
        x.error = _JUMP
        return 0
    waiting = min(waiting, DESCRIPTORS)
    for k in range(waiting):
        entry = x.ring + DESCRIPTOR * ((x.next + k) & x.mask)
        place = ld64_once(entry)
        st64(x.places + DESCRIPTOR * k, place)
        st64(x.places + DESCRIPTOR * k + 8, ld64_once(entry + 8))
        prefetch(x.umem + place)
        prefetch(x.umem + place + 64)
    return waiting


@kernel
def pieces_at(queue, at, waiting):
    """Entries that the frame at entry ``at`` takes; 0 where its end has not come yet."""
    x = xdp_rx_at(queue)
    n = 1
    while ld64(x.places + DESCRIPTOR * (at + n - 1) + 8) & CONTINUED != 0:
        if unlikely(n == MAX_CHAIN or n == x.mask + 1):
            x.error = _ENDLESS
            return 0
        if at + n == waiting:
            return 0
        n += 1
    return n


@kernel
def take(queue, at):
    """Check entry ``at``, and note its chunk as ours to give back; -> its bytes, -1: broken."""
    x = xdp_rx_at(queue)
    place = ld64(x.places + DESCRIPTOR * at)
    length = ld64(x.places + DESCRIPTOR * at + 8) & _LENGTH
    number = shr64(place, x.shift)
    if unlikely(number >= x.chunks or ld8(x.states + number) != KERNELS):
        x.error = _STRANGE_PLACE
        return -1
    if unlikely(length == 0 or place - (number << x.shift) + length > 1 << x.shift):
        x.error = _BAD_LENGTH
        return -1
    st8(x.states + number, OURS)
    st64(x.taken + 8 * x.ntaken, number)
    x.ntaken += 1
    return length


@kernel
def join(queue, batch, row, at, n):
    """Make a row of a frame in n pieces; -> its bytes, -1: broken."""
    x = xdp_rx_at(queue)
    b = batch_at(batch)
    segs = b.segs + SEGMENT * b.nsegs
    total = 0
    for k in range(n):
        length = take(queue, at + k)
        if length < 0:
            return -1
        st64(segs + SEGMENT * k, x.umem + ld64(x.places + DESCRIPTOR * (at + k)))
        st64(segs + SEGMENT * k + 8, length)
        total += length
    if total > MAX_FRAME:
        x.error = _BAD_LENGTH
        return -1
    set_row(row, ld64(segs), total)
    st64(row + R.segs, segs)
    st64(row + R.nsegs, n)
    b.nsegs += n
    return total


@kernel
def xdp_rx(queue, batch):
    """Borrow up to a batch of received frames, where the kernel put them; -> rows filled."""
    x = xdp_rx_at(queue)
    b = batch_at(batch)
    b.nsegs = 0
    b.offloads = 0
    if unlikely(ld64(x.sender + XT.stuck) != 0):
        xdp_kick(x.sender)
        x.error = ld64(x.sender + XT.error)
    x.ntaken = 0
    waiting = read_ring(queue)
    octets = 0
    at = 0
    n = 0
    while n < ROWS and at < waiting and octets < MAX_OCTETS:
        row = b.rows + 64 * n
        length = 0
        pieces = pieces_at(queue, at, waiting)
        if pieces == 1:
            length = take(queue, at)
            if length >= 0:
                set_row(row, x.umem + ld64(x.places + DESCRIPTOR * at), length)
        elif pieces > 1:
            length = join(queue, batch, row, at, pieces)
        if unlikely(pieces == 0 or length < 0):
            break
        at += pieces
        octets += length
        n += 1
    b.n = n
    if n > 0:
        x.next = (x.next + at) & _COUNTER
        st32_rel(x.consumer, x.next)
        count_frames(x.counters, n, octets)
        if x.complete != 0:
            look(batch)
            mark_undone(batch)
    return n


@kernel
def xdp_give_back(queue, batch):
    """Give the kernel the chunks of all rows again."""
    x = xdp_rx_at(queue)
    for k in range(x.ntaken):
        number = ld64(x.taken + 8 * k)
        st8(x.states + number, KERNELS)
        st64(x.fill_ring + PLACE * ((x.fill_next + k) & x.fill_mask), number << x.shift)
    x.fill_next = (x.fill_next + x.ntaken) & _COUNTER
    st32_rel(x.fill_producer, x.fill_next)
    x.ntaken = 0


@kernel
def xdp_refilled(queue):
    """Tell the driver of new chunks, where it has stopped for want of them. After a full fence."""
    x = xdp_rx_at(queue)
    if unlikely(ld32_once(x.fill_flags) & NEED_WAKEUP != 0):
        syscall6(_RECVFROM, x.fd, 0, 0, _DONTWAIT, 0, 0)
        x.kicks += 1


@kernel
def xdp_sleep(queue):
    """May the worker stop looking? Arriving frames make an edge on the file by themselves; -> True
    where there is something to do already."""
    x = xdp_rx_at(queue)
    xdp_refilled(queue)
    return ld32_acq(x.producer) != x.next or ld64(x.sender + XT.stuck) != 0


# ---------------------------------------------------------------- transmit
@kernel
def xdp_reap(queue):
    """Take back the chunks whose frames have gone."""
    t = xdp_tx_at(queue)
    waiting = (ld32_acq(t.done_producer) - t.done_next) & _COUNTER
    if unlikely(waiting > t.done_mask + 1):
        t.error = _JUMP
        return
    for k in range(waiting):
        place = ld64_once(t.done_ring + PLACE * ((t.done_next + k) & t.done_mask))
        number = shr64(place, t.shift) - t.first
        if unlikely(number < 0 or number >= t.chunks or ld8(t.states + number) != KERNELS):
            t.error = _STRANGE_PLACE
            return
        st8(t.states + number, OURS)
        st64(t.free + 8 * t.nfree, number)
        t.nfree += 1
    t.done_next = (t.done_next + waiting) & _COUNTER
    st32_rel(t.done_consumer, t.done_next)


@kernel
def give(queue, position, length, more):
    """A free chunk goes into the TX ring with ``length`` bytes; -> host address of the chunk."""
    t = xdp_tx_at(queue)
    t.nfree -= 1
    number = ld64(t.free + 8 * t.nfree)
    st8(t.states + number, KERNELS)
    place = (number + t.first) << t.shift
    entry = t.ring + DESCRIPTOR * (position & t.mask)
    st64(entry, place)
    st64(entry + 8, length | more)
    return t.umem + place


@kernel
def scatter(queue, row, position, pieces):
    """Copy a frame over several free chunks, by way of a linear copy."""
    t = xdp_tx_at(queue)
    left = ld64(row + R.len)
    source = t.linear
    copy_whole(row, source)
    for k in range(pieces):
        length = min(left, 1 << t.shift)
        more = CONTINUED if left > length else 0
        copy_frame(give(queue, position + k, length, more), source, length)
        source += length
        left -= length


@kernel
def xdp_tx(queue, batch, selected, n):
    """Copy n rows into free chunks and publish them; -> frames sent, the others are counted.

    The caller kicks.
    """
    t = xdp_tx_at(queue)
    if t.nfree < n * t.pieces:
        xdp_reap(queue)
    size = 1 << t.shift
    position = t.next
    sent = 0
    octets = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        length = ld64(row + R.len)
        pieces = shr64(length + size - 1, t.shift)
        reason = 0
        if unlikely(length > t.max_frame):
            reason = _OVER_MTU
        elif unlikely(pieces > t.pieces):
            reason = _SMALL_BUFFER
        elif unlikely(pieces > t.nfree):
            reason = _NO_BUFFERS
        if unlikely(reason != 0):
            count_drops(t.counters, reason, 1)
            continue
        if pieces == 1:
            copy_whole(row, give(queue, position, length, 0))
        else:
            scatter(queue, row, position, pieces)
        position += pieces
        sent += 1
        octets += length
    if sent > 0:
        t.next = position & _COUNTER
        st32_rel(t.producer, t.next)
        count_frames(t.counters, sent, octets)
    return sent


@kernel
def xdp_kick(queue):
    """Have the kernel send what is in the TX ring, where it does not look there by itself."""
    t = xdp_tx_at(queue)
    left = (ld64(queue + XT.next) - ld32_acq(t.consumer)) & _COUNTER
    fruitless = 0
    calls = 0
    while left != 0 and fruitless < TRIES and calls < CALLS \
            and ld32_once(t.flags) & NEED_WAKEUP != 0:
        result = syscall6(_SENDTO, t.fd, 0, 0, _DONTWAIT, 0, 0)
        t.kicks += 1
        calls += 1
        if unlikely(result < 0 and result != -_EAGAIN and result != -_EBUSY
                    and result != -_ENOBUFS and result != -_EINTR and result != -_EOVERFLOW):
            t.error = _NO_INTERFACE
            return
        if t.copying == 0:  # the driver goes on by itself
            return
        before = left
        left = (ld64(queue + XT.next) - ld32_acq(t.consumer)) & _COUNTER
        fruitless = fruitless + 1 if left == before else 0
    if t.stuck != 0 and left == 0:
        t.stuck = 0
        fence()  # another worker may have set it since: then its frames are in the ring
        left = (ld64(queue + XT.next) - ld32_acq(t.consumer)) & _COUNTER
    if left != 0 and t.copying != 0:
        t.stuck = 1
