# SPDX-License-Identifier: Apache-2.0
"""What was heard becomes true here: hosts and entries go to the population, networks and ports to
the desk, in slices that leave the control thread free.

Used by cluster. Uses feed's batches, the population, and a `Desk`. Belongs to the control thread.

Goal and states. A feed is *lost*, *syncing* or *following*. While it is not following, nothing is
taken away and nobody is told that local addresses have moved (population.set_online): the switch
goes on with what it knows. A sync that is complete sweeps what it did not tell, at once, or, where
etcd had lost its data (`forget`), after `grace` seconds: by then every host that lives has said
again what it has. Networks and ports that etcd lost stay until etcd has them again, and are a
problem that the user is told: data that a backup lacks is no wish to remove them.

What is refused, by the population's overlay or by the desk, is a problem of its key, and so is what
fails by an error of Byway's own (the traceback is on stderr): what else was heard goes on.

A table that the desk refuses (a key that it does not know, a socket in use), or does not let go (a
network that has ports), waits: what is *waiting* is what etcd said last, no more. It is tried again
after every batch that changed anything, and when anything else changed in the switch.
"""

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from byway.control.cluster.feed import Batch, Handover
from byway.control.cluster.layout import MAC, Said, mac_text
from byway.control.population import Population
from byway.control.problem import ConfigError, EngineError

SOURCE = "etcd"  # of the population
SLICE_SECONDS = 0.004  # the control thread has other things to do


class Desk(Protocol):
    """Who has networks and ports made. Every call raises ConfigError or EngineError where it is
    refused, and has then changed nothing."""

    def put(self, kind: str, table: dict[str, Any]) -> None:
        """Have this "network" or "port", in place of one of the same name."""

    def drop(self, kind: str, name: str) -> None:
        """Have it no more; it may be gone already."""

    def lose(self, kind: str, name: str) -> None:
        """etcd has it no longer, but nobody said that it is to go: the user decides."""

    def has(self, kind: str, name: str) -> bool:
        """Whether the switch has it."""


@dataclass
class _Heard:
    """What is known of one feed."""

    following: bool = False
    synced: bool = False
    revision: int = 0
    sentence: str = "not connected yet"
    told: set[tuple[str, str]] | None = None  # tables of the sync that is under way
    own: set[tuple[str, int]] = field(default_factory=set)  # this host's entries in it
    suspect: bool = False  # its data was lost: the sweep waits
    sweep: asyncio.TimerHandle | None = None


