# SPDX-License-Identifier: Apache-2.0
"""The batch: up to 64 frames that still lie where their sender left them.

Used by virtio and ports (which fill and deliver it), switch (which decides) and worker (which
owns it, one each).

A row says where a frame is and where it goes. The first HEAD bytes of each frame are copied once
into the row's private head (``look``): what the switch checked there is what it sends, and the
room in front of the head takes headers that the switch adds. Nothing in a batch outlives a pass.
"""

import numpy as np

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import ld64, st64

ROWS = 64
HEAD = 128  # bytes of a frame that are copied out before anything looks at them
ROOM = 128  # bytes in front of the head: the outer headers of a tunnel
HEAD_STRIDE = ROOM + HEAD + 64  # no power of two: heads would share few sets of the cache
MAX_QUEUES = 32  # tx queues of a port that rows are spread over
MAX_CHAIN = 128  # longest descriptor chain that is followed
SEGMENTS = 1024  # for all frames of a batch together; a frame takes MAX_CHAIN at the most
SCRATCH_BYTES = 3 * SEGMENTS * 16
# A frame that is to be cut into segments holds up to 65535 bytes of IP, and may carry two tags.
MIN_FRAME, MAX_FRAME = 14, 65535 + 14 + 8

# ``addr``: the frame's first byte, ``len``: its bytes; where ``nsegs`` is not 0 the frame lies in
# that many segments listed at ``segs``. ``token``: what gives its buffer back. ``out``: see below.
# ``offload``: what its sender left to do (packet.offload), 0: nothing.
ROW, row_at, R = record("row", ["addr", "len", "token", "out", "segs", "nsegs", "head", "offload"])
# A segment: host address, bytes.
SEGMENT = 16
# Where frames that come by system calls are read to: ROWS places of BUFFER bytes (no multiple of 4
# KiB, or all of them would share the same few sets of the cache).
BUFFER = MAX_FRAME + 64 + 255 & ~63
# Where rows are spread: int64[MAX_QUEUES][ROWS], then how many each queue gets, int64[MAX_QUEUES].
SPREAD_LIST = 8 * ROWS
SPREAD_COUNTS = SPREAD_LIST * MAX_QUEUES
SPREAD_BYTES = SPREAD_COUNTS + 8 * MAX_QUEUES
# ``scratch``: room for the buffers that a delivery is about to fill; ``spread``: for sorting rows
# by tx queue. ``buffers``: private memory for what has none of its own. ``offloads``: not 0 where a
# row has something left to do. ``finisher``: who does it where the destination does not
# (packet.segment); the worker's.
# Where the rows at hand come from and belong to: ``origin``, the number of a port or a tunnel;
# ``network``, by number, and its ``vni`` (0: none). Where that differs from row to row ``origins``
# says it, int64[ROWS] (origin_word). ``counters``: COUNTERS of an rx queue of theirs, for a stage
# that puts another frame into the place of one that it drops. ``here``: the NETWORK
# (switch.network) at hand. ``events``: the RING (switch.events) in which control is told, 0: nobody
# listens. ``passed``: int64[ROWS], a list of rows. ``copies``: ROW[ROWS] with heads of their own,
# and ``pieces``, COPIED segments: for rows that one destination gets otherwise than others do.
# ``cutter``: a finisher too, for what is cut as soon as it comes in. ``mirrors``: int64[ROWS], who
# gets a copy of a row because of where it came from, port number + 1; 0: nobody. ``returned``: the
# RETURNED flag of the rows at hand, or 0.
# For network functions: ``ticks``: of the time stamp counter, at the beginning of the pass.
# ``clones``: ROW[CLONES] with heads of their own, copies of frames that are on their way to the
# port in R.out, ``nclones`` of them, and ``clone``, the one at hand; ``bare``: it is copies that go
# out, past all stages but those that lead them there; ``altered``: ROW[ROWS] like ``copies``, for
# rows that a chain changes for one destination. ``payloads``: PLACES places of BUFFER bytes, for
# whole frames that a function looks into; the next one is number ``npayloads``. What came in has
# the first ROWS of them, what goes out the next ones, copies the last. ``asked``: what a chain
# finds out about rows before its functions are at work, int64[ROWS][ASKED]. ``octets``, ``made``:
# bytes of the frames that were borrowed from virtqueues, and frames that they become.
BATCH, batch_at, B = record("batch", [
    "n", "rows", "segs", "nsegs", "scratch", "now", "heads", "offloads", "spread", "finisher",
    "buffers", "origin", "network", "vni", "counters", "origins", "passed", "copies", "pieces",
    "here", "events", "cutter", "mirrors", "ticks", "clones", "nclones", "altered",
    "payloads", "npayloads", "clone", "bare", "returned", "asked",
    "octets", "made"])
ASKED = 8
CLONES = 4 * ROWS  # copies that functions may make of a batch's frames
PLACES = 2 * ROWS + CLONES
COPIED = SEGMENTS + 3 * ROWS  # a copy: its head, what is left of the first head, the rest

# row.out: an output port (>= 0) or one of these; a drop is dropped(reason).
UNDECIDED = -1000
FLOOD = -1
# In an origin word: the row comes back from a service (switch.service), and has passed the stages
# of the port that it came from (RX), or the services of the port that it is for (TX).
RETURNED_RX, RETURNED_TX = 1 << 30, 1 << 29


@kernel
def dropped(reason):
    """The value of row.out for a frame dropped for ``reason`` (and back: it is its own inverse)."""
    return -1 - reason


@kernel
def origin_word(network, port):
    """What stands in BATCH.origins for a row that came from a port of a network (numbers)."""
    return network << 32 | port


@kernel
def origin_network(word):
    """The number of the network."""
    return word >> 32


