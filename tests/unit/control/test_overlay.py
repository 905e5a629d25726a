# SPDX-License-Identifier: Apache-2.0
"""What the population says becomes what the tables of the data path say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.control.actions import AddEntry, AddHost, RemoveEntry, RemoveHost, SetUnderlay
from byway.control.model import EntryConfig, HostConfig, UnderlayConfig
from byway.control.overlay import Overlay, ip_bytes, ip_text, mac_number
from byway.switch.population import Population
from tests.running import RunningSwitch, mac

FAR = 0x0200_0000_0099


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        made.network("red", vni=100, mtu=1450)
        made.apply([SetUnderlay(UnderlayConfig(address="127.0.0.1", port=0xEEEE, mtu=1500)),
                    AddHost(HostConfig(name="far", address="127.0.0.2", networks=("red",)))])
        yield made


def table(switch: RunningSwitch) -> Population:
    return switch.engine._entries


def number(switch: RunningSwitch) -> int:
    return switch.engine._networks["red"].number


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1", "::"])
def test_addresses_as_16_bytes(text: str) -> None:
    assert len(ip_bytes(text)) == 16
    assert ip_text(ip_bytes(text)) == text


def test_an_entry_comes_and_goes(switch: RunningSwitch) -> None:
    (tunnel,) = switch.call(lambda: switch.engine.overlay.names)
    entry = EntryConfig(network="red", mac="02:00:00:00:00:99", ips=("10.0.0.9", "fd00::9"),
                        host="far")
    switch.apply([AddEntry(entry)])
    assert table(switch).port_of(number(switch), FAR) == tunnel
    assert table(switch).mac_of(number(switch), ip_bytes("fd00::9")) == FAR
    switch.apply([RemoveEntry("red", "02:00:00:00:00:99")])
    assert (table(switch).macs(), table(switch).ips()) == ([], [])


def test_a_host_takes_its_entries_along(switch: RunningSwitch) -> None:
    entry = EntryConfig(network="red", mac="02:00:00:00:00:99", ips=("10.0.0.9",), host="far")
    switch.apply([AddEntry(entry)])
    switch.apply([RemoveEntry("red", entry.mac), RemoveHost("far")])
    assert (table(switch).macs(), table(switch).ips()) == ([], [])
    assert switch.call(switch.engine.hosts) == []


def test_local_addresses_are_known_by_their_port(switch: RunningSwitch) -> None:
    switch.add("null", "sink", "red", mac=mac(1), ips=["10.0.0.1"])
    local = switch.port("sink")["index"]
    assert table(switch).port_of(number(switch), mac_number(mac(1))) == local
    (known,) = switch.call(switch.engine.population, "red")
    assert known == {"network": "red", "mac": mac(1), "ips": ["10.0.0.1"], "host": None,
                     "port": "sink"}
    switch.remove("sink")
    assert (table(switch).macs(), table(switch).ips()) == ([], [])


def test_an_address_that_was_here_is_there(switch: RunningSwitch) -> None:
    """What was learned of it at a local port is forgotten."""
    switch.vhost("guest", network="red")
    with switch.guest("guest", 0x99) as guest:
        guest.send([b"\xff" * 6 + guest.mac + b"\x88\xb5" + bytes(46)])
        switch.settle()
        assert [e["port"] for e in switch.call(switch.engine.fdb, "red")] == ["guest"]
        switch.call(switch.engine.overlay.set_entry, "red", FAR, (), "far")
        assert switch.call(switch.engine.fdb, "red") == []


def test_an_entry_without_room_is_left_out(switch: RunningSwitch) -> None:
    overlay: Overlay = switch.engine.overlay
    small = Population(limit=16)

    def fill() -> int:
        overlay._table = small
        with_room = 0
        while not overlay.left_out:
            with_room += 1
            overlay.set_entry("red", 0x0200_0000_1000 + with_room, (), "far")
        overlay.set_entry("red", 0x0200_0000_0001, (), "far")
        return with_room - 1

    assert switch.call(fill) == 16
    assert overlay.left_out == 2
    (said,) = switch.errors
    assert "16" in said
    switch.errors.clear()
