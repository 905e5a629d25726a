# SPDX-License-Identifier: Apache-2.0
"""What becomes of what was heard; of its tables: test_intake_tables.py."""

import asyncio
from collections.abc import Iterator

import pytest

from byway.control.cluster.feed import Batch, Handover
from byway.control.problem import EngineError
from tests.unit.control.cluster.intaking import BLUE, ENTRY_A, HOST_A, IP, MAC, PORT, World


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
