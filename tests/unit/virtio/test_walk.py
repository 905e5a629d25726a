# SPDX-License-Identifier: Apache-2.0
"""The chain walk: what each kind of malformed chain is called, in both directions."""

import struct
from collections.abc import Iterator

import pytest

from byway.packet.batch import MAX_CHAIN
from byway.packet.reason import Reason
from byway.testing.device import Device
from byway.testing.guarded import Guarded
from byway.virtio.features import Feature, mask
from byway.virtio.ring import INDIRECT, NEXT, WRITE, RingError

GPA, SIZE = 0x10000, 256
DESC, AVAIL, USED, TABLE, DATA = 0, 0x1000, 0x1400, 0x2000, 0x4000
Descriptor = tuple[int, int, int, int]  # gpa, length, flags, next
OK = (GPA + DATA, 72, 0, 0)
FEATURES = mask(Feature.VERSION_1, Feature.INDIRECT_DESC)


@pytest.fixture(scope="module")
def memory() -> Iterator[tuple[Guarded, Guarded]]:
    """Two regions, the second right behind the first in guest addresses."""
    both = Guarded(0x8000), Guarded(0x1000)
    yield both
    for piece in both:
        piece.close()


class Guest:
    """A ring written by hand: one chain, its head is descriptor 0."""

    def __init__(self, memory: tuple[Guarded, Guarded], features: int = FEATURES) -> None:
        self.first, second = memory
        self.first.view[:] = 0
        at = self.first.address
        self.device = Device(
            [(GPA, at, self.first.size), (GPA + self.first.size, second.address, second.size)],
            SIZE, at + DESC, at + AVAIL, at + USED, features)

    def write(self, at: int, data: bytes) -> None:
        self.first.view[at : at + len(data)] = list(data)

    def table(self, at: int, descriptors: dict[int, Descriptor]) -> None:
        for index, d in descriptors.items():
            self.write(at + 16 * index, struct.pack("<QIHH", d[0] % 2**64, *d[1:]))

    def make_available(self, *heads: int) -> None:
        self.write(AVAIL, struct.pack(f"<HH{len(heads)}H", 0, len(heads), *heads))

    def used(self) -> list[tuple[int, int]]:
        n = struct.unpack("<H", bytes(self.first.view[USED + 2 : USED + 4]))[0]
        raw = bytes(self.first.view[USED + 4 : USED + 4 + 8 * n])
        return list(struct.iter_unpack("<II", raw))


CHAINS: list[tuple[str, Reason, dict[int, Descriptor], dict[int, Descriptor]]] = [
    ("loop", Reason.LONG_CHAIN, {0: (GPA + DATA, 72, NEXT, 1), 1: (GPA + DATA, 1, NEXT, 0)}, {}),
    ("itself", Reason.LONG_CHAIN, {0: (GPA + DATA, 0, NEXT, 0)}, {}),
    ("next outside", Reason.BAD_CHAIN, {0: (GPA + DATA, 72, NEXT, SIZE)}, {}),
    ("next far outside", Reason.BAD_CHAIN, {0: (GPA + DATA, 72, NEXT, 65535)}, {}),
    ("nowhere", Reason.BAD_ADDRESS, {0: (1, 72, 0, 0)}, {}),
    ("before", Reason.BAD_ADDRESS, {0: (GPA - 1, 72, 0, 0)}, {}),
    ("beyond", Reason.BAD_ADDRESS, {0: (GPA + 0x9000 - 71, 72, 0, 0)}, {}),
    ("wraps", Reason.BAD_ADDRESS, {0: (-16, 72, 0, 0)}, {}),
    ("negative", Reason.BAD_ADDRESS, {0: (1 << 63, 72, 0, 0)}, {}),
    ("4 GiB", Reason.BAD_ADDRESS, {0: (GPA + DATA, 0xFFFFFFFF, NEXT, 1), 1: OK}, {}),
    ("second nowhere", Reason.BAD_ADDRESS, {0: (GPA + DATA, 72, NEXT, 1), 1: (5, 9, 0, 0)}, {}),
    ("empty table", Reason.BAD_CHAIN, {0: (GPA + TABLE, 0, INDIRECT, 0)}, {0: OK}),
    ("half a table", Reason.BAD_CHAIN, {0: (GPA + TABLE, 24, INDIRECT, 0)}, {0: OK}),
    ("table and next", Reason.BAD_CHAIN, {0: (GPA + TABLE, 16, INDIRECT | NEXT, 1), 1: OK},
     {0: OK}),
    ("nested", Reason.BAD_CHAIN, {0: (GPA + TABLE, 32, INDIRECT, 0)},
     {0: (GPA + TABLE + 16, 16, INDIRECT, 0), 1: OK}),
    ("table nowhere", Reason.BAD_ADDRESS, {0: (3, 32, INDIRECT, 0)}, {}),
    ("table beyond", Reason.BAD_ADDRESS, {0: (GPA + 0x9000 - 8, 16, INDIRECT, 0)}, {}),
    ("next outside the table", Reason.BAD_CHAIN, {0: (GPA + TABLE, 32, INDIRECT, 0)},
     {0: (GPA + DATA, 72, NEXT, 2)}),
    ("loop in a table", Reason.LONG_CHAIN, {0: (GPA + TABLE, 32, INDIRECT, 0)},
     {0: (GPA + DATA, 72, NEXT, 1), 1: (GPA + DATA, 1, NEXT, 0)}),
]


