# SPDX-License-Identifier: Apache-2.0
"""Frames from and to a tap, one system call each, straight from and to where they lie.

Used by dispatch.py; tap_port.py fills the records. Sources: Linux, drivers/net/tun.c and
include/linux/virtio_net.h (what the kernel checks), Documentation/networking/tuntap.rst.

Theory of operation
-------------------
Each file of a tap is a queue. ``read`` gives one frame with a virtio_net_hdr of HEADER bytes in
front; it goes into the worker's own memory (BATCH.buffers), where it stays for the pass. ``write``
takes the same. A frame of at most HEAD bytes is one piece: the row's private head, and the header
is put in the room in front of it. Of a longer one the rest follows from where the sender left it,
in as many pieces as it lies in; the kernel copies it, we do not.

What the header says goes through as it is (packet.offload): a checksum that the sender's kernel
left to be done, or 64 KiB of TCP in one frame. The kernel checks what we write, and it is stricter
than VIRTIO is (so many segments of UDP, so much room for a checksum): a frame that it refuses, and
that has something left to do, is finished here and written again. So a frame that the switch passes
is never refused for what its sender left to do.

The files do not block. No frame: EAGAIN. An interface that is down takes none (EIO), one that does
not get on takes none for now (EAGAIN, ENOBUFS, ENOMEM): counted. Memory that the sender took away
under our hands (EFAULT) costs that frame. A signal (EINTR) asks for the call again; it comes a few
times a second at the most. An interface that is gone (EBADFD) leaves its code in ``error``, and the
port is taken down.

Sleeping: the file stands in the worker's epoll set, edge-triggered, for as long as the port is
served. The kernel makes an edge for every frame after it can be read, and one when the interface
goes. A queue is put to sleep in the same turn in which a read said EAGAIN, and the epoll set was
not looked at in between. So a frame that came after that read left an edge which is still to be
reported: no wake-up is lost, and no second look is needed.
"""

from byway.machine.explained import Explained
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64, likely, st64, unlikely
from byway.machine.system import EINTR, SYS_READ, SYS_WRITE, SYS_WRITEV, syscall3
from byway.packet.batch import BUFFER, HEAD, ROWS, SEGMENT, R, batch_at, set_row
from byway.packet.counters import count_drops, count_frames
from byway.packet.offload import NEEDS_CSUM, pieces_of
from byway.packet.reason import Reason
from byway.packet.segment import being_finished, finish_begin, finish_next, finisher_at
from byway.ports.datagrams import put_vectors, reason_of
from byway.virtio.borrow import MAX_OCTETS, MAX_PIECES
from byway.virtio.net_header import put_header, read_offload

HEADER = 10  # the kernel fills no more of it, whatever size is set
_EIO, _EBADF, _EAGAIN, _EINVAL, _EBADFD = 5, 9, 11, 22, 77
_PORT_DOWN = int(Reason.PORT_DOWN)
_INTERFACE_DOWN = int(Reason.INTERFACE_DOWN)
_REFUSED = int(Reason.REFUSED)


class Fault(Explained):
    """What ends a tap's queue, as PORT.error has it."""

    GONE = 1, "the interface was removed"
    UNREADABLE = 2, "the kernel gives no frames of the interface"


_GONE, _UNREADABLE = int(Fault.GONE), int(Fault.UNREADABLE)

# One queue of a tap: its file; COUNTERS of what came in and went out; a Fault, or 0.
TAP, tap_at, K = record("tap", ["file", "rx", "tx", "error"])


@kernel
def again(number, file, address, n):
    """A system call, until no signal interrupts it; -> what it answers."""
    answer = syscall3(number, file, address, n)
    while unlikely(answer == -EINTR):
        answer = syscall3(number, file, address, n)
    return answer


