# SPDX-License-Identifier: Apache-2.0
"""What others say: one part of etcd's keys, read whole once and then followed.

Used by cluster, which has two: who is where, and the ports that this host is to have. Uses etcd and
layout.

Theory of operation
-------------------
A thread of its own does what blocks: it reads all keys as of one revision, page by page (the
*sync*), then watches from the next revision on. Values are understood here, so that the control
thread gets what it can act on, in batches, through a queue that has few places: where the control
thread is slow the thread waits, then etcd does.

A lost connection takes nothing back. The watch goes on at the revision that was heard last; only
where etcd has compacted that away is everything read again. Where etcd has lost its data, or was
put back to an older state, its revisions mean nothing any more: the key `cluster`, a random name
made once, is another one, or the revision is lower than one heard before. The next sync is told as
`forget`, and so is every other until one has ended.

Pauses between attempts grow to PAUSES[-1] and are shaken, so that a thousand hosts do not come back
in one moment. All waiting is for events with a time-out: the clock of the day plays no part.
"""

import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from byway.control.cluster.etcd import Access, CompactedError, Etcd, EtcdError, absent, put
from byway.control.cluster.layout import Layout, Said

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between attempts
PLACES = 32  # batches that wait for the control thread

# Hosts before what is behind them, and a host's end after that.
_ORDER = {"put_host": 0, "put_network": 0, "drop_network": 0, "drop_host": 2}


@dataclass(frozen=True)
class Batch:
    """What a feed hands over. `said`: (version, what) as layout.read gives it.

    "begin" and "end" enclose a sync; what is `said` between them has its revision for a version.
    "lost": no connection, `sentence` says why; "followed": everything up to `revision` has come."""

    feed: str
    kind: Literal["begin", "said", "end", "followed", "lost"]
    revision: int = 0
    said: Sequence[tuple[int, Said]] = ()
    forget: bool = False
    sentence: str = ""


class Feed:
    """`parts`: what the keys of a sync begin with, in order; `first`..`end`: what is watched."""

    def __init__(self, name: str, access: Access, layout: Layout, parts: Sequence[str],
                 watched: tuple[str, bytes], hand_over: Callable[[Batch], None]) -> None:
        self.name = name
        self.bad: dict[str, str] = {}  # what is wrong with a key's value, by key
        self._etcd = Etcd(access)
        self._layout = layout
        self._parts = parts
        self._watched = watched
        self._hand_over = hand_over
        self._marker = b""
        self.revision = 0  # the last one that was heard of; 0: nothing yet
        self._again = False  # all is to be read, although something was
        self._forget = False  # etcd has lost data, and no sync has ended since
        self.heard = 0.0  # when etcd last said anything (monotonic)
        self._stopped = threading.Event()
        self._watch_lock = threading.Lock()
        self._cancel: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"feed {name}", daemon=True)

    def start(self) -> None:
        """Begin; what is said comes by `hand_over`, on the feed's own thread."""
        self._thread.start()

    def stop(self) -> None:
        """End; nothing is handed over afterwards. Idempotent."""
        self._stopped.set()
        with self._watch_lock:
            if self._cancel is not None:
                self._cancel()
        self._etcd.close()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def stopped(self) -> bool:
        """Whether it is to end: whoever waits in `hand_over` gives up."""
        return self._stopped.is_set()

    @property
    def member(self) -> str:
        """The member of etcd that is asked."""
        return self._etcd.member

    def _run(self) -> None:
        try:
            self._go_on()
        finally:
            if not self._stopped.is_set():  # the traceback is on stderr
                self._hand_over(Batch(self.name, "lost", sentence=(
                    f"the feed of {self.name} has ended by an error of Byway's own; restart it")))

    def _go_on(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            before = self.heard
            try:
                self._follow()
            except CompactedError:
                self._again = True
            except EtcdError as error:
                if self._stopped.is_set():
                    return
                self._hand_over(Batch(self.name, "lost", sentence=str(error)))
            failures = 0 if self.heard != before else min(failures + 1, len(PAUSES) - 1)
            self._stopped.wait(PAUSES[failures] * random.uniform(0.5, 1.0))

    def _follow(self) -> None:
        """Be up to date, then hear what happens; ends with an EtcdError."""
        marker, revision = self._identity()
        known = self._marker != b""
        if known and (marker != self._marker or revision < self.revision):
            self._forget = True  # until a sync has ended, however many it takes
        self._marker = marker
        if self._forget or self._again or not self.revision:
            self._sync(self._forget)
        else:
            self._hand_over(Batch(self.name, "followed", self.revision))
        watch = self._etcd.watch(*self._watched, self.revision + 1)
        with self._watch_lock:
            self._cancel = watch.cancel
            if self._stopped.is_set():
                watch.cancel()
        for happened in watch:
            self.heard = time.monotonic()
            said = self._read(happened.changes)
            self._hand_over(Batch(self.name, "said", happened.revision, said))
            self._hand_over(Batch(self.name, "followed", happened.revision))
            self.revision = happened.revision

    def _identity(self) -> tuple[bytes, int]:
        """(etcd's random name in this cluster, its revision)."""
        key = self._layout.marker
        while True:
            revision, found = self._etcd.get(key)
            self.heard = time.monotonic()
            if found is not None:
                return found.value, revision
            self._etcd.change([absent(key)], [put(key, uuid.uuid4().hex.encode())])

    def _sync(self, forget: bool) -> None:
        self._again = True
        self.bad = {}
        revision = 0
        for part in self._parts:
            for at, found in self._etcd.pages(part, revision):
                if not revision:
                    revision = self.revision = at
                    self._hand_over(Batch(self.name, "begin", revision, forget=forget))
                self.heard = time.monotonic()
                said = self._read([(revision, one.key, one.value) for one in found])
                self._hand_over(Batch(self.name, "said", revision, said))
        self._hand_over(Batch(self.name, "end", revision, forget=forget))
        self._again = self._forget = False

    def _read(self, changes: Sequence[tuple[int, str, bytes | None]]) -> list[tuple[int, Said]]:
        said: list[tuple[int, Said]] = []
        for version, key, value in changes:
            try:
                one = self._layout.read(key, value)
            except ValueError as error:
                if value is None:  # what was wrong is gone
                    self.bad.pop(key, None)
                    continue
                self.bad[key] = str(error)
                said.append((version, ("bad", key, f"{key} is ignored: {error}")))
                continue
            self.bad.pop(key, None)
            if one is not None:
                said.append((version, one))
        said.sort(key=lambda one: _ORDER.get(one[1][0], 1))
        return said


class Handover:
    """The few places between feeds and the control thread. `wake` is called after each batch."""

    def __init__(self, wake: Callable[[], None], places: int = PLACES) -> None:
        self._queue: queue.Queue[Batch] = queue.Queue(places)
        self._wake = wake
        self._closed = threading.Event()

    def put(self, batch: Batch) -> None:
        """From a feed's thread: waits for a place; without effect once closed."""
        while not self._closed.is_set():
            try:
                self._queue.put(batch, timeout=0.5)
            except queue.Full:
                continue
            self._wake()
            return

    def take(self) -> Batch | None:
        """On the control thread: the next batch, None where there is none."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Nobody takes any more: who waits for a place goes on."""
        self._closed.set()