def turned(descriptors: dict[int, Descriptor]) -> dict[int, Descriptor]:
    """The same chain with writable buffers."""
    return {i: (a, n, flags if flags & INDIRECT else flags | WRITE, following)
            for i, (a, n, flags, following) in descriptors.items()}


@pytest.mark.parametrize(("name", "reason", "direct", "table"), CHAINS, ids=[c[0] for c in CHAINS])
@pytest.mark.parametrize("towards", [False, True])
def test_malformed(memory: tuple[Guarded, Guarded], name: str, reason: Reason,
                   direct: dict[int, Descriptor], table: dict[int, Descriptor],
                   towards: bool) -> None:
    """One chain is dropped, its buffer goes back with length 0, the next one is served."""
    guest = Guest(memory)
    good = {7: OK}
    guest.table(DESC, turned(direct | good) if towards else direct | good)
    guest.table(TABLE, turned(table) if towards else table)
    guest.make_available(0, 7)
    if towards:
        assert guest.device.deliver([bytes(60), bytes(60)]) == 1
        assert guest.device.drops == {reason.name.lower(): 1}
        assert guest.used() == [(0, 0), (7, 72)]
    else:
        assert guest.device.take() == [reason, bytes(60)]
        assert guest.used() == [(0, 0), (7, 0)]
    assert guest.device.error is None


@pytest.mark.parametrize(("towards", "flags"), [(False, WRITE), (True, 0)])
@pytest.mark.parametrize("second", [False, True])
def test_the_wrong_direction(memory: tuple[Guarded, Guarded], towards: bool, flags: int,
                             second: bool) -> None:
    guest = Guest(memory)
    right = WRITE - flags
    chain = {0: (GPA + DATA, 40, right | NEXT, 1), 1: (GPA + DATA, 40, flags, 0)}
    guest.table(DESC, chain if second else {0: (GPA + DATA, 72, flags, 0)})
    guest.make_available(0)
    if towards:
        assert guest.device.deliver([bytes(60)]) == 0
        assert guest.device.drops == {"bad_direction": 1}
    else:
        assert guest.device.take() == [Reason.BAD_DIRECTION]


@pytest.mark.parametrize("features", [0, mask(Feature.VERSION_1)])
def test_indirect_where_it_was_not_negotiated(memory: tuple[Guarded, Guarded],
                                              features: int) -> None:
    guest = Guest(memory, features)
    guest.table(DESC, {0: (GPA + TABLE, 16, INDIRECT, 0)})
    guest.table(TABLE, {0: OK})
    guest.make_available(0)
    assert guest.device.take() == [Reason.BAD_CHAIN]


