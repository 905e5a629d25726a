# SPDX-License-Identifier: Apache-2.0
"""When a feed reads all again and when it says that etcd has lost data, with an etcd of plain data.

The real one is in tests/system/test_cluster*.py."""

from collections.abc import Iterator

import pytest

from byway.control.cluster.etcd import Access, CompactedError, EtcdError, EtcdLostError, Found
from byway.control.cluster.feed import Batch, Feed
from byway.control.cluster.layout import Layout

LAYOUT = Layout("/byway")


class FakeEtcd:
    """Has no keys but the marker. `errors`: what the next reads raise, one each (None: they
    succeed); a watch ends at once, with the error in `ends`."""

    def __init__(self) -> None:
        self.revision, self.marker = 100, b"one"
        self.errors: list[EtcdError | None] = []
        self.ends: EtcdError = EtcdLostError("etcd does not answer", "start it")

    def get(self, key: str) -> tuple[int, Found]:
        return self.revision, Found(key, self.marker, 1, 0)

    def pages(self, _part: str, revision: int = 0) -> Iterator[tuple[int, list[Found]]]:
        if self.errors and (error := self.errors.pop(0)):
            raise error
        yield revision or self.revision, []

    def watch(self, _first: str, _end: bytes, _revision: int) -> Iterator[None]:
        raise self.ends


class World:
    """A feed without its thread, and what it handed over."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.etcd = FakeEtcd()
        self.feed = Feed("hosts", Access(("192.0.2.9:1",)), LAYOUT,
                         (LAYOUT.networks, LAYOUT.entries), (LAYOUT.entries, b"z"), self.hear)
        self.feed._etcd.close()
        self.feed._etcd = self.etcd  # type: ignore[assignment]

    def hear(self, batch: Batch) -> None:
        self.batches.append(batch)

    def follow(self, attempts: int = 1) -> list[tuple[str, bool]]:
        """So many attempts; -> the kinds of what was handed over, and whether all is forgotten."""
        self.batches.clear()
        left = [None] * attempts

        class Pauses:
            """Nobody waits, and after the last attempt the feed is to end."""

            def is_set(self) -> bool:
                return not left

            def wait(self, _seconds: float) -> None:
                left.pop()

        self.feed._stopped = Pauses()  # type: ignore[assignment]
        self.feed._go_on()
        return [(batch.kind, batch.forget) for batch in self.batches if batch.kind != "lost"]


@pytest.fixture
def world() -> World:
    made = World()
    assert made.follow() == [("begin", False), ("said", False), ("said", False), ("end", False)]
    assert made.follow() == [("followed", False)]
    return made


LOST = EtcdLostError("etcd does not answer", "start it")


def ends(kinds: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """The enclosing ones."""
    return [one for one in kinds if one[0] in ("begin", "end")]


@pytest.mark.parametrize("error", [LOST, CompactedError("that revision is gone", "")])
@pytest.mark.parametrize(("marker", "revision"), [(b"one", 50), (b"two", 50), (b"two", 500)])
def test_lost_data_is_told_although_reads_fail(world: World, error: EtcdError, marker: bytes,
                                               revision: int) -> None:
    world.etcd.marker, world.etcd.revision = marker, revision
    world.etcd.errors = [error, error]
    assert ends(world.follow(3)) == [("begin", True), ("end", True)]
    assert world.follow() == [("followed", False)]


def test_lost_data_is_told_although_the_sync_is_broken_in_its_middle(world: World) -> None:
    world.etcd.revision = 50
    world.etcd.errors = [None, LOST]
    assert ends(world.follow(2)) == [("begin", True), ("begin", True), ("end", True)]


def test_a_rollback_that_is_noticed_by_compaction_is_one(world: World) -> None:
    world.etcd.ends = CompactedError("that revision is gone", "")
    assert world.follow() == [("followed", False)]
    world.etcd.revision = 50
    assert ends(world.follow()) == [("begin", True), ("end", True)]


def test_a_compaction_alone_loses_nothing(world: World) -> None:
    world.etcd.ends = CompactedError("that revision is gone", "")
    world.follow()
    world.etcd.revision = 120
    assert ends(world.follow()) == [("begin", False), ("end", False)]


def test_a_rollback_after_a_first_sync_that_was_broken_is_one() -> None:
    world = World()
    world.etcd.errors = [None, LOST]
    assert ends(world.follow()) == [("begin", False)]
    world.etcd.revision = 50
    assert ends(world.follow()) == [("begin", True), ("end", True)]
