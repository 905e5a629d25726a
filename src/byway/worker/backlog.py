# SPDX-License-Identifier: Apache-2.0
"""A worker's backlog: frames that are to be flooded and have not reached everybody yet.

Used by flood.py (the only one who knows what flooding is); uses packet. Each worker has its own.

Theory of operation
-------------------
Frames are copied into *cells* of CELL bytes, as many as it takes; a frame is named by its first
cell. What is known of it stands in a record beside the cell: its network, the stamp of the last
member that has it, and that of the last one which is to have it (plan.py).

The frames of one source port form a queue. The sources that have any form a ring, and take turns.

Limits: CELLS for all. A source may have SHARE of them at the most, and never more than are still
free: so a single one can fill a part, two together less than all, and there is always room for
whoever has nothing waiting yet. What has no room is dropped by the caller, and counted.

Cells, frames and sources are named by number + 1 in links, so that 0 is "none".
"""

import numpy as np

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import CACHE_LINE, address_of, alloc, record
from byway.machine.mem import ld64, st64
from byway.packet.batch import (
    MAX_FRAME,
    ROWS,
    SEGMENT,
    SEGMENTS,
    R,
    batch_at,
    copy_whole,
    look,
    set_row,
)
from byway.switch.fdb import MAX_PORTS

CELL = 1024  # bytes
CELLS = 8192
SHARE = 1024  # cells of one source: sixteen batches of small frames

# free, nfree: cells. first, last: the ring of sources. waiting: frames. spare: what may still be
# spent on flooding (flood.py). cells, data, sources: addresses of CELL_RECORD[], of CELLS * CELL
# bytes, of SOURCE[] by port number. selected: address of int64[ROWS]. whole: room for one frame.
BACKLOG, backlog_at, B = record("backlog", [
    "free", "nfree", "first", "last", "waiting", "spare", "cells", "data", "sources", "selected",
    "whole"])
# next: the frame's next cell. The rest is of a frame's first cell. after: the source's next frame.
# stamp, until: who has it, who is to have it. offload: its offload word.
CELL_RECORD, cell_at, C = record("cell", [
    "next", "after", "network", "stamp", "until", "len", "offload"])
# first, last: its frames. cells: how many they take. next: in the ring.
SOURCE, source_at, S = record("source", ["first", "last", "cells", "next"], size=32)
_CELL_SIZE = CELL_RECORD.itemsize
_SOURCE_SIZE = SOURCE.itemsize


@kernel
def cell_of(backlog, name):
    """The record of a cell by its number + 1."""
    return ld64(backlog + B.cells) + _CELL_SIZE * (name - 1)


@kernel
def source_of(backlog, port):
    """The record of a source by port number."""
    return ld64(backlog + B.sources) + _SOURCE_SIZE * port


@kernel
def waits(backlog, port):
    """Does a frame of this source wait?"""
    return ld64(source_of(backlog, port) + S.first) != 0


# ---------------------------------------------------------------- one more frame
@kernel
def store(backlog, row, n):
    """Copy a frame into ``n`` free cells; -> its name."""
    b = backlog_at(backlog)
    first = b.free
    if n == 1:
        copy_whole(row, b.data + CELL * (first - 1))
    else:
        copy_whole(row, b.whole)
    name = first
    last = first
    left = ld64(row + R.len)
    for k in range(n):
        if n > 1:
            copy_frame(b.data + CELL * (name - 1), b.whole + CELL * k, min(left, CELL))
            left -= CELL
        last = name
        name = ld64(cell_of(backlog, name) + C.next)
    st64(cell_of(backlog, last) + C.next, 0)
    b.free = name
    b.nfree -= n
    return first