@pytest.mark.parametrize("length", [MAX_CHAIN, MAX_CHAIN + 1])
@pytest.mark.parametrize("indirect", [False, True])
def test_the_longest_chain(memory: tuple[Guarded, Guarded], length: int, indirect: bool) -> None:
    guest = Guest(memory)
    chain = {k: (GPA + DATA + 100 * k, 1, NEXT if k + 1 < length else 0, k + 1)
             for k in range(length)}
    for k in range(length):
        guest.write(DATA + 100 * k, bytes([k]))
    if indirect:
        guest.table(TABLE, chain)
        guest.table(DESC, {0: (GPA + TABLE, 16 * length, INDIRECT, 0)})
    else:
        guest.table(DESC, chain)
    guest.make_available(0)
    expected = bytes(range(12, length)) if length == MAX_CHAIN else Reason.LONG_CHAIN
    assert guest.device.take() == [expected]


def test_a_buffer_across_two_regions(memory: tuple[Guarded, Guarded]) -> None:
    guest = Guest(memory)
    end = memory[0].size
    guest.table(DESC, {0: (GPA + end - 40, 112, 0, 0)})
    guest.write(end - 40, bytes(range(40)))
    memory[1].view[:72] = list(range(100, 172))
    guest.make_available(0)
    assert guest.device.take() == [bytes(range(12, 40)) + bytes(range(100, 172))]


@pytest.mark.parametrize("towards", [False, True])
@pytest.mark.parametrize(("offset", "fits"), [(-1, False), (0, True), (1, False)])
@pytest.mark.parametrize("end", [False, True])
def test_the_edges_of_the_only_region(memory: tuple[Guarded, Guarded], towards: bool, end: bool,
                                      offset: int, fits: bool) -> None:
    """A plain buffer at the very start or end of memory, and one byte beside it."""
    guest = Guest(memory)
    at = guest.first.address
    device = Device([(GPA, at, guest.first.size)], SIZE, at + DESC, at + AVAIL, at + USED, FEATURES)
    gpa = GPA + (guest.first.size - 72 if end else 0) + offset
    fits |= offset == (-1 if end else 1)
    guest.table(DESC, {200: (gpa, 72, WRITE if towards else 0, 0)})
    guest.make_available(200)
    if towards:
        assert device.deliver([bytes(60)]) == fits
        assert device.drops == ({} if fits else {"bad_address": 1})
    elif fits:
        assert device.take() == [bytes(guest.first.view[gpa - GPA + 12 : gpa - GPA + 72])]
    else:
        assert device.take() == [Reason.BAD_ADDRESS]


@pytest.mark.parametrize("towards", [False, True])
@pytest.mark.parametrize(("idx", "heads", "error"), [
    (SIZE + 1, [0], RingError.AVAIL_JUMP), (65535, [0], RingError.AVAIL_JUMP),
    (2, [0, SIZE], RingError.BAD_HEAD), (2, [0, 65535], RingError.BAD_HEAD)])
def test_what_breaks_the_ring(memory: tuple[Guarded, Guarded], towards: bool, idx: int,
                              heads: list[int], error: RingError) -> None:
    """What came before the bad entry is served and given back; then the ring is left alone."""
    guest = Guest(memory)
    guest.table(DESC, turned({0: OK}) if towards else {0: OK})
    guest.make_available(*heads)
    guest.write(AVAIL + 2, struct.pack("<H", idx))
    served = 1 if error is RingError.BAD_HEAD else 0
    if towards:
        assert guest.device.deliver([bytes(60)] * 3) == served
        assert guest.device.drops == {"no_buffers": 3 - served}
    else:
        assert guest.device.borrow() == [bytes(60)] * served
        guest.device.give_back()
    assert guest.device.error is error
    assert guest.used() == [(0, 72 if towards else 0)] * served
