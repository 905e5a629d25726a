# SPDX-License-Identifier: Apache-2.0
"""The ways of an AF_PACKET socket that packet_syscalls.py compares, the port's own among them.

Each entry does a fixed piece of work and answers how many cycles of the time stamp counter it took.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld32, ld32_acq, ld64, st32, st32_rel, st64
from byway.machine.system import rdtsc, syscall6
from byway.packet.batch import BUFFER, ROWS, SEGMENT, R, batch_at, copy_whole, set_row
from byway.ports.af_packet_kernels import packet_at, packet_give_back, packet_rx, packet_tx
from byway.ports.datagrams import (
    LENGTH,
    MESSAGE,
    MSG_DONTWAIT,
    SYS_RECVMMSG,
    VECTORS,
    describe,
    put_message,
)
from byway.virtio.net_header import put_header

SYS_SENDTO, SYS_SENDMSG = 44, 46
USER = 1
HEADER = 10
# struct tpacket_block_desc: block_status u32 @8, num_pkts u32 @12, offset_to_first_pkt u32 @16.
BLOCK_STATUS, PACKETS, FIRST = 8, 12, 16
# struct tpacket3_hdr: tp_next_offset u32 @0, tp_snaplen u32 @12, tp_mac u16 @24.
V3_NEXT, V3_SNAPLEN, V3_MAC = 0, 12, 24
# A transmit slot of TPACKET_V2: tp_status u32 @0, tp_len u32 @4, the frame from byte 32 on.
TX_STATUS, TX_LEN, TX_DATA = 0, 4, 32
AVAILABLE, SEND_REQUEST = 0, 1


@kernel(entry=True)
def drain_v2(queue, batch):
    """The port's way: take all that is in its ring, give it back."""
    began = rdtsc()
    n = 1
    while n > 0:
        n = packet_rx(queue, batch)
        packet_give_back(queue, batch)
    return rdtsc() - began


@kernel(entry=True)
def drain_v3(queue, batch):
    """Take the blocks of a TPACKET_V3 ring that are ours (``slot``: bytes of a block), rows made
    of their frames; -> cycles."""
    began = rdtsc()
    q = packet_at(queue)
    b = batch_at(batch)
    while True:
        block = q.ring + q.slot * q.next
        if ld32_acq(block + BLOCK_STATUS) & USER == 0:
            break
        left = ld32(block + PACKETS)
        at = block + ld32(block + FIRST)
        n = 0
        while left > 0:
            set_row(b.rows + 64 * n, at + (ld32(at + V3_MAC) & 0xFFFF), ld32(at + V3_SNAPLEN))
            at += ld32(at + V3_NEXT)
            left -= 1
            n = (n + 1) & (ROWS - 1)
        st32_rel(block + BLOCK_STATUS, 0)
        q.next = (q.next + 1) & q.mask
    return rdtsc() - began


@kernel(entry=True)
def drain_recvmmsg(fd, batch):
    """Read all that waits, virtio headers in front; -> cycles."""
    began = rdtsc()
    b = batch_at(batch)
    got = 1
    while got > 0:
        for k in range(ROWS):
            vector = b.scratch + VECTORS + SEGMENT * k
            st64(vector, b.buffers + BUFFER * k)
            st64(vector + 8, BUFFER)
            put_message(b.scratch + MESSAGE * k, vector, 1)
        got = syscall6(SYS_RECVMMSG, fd, b.scratch, ROWS, MSG_DONTWAIT, 0, 0)
        for k in range(got):
            set_row(b.rows + 64 * k, b.buffers + BUFFER * k + HEADER,
                    ld32(b.scratch + MESSAGE * k + LENGTH) - HEADER)
    return rdtsc() - began


@kernel(entry=True)
def wait_v2(queue, limit):
    """Cycles until the next slot is ours, -1 after ``limit``."""
    q = packet_at(queue)
    began = rdtsc()
    while ld32_acq(q.ring + q.slot * q.next) & USER == 0:
        if rdtsc() - began > limit:
            return -1
    return rdtsc() - began


@kernel(entry=True)
def wait_v3(queue, limit):
    """Cycles until the next block is ours, -1 after ``limit``."""
    q = packet_at(queue)
    began = rdtsc()
    while ld32_acq(q.ring + q.slot * q.next + BLOCK_STATUS) & USER == 0:
        if rdtsc() - began > limit:
            return -1
    return rdtsc() - began


@kernel(entry=True)
def send_sendmmsg(queue, batch, selected, n, times):
    """The port's way: ``times`` batches of n rows; -> cycles."""
    began = rdtsc()
    for _ in range(times):
        packet_tx(queue, batch, selected, n)
    return rdtsc() - began


@kernel(entry=True)
def send_sendmsg(queue, batch, selected, n, times):
    """A system call for each frame; -> cycles."""
    q = packet_at(queue)
    scratch = batch_at(batch).scratch
    began = rdtsc()
    for _ in range(times):
        describe(batch, selected, n, HEADER)
        for k in range(n):
            syscall6(SYS_SENDMSG, q.fd, scratch + MESSAGE * k, MSG_DONTWAIT, 0, 0, 0)
    return rdtsc() - began


@kernel(entry=True)
def send_ring(queue, batch, selected, n, times):
    """A TPACKET_V2 transmit ring (whose record is ``queue``): each frame is copied to its slot,
    one send for a batch; -> cycles. A slot that is still busy is waited for."""
    q = packet_at(queue)
    began = rdtsc()
    for _ in range(times):
        for k in range(n):
            slot = q.ring + q.slot * q.next
            while ld32_acq(slot + TX_STATUS) != AVAILABLE:
                syscall6(SYS_SENDTO, q.fd, 0, 0, MSG_DONTWAIT, 0, 0)
            row = ld64(selected + 8 * k)
            put_header(HEADER, slot + TX_DATA, 1, row)
            copy_whole(row, slot + TX_DATA + HEADER)
            st32(slot + TX_LEN, ld64(row + R.len) + HEADER)
            st32_rel(slot + TX_STATUS, SEND_REQUEST)
            q.next = (q.next + 1) & q.mask
        syscall6(SYS_SENDTO, q.fd, 0, 0, MSG_DONTWAIT, 0, 0)
    return rdtsc() - began
