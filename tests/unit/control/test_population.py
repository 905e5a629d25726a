# SPDX-License-Identifier: Apache-2.0
"""What the population tells the data path, case by case; the oracle has the combinations."""

import tracemalloc

import pytest

from byway.control.population import Announcement, Population
from tests.unit.control.fake_overlay import FakeOverlay

MAC = 0x020000000001
IP, IP2 = b"\0" * 10 + b"\xff\xff\x0a\0\0\1", b"\0" * 10 + b"\xff\xff\x0a\0\0\2"


class World:
    """A population with the network blue, one source, and the hosts a and b in it."""

    def __init__(self) -> None:
        self.overlay = FakeOverlay()
        self.population = Population(self.overlay)
        self.population.add_source("etcd")
        self.population.add_network("blue")
        self.population.set_online(True)
        for number, host in enumerate("ab"):
            self.population.put_host("etcd", number + 1, host, f"192.0.2.{number + 1}", ["blue"])
        self.overlay.calls.clear()

    def where(self) -> str | None:
        """The host of the MAC."""
        return self.overlay.entries["blue", MAC][1]

    def put(self, version: int, host: str, generation: int = 1,
            ips: tuple[bytes, ...] = (IP,)) -> None:
        """The source says that the MAC is behind the host."""
        self.population.put_entry("etcd", version, "blue", host, MAC, ips, generation)


@pytest.fixture
def world() -> World:
    return World()


def test_a_moved_address_is_replaced_and_never_gone(world: World) -> None:
    world.put(5, "a", 1)
    world.put(6, "b", 2)
    world.population.drop_entry("etcd", 7, "blue", "a", MAC)
    assert [call[0] for call in world.overlay.calls] == ["set_entry", "set_entry"]
    assert world.where() == "b"


def test_a_late_removal_never_deletes_a_newer_entry(world: World) -> None:
    world.put(8, "a")
    world.population.drop_entry("etcd", 7, "blue", "a", MAC)
    assert world.where() == "a"
    world.population.drop_entry("etcd", 9, "blue", "b", MAC)  # of another host
    assert world.where() == "a"


def test_an_entry_that_comes_after_its_removal_stays_away(world: World) -> None:
    world.population.drop_entry("etcd", 9, "blue", "a", MAC)
    world.population.reached("etcd", 7)
    world.put(8, "a")
    assert world.overlay.entries == {}
    world.population.reached("etcd", 9)
    world.put(8, "a")
    assert world.overlay.entries == {}


def test_the_older_claim_counts_again_when_the_newer_one_goes(world: World) -> None:
    world.put(5, "a", 1)
    world.put(6, "b", 2)
    world.population.drop_entry("etcd", 7, "blue", "b", MAC)
    assert world.where() == "a"


def test_addresses_that_an_entry_loses_are_named(world: World) -> None:
    world.put(5, "a", 1, (IP, IP2))
    world.put(6, "a", 1, (IP2,))  # the fake overlay checks what is gone
    assert world.overlay.entries["blue", MAC] == ((IP2,), "a")


def test_what_a_broken_sync_did_not_tell_stays(world: World) -> None:
    world.put(5, "a")
    world.population.begin("etcd", 10)
    world.population.put_host("etcd", 10, "b", "192.0.2.2", ["blue"])
    assert world.where() == "a"  # the connection is lost here
    world.population.begin("etcd", 12)
    world.population.put_host("etcd", 12, "b", "192.0.2.2", ["blue"])
    assert world.population.end("etcd") == 2  # the host a, and its entry
    assert world.overlay.tunnels == {"b": "192.0.2.2"}
    assert world.overlay.entries == {}


def test_what_was_said_after_the_syncs_moment_is_not_swept(world: World) -> None:
    world.put(12, "a")
    world.population.put_host("etcd", 13, "a", "192.0.2.1", [])
    world.population.begin("etcd", 10)
    world.population.end("etcd")
    assert world.where() == "a"
    assert world.overlay.tunnels == {"a": "192.0.2.1"}


def test_after_a_roll_back_lower_versions_count(world: World) -> None:
    world.put(50, "a", 3)
    world.population.begin("etcd", 4, forget=True)
    world.population.put_host("etcd", 4, "a", "192.0.2.1", ["blue"])
    world.population.put_host("etcd", 4, "b", "192.0.2.2", ["blue"])
    assert world.where() == "a"
    world.put(5, "b", 1)  # registers itself while others still do
    world.population.end("etcd")
    assert world.where() == "b"


def test_a_local_port_beats_every_other(world: World) -> None:
    world.put(5, "a", 7)
    world.population.put_local("blue", MAC, [IP])
    assert world.where() is None
    world.put(6, "a", 9)
    assert world.where() == "a"  # a higher generation: it has moved away
    world.population.put_local("blue", MAC, [IP], firm=True)
    world.put(7, "a", 12)
    assert world.where() is None  # a configured port's address does not


def test_who_has_an_address_now_says_so_with_the_highest_generation(world: World) -> None:
    world.put(5, "a", 7)
    world.population.put_local("blue", MAC, [IP])
    assert world.population.take_announcements() == [Announcement("blue", MAC, (IP,), 8)]
    world.put(6, "a", 8)  # the host a heard it as well, and knew of 7 only
    world.population.put_local("blue", MAC, [IP])
    assert world.population.take_announcements() == [Announcement("blue", MAC, (IP,), 9)]
    world.put(7, "b", 10)
    assert world.population.take_announcements() == [Announcement("blue", MAC, None, 9)]


