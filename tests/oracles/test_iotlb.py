# SPDX-License-Identifier: Apache-2.0
"""Translations behind an IOMMU against a dictionary of pages."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.packet.reason import Reason
from byway.testing.iotlb_kernels import bytes_at_iova, iova_to_host, miss_iova
from byway.vhost.front_channel import INVALIDATE, UPDATE
from byway.vhost.iotlb import Iotlb
from byway.vhost.messages import Refused
from byway.vhost.payloads import Iotlb as Translation
from byway.virtio.iotlb import ENTRIES, IOVA_LIMIT, PAGE
from tests.unit.vhost.fake_iommu import HOST, MEMORY, USER, FakeClock, FakeMemory

NO_TRANSLATION, BAD_ADDRESS = int(Reason.NO_TRANSLATION), int(Reason.BAD_ADDRESS)
Pages = dict[int, tuple[int, int]]  # page of IOVA -> host address, permission

# Pages near each other, pages that share their place in the cache, and the ends of all addresses.
_LAST = (IOVA_LIMIT >> 12) - 1
pages = st.one_of(
    st.integers(0, 24), st.integers(0, 24).map(lambda k: ENTRIES * (k + 1) + (k ^ k + 1)),
    st.integers(_LAST - 3, _LAST), st.integers(0, _LAST))
sizes = st.one_of(st.integers(1, 40), st.just(4000), st.just(1))
steps = st.lists(st.one_of(
    st.tuples(st.just("update"), pages, sizes, st.integers(0, 200), st.integers(1, 3)),
    st.tuples(st.just("invalidate"), pages, sizes, st.integers(0, PAGE), st.integers(0, PAGE)),
    st.tuples(st.just("look"), pages, st.integers(0, PAGE - 1), st.integers(1, PAGE),
              st.integers(0, 1)),
    st.tuples(st.just("serve"), pages, st.just(0), st.just(0), st.just(0)),
), max_size=40)


class Check:
    """The Iotlb, and the dictionary that it should agree with."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.iotlb = Iotlb(FakeMemory(), lambda: None, self.clock.now)  # type: ignore[arg-type]
        self.iotlb.hear(-1, self.clock.later)
        self.naive: Pages = {}

    def update(self, page: int, size: int, offset: int, permission: int) -> None:
        message = Translation(page * PAGE, size * PAGE, USER + offset * PAGE, permission, UPDATE)
        if page + size - 1 > _LAST or (offset + size) * PAGE > MEMORY:
            try:
                self.iotlb.take(message)
            except Refused:
                return
            raise AssertionError("taken")
        self.iotlb.take(message)
        for k in range(size):
            self.naive[page + k] = (HOST + (offset + k) * PAGE, permission)

    def invalidate(self, page: int, size: int, into: int, cut: int) -> None:
        start = page * PAGE + into
        length = max(size * PAGE - cut, 1)
        self.iotlb.take(Translation(start, length, 0, 0, INVALIDATE))
        last = start + length - 1 >> 12
        self.naive = {p: v for p, v in self.naive.items() if not start >> 12 <= p <= last}

    def look(self, page: int, offset: int, n: int, write: int) -> None:
        """A hit is right; after a miss and a look at the slots it is there, if it is anywhere."""
        iova, need, table = page * PAGE + offset, 1 + write, self.iotlb.table
        host, permission = self.naive.get(page, (0, 0))
        fits = offset + n <= PAGE
        right = host + offset if permission & need and fits else 0
        assert iova_to_host(table, iova, n, write) in (0, right)
        left = PAGE - offset if permission & need else 0
        found = bytes_at_iova(table, iova, write)
        assert found in (0, left)
        if not found:
            assert miss_iova(table, iova, write) == NO_TRANSLATION
            self.iotlb.serve()
            assert iova_to_host(table, iova, n, write) == right
            assert bytes_at_iova(table, iova, write) == left

    def serve(self, *_: Any) -> None:
        self.clock.advance(0.7)
        self.iotlb.serve()


@settings(max_examples=60 if INTERPRETED else 400, deadline=None)
@given(steps)
def test_as_a_dictionary_of_pages(todo: list[tuple[Any, ...]]) -> None:
    check = Check()
    for step, *arguments in todo:
        if step == "look":
            page, _, _, write = arguments
            if miss_iova(check.iotlb.table, page * PAGE, write) == BAD_ADDRESS:
                # nobody answered for too long: nothing there, or nothing permitted
                assert not check.naive.get(page, (0, 0))[1] & 1 + write
                continue
        getattr(check, step)(*arguments)
    check.iotlb.close()
    assert check.clock.timers == []
