# SPDX-License-Identifier: Apache-2.0
"""Whose tunnel, and whose network: from an outer source address to a tunnel's port number, from a
VNI to a network's number.

Used by ports (tunnel over UDP sockets) and switch (tunnel over a port of Byway's own); control owns
one table of each kind.

Theory of operation
-------------------
The control thread writes while workers read. A word is written at once (8 bytes, aligned), and what
it leads to is there before.

*VNIs*: 24 bits in two steps of 12. A page of words is made when the first VNI on it comes, and
stays.

*Remotes*: open addressing over entries of four words: high and low half of the address (IPv4 as
::ffff:a.b.c.d, as loaded in network byte order), port number + 1, counters. The third word is
written last: 0 ends a search, GONE is passed over, but for the address that had the entry before.
No more than half of the entries are ever in use. A table that is too small is replaced, and kept
until every worker has ended its pass.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import ld64, ld64_acq, likely, mul64, shr64

_WORD: Any = np.dtype("<i8")
_LEAVES = 1 << 12
_NUMBER = (1 << 32) - 1
ENTRY = 32
HIGH, LOW, PORT, COUNTS = 0, 8, 16, 24
GONE = -1
_A, _B = -0x61C8864680B583EB, 0x6A09E667F3BCC909  # as in packet.flow
_MAPPED = 0xFFFF << 32

# table: address of mask + 1 entries behind a word that holds ``mask``.
REMOTES, remotes_at, S = record("remotes", ["table"])


@kernel
def find_vni(vnis, vni):
    """-> longest frame of the network with a VNI << 32 | its number + 1; 0: there is none."""
    page = ld64_acq(vnis + 8 * (vni >> 12 & 0xFFF))
    if page == 0:
        return 0
    return ld64_acq(page + 8 * (vni & 0xFFF))


@kernel
def network_of(vnis, vni):
    """-> the number of the network with a VNI (0 to 2^24 - 1), or -1."""
    return (find_vni(vnis, vni) & _NUMBER) - 1


def place_of(high, low):
    """Where the search for an address begins, in a table of 2^32 entries."""
    return shr64(mul64(low ^ mul64(high, _B), _A), 32)


place = kernel(place_of)


@kernel
def find_remote(remotes, high, low):
    """-> the address of a host's entry, 0 where it is not known.

    The host may go at any moment: who needs its port reads it once, and it is not below 1 then.
    """
    table = ld64_acq(remotes + S.table)
    mask = ld64(table)
    k = place(high, low) & mask
    for _ in range(mask + 1):
        entry = table + ENTRY * (k + 1)
        port = ld64_acq(entry + PORT)
        if port == 0:
            return 0
        if likely(ld64(entry + LOW) == low and ld64(entry + HIGH) == high):
            return entry if port > 0 else 0
        k = (k + 1) & mask
    return 0


@kernel
def tunnel_of(remotes, high, low):
    """-> the number of the port that is the tunnel to a host, or -1."""
    entry = find_remote(remotes, high, low)
    return max(ld64_acq(entry + PORT), 0) - 1 if entry != 0 else -1


def words_of(address: bytes) -> tuple[int, int]:
    """An IPv4 or IPv6 address (4 or 16 bytes) as the two words of its entry."""
    if len(address) == 4:
        return 0, _MAPPED | int.from_bytes(address, "big")
    high, low = (int.from_bytes(part, "big", signed=True) for part in (address[:8], address[8:]))
    return high, low


class Vnis:
    """The networks by VNI, as workers see them. ``address`` never changes."""

    def __init__(self) -> None:
        self._roots = alloc(_WORD, _LEAVES)
        self._pages: dict[int, Any] = {}
        self.address = address_of(self._roots)

    def set(self, vni: int, number: int, longest: int) -> None:
        """Frames with this VNI are of network ``number``, whose longest untagged frame has
        ``longest`` bytes."""
        root = vni >> 12
        page = self._pages.get(root)
        if page is None:
            page = self._pages[root] = alloc(_WORD, _LEAVES)
        page[vni & _LEAVES - 1] = longest << 32 | number + 1
        self._roots[root] = address_of(page)

    def drop(self, vni: int) -> None:
        """No network has this VNI any more."""
        if (page := self._pages.get(vni >> 12)) is not None:
            page[vni & _LEAVES - 1] = 0


class Remotes:
    """The tunnels by the address of their host, as workers see them. ``address`` never changes.

    ``settle`` returns when every worker has ended the pass it is in.
    """

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle
        self._known: dict[bytes, tuple[int, int]] = {}
        self._record = alloc(REMOTES, 1)
        self._table = self._laid_out(8)
        self._used = 0  # entries, those included whose host is gone
        self._record["table"] = address_of(self._table)
        self.address = address_of(self._record)

    def __len__(self) -> int:
        return len(self._known)

    def set(self, address: bytes, port: int, counters: int = 0) -> None:
        """Port number ``port`` is the tunnel to the host with this address (4 or 16 bytes); frames
        from it are counted at ``counters`` (address of a COUNTERS, 0: nowhere)."""
        self._known[address] = port, counters
        entries = len(self._table) - 1
        if 2 * (self._used + 1) > entries:
            self._replace(max(8, 1 << (4 * len(self._known) - 1).bit_length()))
        else:
            self._put(self._table, address, port, counters)

    def drop(self, address: bytes) -> None:
        """Nobody is known at this address any more. Idempotent."""
        if self._known.pop(address, None) is not None:
            self._entry(self._table, address)[2] = GONE

    def _entry(self, table: Any, address: bytes) -> Any:
        """The entry that an address has, or is to have."""
        high, low = words_of(address)
        mask = len(table) - 2
        k = place_of(high, low) & mask
        while table[k + 1][2] != 0 and (table[k + 1][0] != high or table[k + 1][1] != low):
            k = (k + 1) & mask
        return table[k + 1]

    def _put(self, table: Any, address: bytes, port: int, counters: int) -> None:
        entry = self._entry(table, address)
        if entry[2] == 0:
            self._used += 1
            entry[0], entry[1] = words_of(address)
        entry[3] = counters
        entry[2] = port + 1

    def _laid_out(self, entries: int) -> Any:
        words = ENTRY // 8
        table = alloc(_WORD, words * (entries + 1)).reshape(entries + 1, words)
        table[0][0] = entries - 1
        return table

    def _replace(self, entries: int) -> None:
        """Take another table, which has those that are known."""
        table = self._laid_out(entries)
        self._used = 0
        for address, (port, counters) in self._known.items():
            self._put(table, address, port, counters)
        self._record["table"] = address_of(table)
        self._settle()
        self._table = table
