# SPDX-License-Identifier: Apache-2.0
"""Frames out of tunnels: VXLAN datagrams from a UDP socket of the kernel become rows.

Used by tunnel_code.py, which has it compiled apart; tunnel.py fills the records, tunnel_send.py is
the other direction. Sources: RFC 7348, RFC 6040, udp(7), recvmmsg(2), Linux net/ipv4/udp.c
(UDP_GRO).

Theory of operation
-------------------
One recvmmsg reads up to MESSAGES datagrams into memory of the queue's own. With UDP_GRO a *message*
may be many datagrams of one sender, in a row and of one size (the last may be shorter), as they
left in one system call or one NIC's receive ring: up to 64 KiB. So what one call reads may be more
than a batch or than one pass may take; what is left waits in the queue's memory, and the next pass
goes on with it before it reads again.

The kernel has checked what is outside: addresses, lengths, UDP's checksum where there is one. Here
the sender must be a known host, the header must say a VNI that this host has, and the frame must
hold an Ethernet header. Everything read lies in private memory and cannot change.

ECN: what routers said in the outer header is told the inner one (packet.vxlan).

TCP: consecutive segments of a flow become one large frame (packet.joining), within a message, and
over its end where the next one goes on.

Checksums undone: between interfaces of one machine (veth, or a virtual machine's), Linux hands over
what it tunnels as it is: the inner checksum still to be completed, and 64 KiB of TCP as one frame,
in one datagram. The first is recognised as for AF_XDP (packet.unfinished). So is the second: a
frame that is longer than the network allows, of TCP with its checksum undone, is one that is to be
cut. How long its segments were meant to be nobody says; they become as long as the network allows.

Threads: a queue and its memory belong to its worker. The tables are packet.tunnels'.
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    add64,
    ld8,
    ld16,
    ld32,
    ld64,
    ld64_acq,
    ld64be,
    likely,
    st32,
    st64,
    unlikely,
)
from byway.machine.system import SYS_POLL, syscall3, syscall6
from byway.packet.batch import (
    MIN_FRAME,
    ROWS,
    SEGMENT,
    SEGMENTS,
    UNDECIDED,
    R,
    batch_at,
    look,
    origin_word,
    set_dropped,
    set_row,
)
from byway.packet.counters import C, count_drops, count_frames
from byway.packet.ethernet import HEADER as ETHERNET
from byway.packet.joining import append, goes_on, join, joinable
from byway.packet.layers import l3_of, l4_of, layers, version_of
from byway.packet.offload import GSO_TCPV4, GSO_TCPV6, TCP_CHECKSUM, word_csum_offset
from byway.packet.reason import Reason
from byway.packet.tunnels import COUNTS, PORT, find_remote, find_vni
from byway.packet.unfinished import left_undone
from byway.packet.vxlan import HEADER, combine_ecn, vni_of
from byway.ports.datagrams import CONTROL_LENGTH, LENGTH, MESSAGE, MSG_DONTWAIT, SYS_RECVMMSG
from byway.virtio.borrow import MAX_OCTETS

_UNKNOWN_VNI, _UNKNOWN_TUNNEL = int(Reason.UNKNOWN_VNI), int(Reason.UNKNOWN_TUNNEL)
_BAD_TUNNEL, _CONGESTED = int(Reason.BAD_TUNNEL), int(Reason.CONGESTED)
_POLLIN, _REVENTS = 1, 6

MESSAGES = 64  # read by one call
FEW = 8  # where the last ones were large
# Room for each message: its sender's address (struct sockaddr_in or _in6), what the kernel says of
# it, and its bytes (what UDP can carry; no multiple of 4 KiB, see packet.batch).
NAME, CONTROL = 32, 64
NAME_LENGTH = 8  # where its length stands in a struct mmsghdr
PLACE = 65536 + 64
_AF_INET = 2
# struct cmsghdr: length u64 @0, level i32 @8, type i32 @12, data @16; the next one 8-aligned.
_CMSG = 16
_GRO = 104 << 32 | 17  # type, level: UDP_GRO, SOL_UDP
_TOS = 1 << 32  # IP_TOS, SOL_IP
_TCLASS = 67 << 32 | 41  # IPV6_TCLASS, SOL_IPV6
_MAPPED = 0xFFFF << 32
_LONGEST_SHIFT = 32

# code: of tunnel_rx. fd: of the socket. messages, names, controls, places: MESSAGES of each. lot:
# how many are asked for. got: messages read; at: the one in hand; offset: how much of it is done.
# rx: COUNTERS. vnis, remotes: the tables (packet.tunnels). origin: of rows from unknown hosts.
# join: may TCP be joined? poll: a struct pollfd that asks whether there is something to read.
RECEIVER, receiver_at, V = record("receiver", [
    "code", "fd", "messages", "names", "controls", "places", "lot", "got", "at", "offset", "rx",
    "vnis", "remotes", "origin", "join", "poll"])


# ---------------------------------------------------------------- reading
@kernel
def fetch(queue):
    """Read what waits; -> messages."""
    v = receiver_at(queue)
    messages = v.messages
    for k in range(v.got):
        st32(messages + MESSAGE * k + NAME_LENGTH, NAME)
        st64(messages + MESSAGE * k + CONTROL_LENGTH, CONTROL)
    got = max(syscall6(SYS_RECVMMSG, v.fd, messages, v.lot, MSG_DONTWAIT, 0, 0), 0)
    octets = 0
    for k in range(got):
        octets += ld32(messages + MESSAGE * k + LENGTH)
    v.got = got
    v.at = 0
    v.offset = 0
    v.lot = FEW if octets > MAX_OCTETS else MESSAGES
    return got


@kernel
def said(control, n, what):
    """The number that the kernel said about a message under ``what`` (type << 32 | level), in its
    control data of n bytes; -1 where it said nothing."""
    at = 0
    while at + _CMSG < n:
        length = ld64(control + at)
        if length <= _CMSG:
            break
        if ld64(control + at + 8) == what:
            return ld8(control + at + _CMSG) if length < _CMSG + 4 else ld32(control + at + _CMSG)
        at += length + 7 & ~7
    return -1


@kernel
def sender(queue, k):
    """-> the entry of the host that sent message k (packet.tunnels), 0: it is not known."""
    v = receiver_at(queue)
    name = v.names + NAME * k
    if likely(ld16(name) == _AF_INET):
        return find_remote(v.remotes, 0, _MAPPED | ld64be(name) & 0xFFFFFFFF)
    return find_remote(v.remotes, ld64be(name + 8), ld64be(name + 16))


# ---------------------------------------------------------------- rows
@kernel
def put_frame(queue, row, at, n, ecn):
    """A row for the datagram of n bytes at ``at``, whose outer header had these ECN bits; -> the
    number of its network, 0 where it is dropped."""
    if unlikely(n < HEADER + MIN_FRAME):
        set_dropped(row, _BAD_TUNNEL)
        return 0
    vni = vni_of(at)
    found = find_vni(receiver_at(queue).vnis, vni) if vni >= 0 else 0
    if unlikely(found == 0):
        set_dropped(row, _UNKNOWN_VNI if vni >= 0 else _BAD_TUNNEL)
        return 0
    if unlikely(ecn & 1 != 0) and not combine_ecn(at + HEADER, n - HEADER, ecn):
        set_dropped(row, _CONGESTED)
        return 0
    set_row(row, at + HEADER, n - HEADER)
    st64(row + R.token, found >> _LONGEST_SHIFT)
    return (found & 0xFFFFFFFF) - 1


@kernel
def joined(queue, batch, row, frame, rest, size):
    """Join what goes together of the frames from ``frame`` on, of which the first is in the row;
    ``rest``: bytes up to the end of the last; -> how many."""
    b = batch_at(batch)
    if receiver_at(queue).join == 0 or ld64(row + R.out) != UNDECIDED \
            or b.nsegs + ROWS + 1 > SEGMENTS:
        return 1
    n = min(size - HEADER, rest)
    count = 1
    if rest > size:
        count = min(joinable(frame, n, size, rest), ROWS)
    if count > 1:
        last = min(n, rest - size * (count - 1))
        join(row, frame, n, size, count, last, b.segs + SEGMENT * b.nsegs)
        b.nsegs += count
    return count


@kernel
def appended(queue, batch, word):
    """Make the row that was made last part of the one before, where it goes on with that."""
    b = batch_at(batch)
    row = b.rows + 64 * (b.n - 2)
    other = row + 64
    if receiver_at(queue).join == 0 or ld64(other + R.out) != UNDECIDED \
            or ld64(b.origins + 8 * (b.n - 2)) != word or b.nsegs + 1 > SEGMENTS:
        return
    behind = ld64(row + R.segs) + SEGMENT * (ld64(row + R.nsegs) + ld64(other + R.nsegs))
    if ld64(row + R.out) == UNDECIDED and behind == b.segs + SEGMENT * b.nsegs \
            and goes_on(row, other):
        b.nsegs += append(row, other)
        b.n -= 1


@kernel
def take_message(queue, batch, entry, port):
    """Rows for the message in hand, or for what is left of it, of the host with this entry, whose
    tunnel is ``port`` - 1; -> bytes taken."""
    v = receiver_at(queue)
    b = batch_at(batch)
    k = v.at
    message = v.messages + MESSAGE * k
    length = ld32(message + LENGTH)
    control, ncontrol = v.controls + CONTROL * k, ld64(message + CONTROL_LENGTH)
    size = said(control, ncontrol, _GRO)
    if size <= 0:
        size = max(length, 1)
    ecn = max(said(control, ncontrol, _TOS), said(control, ncontrol, _TCLASS), 0) & 3
    place = v.places + PLACE * k
    at = v.offset
    began = at
    frames = 0
    octets = 0
    while (at < length or at == 0) and b.n < ROWS:
        row = b.rows + 64 * b.n
        network = put_frame(queue, row, place + at, min(size, length - at), ecn)
        count = 1
        if ecn & 1 == 0:
            count = joined(queue, batch, row, place + at + HEADER, length - at - HEADER, size)
        if ld64(row + R.out) == UNDECIDED:
            frames += 1
            octets += ld64(row + R.len)
        word = origin_word(network, port - 1)
        st64(b.origins + 8 * b.n, word)
        b.n += 1
        if at == 0 and b.n > 1 and ecn & 1 == 0:
            appended(queue, batch, word)
        at += size * count
    v.offset = at
    if at >= length:
        v.at = k + 1
        v.offset = 0
    count_frames(v.rx, frames, octets)
    counts = ld64(entry + COUNTS)
    if counts != 0:  # several workers may hear of one host at the same time
        add64(counts + C.frames, frames)
        add64(counts + C.bytes, octets)
    return min(at, length) - began


@kernel
def refuse_message(queue, batch):
    """The message in hand came from nobody who is known: one row for it, which is dropped, and the
    other frames of it are counted."""
    v = receiver_at(queue)
    b = batch_at(batch)
    message = v.messages + MESSAGE * v.at
    length = ld32(message + LENGTH)
    size = said(v.controls + CONTROL * v.at, ld64(message + CONTROL_LENGTH), _GRO)
    left = length
    while size > 0 and left > size:
        count_drops(v.rx, _UNKNOWN_TUNNEL, 1)
        left -= size
    set_dropped(b.rows + 64 * b.n, _UNKNOWN_TUNNEL)
    st64(b.origins + 8 * b.n, v.origin)
    b.n += 1
    v.at += 1
    v.offset = 0
    return length


# ---------------------------------------------------------------- what was left undone
@kernel
def large(row, word):
    """The offload word of a frame whose checksum is undone: with GSO where it is TCP and longer
    than its network allows."""
    found = layers(row)
    longest = ld64(row + R.token) + l3_of(found) - ETHERNET
    if likely(ld64(row + R.len) <= longest) or word_csum_offset(word) != TCP_CHECKSUM:
        return word
    l4 = l4_of(found)
    size = longest - l4 - 4 * (ld8(ld64(row + R.head) + l4 + 12) >> 4)
    if size <= 0:
        return word
    gso = GSO_TCPV6 if version_of(found) == 6 else GSO_TCPV4
    return word | gso << 8 | size << 16


@kernel
def note_undone(batch):
    """Set the offload words of the rows, whose heads are copied."""
    b = batch_at(batch)
    left = 0
    for k in range(b.n):
        row = b.rows + 64 * k
        if ld64(row + R.out) == UNDECIDED:
            word = ld64(row + R.offload)
            if word == 0:
                word = left_undone(row)
                if word != 0:
                    word = large(row, word)
                st64(row + R.offload, word)
            left |= word
    b.offloads = left


# ---------------------------------------------------------------- entries
def tunnel_rx(queue, batch, unused):
    """Take up to a batch of frames out of tunnels, and no more than one pass may; -> rows."""
    b = batch_at(batch)
    b.n = 0
    b.nsegs = 0
    b.offloads = 0
    if queue == 0:
        return 0
    v = receiver_at(queue)
    if v.at == v.got and fetch(queue) == 0:
        return 0
    octets = 0
    while v.at < v.got and b.n < ROWS and octets < MAX_OCTETS:
        entry = sender(queue, v.at)
        port = ld64_acq(entry + PORT) if entry != 0 else 0  # once: the host may go meanwhile
        if unlikely(port <= 0):
            octets += refuse_message(queue, batch)
        else:
            octets += take_message(queue, batch, entry, port)
    look(batch)
    note_undone(batch)
    return b.n


@kernel
def tunnel_waits(queue):
    """Is there something to take?"""
    if queue == 0:
        return False
    v = receiver_at(queue)
    if v.at < v.got:
        return True
    if syscall3(SYS_POLL, v.poll, 1, 0) <= 0:
        return False
    return ld16(v.poll + _REVENTS) & _POLLIN != 0
