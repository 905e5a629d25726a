# SPDX-License-Identifier: Apache-2.0
"""Frames from and to an interface by an AF_PACKET socket: its receive ring, and sendmmsg.

Used by dispatch.py; af_packet.py fills the records, packet_socket.py opens the sockets. Sources:
packet(7), Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h,
net/packet/af_packet.c.

Theory of operation
-------------------
*Receiving.* The ring has TPACKET_V2 slots of one size, which hold a frame of the network's MTU.
A slot whose status has USER belongs to us until its status is 0 again, so rows point into the ring
and ``packet_give_back`` returns the slots. With TPACKET_V3 slots would be as long as their frames;
but the kernel hands over whole blocks, when one is full or a timer of some milliseconds runs out,
and a guest waits that long for every answer.

A large frame (GSO: up to 64 KiB) does not fit into such a slot, and slots of 64 KiB would cost 64
MiB a thousand, and four times the cycles for every small frame. For it the kernel stores the
beginning in the slot, marks it COPY, and keeps the whole frame in the socket's queue
(PACKET_COPY_THRESH); one recvmsg reads it into the row's place in BATCH.buffers. Slots and queue
are in the same order, and what is read is described by itself (its virtio header, its VLAN tag in
PACKET_AUXDATA), so even a slot too many would do no harm. Where the queue is full too, the frame is
cut off: TRUNCATED.

The kernel takes the VLAN tag out of a frame; it is put back in front of the EtherType, over the
virtio header, which was read before: no room has to be reserved. What lies behind the tag (the
place of the checksum) moves by 4 bytes.

*Sending.* One sendmmsg for a batch, its iovecs listing the frames where they are: the kernel copies
them once, into its own buffers. A transmit ring would need a copy of ours into the ring instead,
and its slots are bound until the interface (or, across a veth, whoever reads there) has let go of
them. What each way costs is in docs/explanation/packet-sockets.md.

*Trust.* The ring is shared with the kernel alone. Still every length and place in it is read once
and must lie in its slot, so that no fault of the ring becomes one of ours (BAD_LENGTH).

Threads: ``next`` belongs to the worker of the rx queue. The tx side has no state.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    ld16_once,
    ld32,
    ld32_acq,
    ld32_once,
    ld64,
    st16be,
    st32,
    st32_rel,
    st64,
    unlikely,
)
from byway.machine.system import syscall3
from byway.packet.batch import BUFFER, ROWS, R, batch_at, set_dropped, set_row
from byway.packet.counters import count_frames
from byway.packet.offload import MALFORMED, NEEDS_CSUM, pieces_of, word_csum_start
from byway.packet.reason import Reason
from byway.ports import datagrams
from byway.ports.datagrams import (
    FLAGS,
    MSG_DONTWAIT,
    MSG_TRUNC,
    SYS_RECVMSG,
    VECTORS,
    put_message,
    send_rows,
)
from byway.virtio.borrow import MAX_OCTETS, MAX_PIECES
from byway.virtio.net_header import read_offload

_BAD_LENGTH, _TRUNCATED = int(Reason.BAD_LENGTH), int(Reason.TRUNCATED)

# struct tpacket2_hdr (32 bytes), a sockaddr_ll behind it; the virtio header ends where the frame
# begins.
STATUS, LENGTH, SNAPLEN, MAC, TCI, TPID = 0, 4, 8, 12, 24, 26
SLOT_HEADER = 52
HEADER = 10  # of struct virtio_net_hdr
KERNEL, USER, COPY, VLAN_VALID, TPID_VALID = 0, 1, 2, 0x10, 0x40
# struct tpacket_auxdata behind a struct cmsghdr of 16 bytes.
AUX_STATUS, AUX_TCI, AUX_TPID, AUX_END = 16, 32, 34, 36
AUXDATA = 8 << 32 | 263  # cmsg_type, cmsg_level: PACKET_AUXDATA, SOL_PACKET
TAG, TPID_C = 4, 0x8100
_CONTROL_ROOM = 64
_FRONT = 16  # of a place in BATCH.buffers, in front of the frame: a header, or a tag
_VLAN_SHIFT = TAG << 32  # what moves csum_start of an offload word
_MAX_START = 0xFFFF - TAG
_TRIES = 2  # a socket tells of an error of its own once, instead of what it was asked for

# fd: of the socket. ring: address of ``mask`` + 1 slots of ``slot`` bytes, which are more than
# ROWS: a batch does not come round to slots that it has not given back. next: number of the slot to
# be looked at. rx, tx: COUNTERS.
PACKET, packet_at, K = record("packet", ["fd", "ring", "slot", "mask", "next", "rx", "tx"])


@kernel
def put_tag(frame, tci, tpid):
    """Make room for a VLAN tag in front of the EtherType; -> where the frame begins now."""
    low, high = ld64(frame), ld32(frame + 8)
    st64(frame - TAG, low)
    st32(frame + 8 - TAG, high)
    st16be(frame + 8, tpid)
    st16be(frame + 10, tci)
    return frame - TAG


@kernel
def moved(word):
    """The offload word of a frame that got a tag."""
    if word < 0 or word & NEEDS_CSUM == 0:
        return word
    return word + _VLAN_SHIFT if word_csum_start(word) <= _MAX_START else MALFORMED


@kernel
def set_frame(row, frame, n, word, status, tci, tpid):
    """A row for the frame of ``n`` bytes, its tag put back if it had one."""
    if unlikely(status & VLAN_VALID != 0 and n >= 12):
        kind = tpid if status & TPID_VALID != 0 else TPID_C
        set_row(row, put_tag(frame, tci, kind), n + TAG)
        word = moved(word)
    else:
        set_row(row, frame, n)
    return word


@kernel
def slot_row(row, slot, size, status):
    """A row for the frame in a slot; -> its offload word (0 where it is dropped)."""
    at = ld16_once(slot + MAC)
    n = ld32_once(slot + SNAPLEN)
    if unlikely(at < SLOT_HEADER + HEADER or at + n > size):
        set_dropped(row, _BAD_LENGTH)
        return 0
    if unlikely(n != ld32_once(slot + LENGTH)):
        set_dropped(row, _TRUNCATED)
        return 0
    word = read_offload(slot + at - HEADER)
    return set_frame(row, slot + at, n, word, status, ld16_once(slot + TCI),
                     ld16_once(slot + TPID))


@kernel
def receive(fd, message):
    """One recvmsg; -> its answer. What the socket has to say of itself is passed over."""
    got = 0
    for _ in range(_TRIES):
        got = syscall3(SYS_RECVMSG, fd, message, MSG_DONTWAIT)
        if got > 0:
            break
    return got


@kernel
def queued_row(row, fd, place, scratch):
    """A row for the frame that waits in the socket's queue, read to ``place``; -> its offload
    word (0 where it is dropped)."""
    control = scratch + VECTORS
    vector = control + _CONTROL_ROOM
    put_message(scratch, vector, 1)
    st64(scratch + datagrams.CONTROL, control)
    st64(scratch + datagrams.CONTROL_LENGTH, _CONTROL_ROOM)
    st64(vector, place + _FRONT - HEADER)
    st64(vector + 8, BUFFER - _FRONT)
    n = receive(fd, scratch) - HEADER
    if n <= 0 or ld32(scratch + FLAGS) & MSG_TRUNC != 0:
        set_dropped(row, _TRUNCATED)
        return 0
    status = 0
    if ld64(scratch + datagrams.CONTROL_LENGTH) >= AUX_END and ld64(control + 8) == AUXDATA:
        status = ld32(control + AUX_STATUS)
    word = read_offload(place + _FRONT - HEADER)
    return set_frame(row, place + _FRONT, n, word, status, ld16_once(control + AUX_TCI),
                     ld16_once(control + AUX_TPID))


@kernel
def packet_rx(queue, batch):
    """Take up to a batch of frames from the ring, and no more than one pass may; -> rows filled."""
    b = batch_at(batch)
    b.n = 0
    b.nsegs = 0
    b.offloads = 0
    if queue == 0:
        return 0
    q = packet_at(queue)
    ring, size, mask, at = q.ring, q.slot, q.mask, q.next
    n = 0
    frames = 0
    octets = 0
    left = 0
    pieces = 0
    while n < ROWS and octets < MAX_OCTETS and pieces < MAX_PIECES:
        slot = ring + size * at
        status = ld32_acq(slot + STATUS)
        if status & USER == 0:
            break
        row = b.rows + 64 * n
        word = 0
        if unlikely(status & COPY != 0):
            word = queued_row(row, q.fd, b.buffers + BUFFER * n, b.scratch)
        else:
            word = slot_row(row, slot, size, status)
        st64(row + R.token, slot)
        st64(row + R.offload, word)
        left |= word
        length = ld64(row + R.len)
        pieces += pieces_of(word, length)
        octets += length
        frames += 1 if length > 0 else 0
        n += 1
        at = (at + 1) & mask
    q.next = at
    b.n = n
    b.offloads = left
    count_frames(q.rx, frames, octets)
    return n


@kernel
def packet_give_back(queue, batch):
    """Return the slots of a batch to the kernel."""
    b = batch_at(batch)
    for k in range(b.n):
        st32_rel(ld64(b.rows + 64 * k + R.token) + STATUS, KERNEL)


@kernel
def packet_waits(queue):
    """Is there a frame in the ring?"""
    if queue == 0:
        return False
    q = packet_at(queue)
    return ld32_acq(q.ring + q.slot * q.next + STATUS) & USER != 0


@kernel
def packet_tx(queue, batch, selected, n):
    """Send n rows, as they are; -> how many the kernel took, the others are counted."""
    q = packet_at(queue)
    return send_rows(q.fd, q.tx, batch, selected, n, HEADER)