@dataclass
class Intake:
    """`host` is this switch's name in the cluster: what is said under it is not of another host.
    `together` encloses many changes, so that workers hear of them once. `on_change` is called
    after each slice; `on_loss` when etcd had lost data, with the networks and MAC addresses that it
    still has of this host."""

    host: str
    population: Population
    desk: Desk
    loop: asyncio.AbstractEventLoop
    say: Callable[[str], None]
    on_change: Callable[[], None]
    on_loss: Callable[[set[tuple[str, int]]], None]
    grace: float = 10.0
    together: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    problems: dict[str, str] = field(default_factory=dict)
    tables: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    feeds: dict[str, _Heard] = field(default_factory=dict)
    changes: int = 0  # heard since the start

    def __post_init__(self) -> None:
        self.handover = Handover(self._wake)
        self._batch: Batch | None = None
        self._at = 0
        # Refused, to be tried again; None: it is to go.
        self._waiting: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._lost: set[tuple[str, str]] = set()  # tables that are here, but not in etcd
        self._retry = False
        self._planned = False

    def close(self) -> None:
        """Take nothing any more."""
        self.handover.close()
        for heard in self.feeds.values():
            if heard.sweep is not None:
                heard.sweep.cancel()

    def try_again(self) -> None:
        """Something has changed in the switch: what was refused may be possible now."""
        for at in [at for at in self._lost if not self.desk.has(*at)]:
            self._forget(at)  # the user has removed it
            self.tables.pop(at, None)
        if self._waiting:
            self._retry = True
            self._plan()

    # ------------------------------------------------------------ slices
    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._plan)

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self.loop.call_soon(self.work)

    def work(self, seconds: float = SLICE_SECONDS) -> None:
        """Take what was handed over, for about so long; the rest soon."""
        self._planned = False
        until = time.monotonic() + seconds
        with self.together():
            while self._step():
                if time.monotonic() >= until:
                    self._plan()
                    break
        self.on_change()

    def _step(self) -> bool:
        """Take some of a batch; -> False: there is none."""
        if self._batch is None:
            self._try_waiting()
            self._batch, self._at = self.handover.take(), 0
            if self._batch is None:
                return False
            self._begin(self._batch)
        batch = self._batch
        some = batch.said[self._at : self._at + 64]
        for version, said in some:
            self._take(batch.feed, version, said)
        self._at += len(some)
        self.changes += len(some)
        if self._at >= len(batch.said):
            self._batch = None
            self._finish(batch)
        return True

    # ------------------------------------------------------------ batches
    def _begin(self, batch: Batch) -> None:
        heard = self.feeds.setdefault(batch.feed, _Heard())
        if batch.kind == "begin":
            if heard.sweep is not None:
                heard.sweep.cancel()
                heard.sweep = None
            heard.suspect = heard.suspect or batch.forget
            heard.told, heard.own = set(), set()
            if batch.feed == "hosts":
                self.population.begin(SOURCE, batch.revision, forget=batch.forget)
            if batch.forget:
                self.say("etcd has lost data: hosts say again what they have")

    def _finish(self, batch: Batch) -> None:
        heard = self.feeds[batch.feed]
        if batch.kind == "lost":
            if heard.following or heard.sentence != batch.sentence:
                self.say(batch.sentence)
            heard.following, heard.sentence = False, batch.sentence
            if batch.feed == "hosts":
                self.population.set_online(False)
        elif batch.kind == "end":
            self._sync_is_complete(batch.feed, heard)
            self._follows(batch, heard)
        elif batch.kind == "followed":
            if batch.feed == "hosts":
                self.population.reached(SOURCE, batch.revision)
            self._follows(batch, heard)

    def _follows(self, batch: Batch, heard: _Heard) -> None:
        heard.revision = batch.revision
        if not heard.following:
            heard.following, heard.synced, heard.sentence = True, True, ""
            if batch.feed == "hosts":
                self.population.set_online(True)

    def _sync_is_complete(self, feed: str, heard: _Heard) -> None:
        told, heard.told = heard.told or set(), None
        kind = "network" if feed == "hosts" else "port"
        for at in [at for at in self._waiting if at[0] == kind and at not in told]:
            self._forget(at)
        for at in [at for at in self.tables if at[0] == kind and at not in told]:
            if heard.suspect or at in self._lost:
                self._lost.add(at)
                self.desk.lose(*at)
                self.problems[f"{at[0]} {at[1]}"] = (
                    f'{kind} "{at[1]}" is here, but etcd has lost it;'
                    ' create it again, or remove it')
            else:
                self._drop_table(*at)
        if feed == "hosts":
            if heard.suspect:
                self.on_loss(heard.own)
                heard.sweep = self.loop.call_later(self.grace, self._sweep, heard)
            else:
                self._sweep(heard)
        else:
            heard.suspect = False

    def _sweep(self, heard: _Heard) -> None:
        heard.sweep, heard.suspect = None, False
        try:
            with self.together():
                self.population.end(SOURCE)
            self.problems.pop("hosts", None)
        except Exception as error:
            self._refused("hosts", error, "what is gone cannot be removed: ")

    # ------------------------------------------------------------ sayings
    def _take(self, feed: str, version: int, said: Said) -> None:
        what, *values = said
        try:
            match what:
                case "put_entry" | "drop_entry":
                    if values[1] != self.host:
                        getattr(self.population, what)(SOURCE, version, *values)
                        if self.problems:
                            self.problems.pop(_key(said), None)
                    elif self.feeds[feed].told is not None:
                        self.feeds[feed].own.add((values[0], values[2]))
                case "put_host" | "drop_host":
                    if values[0] != self.host:
                        getattr(self.population, what)(SOURCE, version, *values)
                        self.problems.pop(_key(said), None)
                case "put_network" | "put_port":
                    self._put_table(feed, what.removeprefix("put_"), *values)
                case "drop_network" | "drop_port":
                    self._drop_table(what.removeprefix("drop_"), *values)
                case "bad":
                    self._bad(feed, *values)
        except Exception as error:  # whatever it is, the others are not held up
            self._refused(_key(said), error)

    def _bad(self, feed: str, key: str, sentence: str) -> None:
        """What stands in a key is not understood: whatever was there before stays."""
        self.say(sentence)
        if (heard := self.feeds[feed]).told is not None:
            parts = key.split("/")
            heard.told |= {at for at in self.tables if at[1] == parts[-1] and at[0] + "s" in parts}
            match parts:
                case [*_, "hosts", host]:
                    self.population.keep_host(SOURCE, host)
                case [*_, "entries", network, host, mac] if MAC.fullmatch(mac):
                    self.population.keep_entry(
                        SOURCE, network, host, int(mac.replace(":", ""), 16))

    def _put_table(self, feed: str, kind: str, name: str, table: dict[str, Any]) -> None:
        at = kind, name
        if (told := self.feeds[feed].told) is not None:
            told.add(at)
        if self.tables.get(at) == table and at not in self._lost:
            self._forget(at)
            return
        self._waiting.pop(at, None)
        self._lost.discard(at)
        self._try_put(at, table)

    def _forget(self, at: tuple[str, str]) -> None:
        """What was refused is no longer what etcd says, nor is it lost there."""
        self._waiting.pop(at, None)
        self._lost.discard(at)
        self.problems.pop(f"{at[0]} {at[1]}", None)

    def _try_put(self, at: tuple[str, str], table: dict[str, Any]) -> None:
        try:
            self.desk.put(at[0], table)
        except Exception as error:
            self._waiting[at] = table
            self._refused(f"{at[0]} {at[1]}", error)
            return
        self._forget(at)
        self.tables[at] = table
        self._retry = True

    def _drop_table(self, kind: str, name: str) -> None:
        if (kind, name) in self.tables:
            self._try_drop((kind, name))
        else:
            self._forget((kind, name))

    def _try_drop(self, at: tuple[str, str]) -> None:
        try:
            self.desk.drop(*at)
        except Exception as error:
            self._waiting[at] = None
            self._refused(f"{at[0]} {at[1]}", error, "cannot be removed here: ")
            return
        self._forget(at)
        self.tables.pop(at, None)
        self._retry = True

    def _try_waiting(self) -> None:
        """Something changed: try what was refused, as long as that changes something, too."""
        while self._retry:
            self._retry = False
            for at, table in list(self._waiting.items()):
                heard = self.feeds.get("hosts" if at[0] == "network" else "ports")
                if heard and heard.told is not None and at not in heard.told:
                    continue  # the sync that is under way has yet to tell whether it is still so
                if table is None:
                    self._try_drop(at)
                else:
                    self._try_put(at, table)

    def _refused(self, key: str, error: Exception, about: str = "") -> None:
        expected = isinstance(error, ConfigError | EngineError)
        sentence = about + (str(error) if expected else f"an error of Byway's own: {error!r}")
        if self.problems.get(key) != sentence:
            self.problems[key] = sentence
            self.say(f"cluster: {key}: {sentence}")
            if not expected:
                traceback.print_exception(error)


def _key(said: Said) -> str:
    """What the saying is about, as problems name it."""
    what, *values = said
    if what.endswith("entry"):
        network, host, mac = values[:3]
        return f"entry {network}/{host}/{mac_text(mac)}"
    return f"{what.partition('_')[2]} {values[0]}"
