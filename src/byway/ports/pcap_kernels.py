# SPDX-License-Identifier: Apache-2.0
"""Frames from and to memory that a pcap file is read into and written from.

Used by dispatch.py; pcap.py fills the records and moves bytes between memory and file.

The reading side is an area of frames, each preceded by its length as an int64 and padded to 8
bytes. The writing side is a ring of the same items with one writer (a worker, or several under the
port's lock) and one reader (the control thread); positions only grow, their low bits are the place.
An item never wraps: where the rest of the ring is too short, a length of -1 says "go on at 0".
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64, ld64_acq, st64, st64_rel
from byway.machine.system import SYS_WRITE, syscall3
from byway.packet.batch import ROWS, R, batch_at, copy_whole, set_row
from byway.packet.counters import count_drops, count_frames
from byway.packet.reason import Reason

_FILE_BACKLOG = int(Reason.FILE_BACKLOG)
WRAP = -1

# position, end: host addresses in the area.
PCAP_IN, pcap_in_at, I = record("pcap_in", ["position", "end", "counters"])
# size: a power of two. next: where the writer goes on; head: how far the reader may read. wake:
# event fd written after each batch.
PCAP_OUT, pcap_out_at, O = record("pcap_out", [
    "ring", "size", "next", "head", "tail", "counters", "wake", "one"])


@kernel
def pcap_rx(source, batch):
    """Take up to a batch of frames; -> rows filled."""
    if source == 0:
        return 0
    s = pcap_in_at(source)
    b = batch_at(batch)
    n = 0
    octets = 0
    position = s.position
    while n < ROWS and position < s.end:
        length = ld64(position)
        set_row(b.rows + 64 * n, position + 8, length)
        octets += length
        position += 8 + ((length + 7) & ~7)
        n += 1
    s.position = position
    b.n = n
    b.nsegs = 0
    b.offloads = 0
    count_frames(s.counters, n, octets)
    return n


@kernel
def reserve(sink, need):
    """Find room for an item of ``need`` bytes; -> its place in the ring, or -1."""
    s = pcap_out_at(sink)
    place = s.next & (s.size - 1)
    skip = s.size - place if place + need > s.size else 0
    if s.next + skip + need - ld64_acq(sink + O.tail) > s.size:
        return -1
    if skip > 0:
        st64(s.ring + place, WRAP)
        s.next += skip
        place = 0
    return place


@kernel
def pcap_tx(sink, batch, selected, n):
    """Append n rows to the ring; -> how many had room."""
    s = pcap_out_at(sink)
    sent = 0
    octets = 0
    while sent < n:
        row = ld64(selected + 8 * sent)
        length = ld64(row + R.len)
        need = 8 + ((length + 7) & ~7)
        place = reserve(sink, need)
        if place < 0:
            break
        st64(s.ring + place, length)
        copy_whole(row, s.ring + place + 8)
        s.next += need
        octets += length
        sent += 1
    if sent > 0:
        st64_rel(sink + O.head, s.next)
        syscall3(SYS_WRITE, s.wake, s.one, 8)
    count_frames(s.counters, sent, octets)
    if sent < n:
        count_drops(s.counters, _FILE_BACKLOG, n - sent)
    return sent