def test_what_is_heard_while_the_source_is_lost_is_announced_when_all_is_known(
        world: World) -> None:
    world.population.set_online(False)
    world.population.put_local("blue", MAC, [IP])
    assert world.population.take_announcements() == []
    world.put(5, "a", 3)
    assert world.where() is None
    world.population.set_online(True)
    assert world.population.take_announcements() == [Announcement("blue", MAC, (IP,), 4)]


def test_an_address_that_moved_away_while_the_source_was_lost_is_given_up(world: World) -> None:
    world.population.put_local("blue", MAC, [IP])
    world.population.set_online(False)
    world.put(5, "b", 2)
    world.population.set_online(True)
    assert world.where() == "b"
    assert world.population.local() == []


def test_entries_wait_for_their_host_and_go_before_it(world: World) -> None:
    world.population.put_entry("etcd", 5, "blue", "c", MAC, [IP], 1)
    assert world.overlay.calls == []
    world.population.put_host("etcd", 6, "c", "192.0.2.3", ["blue"])
    world.population.drop_host("etcd", 7, "c")
    assert [call[0] for call in world.overlay.calls] == [
        "set_tunnel", "set_entry", "flood", "flood", "drop_entry", "drop_tunnel"]


def test_two_hosts_at_one_address_wait_for_each_other(world: World) -> None:
    """A host that was renamed is there under both names, until its old lease ends."""
    world.population.put_host("etcd", 5, "new", "192.0.2.1", ["blue"])
    assert world.population.waiting() == [("new", "192.0.2.1", "a")]
    world.population.drop_host("etcd", 6, "a")
    assert world.overlay.tunnels == {"b": "192.0.2.2", "new": "192.0.2.1"}
    assert world.overlay.floods == {("blue", "b"), ("blue", "new")}


def test_a_host_that_gets_another_address_keeps_its_entries(world: World) -> None:
    world.put(5, "a")
    world.population.put_host("etcd", 6, "a", "192.0.2.77", ["blue"])
    assert world.overlay.calls[1:] == [("set_tunnel", "a", "192.0.2.77")]


def test_what_the_file_says_beats_what_the_cluster_says(world: World) -> None:
    world.population.add_source("file", rank=1)
    world.population.put_host("file", 1, "a", "198.51.100.1", ["red"])
    world.population.put_entry("file", 2, "blue", "a", MAC, [IP2], 0)
    world.put(5, "b", 9)
    assert world.overlay.entries["blue", MAC] == ((IP2,), "a")
    assert world.overlay.tunnels["a"] == "198.51.100.1"
    world.population.drop_host("file", 3, "a")
    assert world.overlay.tunnels["a"] == "192.0.2.1"


def test_what_is_known_of_a_network_is_told_when_the_switch_has_it(world: World) -> None:
    world.population.put_host("etcd", 5, "a", "192.0.2.1", ["blue", "red"])
    world.population.put_entry("etcd", 6, "red", "a", MAC, [IP], 1)
    assert ("red", MAC) not in world.overlay.entries
    world.population.add_network("red")
    assert world.overlay.entries["red", MAC] == ((IP,), "a")
    assert ("red", "a") in world.overlay.floods


def test_members_of_security_groups_on_other_hosts_are_told_and_leave(world: World) -> None:
    population, members = world.population, world.overlay.members
    population.put_entry("etcd", 5, "blue", "a", MAC, [IP, IP2], 1, ("web", "db"))
    population.put_entry("etcd", 6, "blue", "a", MAC + 1, [IP], 1, ("web",))
    assert sorted(members) == [("db", IP), ("db", IP2), ("web", IP), ("web", IP), ("web", IP2)]
    population.put_entry("etcd", 7, "blue", "a", MAC, [IP], 1, ("web",))
    assert members == [("web", IP), ("web", IP)]
    population.put_local("blue", MAC, [IP], groups=("web",))  # the policy knows local ports
    assert members == [("web", IP)]
    world.overlay.forget_network("blue")
    population.remove_network("blue")
    assert members == []
    population.add_network("blue")
    assert members == [("web", IP)]
    population.drop_host("etcd", 8, "a")
    assert members == []
    assert population.local()[0].groups == ("web",)


def test_an_entry_takes_less_than_300_bytes() -> None:
    class Silent(FakeOverlay):
        def set_entry(self, *_: object) -> None:
            """Keeps nothing: the population is measured."""

    population = Population(Silent())
    population.add_source("etcd")
    population.add_network("blue")
    population.put_host("etcd", 1, "a", "192.0.2.1", ["blue"])
    tracemalloc.start()
    try:
        population.begin("etcd", 10_000)
        population.put_host("etcd", 10_000, "a", "192.0.2.1", ["blue"])
        for number in range(20_000):
            ip = b"\0" * 10 + b"\xff\xff" + number.to_bytes(4, "big")
            population.put_entry("etcd", 10_000, "blue", "a", MAC + number, (ip,), 1)
        population.end("etcd")
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert population.counts()["entries"] == 20_000
    assert size < 300 * 20_000


def test_a_silent_host_takes_nothing_back(world: World) -> None:
    """Only the guest itself is evidence, not that something else of its port has changed."""
    world.population.put_local("blue", MAC, [IP], firm=True)
    world.put(5, "b", generation=7)
    world.population.take_announcements()
    world.population.put_local("blue", MAC, [IP, IP2], firm=True, evidence=False)
    (said,) = world.population.take_announcements()
    assert said.generation == 1
    world.population.put_local("blue", MAC, [IP, IP2], firm=True)
    (said,) = world.population.take_announcements()
    assert said.generation == 8
