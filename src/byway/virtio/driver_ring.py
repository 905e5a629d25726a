# SPDX-License-Identifier: Apache-2.0
"""The ring formats as a driver writes and reads them: post chains, publish them, collect used ones.

Used by driver.py, to which a split and a packed virtqueue look the same. VIRTIO 1.2: 2.7 (split),
2.8 (packed), 2.7.9 and 2.8.9 (in-order use).

Theory of operation
-------------------
Buffer i is one descriptor's worth of memory, so a ring of ``size`` descriptors has ``size``
buffers. A *chain* is one buffer or several, named by the first of them, its head: split, that is
the index of its first descriptor (descriptor i is buffer i's); packed, the buffer id in each of its
descriptors, which lie where the ring's position is, one after the other.

What the driver knows of a chain stands in private memory, in the *busy word* of its head: nothing
that the device can change is read back. A used entry names a head. It is believed if the device has
a chain of that name; then the chain goes on the list ``taken``, with the length that the entry
says, and the device has it no longer. So a name that is used twice, or was never given, is found,
and breaks the queue. How much of the ring a chain takes comes from its busy word, too.

``nfree`` counts the buffers that the device does not have. While no chain is on the list they stand
in the stack ``free``. In order (IN_ORDER) there is no stack: chains take the ring's buffers one
after the other, 0 to size - 1 and again from 0, and the first cell of ``free`` is the next one. One
used entry then may stand for all chains up to the one that it names.

Positions in a packed ring are slot | WRAP in 16 bits; the bits above count the slots that were ever
passed, which tells a lap from standing still. Rings of any size: positions are compared and
subtracted, never masked.

A packed batch is published by the flags of its first descriptor, written last; the device cannot
pass that one. One worker at a time may be here (the plan gives rx queues an owner; tx is locked).
"""

from byway.machine.jit import kernel
from byway.machine.mem import (
    ld16_acq,
    ld64,
    ld64_acq,
    ld64_once,
    likely,
    shr64,
    st16,
    st16_rel,
    st32,
    st64,
    st64_rel,
    unlikely,
)
from byway.virtio.ring import (
    AVAIL,
    DESCRIPTOR,
    ENTRIES,
    INDEX,
    NEXT,
    USED,
    WRAP,
    WRITE,
    D,
    RingError,
    driver_at,
)

SLOT = WRAP - 1  # of a position
_USED_JUMP = int(RingError.USED_JUMP)
_BAD_ID = int(RingError.BAD_ID)

# A busy word: how many descriptors the chain that begins with this buffer takes (0: the device has
# no such chain), the buffer that follows in its chain, when it was posted (modulo 65536; chains
# outstanding are never that far apart), and the bytes of the chain.
COUNT, FOLLOWING, AGE, BYTES = 0xFF, 8, 24, 40


@kernel(inline=True)
def position_after(position, n, size):
    """A packed ring's position n slots (at most ``size``) further on."""
    slot = (position & SLOT) + n
    wrap = position & WRAP
    if slot >= size:
        slot -= size
        wrap ^= WRAP
    return slot | wrap | ((position >> 16) + n) << 16


@kernel
def following(busy, buffer):
    """The buffer after ``buffer`` in its chain (only where there is one)."""
    return ld64(busy + 8 * buffer) >> FOLLOWING & 0xFFFF


@kernel
def choose(queue, n):
    """The next n free buffers as a chain; -> its head. The caller knows that there are so many."""
    d = driver_at(queue)
    free, busy = d.free, d.busy
    head = ld64(free)
    if d.in_order == 0:
        top = d.nfree - 1
        head = ld64(free + 8 * top)
        for k in range(n - 1):
            after = ld64(free + 8 * (top - k - 1))
            st64(busy + 8 * ld64(free + 8 * (top - k)), after << FOLLOWING)
        return head
    buffer = head
    for _ in range(n - 1):
        after = buffer + 1 if buffer + 1 < d.size else 0
        st64(busy + 8 * buffer, after << FOLLOWING)
        buffer = after
    return head


# ---------------------------------------------------------------- post
@kernel(inline=True)
def post_split(d, k, head, total, flags):
    """Write a chain's descriptors and the k-th available entry; -> descriptors (2.7.13)."""
    each = d.buffer_size
    buffer = head
    n = 1
    while unlikely(total > each):
        after = following(d.busy, buffer)
        at = d.desc + DESCRIPTOR * buffer
        st64(at, d.gpa + buffer * each)
        st64(at + 8, each | (flags | NEXT) << 32 | after << 48)
        total -= each
        buffer = after
        n += 1
    at = d.desc + DESCRIPTOR * buffer
    st64(at, d.gpa + buffer * each)
    st64(at + 8, total | flags << 32)
    st16(d.avail + ENTRIES + 2 * ((d.avail_idx + k) & d.mask), head)
    return n


@kernel(inline=True)
def post_packed(d, k, head, total, flags):
    """Write a chain's descriptors from the k-th slot on; -> descriptors (2.8.13).

    The flags of the first one after the position are left to ``publish``.
    """
    each, size = d.buffer_size, d.size
    position = position_after(d.avail_idx, k, size)
    buffer = head
    n = 1
    while True:
        last = total <= each
        length = total if last else each
        at = d.desc + DESCRIPTOR * (position & SLOT)
        st64(at, d.gpa + buffer * each)
        if k + n == 1:
            st32(at + 8, length)
            st16(at + 12, head)
        else:
            marks = flags | (AVAIL if position & WRAP != 0 else USED) | (0 if last else NEXT)
            st64(at + 8, length | head << 32 | marks << 48)
        if last:
            break
        total -= length
        buffer = following(d.busy, buffer)
        position = position_after(position, 1, size)
        n += 1
    return n