@kernel
def origin_port(word):
    """The number of the port."""
    return word & 0xFFFF


@kernel
def copy_segments(segs, nsegs, destination, n):
    """Copy the first ``n`` bytes of ``nsegs`` segments."""
    done = 0
    for k in range(nsegs):
        piece = min(ld64(segs + SEGMENT * k + 8), n - done)
        if piece > 0:
            copy_frame(destination + done, ld64(segs + SEGMENT * k), piece)
            done += piece
    return done


@kernel
def clear(batch):
    """Begin anew, with no rows."""
    b = batch_at(batch)
    b.n = 0
    b.nsegs = 0
    b.offloads = 0
    b.octets = 0
    b.made = 0


@kernel
def look(batch):
    """Copy every frame's head into its row: from here on the sender cannot change it."""
    b = batch_at(batch)
    rows = b.rows
    for k in range(b.n):
        row = rows + 64 * k
        n = min(ld64(row + R.len), HEAD)
        if n > 0:
            if ld64(row + R.nsegs) == 0:
                copy_frame(ld64(row + R.head), ld64(row + R.addr), n)
            else:
                copy_segments(ld64(row + R.segs), ld64(row + R.nsegs), ld64(row + R.head), n)


@kernel
def copy_rest(row, destination):
    """Copy what follows the head to ``destination`` (contiguous)."""
    n = ld64(row + R.len) - HEAD
    nsegs = ld64(row + R.nsegs)
    if nsegs == 0:
        copy_frame(destination, ld64(row + R.addr) + HEAD, n)
        return
    segs = ld64(row + R.segs)
    skip = HEAD
    for k in range(nsegs):
        a = ld64(segs + SEGMENT * k)
        piece = ld64(segs + SEGMENT * k + 8)
        cut = min(skip, piece)
        skip -= cut
        piece = min(piece - cut, n)
        if piece > 0:
            copy_frame(destination, a + cut, piece)
            destination += piece
            n -= piece


@kernel
def copy_whole(row, destination):
    """Copy a frame, head first, to ``destination`` (contiguous)."""
    n = ld64(row + R.len)
    copy_frame(destination, ld64(row + R.head), min(n, HEAD))
    if n > HEAD:
        copy_rest(row, destination + HEAD)


@kernel
def copy_row(row, copy):
    """Make ``copy``, which has a head of its own, the row's frame as it is now."""
    head = ld64(copy + R.head)
    for field in range(0, 64, 8):
        st64(copy + field, ld64(row + field))
    st64(copy + R.head, head)
    n = min(ld64(row + R.len), HEAD)
    if n > 0:
        copy_frame(head, ld64(row + R.head), n)


@kernel
def set_row(row, addr, n):
    """An undecided frame of ``n`` bytes in one piece at ``addr`` (the token is the caller's)."""
    st64(row + R.addr, addr)
    st64(row + R.len, n)
    st64(row + R.out, UNDECIDED)
    st64(row + R.nsegs, 0)
    st64(row + R.offload, 0)


@kernel
def set_dropped(row, reason):
    """A row with no frame: its buffer only has to be given back, and the drop to be counted."""
    st64(row + R.len, 0)
    st64(row + R.out, dropped(reason))
    st64(row + R.nsegs, 0)
    st64(row + R.offload, 0)


class Batch:
    """The memory of one batch; a worker owns one."""

    def __init__(self) -> None:
        self.record = alloc(BATCH, 1)
        self.rows = alloc(ROW, ROWS)
        self._heads = alloc(_BYTE, ROWS * HEAD_STRIDE)
        self._segs = alloc(_BYTE, SEGMENTS * SEGMENT)
        self._scratch = alloc(_BYTE, SCRATCH_BYTES)
        self.rows["head"] = [
            address_of(self._heads) + ROOM + HEAD_STRIDE * k for k in range(ROWS)]
        self.record["rows"] = address_of(self.rows)
        self.record["segs"] = address_of(self._segs)
        self.record["scratch"] = address_of(self._scratch)
        self.record["heads"] = address_of(self._heads)
        self._spread = alloc(_BYTE, SPREAD_BYTES)
        self.record["spread"] = address_of(self._spread)
        self._buffers = alloc(_BYTE, ROWS * BUFFER)  # 4 MiB, of which only what is used is there
        self.record["buffers"] = address_of(self._buffers)
        self._payloads = alloc(_BYTE, PLACES * BUFFER)  # 24 MiB, likewise
        self.record["payloads"] = address_of(self._payloads)
        self.copies, self._copied_heads = _rows_with_heads()
        self.clones, self._cloned_heads = _rows_with_heads(CLONES)
        self.altered, self._altered_heads = _rows_with_heads()
        for name in ("copies", "clones", "altered"):
            self.record[name] = address_of(getattr(self, name))
        self._lists = {name: alloc(np.dtype("<i8"), ROWS)
                       for name in ("origins", "passed", "mirrors")}
        for name, words in self._lists.items():
            self.record[name] = address_of(words)
        self._asked = alloc(_BYTE, 8 * ASKED * ROWS)
        self.record["asked"] = address_of(self._asked)
        self._pieces = alloc(_BYTE, COPIED * SEGMENT)
        self.record["pieces"] = address_of(self._pieces)
        self.address = address_of(self.record)


def _rows_with_heads(n=ROWS):
    """ROW[n], and the memory of their heads."""
    rows, heads = alloc(ROW, n), alloc(_BYTE, n * HEAD_STRIDE)
    rows["head"] = [address_of(heads) + ROOM + HEAD_STRIDE * k for k in range(n)]
    return rows, heads


_BYTE = record("byte", [("value", "u1")], size=1)[0]
