# SPDX-License-Identifier: Apache-2.0
"""What becomes of what was heard, without etcd and without threads: batches in, calls out."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from byway.control.cluster.feed import Batch, Handover
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


@pytest.fixture
def world() -> World:
    return World()


def test_a_sync_and_what_happens_after_it(world: World) -> None:
    world.sync(10, HOST_A, ENTRY_A)
    assert world.overlay.entries == {("blue", MAC): ((IP,), "a")}
    world.tell(11, ("drop_entry", "blue", "a", MAC), ("drop_host", "a"))
    assert world.overlay.entries == {}
    assert world.overlay.tunnels == {}


def test_a_lost_connection_takes_nothing_away_and_the_next_sync_does(world: World) -> None:
    world.sync(10, HOST_A, ENTRY_A)
    world.lose()
    world.hear(Batch("hosts", "begin", 20), Batch("hosts", "said", 20, [(20, HOST_A)]))
    world.lose()
    assert world.overlay.entries == {("blue", MAC): ((IP,), "a")}
    world.sync(21, HOST_A)
    assert world.overlay.entries == {}
    assert world.said == ["etcd does not answer"]


def test_after_data_loss_the_sweep_waits(world: World) -> None:
    world.sync(10, HOST_A, ENTRY_A)
    world.sync(3, ("put_entry", "blue", "me", MAC + 1, (), 1, ()), forget=True)
    assert world.lost == [{("blue", MAC + 1)}]
    assert world.overlay.entries == {("blue", MAC): ((IP,), "a")}
    world.tell(4, HOST_A)  # it lives, but has another guest now
    world.tell(5, ("put_entry", "blue", "a", MAC + 2, (), 1, ()))
    ((seconds, sweep, values),) = world.loop.later
    assert seconds == 7.0
    sweep(*values)
    assert world.overlay.entries == {("blue", MAC + 2): ((), "a")}
    assert world.overlay.tunnels == {"a": "192.0.2.1"}


def test_data_loss_and_another_sync_before_the_sweep(world: World) -> None:
    world.sync(10, HOST_A, ENTRY_A)
    world.sync(3, forget=True)
    world.lose()
    world.sync(4)  # nobody has said anything again yet
    assert "a" in world.overlay.tunnels
    assert len(world.loop.later) == 1
    _, sweep, values = world.loop.later.pop()
    sweep(*values)
    assert world.overlay.tunnels == {}
    world.sync(5, HOST_A, ENTRY_A)
    world.sync(6)
    assert world.overlay.tunnels == {}  # from now on at once again


def test_what_is_said_under_the_own_name_is_not_of_another_host(world: World) -> None:
    world.sync(10, ("put_host", "me", "192.0.2.9", ("blue",)),
               ("put_entry", "blue", "me", MAC, (IP,), 9, ()))
    assert world.overlay.calls == []


def test_tables_come_change_and_go(world: World) -> None:
    world.sync(10, ("put_network", "blue", BLUE))
    world.sync(10, ("put_port", "p", PORT), feed="ports")
    assert world.desk.tables == {("network", "blue"): BLUE, ("port", "p"): PORT}
    world.tell(11, ("drop_port", "p"), feed="ports")
    world.sync(12)
    assert world.desk.tables == {}


def test_what_is_refused_is_told_and_tried_again(world: World) -> None:
    world.sync(10, ("put_port", "p", PORT), feed="ports")  # before its network is known
    assert world.intake.problems == {"port p": "there is no such network; create it"}
    world.sync(10, ("put_network", "blue", BLUE))
    assert world.desk.tables["port", "p"] == PORT
    assert world.intake.problems == {}
    world.desk.refuses.add("p")
    world.tell(11, ("put_port", "p", {**PORT, "mtu": 9}), feed="ports")
    assert world.desk.tables["port", "p"] == PORT  # never half applied
    world.tell(12, ("drop_port", "p"), feed="ports")
    assert "cannot be removed here" in world.intake.problems["port p"]


def test_what_was_refused_and_is_taken_back_does_not_come_later(world: World) -> None:
    world.sync(10, ("put_network", "blue", BLUE))
    world.desk.refuses.add("blue")
    world.tell(11, ("put_network", "blue", {**BLUE, "vni": 9}))
    assert "it is refused" in world.intake.problems["network blue"]
    world.tell(12, ("put_network", "blue", BLUE))
    assert world.intake.problems == {}
    world.desk.refuses.clear()
    world.tell(13, ("put_network", "red", {"name": "red"}))
    assert world.desk.tables["network", "blue"] == BLUE


def test_what_was_refused_and_is_gone_at_a_sync_does_not_come_later(world: World) -> None:
    world.desk.refuses |= {"blue", "p"}
    world.sync(10, ("put_network", "blue", BLUE))
    world.sync(10, ("put_port", "p", PORT), feed="ports")
    world.lose()
    world.desk.refuses.clear()
    red = ("put_network", "red", {"name": "red"})
    world.hear(Batch("hosts", "begin", 20), Batch("hosts", "said", 20, [(20, red)]))
    assert set(world.desk.tables) == {("network", "red")}
    world.hear(Batch("hosts", "end", 20))
    assert set(world.intake.problems) == {"port p"}
    world.sync(20, feed="ports")
    world.tell(21, ("put_network", "green", {"name": "green"}))
    assert set(world.desk.tables) == {("network", "red"), ("network", "green")}
    assert world.intake.problems == {}


def test_a_vni_that_another_network_had_is_free_when_that_is_gone(world: World) -> None:
    old, new = ({"name": name, "vni": 7} for name in ("old", "new"))
    world.sync(10, ("put_network", "old", old))
    world.sync(20, ("put_network", "new", new))
    assert world.desk.tables == {("network", "new"): new}
    world.tell(21, ("put_network", "old", old), ("drop_network", "new"))
    assert world.desk.tables == {("network", "old"): old}
    assert world.intake.problems == {}


def test_a_network_that_could_not_go_goes_after_its_ports(world: World) -> None:
    world.sync(10, ("put_network", "blue", BLUE))
    world.sync(10, ("put_port", "p", PORT), feed="ports")
    world.sync(20)  # etcd says this first, by the other feed
    assert "cannot be removed here" in world.intake.problems["network blue"]
    world.tell(20, ("drop_port", "p"), feed="ports")
    assert world.desk.tables == {}
    assert world.intake.problems == {}
    assert world.intake.tables == {}


def test_a_change_in_the_switch_lets_what_was_refused_be_tried(world: World) -> None:
    world.desk.refuses.add("blue")
    world.sync(10, ("put_network", "blue", BLUE))
    world.desk.refuses.clear()
    world.intake.try_again()
    world.loop.soon.pop()()
    assert world.desk.tables == {("network", "blue"): BLUE}
    world.intake.try_again()  # nothing waits
    assert world.loop.soon == []


def test_what_is_refused_again_is_said_once(world: World) -> None:
    world.desk.refuses.add("blue")
    for revision in (10, 20):
        world.sync(revision, ("put_network", "blue", BLUE))
    assert len(world.said) == 1


def test_a_value_that_nobody_understands_takes_nothing_away(world: World) -> None:
    world.sync(10, ("put_network", "blue", BLUE))
    world.sync(10, ("put_port", "p", PORT), feed="ports")
    world.tell(11, ("bad", "/byway/networks/blue", "it is no JSON"))
    world.sync(12, ("bad", "/byway/networks/blue", "it is no JSON"))
    world.sync(12, ("bad", "/byway/ports/me/p", "it is no JSON"), feed="ports")
    assert set(world.desk.tables) == {("network", "blue"), ("port", "p")}
    assert world.said == ["it is no JSON"] * 3


def test_a_host_or_entry_that_nobody_understands_stays(world: World) -> None:
    world.sync(10, HOST_A, ENTRY_A)
    calls = len(world.overlay.calls)
    bad_host = ("bad", "/byway/hosts/a", "it is no JSON")
    world.sync(11, bad_host, ENTRY_A)
    world.sync(12, HOST_A, ("bad", "/byway/entries/blue/a/02:00:00:00:00:01", "it is no JSON"))
    assert len(world.overlay.calls) == calls
    for revision, key in enumerate(("hosts/b", "entries/blue/b/02:00:00:00:00:01",
                                    "entries/blue/a/02:00:00:00:00:09", "entries/blue/a/x"), 13):
        world.sync(revision, bad_host, ENTRY_A, ("bad", f"/byway/{key}", "it is no JSON"))
    assert len(world.overlay.calls) == calls  # of those nothing was known
    world.sync(20, HOST_A)
    assert world.overlay.entries == {}
    world.sync(21)
    assert world.overlay.tunnels == {}


def test_tables_that_etcd_has_lost_stay_and_are_told(world: World) -> None:
    world.sync(10, ("put_network", "blue", BLUE))
    world.sync(3, forget=True)
    assert set(world.desk.tables) == {("network", "blue")}
    for _, sweep, values in world.loop.later:
        sweep(*values)
    world.sync(4)  # also when etcd has not lost anything since
    assert set(world.desk.tables) == {("network", "blue")}
    assert "etcd has lost it" in world.intake.problems["network blue"]
    world.tell(5, ("put_network", "blue", BLUE))
    assert world.intake.problems == {}
    world.sync(6)
    assert world.desk.tables == {}


def test_a_table_that_etcd_has_lost_may_be_removed_or_changed_here(world: World) -> None:
    world.sync(10, ("put_network", "blue", BLUE), ("put_network", "red", {"name": "red"}))
    world.sync(3, forget=True)
    assert world.desk.lost == [("network", "blue"), ("network", "red")]
    del world.desk.tables["network", "blue"]
    world.desk.tables["network", "red"] = {"name": "red", "vni": 9}
    world.intake.try_again()
    assert set(world.intake.problems) == {"network red"}
    assert set(world.intake.tables) == {("network", "red")}
    world.tell(4, ("put_network", "red", {"name": "red"}))
    assert world.desk.tables == {("network", "red"): {"name": "red"}}


def test_an_overlay_that_refuses_a_host_is_told(world: World) -> None:
    def refuse(host: str, address: str) -> None:
        raise EngineError(f"{address} cannot be reached", "check it")

    world.overlay.set_tunnel = refuse  # type: ignore[method-assign]
    world.sync(10, HOST_A, ENTRY_A)
    assert world.intake.problems == {"host a": "192.0.2.1 cannot be reached; check it"}
    assert world.overlay.calls == []
    del world.overlay.set_tunnel  # type: ignore[attr-defined]
    world.tell(11, HOST_A)
    assert world.intake.problems == {}
    assert ("blue", MAC) in world.overlay.entries


@pytest.mark.parametrize(
    "error", [OSError(5, "no luck"), UnicodeEncodeError("utf-8", "x", 0, 1, "")])
def test_no_error_holds_up_what_else_was_heard(world: World, error: Exception,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    world.desk.fails["p"] = world.desk.fails["red"] = error
    world.sync(10, ("put_network", "red", {"name": "red"}), ("put_network", "blue", BLUE), HOST_A)
    world.sync(10, ("put_port", "p", PORT), ("put_port", "q", {**PORT, "name": "q"}), feed="ports")
    assert set(world.desk.tables) == {("network", "blue"), ("port", "q")}
    assert world.overlay.tunnels == {"a": "192.0.2.1"}
    assert set(world.intake.problems) == {"network red", "port p"}
    assert world.intake.problems["port p"] == f"an error of Byway's own: {error!r}"
    assert type(error).__name__ in capsys.readouterr().err.splitlines()[-1]
    world.desk.fails.clear()
    world.tell(11, ("put_port", "r", {**PORT, "name": "r"}), feed="ports")
    assert len(world.desk.tables) == 5
    assert world.intake.problems == {}


def test_no_error_of_the_overlay_holds_up_what_else_was_heard(world: World) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "no luck")

    world.sync(10, HOST_A, ENTRY_A)
    world.overlay.set_entry = fail  # type: ignore[method-assign]
    world.tell(11, ("put_entry", "blue", "a", MAC + 1, (), 1, ()), ("put_network", "blue", BLUE))
    assert set(world.intake.problems) == {"entry blue/a/02:00:00:00:00:02"}
    assert set(world.desk.tables) == {("network", "blue")}
    del world.overlay.set_entry  # type: ignore[method-assign]
    world.tell(12, ("put_entry", "blue", "a", MAC + 1, (IP,), 2, ()))
    assert world.intake.problems == {}
    world.overlay.drop_entry = fail  # type: ignore[method-assign]
    world.sync(20, HOST_A)
    assert "what is gone cannot be removed" in world.intake.problems["hosts"]
    assert world.intake.feeds["hosts"].following


def test_work_is_cut_into_slices(world: World) -> None:
    entries = [(10, ("put_entry", "blue", "a", MAC + number, (), 1, ())) for number in range(300)]
    handover = world.intake.handover
    world.loop.soon.append(lambda: None)
    for batch in (Batch("hosts", "begin", 10), Batch("hosts", "said", 10, [(10, HOST_A), *entries]),
                  Batch("hosts", "end", 10)):
        handover.put(batch)
    slices = 0
    while world.population.counts()["entries"] < 300:
        world.intake.work(seconds=0.0)
        slices += 1
    assert slices >= 5


def test_a_full_handover_lets_go_when_it_is_closed() -> None:
    woken: list[int] = []
    handover = Handover(lambda: woken.append(1), places=1)
    handover.put(Batch("hosts", "begin"))
    handover.close()
    handover.put(Batch("hosts", "end"))  # returns, and nobody takes it
    assert len(woken) == 1
    assert handover.take() is not None
    assert handover.take() is None


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_a_loop_that_has_ended_is_no_error(loop: asyncio.AbstractEventLoop) -> None:
    world = World()
    world.intake.loop = loop
    loop.close()
    world.intake.handover.put(Batch("hosts", "begin"))
