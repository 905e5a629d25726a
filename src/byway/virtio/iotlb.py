# SPDX-License-Identifier: Apache-2.0
"""The translation cache of a device behind an IOMMU (ACCESS_PLATFORM), as kernels see it.

Used by memtab, for memory tables that name such a cache; filled by vhost.iotlb, on the control
thread. Uses machine and packet.reason.

Theory of operation
-------------------
Descriptors of such a guest carry I/O virtual addresses (IOVA). They are looked up in two places.

The *cache* has one word for each of ENTRIES places, and a page of IOVA has one place only:

    page = iova >> 12         39 bits: IOVAs end at IOVA_LIMIT, 2^51
    place = 12 bits mixed from all of the page;  tag = page >> 12, 27 bits
    word = host page (35 bits) << 29 | tag << 2 | permission (1 read, 2 write)

Place and tag together say the page. A word is written with one store, so a kernel sees the old
translation or the new one, never a mix of both; 0 permits nothing.

The *list* has all ranges that the control thread knew when it last made one: a sorted array, which
is not changed while it is published. It is made anew when a large range comes, when something that
stands in it changes, and when a known page was neither in it nor in the cache, because another one
has its place: a chain with two pages of one place would else never be found whole.

A translation is used within the pass in which it was looked up: once every worker has ended its
pass, what was removed from both places is used by nobody.

A page that is in neither is *missed*: its page and the permission that was wanted are put in one of
SLOTS slots (of PROBES, that its number leads to), the alarm rings, and the chain is tried again
later. The slot stays taken until the control thread has an answer, so a miss is told once however
often it is met, and a guest cannot make more noise than there are slots. With REFUSED set in its
slot, the address is a bad one.
"""

from typing import Any

import numpy as np

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import cas64, ld64, ld64_acq, shr64
from byway.machine.system import SYS_WRITE, syscall3
from byway.packet.reason import Reason

_BAD_ADDRESS = int(Reason.BAD_ADDRESS)
_NO_TRANSLATION = int(Reason.NO_TRANSLATION)

PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT
INDEX_BITS = 12
ENTRIES = 1 << INDEX_BITS
TAG_BITS = 27
IOVA_LIMIT = 1 << PAGE_SHIFT + INDEX_BITS + TAG_BITS
HOST_LIMIT = 1 << 47  # user addresses of x86-64 (those above have to be asked for)
READ, WRITE = 1, 2  # permissions, as the IOTLB messages of vhost-user have them
SLOTS = 256
PROBES = 16  # slots that one page may be in
REFUSED = 1 << 60
MAX_RANGES = 8192
RANGE_FIELDS = 4

_PAGE_MASK = PAGE - 1
_INDEX_MASK = ENTRIES - 1
_HOST_SHIFT = 2 + TAG_BITS
_TAG_MASK = (1 << _HOST_SHIFT) - 4
_END, _HOST, _PERMISSION = (8 * MAX_RANGES * k for k in (1, 2, 3))  # from a range's start

# alarm: event fd that tells the control thread of a miss, or -1; one: address of the 8 bytes that
# are written to it. ranges: address of the list, 0: there is none. It has n, then room for
# MAX_RANGES starts, as many ends, host addresses and permissions, sorted by start.
# taken_away: how often much was, so that pages known before may have to be asked for again.
# A slot: page << 2 | permission, perhaps REFUSED; 0: free.
IOTLB, iotlb_at, I = record("iotlb", [
    "alarm", "one", "ranges", "taken_away",
    ("slots", "<i8", (SLOTS,)), ("entries", "<i8", (ENTRIES,))])


@kernel
def place_of(page):
    """The only place where the page's translation may be."""
    return (page ^ (page >> INDEX_BITS) ^ (page >> 2 * INDEX_BITS)
            ^ (page >> 3 * INDEX_BITS)) & _INDEX_MASK


def entry_of(page: int, host: int, permission: int) -> tuple[int, int]:
    """The place and the word (unsigned) of a page's translation.

    ``host``: the address of the page's first byte, below HOST_LIMIT. For the control thread.
    """
    tag = page >> INDEX_BITS
    place = (page ^ tag ^ tag >> INDEX_BITS ^ tag >> 2 * INDEX_BITS) & _INDEX_MASK
    return place, host >> PAGE_SHIFT << _HOST_SHIFT | tag << 2 | permission


def pages_of(words: Any) -> Any:
    """The pages that the words of all ENTRIES places translate (0 where there is none)."""
    tags = (words & np.uint64(_TAG_MASK)) >> np.uint64(2)
    low = np.arange(ENTRIES, dtype=np.uint64) ^ tags
    for fold in (1, 2):
        low ^= tags >> np.uint64(fold * INDEX_BITS)
    return tags << np.uint64(INDEX_BITS) | low & np.uint64(_INDEX_MASK)


@kernel
def listed(ranges, iova, need):
    """The host address of the byte at ``iova`` by the list, or 0."""
    starts = ranges + 8
    low = 0
    high = ld64(ranges)
    while low < high:
        middle = (low + high) >> 1
        if ld64(starts + 8 * middle) <= iova:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return 0
    at = starts + 8 * (low - 1)
    if iova >= ld64(at + _END) or ld64(at + _PERMISSION) & need == 0:
        return 0
    return ld64(at + _HOST) + iova - ld64(at)


@kernel
def known(iotlb, iova, write):
    """The host address of the byte at ``iova``, or 0 where it is not known or not permitted."""
    page = shr64(iova, PAGE_SHIFT)
    tag = shr64(page, INDEX_BITS)
    word = ld64_acq(iotlb + I.entries + 8 * place_of(page))
    need = WRITE if write != 0 else READ
    if word & need != 0 and word & _TAG_MASK == tag << 2:
        return shr64(word, _HOST_SHIFT) << PAGE_SHIFT | iova & _PAGE_MASK
    ranges = ld64_acq(iotlb + I.ranges)
    if ranges == 0:
        return 0
    return listed(ranges, iova, need)


@kernel
def note_miss(iotlb, iova, write):
    """Have the control thread find out where ``iova`` lies; -> NO_TRANSLATION, or BAD_ADDRESS
    where the front end said that it lies nowhere."""
    if shr64(iova, PAGE_SHIFT + INDEX_BITS + TAG_BITS) != 0:
        return _BAD_ADDRESS
    word = shr64(iova, PAGE_SHIFT) << 2 | (WRITE if write != 0 else READ)
    slots = iotlb + I.slots
    first = word % SLOTS
    for k in range(PROBES):
        found = ld64_acq(slots + 8 * ((first + k) % SLOTS))
        if found & ~REFUSED == word:
            return _NO_TRANSLATION if found == word else _BAD_ADDRESS
    for k in range(PROBES):
        slot = slots + 8 * ((first + k) % SLOTS)
        if ld64_acq(slot) == 0 and cas64(slot, 0, word) == 0:
            if ld64(iotlb + I.alarm) >= 0:
                syscall3(SYS_WRITE, ld64(iotlb + I.alarm), ld64(iotlb + I.one), 8)
            break
    return _NO_TRANSLATION
