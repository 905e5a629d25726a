# SPDX-License-Identifier: Apache-2.0
"""What is heard of addresses that nobody configured, and when it is forgotten."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from byway.control.heard import MAX_IPS, Heard
from byway.control.overlay import ip_bytes
from byway.switch.fdb import FIRST_TUNNEL, Fdb
from byway.testing.kernels import learn_address
from byway.worker.events import Event, Told

MAC, OTHER, GATEWAY = 0x0200_0000_0001, 0x0200_0000_0002, 0x0200_0000_00FE
AGEING = 300


class PlainNetworks:
    """One network, number 5."""

    def __init__(self, limit: int = 8192) -> None:
        config = SimpleNamespace(name="blue", ageing=AGEING, fdb_limit=limit)
        self.blue = SimpleNamespace(number=5, config=config, fdb=Fdb(1024),
                                    members={k: f"port {k}" for k in range(1, 100)})
        self.there = True

    def numbered(self, number: int) -> Any:
        return self.blue if self.there and number == self.blue.number else None

    def get(self, name: str) -> Any:
        return self.blue if self.there else None

    @staticmethod
    def gateway_of(network: Any) -> int:
        return GATEWAY


class PlainOverlay:
    """What it was told last: where each address is, with which IPs."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, list[bytes]]] = {}
        self.moves: list[tuple[int, int]] = []

    def hear_local(self, network: str, mac: int, ips: Iterable[bytes], index: int,
                   moved: bool) -> None:
        self.known[mac] = index, list(ips)
        if moved:
            self.moves.append((mac, index))

    def hear_remote(self, network: str, mac: int, ips: Iterable[bytes], index: int) -> None:
        self.known[mac] = index, list(ips)

    def unhear(self, network: str, mac: int) -> None:
        del self.known[mac]


class Ear:
    """Heard, with a clock that is set by hand."""

    def __init__(self, limit: int = 8192) -> None:
        self.networks, self.overlay = PlainNetworks(limit), PlainOverlay()
        self.now = 0.0
        self.heard = Heard(self.networks, self.overlay,  # type: ignore[arg-type]
                           lambda: self.now)

    def learned(self, mac: int, port: int, kind: Told = Told.LEARNED) -> None:
        self.heard.hear(Event(kind, 5, port, mac))

    def said(self, mac: int, ip: str, port: int = 1) -> None:
        self.heard.hear(Event(Told.SAID, 5, port, mac, ip_bytes(ip)))

    def ips(self, mac: int) -> list[bytes]:
        return self.overlay.known[mac][1]


def test_an_address_and_what_it_says_of_itself() -> None:
    ear = Ear()
    ear.learned(MAC, 1)
    assert ear.overlay.known == {MAC: (1, [])}
    ear.said(MAC, "10.0.0.1")
    ear.said(MAC, "fd00::1")
    ear.said(MAC, "10.0.0.1")
    assert ear.ips(MAC) == [ip_bytes("fd00::1"), ip_bytes("10.0.0.1")], "the newest last"
    assert ear.overlay.moves == []


def test_it_moves_to_another_port() -> None:
    ear = Ear()
    ear.said(MAC, "10.0.0.1")
    ear.learned(MAC, 2, Told.MOVED)
    assert ear.overlay.known == {MAC: (2, [ip_bytes("10.0.0.1")])}
    assert ear.overlay.moves == [(MAC, 2)]


def test_an_ip_moves_to_another_address() -> None:
    """As that of a virtual router does."""
    ear = Ear()
    ear.said(MAC, "10.0.0.9")
    ear.said(OTHER, "10.0.0.9", 2)
    assert (ear.ips(MAC), ear.ips(OTHER)) == ([], [ip_bytes("10.0.0.9")])
    ear.said(MAC, "10.0.0.9")
    assert (ear.ips(MAC), ear.ips(OTHER)) == ([ip_bytes("10.0.0.9")], [])


