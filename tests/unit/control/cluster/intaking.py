# SPDX-License-Identifier: Apache-2.0
"""An intake without etcd and without threads: batches in, calls out.

Used by the tests of the intake."""

from collections.abc import Callable
from typing import Any

from byway.control.cluster.feed import Batch
from byway.control.cluster.intake import SOURCE, Intake
from byway.control.population import Population
from byway.control.problem import EngineError
from tests.unit.control.fake_overlay import FakeOverlay

MAC = 0x020000000001
IP = bytes(10) + b"\xff\xff\x0a\0\0\1"
BLUE = {"name": "blue"}
PORT = {"name": "p", "network": "blue"}


class FakeLoop:
    """Keeps what is to be called later, with the seconds."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []
        self.soon: list[Callable[[], None]] = []

    def call_later(self, seconds: float, call: Callable[..., None], *values: Any) -> Any:
        entry = (seconds, call, values)
        self.later.append(entry)
        loop = self

        class Handle:
            def cancel(self) -> None:
                loop.later.remove(entry)

        return Handle()

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        call()


class FakeDesk:
    """Takes everything but the names in `refuses`, ports of networks that are not there, and a VNI
    twice; a network that has ports does not go."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], dict[str, Any]] = {}
        self.refuses: set[str] = set()
        self.lost: list[tuple[str, str]] = []
        self.fails: dict[str, Exception] = {}  # by an error that it should not have

    def put(self, kind: str, table: dict[str, Any]) -> None:
        if table["name"] in self.fails:
            raise self.fails[table["name"]]
        if table["name"] in self.refuses:
            raise EngineError("it is refused", "choose another")
        if kind == "port" and ("network", table["network"]) not in self.tables:
            raise EngineError("there is no such network", "create it")
        others = [one for one in self.tables.values() if one["name"] != table["name"]]
        if "vni" in table and table["vni"] in [other.get("vni") for other in others]:
            raise EngineError("the VNI is taken", "choose another")
        self.tables[kind, table["name"]] = table

    def drop(self, kind: str, name: str) -> None:
        networks = [table.get("network") for table in self.tables.values()]
        if name in self.refuses or (kind == "network" and name in networks):
            raise EngineError("it is in use", "stop that")
        self.tables.pop((kind, name), None)

    def lose(self, kind: str, name: str) -> None:
        self.lost.append((kind, name))

    def has(self, kind: str, name: str) -> bool:
        return (kind, name) in self.tables


class World:
    """An intake of the host `me`, and all that it talks to."""

    def __init__(self) -> None:
        self.overlay, self.desk, self.loop = FakeOverlay(), FakeDesk(), FakeLoop()
        self.population = Population(self.overlay)
        self.population.add_source(SOURCE)
        self.population.add_network("blue")
        self.said: list[str] = []
        self.lost: list[set[tuple[str, int]]] = []
        self.intake = Intake("me", self.population, self.desk, self.loop,  # type: ignore[arg-type]
                             self.said.append, lambda: None, self.lost.append, grace=7.0)

    def hear(self, *batches: Batch) -> None:
        """Batches come, and everything is done about them."""
        for batch in batches:
            self.intake.handover.put(batch)
            while self.loop.soon:
                self.loop.soon.pop()()

    def sync(self, revision: int, *said: tuple[Any, ...], forget: bool = False,
             feed: str = "hosts") -> None:
        """A complete sync."""
        self.hear(Batch(feed, "begin", revision, forget=forget),
                  Batch(feed, "said", revision, [(revision, one) for one in said]),
                  Batch(feed, "end", revision, forget=forget))

    def tell(self, revision: int, *said: tuple[Any, ...], feed: str = "hosts") -> None:
        """Something happens."""
        self.hear(Batch(feed, "said", revision, [(revision, one) for one in said]),
                  Batch(feed, "followed", revision))

    def lose(self, feed: str = "hosts") -> None:
        """The connection ends."""
        self.hear(Batch(feed, "lost", sentence="etcd does not answer"))


HOST_A = ("put_host", "a", "192.0.2.1", ("blue",))
ENTRY_A = ("put_entry", "blue", "a", MAC, (IP,), 1, ())