@kernel(inline=True)
def post(queue, chains, slots, head, total, flags):
    """Write a chain of ``total`` bytes behind ``chains`` others that take ``slots`` descriptors and
    are not published yet either; -> descriptors that it takes."""
    d = driver_at(queue)
    age = d.avail_idx + chains
    if d.packed != 0:
        age = (d.avail_idx >> 16) + slots
        n = post_packed(d, slots, head, total, flags)
    else:
        n = post_split(d, chains, head, total, flags)
    word = n | (age & 0xFFFF) << AGE | total << BYTES
    if unlikely(n > 1):
        word |= following(d.busy, head) << FOLLOWING
    st64(d.busy + 8 * head, word)
    d.nfree -= n
    if d.in_order != 0:
        after = head + n
        st64(d.free, after if after < d.size else after - d.size)
    return n


@kernel
def publish(queue, chains, slots, flags):
    """Make what was posted available (the caller kicks). ``flags``: of the first chain's first
    descriptor."""
    d = driver_at(queue)
    if unlikely(chains == 0):
        return
    position = (d.avail_idx + chains) & 0xFFFF
    if d.packed != 0:
        position = position_after(d.avail_idx, slots, d.size)
        st16_rel(d.desc + DESCRIPTOR * (d.avail_idx & SLOT) + 14,
                 flags | (AVAIL if d.avail_idx & WRAP != 0 else USED))
    else:
        st16_rel(d.avail + INDEX, position)
    st64_rel(queue + D.avail_idx, position)  # after the ring's: see kick_device


# ---------------------------------------------------------------- collect
@kernel(inline=True)
def list_used(d, head, length):
    """The device has a chain no longer: put it on the list; -> its descriptors."""
    at = d.busy + 8 * head
    word = ld64(at)
    n = word & COUNT
    st64(at, word & ~COUNT)
    st64(d.taken + 8 * d.ntaken, head | n << 16 | length << 32)
    d.ntaken += 1
    d.nfree += n
    return n


@kernel(inline=True)
def claim(d, head, length):
    """Put on the list what a used entry stands for; -> (chains, descriptors), (0, 0) for nonsense.

    In order that is every chain up to the one named; those before it were filled (2.7.9, 2.8.9).
    """
    if unlikely(head >= d.size or ld64(d.busy + 8 * head) & COUNT == 0):
        d.error = _BAD_ID
        return 0, 0
    if likely(d.in_order == 0):
        return 1, list_used(d, head, length)
    oldest = ld64(d.free) - (d.size - d.nfree)
    if oldest < 0:
        oldest += d.size
    chains = 1
    slots = 0
    while oldest != head:
        n = list_used(d, oldest, ld64(d.busy + 8 * oldest) >> BYTES)
        oldest += n
        if oldest >= d.size:
            oldest -= d.size
        chains += 1
        slots += n
    return chains, slots + list_used(d, head, length)


@kernel
def collect_split(d, wanted):
    """As ``collect``, from the used ring (2.7.14)."""
    n = (ld16_acq(d.used + INDEX) - d.used_seen) & 0xFFFF
    if unlikely(n > d.size - d.nfree):
        d.error = _USED_JUMP
        return
    seen, mask, used = d.used_seen, d.mask, d.used + ENTRIES
    done = 0
    while done < n and d.ntaken < wanted:
        word = ld64_once(used + 8 * ((seen + done) & mask))  # id:32 len:32
        chains, _ = claim(d, word & 0xFFFFFFFF, shr64(word, 32))
        done += chains
        if unlikely(chains == 0):
            break
        if unlikely(done > n):
            d.error = _USED_JUMP
    d.used_seen = (seen + done) & 0xFFFF


@kernel
def is_used(word, position):
    """Does a descriptor's second word say that it was used in the lap of ``position``? (2.8.1)"""
    return shr64(word, 48) & (AVAIL | USED) == (AVAIL | USED if position & WRAP != 0 else 0)


@kernel
def collect_packed(d, wanted):
    """As ``collect``, from the descriptor ring (2.8.14.1).

    Length, id and flags are one aligned word, read at once. Without WRITE the length says nothing
    (2.8.5): nothing was written.
    """
    position, desc, size = d.used_seen, d.desc + 8, d.size
    while d.ntaken < wanted:
        word = ld64_acq(desc + DESCRIPTOR * (position & SLOT))  # len:32 id:16 flags:16
        if not is_used(word, position):
            break
        if unlikely(d.nfree == size):
            d.error = _USED_JUMP
            break
        length = word & 0xFFFFFFFF if word >> 48 & WRITE != 0 else 0
        _, slots = claim(d, word >> 32 & 0xFFFF, length)
        if likely(slots == 1):  # the next descriptor is asked for before the busy word is there
            position = position_after(position, 1, size)
        elif slots == 0:
            break
        else:
            position = position_after(position, slots, size)
    d.used_seen = position


@kernel
def collect(queue, wanted):
    """Put chains that the device used on the list, until ``wanted`` are on it (in order: about)."""
    d = driver_at(queue)
    if d.packed != 0:
        collect_packed(d, wanted)
    else:
        collect_split(d, wanted)


@kernel
def used_more(queue):
    """Has the device used something that was not collected, or is there something on the list?"""
    d = driver_at(queue)
    if d.ntaken > 0:
        return True
    if d.packed == 0:
        return ld16_acq(d.used + INDEX) != d.used_seen
    return is_used(ld64_acq(d.desc + DESCRIPTOR * (d.used_seen & SLOT) + 8), d.used_seen)