# ---------------------------------------------------------------- into Byway
@kernel
def tap_rx(queue, batch):
    """Read up to a batch of frames, and no more than one pass may take; -> rows filled."""
    t = tap_at(queue)
    b = batch_at(batch)
    file, rows, place = t.file, b.rows, b.buffers
    n = 0
    octets = 0
    offloads = 0
    pieces = 0
    while n < ROWS and octets < MAX_OCTETS and pieces < MAX_PIECES:
        length = again(SYS_READ, file, place, BUFFER) - HEADER
        if length < 0:
            if unlikely(length != -_EAGAIN - HEADER):
                gone = length == -_EBADFD - HEADER or length == -_EBADF - HEADER
                t.error = _GONE if gone else _UNREADABLE
            break
        row = rows + 64 * n
        set_row(row, place + HEADER, length)
        word = read_offload(place)
        st64(row + R.offload, word)
        offloads |= word
        pieces += pieces_of(word, length)
        octets += length
        place += BUFFER
        n += 1
    b.n = n
    b.nsegs = 0
    b.offloads = offloads
    count_frames(t.rx, n, octets)
    return n


# ---------------------------------------------------------------- out of Byway
@kernel
def write_frame(file, batch, row):
    """Write the frame of a row with its virtio header; -> what the kernel answers."""
    n = ld64(row + R.len)
    start = ld64(row + R.head) - HEADER
    put_header(HEADER, start, 1, row)
    if n <= HEAD:
        return again(SYS_WRITE, file, start, HEADER + n)
    pieces = batch_at(batch).scratch
    end = put_vectors(row, pieces)
    st64(pieces, start)
    st64(pieces + 8, HEADER + HEAD)
    return again(SYS_WRITEV, file, pieces, (end - pieces) // SEGMENT)


@kernel
def why_not(answer):
    """Why a frame that was to be written is dropped: a Reason."""
    if answer == -_EIO:
        return _INTERFACE_DOWN
    if answer == -_EBADFD or answer == -_EBADF:
        return _PORT_DOWN
    if answer == -_EINVAL:
        return _REFUSED
    return reason_of(-answer)


@kernel
def write_finished(queue, batch, row):
    """Finish a frame that the kernel does not take as it is, and write what it becomes; -> frames
    written."""
    t = tap_at(queue)
    finisher = batch_at(batch).finisher
    reason = finish_begin(finisher, row, 0)
    if reason != 0:
        count_drops(t.tx, reason, 1)
        return 0
    sent = 0
    octets = 0
    n = finish_next(finisher)
    while n > 0:
        selected = finisher_at(finisher).selected
        for k in range(n):
            piece = ld64(selected + 8 * k)
            answer = write_frame(t.file, batch, piece)
            if answer > 0:
                sent += 1
                octets += ld64(piece + R.len)
            else:
                count_drops(t.tx, why_not(answer), 1)
        n = finish_next(finisher)
    count_frames(t.tx, sent, octets)
    return sent


@kernel
def not_written(queue, batch, row, answer):
    """What to do about a frame for which the kernel answered an error; -> frames written."""
    t = tap_at(queue)
    if answer == -_EINVAL and ld64(row + R.offload) & NEEDS_CSUM != 0 \
            and not being_finished(batch_at(batch).finisher, row):
        return write_finished(queue, batch, row)
    reason = why_not(answer)
    if reason == _PORT_DOWN:
        t.error = _GONE
    count_drops(t.tx, reason, 1)
    return 0


@kernel
def tap_tx(queue, batch, selected, n):
    """Write n rows; -> how many the interface took, the others are counted."""
    t = tap_at(queue)
    file = t.file
    written = 0
    octets = 0
    finished = 0
    for k in range(n):
        row = ld64(selected + 8 * k)
        answer = write_frame(file, batch, row)
        if likely(answer > 0):
            written += 1
            octets += ld64(row + R.len)
        else:
            finished += not_written(queue, batch, row, answer)
    count_frames(t.tx, written, octets)
    return written + finished
