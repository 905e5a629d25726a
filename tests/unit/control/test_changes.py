# SPDX-License-Identifier: Apache-2.0
"""Changes that fail half-way, and numbers that are given again: nothing of before is left."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.control.actions import (
    AddNetwork,
    AddPort,
    AddRouter,
    ChangePort,
    RemoveNetwork,
    RemovePort,
)
from byway.control.model import NetworkConfig, RouterConfig
from byway.control.overlay import mac_number
from byway.control.problem import EngineError
from byway.switch.fdb import FIRST_TUNNEL
from byway.testing.frames import ARP_REQUEST, BROADCAST, TEST_ETHERTYPE, Arp, ethernet
from byway.worker.events import Event, Told
from tests.running import RunningSwitch, mac

TOO_MANY = tuple(f"10.1.{k // 200}.{k % 200}" for k in range(300))


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        yield made


def port_names(switch: RunningSwitch) -> list[str]:
    return [port["name"] for port in switch.call(switch.engine.ports)]


def network_names(switch: RunningSwitch) -> list[str]:
    return [network["name"] for network in switch.call(switch.engine.networks)]


def test_what_the_router_cannot_do_is_taken_back(switch: RunningSwitch) -> None:
    """And the next change is not refused for it."""
    switch.apply([AddNetwork(NetworkConfig(name="one", gateway=("10.0.0.1/24",))),
                  AddNetwork(NetworkConfig(name="two", gateway=("10.0.0.2/16",)))])
    with pytest.raises(EngineError, match="overlap"):
        switch.apply([AddRouter(RouterConfig(name="r", networks=("one", "two")))])
    switch.apply([AddNetwork(NetworkConfig(name="three"))])
    assert network_names(switch) == ["one", "two", "three"]
    switch.apply([RemoveNetwork("two"), RemoveNetwork("one")])


def test_a_port_whose_policy_is_refused_is_not_there(switch: RunningSwitch) -> None:
    switch.network("blue")
    bad = switch.config("null", "sink", mac=mac(1), port_security=True).model_copy(
        update={"ips": TOO_MANY})
    with pytest.raises(EngineError, match="pairs"):
        switch.apply([AddPort(bad)])
    assert port_names(switch) == []
    good = switch.config("null", "sink", mac=mac(1), port_security=True)
    switch.apply([AddPort(good)])
    with pytest.raises(EngineError, match="pairs"):
        switch.apply([ChangePort(good, bad)])
    assert switch.engine._ports["sink"].config == good
    switch.apply([RemovePort("sink"), RemoveNetwork("blue")])


def test_a_trunk_without_numbers_for_its_tags_is_not_there(switch: RunningSwitch) -> None:
    for name in ("green", "blue", "red"):
        switch.network(name)
    numbers = switch.engine._port_numbers
    numbers._next = FIRST_TUNNEL - 2  # one for the port, one for a tag
    with pytest.raises(EngineError, match="ports already"):
        switch.add("null", "trunk", "green", vlans={"10": "blue", "20": "red"})
    assert port_names(switch) == []
    assert numbers.left == 2
    assert [network["ports"] for network in switch.call(switch.engine.networks)] == [[], [], []]


def test_a_port_that_cannot_come_back_is_there_and_down(switch: RunningSwitch) -> None:
    switch.network("blue")
    source = switch.folder / "frames.pcap"
    source.write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
    before = switch.config("pcap", "replay", read=str(source))
    switch.apply([AddPort(before)])
    source.unlink()
    after = switch.config("pcap", "replay", read=str(switch.folder / "none"))
    with pytest.raises(EngineError, match="No such file"):
        switch.apply([RemovePort("replay"), AddPort(after)])
    assert switch.port("replay")["state"] == "down"
    switch.apply([RemovePort("replay")])


def test_a_table_lives_as_long_as_workers_know_it(switch: RunningSwitch) -> None:
    switch.network("blue", vni=100)
    table = weakref.ref(switch.engine._networks["blue"].fdb)

    def renew() -> bool:
        with switch.engine.together():
            switch.engine.remove_network("blue")
            switch.engine.add_network(NetworkConfig(name="blue", vni=100, mtu=1400))
            return table() is not None

    assert switch.call(renew), "nothing has been published yet"
    assert table() is None


def test_addresses_of_a_trunk_go_with_it(switch: RunningSwitch) -> None:
    switch.network("green")
    switch.network("blue", responder=True)
    switch.add("vhost-user", "trunk", "green", vlans={"10": "blue"})
    with switch.guest("trunk", 1) as guest:
        question = Arp(ARP_REQUEST, guest.mac, "10.0.0.1", bytes(6), "10.0.0.9").frame(BROADCAST)
        guest.send([question[:12] + b"\x81\0\0\x0a" + question[12:]])
        switch.settle()
        (known,) = switch.call(switch.engine.population, "blue")
        assert (known["port"], known["ips"]) == ("trunk", ["10.0.0.1"])
        switch.remove("trunk")
    assert switch.call(switch.engine.population, "blue") == []
    assert switch.engine._entries.macs() == []


def test_an_event_of_a_port_that_has_gone(switch: RunningSwitch) -> None:
    """Its number may be another network's by then."""
    switch.network("blue", responder=True)
    switch.network("red")
    switch.add("null", "old", "blue")
    late = Event(Told.LEARNED, switch.engine._networks["blue"].number,
                 switch.port("old")["index"], mac_number(mac(1)))
    switch.remove("old")
    switch.add("null", "new", "red")
    switch.call(switch.engine._heard.hear, late)
    assert switch.call(switch.engine.population, "blue") == []
    assert switch.engine._entries.macs() == []


def test_what_a_guest_said_outlives_a_change_of_its_port(switch: RunningSwitch) -> None:
    switch.network("blue", responder=True)
    config = switch.config("vhost-user", "one", mac=mac(1))
    switch.apply([AddPort(config)])
    with switch.guest("one", 1) as guest:
        guest.send([Arp(ARP_REQUEST, guest.mac, "10.0.0.7", bytes(6), "10.0.0.9").frame(BROADCAST)])
        switch.settle()
        changed = config.model_copy(update={"ips": ("10.0.0.1",)})
        switch.apply([ChangePort(config, changed)])
        (known,) = switch.call(switch.engine.population, "blue")
        assert known["ips"] == ["10.0.0.1", "10.0.0.7"]


def test_a_mirror_ends_with_its_target(switch: RunningSwitch) -> None:
    switch.network("blue")
    switch.network("other")
    switch.add("null", "eye", "other")
    switch.add("vhost-user", "one", mirror={"to": "eye"})
    with switch.guest("one", 1) as guest:
        switch.remove("eye")
        switch.add("null", "stranger", "other")
        guest.send([ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"")])
        switch.settle()
        assert switch.port("stranger")["tx_frames"] == 0
