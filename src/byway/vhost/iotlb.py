# SPDX-License-Identifier: Apache-2.0
"""Translations of a guest behind an IOMMU: what the front end sent, and the questions to it.

Used by the back end where ACCESS_PLATFORM was negotiated; uses memory, intervals and
virtio.iotlb, whose cache it fills. vhost-user specification, "IOMMU support".

Theory of operation
-------------------
Everything here happens on the control thread; workers read the cache and the list, and put what
they miss into slots (virtio.iotlb). The alarm then rings, and the owner calls ``serve``: where the
front end has told a page already, workers get a new list of all ranges; otherwise the front end is
asked through ``ask``, and nobody waits. Its answer is an UPDATE (``take``) like any other. A
question is repeated after RETRY_SECONDS, and when the front end says that there is nothing at the
address (``refused``) and a worker wants it still. After TRIES of them workers are told that the
address is bad, for REFUSED_SECONDS: the guest's virtqueue goes on.

An UPDATE is taken if it is made of whole pages and lies in the memory that the front end shares.
An INVALIDATE returns when no worker uses what it removed; the owner acknowledges it after that. A
ring lies at addresses that ``locate`` finds in one piece of host memory, or asks for; the owner
looks again after each UPDATE, and leaves the rings that an INVALIDATE ``touches`` before it.

Limits: MAX_RANGES ranges, the oldest go; QUESTIONS questions; ENTRIES cached pages. A message of
any kind and size costs time in proportion to these at the most.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.vhost.front_channel import INVALIDATE, UPDATE
from byway.vhost.intervals import Interval, Intervals
from byway.vhost.memory import Memory
from byway.vhost.messages import ProtocolError, Refused
from byway.vhost.payloads import Iotlb as Translation
from byway.virtio.iotlb import (
    IOTLB,
    IOVA_LIMIT,
    MAX_RANGES,
    PAGE,
    PAGE_SHIFT,
    RANGE_FIELDS,
    READ,
    REFUSED,
    WRITE,
    entry_of,
    pages_of,
)
from byway.virtio.memtab import MEMTAB

QUESTIONS = 384  # more than workers may ask, so that rings can
EAGER = 16  # pages of an update that go into the cache one by one; more make a new list
RETRY_SECONDS = 0.5
TRIES = 4
REFUSED_SECONDS = 2.0
FORGET_SECONDS = 8.0  # after which an answer "no" does not count any more
RING_QUESTIONS = 16  # asked at once for the pages of one part of a ring

Later = Callable[[float, Callable[[], None]], Any]


class Timer(Protocol):
    """What ``later`` gives."""

    def cancel(self) -> None:
        """It is not to ring."""


@dataclass
class Question:
    """A page and a permission that the front end was asked for."""

    asked: float
    tries: int = 1


def _nobody(iova: int, permission: int) -> bool:
    return False


def touches(message: Translation, iova: int, n: int) -> bool:
    """Whether an INVALIDATE or UPDATE changes the translation of any of [iova, iova + n)."""
    start, end = _outward(message)
    return start < iova + n and iova < end


def _outward(message: Translation) -> tuple[int, int]:
    """The whole pages that a message is about; a size of 0 is 2^64, cut to 64 bits."""
    start = message.iova // PAGE * PAGE
    end = -(-(message.iova + message.size) // PAGE) * PAGE if message.size else IOVA_LIMIT
    return start, min(end, IOVA_LIMIT)


class Iotlb:
    """The translations of one connection.

    ``settle`` returns when no worker uses a translation that it looked up before. ``ask`` sends
    one question to the front end; -> whether it could.
    """

    def __init__(self, memory: Memory, settle: Callable[[], None],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.ask: Callable[[int, int], bool] = _nobody
        self.misses = 0
        self._memory = memory
        self._settle = settle
        self._clock = clock
        self._later: Later | None = None
        self._timer: Timer | None = None
        self._intervals = Intervals(MAX_RANGES)
        self._questions: dict[int, Question] = {}  # by page << 2 | permission
        self._refused: dict[int, float] = {}  # the same, in slots; since when
        self._noes: dict[int, Question] = {}  # the same; since when there was no answer, how often
        self._one = np.ones(1, np.int64)
        self._record = alloc(IOTLB, 1)
        self._record["alarm"], self._record["one"] = -1, address_of(self._one)
        self._record["taken_away"] = 1  # a queue's ``ahead`` begins as 0: it has looked at nothing
        self._slots = self._record["slots"][0]
        self._entries = self._record["entries"][0].view(np.uint64)
        self._lists = [np.zeros(1 + RANGE_FIELDS * MAX_RANGES, np.int64) for _ in range(2)]
        self._spare_read = False  # workers may still be reading the list that is not published
        self._table = alloc(MEMTAB, 1)
        self._table["iotlb"] = address_of(self._record)

    @property
    def table(self) -> int:
        """The address of the MEMTAB record for virtqueues of this device."""
        return address_of(self._table)

    def __len__(self) -> int:
        return len(self._intervals)

    def hear(self, alarm: int, later: Later) -> None:
        """Let workers ring the event fd ``alarm`` when they miss a page; whoever hears it calls
        ``serve``. ``later(seconds, function)``: an event loop's call_later."""
        self._record["alarm"] = alarm
        self._later = later

    # ------------------------------------------------------------ what the front end says
    def take(self, message: Translation) -> None:
        """UPDATE or INVALIDATE; afterwards workers use what it says. Refused: nothing changed."""
        if message.kind == UPDATE:
            self._update(message)
        elif message.kind == INVALIDATE:
            start, end = _outward(message)
            self._intervals.remove(start, end)
            if self._is_listed(start, end):
                self._publish()
            self._drop(start, end)
            if end - start > EAGER * PAGE:
                self._record["taken_away"] += 1
            self._settle_all()
        else:
            raise Refused(f"an IOTLB message of type {message.kind}")

    def _update(self, message: Translation) -> None:
        iova, size, permission = message.iova, message.size, message.permission
        what = f"a translation of {size:#x} bytes at {iova:#x}"
        if not READ <= permission <= READ | WRITE:
            raise Refused(f"{what} with the permission {permission}")
        if size == 0 or iova + size > IOVA_LIMIT:
            raise Refused(f"{what}: empty, or beyond {IOVA_LIMIT:#x}")
        host = self._memory.user_to_host(message.user, size)
        if host is None:
            raise Refused(f"{what} to user address {message.user:#x}, which is not shared")
        if (iova | size | host) % PAGE:
            raise Refused(f"{what} to user address {message.user:#x}: no whole pages")
        self._intervals.add(Interval(iova, iova + size, host, permission))
        few = size <= EAGER * PAGE
        if not few or self._is_listed(iova, iova + size):
            self._publish()
        if few:
            for offset in range(0, size, PAGE):
                self._enter(iova + offset >> PAGE_SHIFT, host + offset, permission)
        else:
            self._drop(iova, iova + size)
        self._answer(iova, iova + size, host, permission)

    def _answer(self, start: int, end: int, host: int, permission: int) -> None:
        """Whoever asked for a page in [start, end) has it now."""
        for word in [*self._questions, *self._refused]:
            iova, wanted = _asked(word)
            if start <= iova < end and wanted & ~permission == 0:
                self._enter(word >> 2, host + iova - start, permission)
                self._free(word)

    def refused(self, iova: int, permission: int) -> None:
        """The front end says that it has no answer to a question.

        The guest may have mapped the page again meanwhile, so whoever still wants it asks anew; but
        not more than TRIES times.
        """
        word = iova >> PAGE_SHIFT << 2 | permission
        if word not in self._questions or not (self._slots == word).any():
            return
        if len(self._noes) >= QUESTIONS:
            self._noes.clear()
        no = self._noes.setdefault(word, Question(self._clock(), 0))
        no.tries += 1
        if no.tries >= TRIES:
            del self._noes[word]
            self._give_up(word)
        else:
            self._free(word)
            self._arm()

    def clear(self) -> None:
        """Forget everything: the memory is another. Workers are away, or ``settle`` follows."""
        self._intervals.clear()
        self._publish()
        self._record["taken_away"] += 1
        self._entries[:] = 0
        self._slots[:] = 0
        self._questions.clear()
        self._refused.clear()
        self._noes.clear()

    def close(self) -> None:
        """Ask no more. Idempotent."""
        self._questions.clear()
        self._refused.clear()
        self._noes.clear()
        self.ask, self._later = _nobody, None
        if self._timer:
            self._timer.cancel()
            self._timer = None

    # ------------------------------------------------------------ what the rings need
    def locate(self, iova: int, n: int, permission: int = READ | WRITE) -> int | None:
        """The host address of [iova, iova + n), None where the front end is being asked for it.

        ProtocolError where it lies in several pieces, or beyond all addresses.
        """
        if iova + n > IOVA_LIMIT:
            raise ProtocolError(f"{n:#x} bytes at {iova:#x}, beyond {IOVA_LIMIT:#x}")
        host, at, missing = None, iova, 0
        while at < iova + n and missing < RING_QUESTIONS:
            found = self._intervals.find(at)
            if not found or permission & ~found.permission:
                self._put(at >> PAGE_SHIFT << 2 | permission)
                missing += 1
                at = (at // PAGE + 1) * PAGE
                continue
            begin = found.host + iova - found.start  # where all of it would begin
            if host not in (None, begin):
                raise ProtocolError(f"{n:#x} bytes at {iova:#x} lie in several pieces of memory")
            host, at = begin, found.end
        return None if missing else host

    # ------------------------------------------------------------ what workers miss
    def serve(self) -> None:
        """The alarm rang: look at the slots."""
        told = []
        for word in self._slots[self._slots != 0].tolist():
            if word & REFUSED or word in self._questions:
                continue
            iova, wanted = _asked(word)
            found = self._intervals.find(iova)
            self.misses += 1
            if found and wanted & ~found.permission == 0:
                told.append(word)
            else:
                self._put(word)
        if told:
            self._publish()
            for word in told:
                self._free(word)

    def _put(self, word: int) -> None:
        """Ask for a page, unless it was asked for already or there are too many questions."""
        if word not in self._questions and len(self._questions) < QUESTIONS:
            self._questions[word] = Question(self._clock())
            self.ask(*_asked(word))
            self._arm()

    def _give_up(self, word: int) -> None:
        self._questions.pop(word, None)
        waiting = self._slots == word
        if waiting.any():
            self._slots[waiting] = word | REFUSED
            self._refused[word] = self._clock()
            self._arm()

    def _free(self, word: int) -> None:
        """The page is known, or may be asked for anew."""
        self._questions.pop(word, None)
        self._refused.pop(word, None)
        self._slots[(self._slots & ~REFUSED) == word] = 0

    def _arm(self) -> None:
        if self._later and not self._timer:
            self._timer = self._later(RETRY_SECONDS, self._tick)

    def _tick(self) -> None:
        """Time has passed: ask again, give up, forget what was refused long ago."""
        self._timer = None
        now = self._clock()
        for word, question in list(self._questions.items()):
            if now - question.asked < RETRY_SECONDS:
                continue
            if question.tries >= TRIES:
                self._give_up(word)
            else:
                question.asked, question.tries = now, question.tries + 1
                self.ask(*_asked(word))
        for word, since in list(self._refused.items()):
            if now - since >= REFUSED_SECONDS:
                self._free(word)
        self._noes = {word: no for word, no in self._noes.items()
                      if now - no.asked < FORGET_SECONDS}
        self.serve()  # questions for which there was no room
        if self._questions or self._refused or self._noes:
            self._arm()

    # ------------------------------------------------------------ the cache and the list
    def _enter(self, page: int, host: int, permission: int) -> None:
        place, word = entry_of(page, host, permission)
        self._entries[place] = word

    def _drop(self, start: int, end: int) -> None:
        """Take the pages of [start, end) out of the cache."""
        pages = pages_of(self._entries)
        gone = (pages >= start >> PAGE_SHIFT) & (pages < end >> PAGE_SHIFT)
        self._entries[gone] = 0

    def _is_listed(self, start: int, end: int) -> bool:
        """Whether workers see a list that translates anything of [start, end)."""
        published = self._lists[1]
        n = int(published[0])
        starts, ends = published[1:].reshape(RANGE_FIELDS, MAX_RANGES)[:2, :n]
        at = int(np.searchsorted(starts, end))  # the first that begins behind it
        return at > 0 and bool(ends[at - 1] > start)

    def _publish(self) -> None:
        """Give workers a list of all that is known now, in place of the one before."""
        if self._spare_read:
            self._settle_all()
        spare, used = self._lists
        columns = self._intervals.columns()
        n = columns.shape[1]
        spare[0] = n
        spare[1:].reshape(RANGE_FIELDS, MAX_RANGES)[:, :n] = columns
        self._spare_read = bool(self._record["ranges"][0])
        self._record["ranges"] = address_of(spare)
        self._lists = [used, spare]

    def _settle_all(self) -> None:
        self._settle()
        self._spare_read = False


def _asked(word: int) -> tuple[int, int]:
    """The address and the permission of a question."""
    return word >> 2 << PAGE_SHIFT, word & 3
