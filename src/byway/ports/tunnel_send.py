# SPDX-License-Identifier: Apache-2.0
"""Frames into a tunnel: VXLAN datagrams by a UDP socket of the kernel.

Used by tunnel_code.py, which has it compiled apart; tunnel.py fills the records, tunnel_kernels.py
is the other direction. Sources: RFC 7348, RFC 6040, udp(7), sendmmsg(2), Linux net/ipv4/udp.c
(UDP_SEGMENT).

Theory of operation
-------------------
A frame is not copied to be sent: its VXLAN header is put in front of its private head, into the
room there, and the message lists both as one piece and the rest where its sender left it.

A run of frames of one length (the last may be shorter), which are to say the same of congestion,
becomes one message of up to MOST frames: the kernel takes its way down to the interface once, and
cuts there (UDP_SEGMENT), or has the NIC do it. That is what a large TCP frame becomes, which was
cut before (ports.tx); and whatever else comes in equal pieces.

Where the kernel refuses a run, its frames are sent one by one. Does it take them so, it does not
cut for this way (an IPsec route, an interface without checksums, "checksum = no"), and runs are
made no more. A frame that is refused alone is dropped.

A frame that is longer than the way allows is dropped here (TOO_BIG): a tunnel's end must not cut it
(RFC 7348, 4.3).

Source ports: each tx queue of a tunnel has a socket, and so a port number, of its own; frames are
spread over queues by flow (ports.tx), so one flow keeps its port, and routers on the way can spread
flows.

Limits: MOST frames and LONGEST bytes in a message. Threads: the record is only read, but for
``most``, which any worker may set to 1; the socket may be used by several at once.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64, likely, st16, st32, st64, unlikely
from byway.machine.system import EINTR, syscall4
from byway.packet.batch import HEAD, ROWS, SCRATCH_BYTES, SEGMENT, R, batch_at
from byway.packet.counters import C, count_drops, count_frames
from byway.packet.reason import Reason
from byway.packet.vxlan import HEADER, inner_ecn, put_vxlan
from byway.ports.datagrams import (
    CONTROL,
    CONTROL_LENGTH,
    EAGAIN,
    EFAULT,
    EINVAL,
    EMSGSIZE,
    IOV_COUNT,
    MESSAGE,
    MSG_DONTWAIT,
    SYS_SENDMMSG,
    put_message,
    put_vectors,
    reason_of,
)

_TOO_BIG, _SEND_REFUSED = int(Reason.TOO_BIG), int(Reason.SEND_REFUSED)
_NO_BUFFERS, _BAD_ADDRESS = int(Reason.NO_BUFFERS), int(Reason.BAD_ADDRESS)
_EIO, _ENOBUFS = 5, 105
_ENETDOWN, _ENETUNREACH, _EHOSTUNREACH = 100, 101, 113
MOST = 64  # frames in a message (UDP_MAX_SEGMENTS of older kernels)
LONGEST = 65000  # bytes in a message, less than what UDP carries over IPv4

# What is said with a message: struct cmsghdr, length u64 @0, level i32 @8, type i32 @12, data @16.
_CMSG, _CMSG_ROOM = 16, 24
_SEGMENT = 103 << 32 | 17  # type, level: UDP_SEGMENT, SOL_UDP
# In the scratch memory: ROWS messages, what is said with each, what each holds, then iovecs.
CONTROLS = ROWS * MESSAGE
HELD = CONTROLS + ROWS * 2 * _CMSG_ROOM
HELD_SIZE = 24  # number of its first row, rows, bytes of their frames
VECTORS = HELD + ROWS * HELD_SIZE

# code: of tunnel_tx. fd: of the socket. name, name_bytes: where the remote host's address stands
# (struct sockaddr_in or _in6). ecn: how ECN is said, type << 32 | level (IP_TOS or IPV6_TCLASS).
# longest: bytes of the longest frame that fits. most: frames in a message. tx: COUNTERS. uplink:
# address of the record of who sends instead of a socket, 0: nobody.
SENDER, sender_at, N = record("sender", [
    "code", "fd", "name", "name_bytes", "ecn", "longest", "most", "tx", "uplink"])


# ---------------------------------------------------------------- messages
@kernel
def say(message, control, what, n, number):
    """Say ``number`` of n bytes under ``what`` (type << 32 | level) with a message."""
    at = control + ld64(message + CONTROL_LENGTH)
    st64(at, _CMSG + n)
    st64(at + 8, what)
    st64(at + _CMSG, 0)
    if n == 2:
        st16(at + _CMSG, number)
    else:
        st32(at + _CMSG, number)
    st64(message + CONTROL, control)
    st64(message + CONTROL_LENGTH, ld64(message + CONTROL_LENGTH) + _CMSG_ROOM)


@kernel
def begin(queue, scratch, k, vectors, first, ecn):
    """Begin message k, whose frames begin with row number ``first``."""
    s = sender_at(queue)
    message = scratch + MESSAGE * k
    put_message(message, vectors, 0)
    st64(message, s.name)
    st64(message + 8, s.name_bytes)
    if ecn != 0:
        say(message, scratch + CONTROLS + 2 * _CMSG_ROOM * k, s.ecn, 4, ecn)
    held = scratch + HELD + HELD_SIZE * k
    st64(held, first)
    st64(held + 8, 0)
    st64(held + 16, 0)


@kernel
def put_frame(row, vni, at):
    """List a frame with its VXLAN header from ``at`` on; -> behind the last piece."""
    head = ld64(row + R.head)
    put_vxlan(head - HEADER, vni)
    end = put_vectors(row, at)
    st64(at, head - HEADER)
    st64(at + 8, ld64(at + 8) + HEADER)
    return end


@kernel
def compose(queue, batch, selected, n, most, seen):
    """Make messages of the first of n rows, of up to ``most`` frames each; -> rows taken << 32 |
    messages. Rows that are too long are dropped and counted, but for the first ``seen`` rows, which
    have been here before."""
    s = sender_at(queue)
    b = batch_at(batch)
    scratch, vni, longest = b.scratch, b.vni, s.longest
    at = scratch + VECTORS
    end = scratch + SCRATCH_BYTES
    made = 0
    size = 0  # of the frames in the message that is open, 0: none is
    count = 0
    total = 0
    said = 0
    k = 0
    while k < n:
        row = ld64(selected + 8 * k)
        length = ld64(row + R.len)
        if at + SEGMENT * (2 + ld64(row + R.nsegs)) > end:
            break
        if unlikely(length > longest):
            if k >= seen:
                count_drops(s.tx, _TOO_BIG, 1)
            size = 0
            k += 1
            continue
        ecn = inner_ecn(ld64(row + R.head), min(length, HEAD))
        if length > size or ecn != said or count == most or total + length + HEADER > LONGEST:
            if made == ROWS:
                break
            begin(queue, scratch, made, at, k, ecn)
            made += 1
            size, said, count, total = length, ecn, 0, 0
        after = put_frame(row, vni, at)
        message = scratch + MESSAGE * (made - 1)
        held = scratch + HELD + HELD_SIZE * (made - 1)
        st64(message + IOV_COUNT, ld64(message + IOV_COUNT) + (after - at) // SEGMENT)
        count += 1
        st64(held + 8, count)
        st64(held + 16, ld64(held + 16) + length)
        if count == 2:
            say(message, scratch + CONTROLS + 2 * _CMSG_ROOM * (made - 1), _SEGMENT, 2,
                size + HEADER)
        total += length + HEADER
        if length < size:
            size = 0
        at = after
        k += 1
    return k << 32 | made


# ---------------------------------------------------------------- sending
@kernel
def why_refused(error):
    """Why a frame is dropped that the kernel refused with this errno: a Reason."""
    if error == EMSGSIZE:
        return _TOO_BIG
    reason = reason_of(error)
    if reason == _NO_BUFFERS or reason == _BAD_ADDRESS:
        return reason
    return _SEND_REFUSED


@kernel
def for_all(error):
    """Does this errno end the way for now, so that no other frame will pass either?"""
    return error == EAGAIN or error == _ENETDOWN or error == _ENETUNREACH \
        or error == _EHOSTUNREACH


@kernel
def about_a_run(error):
    """May the frames of a run that was refused with this errno pass one by one?"""
    return error == EINVAL or error == _EIO or error == EMSGSIZE or error == EFAULT


@kernel
def send_made(queue, batch, made):
    """Send messages; -> how many were dealt with | errno << 32 of the run behind these, which was
    refused and whose frames are to be sent one by one."""
    s = sender_at(queue)
    scratch = batch_at(batch).scratch
    done = 0
    while done < made:
        got = syscall4(SYS_SENDMMSG, s.fd, scratch + MESSAGE * done, made - done, MSG_DONTWAIT)
        held = scratch + HELD + HELD_SIZE * done
        if likely(got > 0):
            for k in range(got):
                count_frames(s.tx, ld64(held + HELD_SIZE * k + 8), ld64(held + HELD_SIZE * k + 16))
            done += got
        elif for_all(-got):
            while done < made:
                count_drops(s.tx, why_refused(-got), ld64(scratch + HELD + HELD_SIZE * done + 8))
                done += 1
        elif ld64(held + 8) > 1 and about_a_run(-got):
            return done | -got << 32
        elif got != -EINTR:
            count_drops(s.tx, why_refused(-got), ld64(held + 8))
            done += 1
    return done


def tunnel_tx(queue, batch, selected, n, unused):
    """Send n rows, on which nothing is left to do; -> how many the kernel took, the others are
    counted."""
    s = sender_at(queue)
    scratch = batch_at(batch).scratch
    before = ld64(s.tx + C.frames)
    first = 0
    singly = 0  # frames of a run that was refused, to be sent one by one
    refusal = 0
    seen = 0  # rows that messages were made of, be it that those were never sent
    while first < n:
        if unlikely(singly > 0):
            sent = ld64(s.tx + C.frames)
            taken = compose(queue, batch, selected + 8 * first, singly, 1, seen - first)
            send_made(queue, batch, taken & 0xFFFFFFFF)
            if ld64(s.tx + C.frames) > sent and (refusal == EINVAL or refusal == _EIO):
                s.most = 1
            first += taken >> 32
            singly -= taken >> 32
        else:
            taken = compose(queue, batch, selected + 8 * first, n - first, s.most, seen - first)
            seen = max(seen, first + (taken >> 32))
            done = send_made(queue, batch, taken & 0xFFFFFFFF)
            refusal = done >> 32
            if unlikely(refusal != 0):
                held = scratch + HELD + HELD_SIZE * (done & 0xFFFFFFFF)
                first += ld64(held)
                singly = ld64(held + 8)
            else:
                first += taken >> 32
    return ld64(s.tx + C.frames) - before
