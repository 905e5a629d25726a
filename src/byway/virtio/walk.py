# SPDX-License-Identifier: Apache-2.0
"""The chain walk: a guest's descriptor chain -> segments of host memory. Bounded and checked.

Used by borrow.py and chains.py for every chain that is not one plain descriptor, of both ring
formats.

Theory of operation
-------------------
The guest may change the table while it is read. Each descriptor is therefore loaded once, as two
64-bit words, then checked, then used; nothing is looked at again. (The first one was loaded by the
caller, who looked whether it needs a walk at all.) A walk ends after MAX_CHAIN steps whatever the
descriptors say, so loops end as LONG_CHAIN. A buffer that crosses from one memory region into the
next becomes two segments; an address in no region ends the walk.

The formats differ in where the next descriptor is: split chains name it, packed ones go on in the
next slot, and an indirect packed table is used from its first to its last entry. A packed chain
also takes as many slots of the ring as it has descriptors, and its id stands in the last one: what
is wrong with a chain, it is followed to its end to find where the next one begins (abandon).
VIRTIO 1.2: 2.7.5, 2.7.5.3 (split), 2.8.6 (packed), 2.8.7 (its indirect tables).
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64, ld64_once, shr64, st64
from byway.packet.batch import MAX_CHAIN, SEGMENT
from byway.packet.reason import Reason
from byway.virtio.iotlb import PAGE
from byway.virtio.memtab import M, bytes_from, missed, translate
from byway.virtio.ring import INDIRECT, NEXT, WRITE, RingError, vq_at

_BAD_CHAIN = int(Reason.BAD_CHAIN)
_BAD_DIRECTION = int(Reason.BAD_DIRECTION)
_LONG_CHAIN = int(Reason.LONG_CHAIN)
_ENDLESS = int(RingError.ENDLESS)


@kernel
def add_buffer(memtab, gpa, length, direction, segs, n):
    """Append guest [gpa, gpa + length) to the n segments at ``segs``; -> new n, or -reason."""
    while length > 0:
        if n >= MAX_CHAIN:
            return -_LONG_CHAIN
        piece = min(length, bytes_from(memtab, gpa, direction))
        host = 0
        if piece > 0:  # a translation may be taken away between the two
            host = translate(memtab, gpa, piece, direction)
        if host == 0:
            return -missed(memtab, gpa, direction)
        st64(segs + SEGMENT * n, host)
        st64(segs + SEGMENT * n + 8, piece)
        n += 1
        gpa += piece
        length -= piece
    return n


@kernel
def flags_of(packed, word):
    """The flags in the second word of a descriptor."""
    if packed != 0:
        return shr64(word, 48)
    return (word >> 32) & 0xFFFF


@kernel
def abandon(queue, slot, flags, reason):
    """Give up a packed chain at its descriptor in ``slot``: follow it to its end; -> -reason.

    A chain of more descriptors than the ring has ends the queue: there is no telling where the
    next one begins.
    """
    q = vq_at(queue)
    while flags & NEXT != 0:
        slot += 1
        if slot == q.size:
            slot = 0
        q.slots += 1
        if q.slots > q.size:
            q.error = _ENDLESS
            break
        word = ld64_once(q.desc + 16 * slot + 8)
        flags = shr64(word, 48)
        q.id = (word >> 32) & 0xFFFF
    return -reason


@kernel
def table_is_bad(queue, nested, flags, length):
    """Is a descriptor that refers to an indirect table one that may not?"""
    q = vq_at(queue)
    return (q.indirect == 0 or nested or flags & NEXT != 0 or length == 0 or length & 15 != 0
            or (q.packed != 0 and q.slots > 1))


@kernel
def unreachable(memtab, entry):
    """Why an entry of an indirect table cannot be read. Behind an IOMMU, one that lies across the
    end of a page is not asked for: both pages may be known."""
    if (entry & PAGE - 1) + 16 > PAGE and ld64(memtab + M.iotlb) != 0:
        return _BAD_CHAIN
    return missed(memtab, entry, 0)


@kernel
def step(queue, nested, i, word):
    """Where the descriptor after the i-th is, by its second word; -1 where a packed chain goes
    once around the ring."""
    q = vq_at(queue)
    if q.packed == 0:
        return shr64(word, 48)
    i += 1
    if not nested:
        q.slots += 1
        if q.slots > q.size:
            q.error = _ENDLESS
            return -1
        if i == q.size:
            i = 0
    return i


@kernel
def walk(queue, gpa, word, slot, direction, segs):
    """Collect the chain whose first descriptor was loaded as ``gpa`` and ``word`` into ``segs``.

    ``slot``: where it was loaded from (of interest for packed rings only). ``direction``: WRITE for
    buffers that the device fills, 0 for those it reads. The queue's ``slots`` and ``id`` are set.
    -> number of segments (at most MAX_CHAIN; empty descriptors make none), or -reason.
    """
    q = vq_at(queue)
    memtab, packed, desc = q.memtab, q.packed, q.desc
    q.slots = 1
    q.id = (word >> 32) & 0xFFFF
    nested = False  # in an indirect table of ``count``, at guest address ``table``
    table = 0
    count = q.size
    i, n = slot, 0
    wrong = _LONG_CHAIN
    flags = flags_of(packed, word)
    for _ in range(MAX_CHAIN + 1):
        q.steps += 1
        length = word & 0xFFFFFFFF
        if flags & INDIRECT != 0:
            if table_is_bad(queue, nested, flags, length):
                wrong = _BAD_CHAIN
                break
            nested = True
            table = gpa
            count = length >> 4
            i = 0
        else:
            if flags & WRITE != direction:
                wrong = _BAD_DIRECTION
                break
            n = add_buffer(memtab, gpa, length, direction, segs, n)
            if n < 0:
                wrong = -n
                break
            if flags & NEXT == 0:
                return n
            i = step(queue, nested, i, word)
            if i < 0:
                return -_LONG_CHAIN
            if i >= count:
                wrong = _BAD_CHAIN
                break
        at = desc + 16 * i
        if nested:
            at = translate(memtab, table + 16 * i, 16, 0)
            if at == 0:
                return -unreachable(memtab, table + 16 * i)
        gpa = ld64_once(at)
        word = ld64_once(at + 8)
        flags = flags_of(packed, word)
        if packed != 0:
            if nested:  # only WRITE means something there (2.8.7): the length says which is last
                flags = flags & WRITE | (NEXT if i + 1 < count else 0)
            else:
                q.id = (word >> 32) & 0xFFFF
    if packed != 0 and not nested:
        return abandon(queue, i, flags, wrong)
    return -wrong
