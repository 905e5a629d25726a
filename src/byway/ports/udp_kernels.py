# SPDX-License-Identifier: Apache-2.0
"""Frames from and to a UDP socket, one a datagram.

Used by dispatch.py; udp.py fills the record. Sources: udp(7), recvmmsg(2), sendmmsg(2).

One recvmmsg reads up to a batch of datagrams into BATCH.buffers. The room for each is a byte more
than the network's longest frame, so one that is longer (MSG_TRUNC) is known: OVER_MTU. What comes
is anybody's bytes, as from every port: the switch looks at all of it.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld16, ld32, st64, unlikely
from byway.machine.system import SYS_POLL, syscall3, syscall6
from byway.packet.batch import BUFFER, ROWS, SEGMENT, batch_at, set_dropped, set_row
from byway.packet.counters import count_frames
from byway.packet.reason import Reason
from byway.ports.datagrams import (
    ECONNREFUSED,
    FLAGS,
    LENGTH,
    MESSAGE,
    MSG_DONTWAIT,
    MSG_TRUNC,
    SYS_RECVMMSG,
    VECTORS,
    put_message,
    send_rows,
)
from byway.virtio.borrow import MAX_OCTETS

_OVER_MTU = int(Reason.OVER_MTU)
_POLLIN = 1
_REVENTS = 6  # struct pollfd: fd i32 @0, events i16 @4, revents i16 @6

# fd: of the socket. longest: bytes of the longest frame taken. rx, tx: COUNTERS. poll: a struct
# pollfd that asks whether there is something to read.
UDP, udp_at, U = record("udp", ["fd", "longest", "rx", "tx", "poll"])


@kernel
def receive_all(fd, batch, room):
    """Read what waits, ``room`` bytes of each datagram and no more than one pass may take; ->
    datagrams.

    An error of a datagram sent earlier (nobody listens there) may be told instead, once.
    """
    b = batch_at(batch)
    n = min(ROWS, max(1, MAX_OCTETS // room))
    for k in range(n):
        vector = b.scratch + VECTORS + SEGMENT * k
        st64(vector, b.buffers + BUFFER * k)
        st64(vector + 8, room)
        put_message(b.scratch + MESSAGE * k, vector, 1)
    got = syscall6(SYS_RECVMMSG, fd, b.scratch, n, MSG_DONTWAIT, 0, 0)
    if unlikely(got == -ECONNREFUSED):
        got = syscall6(SYS_RECVMMSG, fd, b.scratch, n, MSG_DONTWAIT, 0, 0)
    return max(got, 0)


@kernel
def udp_rx(queue, batch):
    """Take up to a batch of datagrams; -> rows filled."""
    b = batch_at(batch)
    b.n = 0
    b.nsegs = 0
    b.offloads = 0
    if queue == 0:
        return 0
    u = udp_at(queue)
    got = receive_all(u.fd, batch, u.longest + 1)
    frames = 0
    octets = 0
    for k in range(got):
        message = b.scratch + MESSAGE * k
        row = b.rows + 64 * k
        if unlikely(ld32(message + FLAGS) & MSG_TRUNC != 0):
            set_dropped(row, _OVER_MTU)
        else:
            length = ld32(message + LENGTH)
            set_row(row, b.buffers + BUFFER * k, length)
            frames += 1
            octets += length
    b.n = got
    count_frames(u.rx, frames, octets)
    return got


@kernel
def udp_waits(queue):
    """Is there a datagram to read?"""
    if queue == 0:
        return False
    u = udp_at(queue)
    if syscall3(SYS_POLL, u.poll, 1, 0) <= 0:
        return False
    return ld16(u.poll + _REVENTS) & _POLLIN != 0


@kernel
def udp_tx(queue, batch, selected, n):
    """Send n rows; -> how many the kernel took, the others are counted."""
    u = udp_at(queue)
    return send_rows(u.fd, u.tx, batch, selected, n, 0)
