# SPDX-License-Identifier: Apache-2.0
"""The chain walk: a guest's descriptor chain -> segments of host memory. Bounded and checked.

Used by device_rx.py and device_tx.py for every chain that is not one plain descriptor.

Theory of operation
-------------------
The guest may change the table while it is read. Each descriptor is therefore loaded once, as two
64-bit words, then checked, then used; nothing is looked at again. (The first one was loaded by the
caller, who looked whether it needs a walk at all.) A walk ends after MAX_CHAIN steps whatever the
descriptors say, so loops end as LONG_CHAIN. A buffer that crosses from one memory region into the
next becomes two segments; an address in no region ends the walk.
VIRTIO 1.2: 2.7.5 (descriptors), 2.7.5.3 (indirect tables).
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64_once, shr64, st64
from byway.packet.batch import MAX_CHAIN, SEGMENT
from byway.packet.reason import Reason
from byway.virtio.memtab import reach, xlate
from byway.virtio.ring import INDIRECT, NEXT, WRITE, vq_at

_BAD_ADDRESS = int(Reason.BAD_ADDRESS)
_BAD_CHAIN = int(Reason.BAD_CHAIN)
_BAD_DIRECTION = int(Reason.BAD_DIRECTION)
_LONG_CHAIN = int(Reason.LONG_CHAIN)


@kernel
def add_buffer(memtab, gpa, length, segs, n):
    """Append guest [gpa, gpa + length) to the n segments at ``segs``; -> new n, or -reason."""
    while length > 0:
        if n >= MAX_CHAIN:
            return -_LONG_CHAIN
        piece = min(length, reach(memtab, gpa))
        if piece == 0:
            return -_BAD_ADDRESS
        st64(segs + SEGMENT * n, xlate(memtab, gpa, piece))
        st64(segs + SEGMENT * n + 8, piece)
        n += 1
        gpa += piece
        length -= piece
    return n


@kernel
def walk(queue, gpa, word, direction, segs):
    """Collect the chain whose first descriptor was loaded as ``gpa`` and ``word`` into ``segs``.

    ``direction``: WRITE for buffers that the device fills, 0 for those it reads.
    -> number of segments (at most MAX_CHAIN; empty descriptors make none), or -reason.
    """
    q = vq_at(queue)
    memtab = q.memtab
    nested = False  # in an indirect table, at guest address ``table``
    table = 0
    count = q.size
    i = 0
    n = 0
    for _ in range(MAX_CHAIN + 1):
        length = word & 0xFFFFFFFF  # word: len:32 flags:16 next:16
        flags = (word >> 32) & 0xFFFF
        if flags & INDIRECT != 0:
            if q.indirect == 0 or nested or flags & NEXT != 0 or length == 0 or length & 15 != 0:
                return -_BAD_CHAIN
            nested = True
            table = gpa
            count = length >> 4
            i = 0
        else:
            if flags & WRITE != direction:
                return -_BAD_DIRECTION
            n = add_buffer(memtab, gpa, length, segs, n)
            if n < 0:
                return n
            if flags & NEXT == 0:
                return n
            i = shr64(word, 48)
            if i >= count:
                return -_BAD_CHAIN
        at = q.desc + 16 * i
        if nested:
            at = xlate(memtab, table + 16 * i, 16)
            if at == 0:
                return -_BAD_ADDRESS
        gpa = ld64_once(at)
        word = ld64_once(at + 8)
    return -_LONG_CHAIN
