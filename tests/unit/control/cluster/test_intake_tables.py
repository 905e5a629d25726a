# SPDX-License-Identifier: Apache-2.0
"""What becomes of networks and ports that were heard: made, refused, tried again, lost."""

import pytest

from byway.control.cluster.feed import Batch
from tests.unit.control.cluster.intaking import BLUE, PORT, World


@pytest.fixture
def world() -> World:
    return World()


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