@kernel
def keep(backlog, port, network, stamp, until, row):
    """Let a frame of source ``port`` wait; -> False where it may have no more cells."""
    b = backlog_at(backlog)
    s = source_at(source_of(backlog, port))
    n = max(1, (ld64(row + R.len) + CELL - 1) // CELL)
    if s.cells + n > SHARE or s.cells + n > b.nfree:
        return False
    name = store(backlog, row, n)
    c = cell_at(cell_of(backlog, name))
    c.after = 0
    c.network = network
    c.stamp = stamp
    c.until = until
    c.len = ld64(row + R.len)
    c.offload = ld64(row + R.offload)
    s.cells += n
    b.waiting += 1
    if s.first != 0:
        st64(cell_of(backlog, s.last) + C.after, name)
    else:
        s.first = name
        link(backlog, port)
    s.last = name
    return True


@kernel
def link(backlog, port):
    """The source becomes the last of the ring."""
    b = backlog_at(backlog)
    st64(source_of(backlog, port) + S.next, 0)
    if b.first != 0:
        st64(source_of(backlog, b.last - 1) + S.next, port + 1)
    else:
        b.first = port + 1
    b.last = port + 1


# ---------------------------------------------------------------- whose turn it is
@kernel
def together(backlog, name, other):
    """Have two frames gone equally far, on the same way?"""
    c = cell_at(cell_of(backlog, name))
    d = cell_at(cell_of(backlog, other))
    return c.network == d.network and c.stamp == d.stamp and c.until == d.until


@kernel
def lay_out(backlog, port, batch):
    """Fill the batch with the first frames of a source, those that go together; -> how many."""
    b = backlog_at(backlog)
    t = batch_at(batch)
    first = ld64(source_of(backlog, port) + S.first)
    name = first
    n = 0
    nsegs = 0
    offloads = 0
    while name != 0 and n < ROWS and together(backlog, first, name):
        c = cell_at(cell_of(backlog, name))
        if n > 0 and nsegs + (c.len + CELL - 1) // CELL > SEGMENTS:
            break
        row = t.rows + 64 * n
        set_row(row, b.data + CELL * (name - 1), c.len)
        if c.len > CELL:
            st64(row + R.segs, t.segs + SEGMENT * nsegs)
            pieces = list_cells(backlog, name, t.segs + SEGMENT * nsegs)
            st64(row + R.nsegs, pieces)
            nsegs += pieces
        st64(row + R.offload, c.offload)
        offloads |= c.offload
        st64(b.selected + 8 * n, row)
        n += 1
        name = c.after
    t.n = n
    t.nsegs = nsegs
    t.offloads = offloads
    look(batch)
    return n


@kernel
def list_cells(backlog, name, segs):
    """Write down where the pieces of a frame lie; -> how many."""
    data = ld64(backlog + B.data)
    left = ld64(cell_of(backlog, name) + C.len)
    n = 0
    while left > 0:
        st64(segs + SEGMENT * n, data + CELL * (name - 1))
        st64(segs + SEGMENT * n + 8, min(left, CELL))
        left -= CELL
        n += 1
        name = ld64(cell_of(backlog, name) + C.next)
    return n


@kernel
def advance(backlog, port, n, stamp):
    """The first ``n`` frames of the source, whose turn it was, have come up to ``stamp``: they
    wait on, or are done. The next source has its turn."""
    b = backlog_at(backlog)
    s = source_at(source_of(backlog, port))
    name = s.first
    for _ in range(n):
        c = cell_at(cell_of(backlog, name))
        after = c.after
        if stamp < c.until:
            c.stamp = stamp
        else:
            free(backlog, port, name)
            s.first = after
            b.waiting -= 1
        name = after
    b.first = s.next
    if b.first == 0:
        b.last = 0
    if s.first != 0:
        link(backlog, port)


@kernel
def free(backlog, port, name):
    """Give back the cells of a frame."""
    b = backlog_at(backlog)
    s = source_at(source_of(backlog, port))
    while name != 0:
        c = cell_at(cell_of(backlog, name))
        following = c.next
        c.next = b.free
        b.free = name
        b.nfree += 1
        s.cells -= 1
        name = following


class Backlog:
    """The memory of one backlog; of its 8 MiB only what is used is there."""

    def __init__(self) -> None:
        byte, word = np.dtype("u1"), np.dtype("<i8")
        self.record = alloc(BACKLOG, 1, CACHE_LINE)
        self._cells = alloc(CELL_RECORD, CELLS, CACHE_LINE)
        self._data = alloc(byte, CELLS * CELL, CACHE_LINE)
        self._sources = alloc(SOURCE, MAX_PORTS, CACHE_LINE)
        self._selected = alloc(word, ROWS, CACHE_LINE)
        self._whole = alloc(byte, MAX_FRAME + CELL, CACHE_LINE)
        self._cells["next"] = np.arange(2, CELLS + 2)
        self._cells["next"][-1] = 0
        row = self.record[0]
        row["free"], row["nfree"] = 1, CELLS
        for name in ("cells", "data", "sources", "selected", "whole"):
            row[name] = address_of(getattr(self, f"_{name}"))
        self.address = address_of(self.record)

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return int(self.record["waiting"][0])