def test_nobody_has_more_ips_than_some() -> None:
    ear = Ear()
    for k in range(MAX_IPS + 5):
        ear.said(MAC, f"10.0.1.{k}")
    assert ear.ips(MAC) == [ip_bytes(f"10.0.1.{k}") for k in range(5, MAX_IPS + 5)]
    ear.said(OTHER, "10.0.1.0", 2)
    assert len(ear.ips(MAC)) == MAX_IPS, "what was given up belongs to nobody"


def test_a_network_holds_as_many_as_its_table() -> None:
    ear = Ear(limit=10)
    for k in range(1, 16):
        ear.said(k, f"10.0.0.{k}")
    assert sorted(ear.overlay.known) == list(range(6, 16)), "the oldest went"


@pytest.mark.parametrize("mac", [GATEWAY])
def test_the_switch_itself_is_not_heard(mac: int) -> None:
    ear = Ear()
    ear.learned(mac, 1)
    assert ear.overlay.known == {}


def test_events_of_a_network_that_has_gone() -> None:
    ear = Ear()
    ear.networks.there = False
    ear.learned(MAC, 1)
    assert ear.overlay.known == {}


def test_what_the_table_has_no_more_is_forgotten() -> None:
    ear = Ear()
    ear.said(MAC, "10.0.0.1")
    ear.heard.sweep()
    assert ear.overlay.known == {}, "it was never in the table"
    ear.said(OTHER, "10.0.0.1")
    assert ear.ips(OTHER) == [ip_bytes("10.0.0.1")]


def test_what_is_remote_is_forgotten_when_it_was_not_said_for_long() -> None:
    ear = Ear()
    ear.said(MAC, "10.0.0.1", FIRST_TUNNEL + 3)
    ear.now = AGEING - 1
    assert ear.heard.due
    ear.heard.sweep()
    assert not ear.heard.due
    assert ear.overlay.known == {MAC: (FIRST_TUNNEL + 3, [ip_bytes("10.0.0.1")])}
    ear.said(MAC, "10.0.0.1", FIRST_TUNNEL + 3)
    ear.now = 2 * AGEING - 2
    ear.heard.sweep()
    assert MAC in ear.overlay.known
    ear.now = 2 * AGEING
    ear.heard.sweep()
    assert ear.overlay.known == {}


def test_a_network_goes_with_all_that_was_heard_there() -> None:
    ear = Ear()
    ear.said(MAC, "10.0.0.1")
    ear.networks.there = False
    ear.heard.sweep()
    ear.networks.there = True
    ear.said(OTHER, "10.0.0.1", 2)
    assert ear.ips(OTHER) == [ip_bytes("10.0.0.1")]


def test_who_invents_addresses_only_loses_its_own() -> None:
    ear = Ear(limit=12)
    for k in range(3):
        ear.learned(OTHER + k, 2)
    ear.learned(MAC + 0x1000, 3)
    for k in range(100):
        ear.learned(0x0600_0000_0000 + k, 7)
    assert len(ear.overlay.known) == 12
    assert {mac for mac, (port, _) in ear.overlay.known.items() if port != 7} == {
        OTHER, OTHER + 1, OTHER + 2, MAC + 0x1000}
    assert {mac for mac, (port, _) in ear.overlay.known.items() if port == 7} == {
        0x0600_0000_0000 + k for k in range(92, 100)}, "the latest"
    for k in range(5):  # who has less than a share is heard at the expense of whoever has most
        ear.learned(MAC + 0x2000 + k, 4)
    places = [port for port, _ in ear.overlay.known.values()]
    assert (places.count(2), places.count(3), len(places)) == (3, 1, 12)
    assert places.count(4) >= 3


def test_what_a_worker_could_not_tell_is_found() -> None:
    """A port may tell so many addresses in a moment: the fdb has the others."""
    ear = Ear()
    ear.learned(MAC, 1)
    for mac, port in ((MAC, 1), (OTHER, 1), (OTHER + 1, FIRST_TUNNEL)):
        learn_address(ear.networks.blue.fdb.address, mac << 16, port, 1)
    ear.heard.sweep()
    assert ear.overlay.known == {MAC: (1, []), OTHER: (1, [])}
