# SPDX-License-Identifier: Apache-2.0
"""Rows as messages of one system call: sendmmsg and recvmmsg, and what a refused frame means.

Used by the kinds of port whose frames go through a socket: af_packet_kernels, udp_kernels.
Sources: sendmmsg(2), recvmmsg(2), recvmsg(2), the layouts of include/linux/socket.h on x86-64.

A frame is not copied to be sent: its message lists its private head and, behind that, the rest
where its sender left it. All is described in BATCH.scratch, which is this worker's.

    struct mmsghdr, 64 bytes: name u64 @0, name length u32 @8, iov u64 @16, iov count u64 @24,
    control u64 @32, control length u64 @40, flags u32 @48, bytes transferred u32 @56
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, likely, st64, unlikely
from byway.machine.system import syscall4
from byway.packet.batch import HEAD, ROWS, SCRATCH_BYTES, SEGMENT, R, batch_at
from byway.packet.counters import C, count_drops, count_frames
from byway.packet.offload import NEEDS_CSUM
from byway.packet.reason import Reason
from byway.packet.segment import being_finished, finish_begin, finish_next, finisher_at
from byway.virtio.net_header import put_header

SYS_RECVMSG, SYS_RECVMMSG, SYS_SENDMMSG = 47, 299, 307
MESSAGE = 64
IOV, IOV_COUNT, CONTROL, CONTROL_LENGTH, FLAGS, LENGTH = 16, 24, 32, 40, 48, 56
MSG_TRUNC, MSG_DONTWAIT = 0x20, 0x40

# Where things lie in the scratch memory: ROWS messages, ROWS virtio headers, then iovecs.
HEADERS = ROWS * MESSAGE
HEADER_ROOM = 16
VECTORS = HEADERS + ROWS * HEADER_ROOM

EFAULT, EINVAL, EAGAIN, EMSGSIZE, EINTR = 14, 22, 11, 90, 4
ECONNREFUSED = 111
_ENOMEM, _ENOBUFS = 12, 105
_ENXIO, _ENODEV, _ENETDOWN = 6, 19, 100

_BAD_ADDRESS = int(Reason.BAD_ADDRESS)
_OVER_MTU, _NO_BUFFERS = int(Reason.OVER_MTU), int(Reason.NO_BUFFERS)
_INTERFACE_DOWN, _REFUSED = int(Reason.INTERFACE_DOWN), int(Reason.REFUSED)
_PORT_DOWN = int(Reason.PORT_DOWN)


@kernel
def put_vectors(row, at):
    """Write the iovecs of a frame from ``at`` on, its private head first; -> behind the last."""
    n = ld64(row + R.len)
    st64(at, ld64(row + R.head))
    st64(at + 8, min(n, HEAD))
    at += SEGMENT
    left = n - HEAD
    if left <= 0:
        return at
    nsegs = ld64(row + R.nsegs)
    if nsegs == 0:
        st64(at, ld64(row + R.addr) + HEAD)
        st64(at + 8, left)
        return at + SEGMENT
    segs = ld64(row + R.segs)
    skip = HEAD
    for k in range(nsegs):
        piece = ld64(segs + SEGMENT * k + 8)
        cut = min(skip, piece)
        skip -= cut
        piece = min(piece - cut, left)
        if piece > 0:
            st64(at, ld64(segs + SEGMENT * k) + cut)
            st64(at + 8, piece)
            at += SEGMENT
            left -= piece
    return at


@kernel
def put_message(message, vectors, count):
    """A message of ``count`` iovecs to or from whom the socket is connected, or bound, to."""
    st64(message, 0)
    st64(message + 8, 0)
    st64(message + IOV, vectors)
    st64(message + IOV_COUNT, count)
    st64(message + CONTROL, 0)
    st64(message + CONTROL_LENGTH, 0)
    st64(message + FLAGS, 0)
    st64(message + LENGTH, 0)


@kernel
def describe(batch, selected, n, header):
    """Make messages of the first of n selected rows, as many as there is room for (one at least);
    -> how many. ``header``: bytes of the virtio header in front of each, or 0."""
    scratch = batch_at(batch).scratch
    at = scratch + VECTORS
    done = 0
    while done < min(n, ROWS):
        row = ld64(selected + 8 * done)
        if at + SEGMENT * (2 + ld64(row + R.nsegs)) > scratch + SCRATCH_BYTES:
            break
        first = at
        if header > 0:
            place = scratch + HEADERS + HEADER_ROOM * done
            put_header(header, place, 1, row)
            st64(at, place)
            st64(at + 8, header)
            at += SEGMENT
        at = put_vectors(row, at)
        put_message(scratch + MESSAGE * done, first, (at - first) // SEGMENT)
        done += 1
    return done


@kernel
def reason_of(error):
    """Why a frame is dropped that a system call refused with this errno."""
    if error == EAGAIN or error == _ENOBUFS or error == _ENOMEM:
        return _NO_BUFFERS
    if error == EFAULT:  # its sender took the memory away
        return _BAD_ADDRESS
    if error == EMSGSIZE:
        return _OVER_MTU
    if error == _ENETDOWN or error == _ENXIO or error == _ENODEV:
        return _INTERFACE_DOWN
    if error == ECONNREFUSED:
        return _PORT_DOWN
    return _REFUSED


@kernel
def of_one_frame(error):
    """Does this errno concern the frame alone, so that the next one may well pass?

    ENOBUFS: the interface dropped the frame: its queue is full, or it cannot cut this frame.
    """
    return error == EFAULT or error == EMSGSIZE or error == EINVAL or error == _ENOBUFS


@kernel
def count_sent(counters, selected, n):
    """Count n rows as sent."""
    octets = 0
    for k in range(n):
        octets += ld64(ld64(selected + 8 * k) + R.len)
    count_frames(counters, n, octets)


@kernel
def send_lot(fd, counters, batch, selected, n, header):
    """Send n rows, a message each; -> how many were dealt with: all, or those in front of one of
    which something is left to do that the kernel does not take (EINVAL).

    Every call takes a frame, drops one, or ends it: where the kernel has no room for one frame, or
    the way is closed, the rest of the batch is dropped with it. A connected socket may answer with
    what became of an earlier frame (ECONNREFUSED): asked again, it sends.
    """
    scratch = batch_at(batch).scratch
    first = 0
    refusals = 0
    while first < n:
        count = describe(batch, selected + 8 * first, n - first, header)
        done = 0
        while done < count:
            got = syscall4(SYS_SENDMMSG, fd, scratch + MESSAGE * done, count - done, MSG_DONTWAIT)
            if likely(got > 0):
                count_sent(counters, selected + 8 * (first + done), got)
                done += got
            elif (got == -ECONNREFUSED or got == -EINTR) and refusals < n:
                refusals += 1
            elif got == -EINVAL and unfinished(ld64(selected + 8 * (first + done))):
                return first + done
            elif of_one_frame(-got):
                count_drops(counters, reason_of(-got), 1)
                done += 1
            else:
                count_drops(counters, reason_of(-got), n - first - done)
                return n
        first += count
    return n


@kernel
def unfinished(row):
    """Is there something left to do for the frame?"""
    return ld64(row + R.offload) & NEEDS_CSUM != 0


@kernel
def send_finished(fd, counters, batch, row, header):
    """Finish a frame that the kernel does not take as it is, and send what it becomes."""
    finisher = batch_at(batch).finisher
    if being_finished(finisher, row):  # for a reason
        count_drops(counters, _REFUSED, 1)
        return
    reason = finish_begin(finisher, row, 0)
    if reason != 0:
        count_drops(counters, reason, 1)
        return
    n = finish_next(finisher)
    while n > 0:
        send_lot(fd, counters, batch, finisher_at(finisher).selected, n, header)
        n = finish_next(finisher)


@kernel
def send_rows(fd, counters, batch, selected, n, header):
    """Send n rows by a socket, a message each, behind ``header`` bytes of virtio header; -> how
    many frames the kernel took, the others are counted.

    The kernel is stricter than VIRTIO is (so many segments of UDP): what it refuses for what is
    left to do is finished here. So a frame that the switch passes is not refused for that.
    """
    before = ld64(counters + C.frames)
    dealt = send_lot(fd, counters, batch, selected, n, header)
    while unlikely(dealt < n):
        send_finished(fd, counters, batch, ld64(selected + 8 * dealt), header)
        dealt += 1
        dealt += send_lot(fd, counters, batch, selected + 8 * dealt, n - dealt, header)
    return ld64(counters + C.frames) - before
