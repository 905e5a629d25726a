# SPDX-License-Identifier: Apache-2.0
"""What the responder hears and tells, and where it does not answer; its answers: tests/spec."""

import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether

from byway.packet.batch import ROWS
from byway.switch.events import SHARE
from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.network import LEARNING, RESPONDS
from byway.switch.responder import Responder
from byway.testing.frames import ARP_REPLY, ARP_REQUEST, BROADCAST, Arp
from byway.testing.guarding_kernels import respond
from byway.worker.events import Event, Told
from tests.staging import Place, mapped

MAC, OTHER = 0x0200_0000_0001, 0x0200_0000_0002
GATEWAY = 0x0200_0000_00FE


def octets(mac: int) -> bytes:
    return mac.to_bytes(6, "big")


def request(target: str, sender: str = "10.0.0.1", mac: int = MAC, operation: int = ARP_REQUEST,
            claimed: int | None = None) -> bytes:
    """An ARP message from ``mac``, in which ``claimed`` is the sender."""
    frame = Arp(operation, octets(mac if claimed is None else claimed), sender, bytes(6),
                target).frame(BROADCAST)
    return frame[:6] + octets(mac) + frame[12:]


def said(ip: str, mac: int = MAC, port: int = 1) -> Event:
    return Event(Told.SAID, 5, port, mac, mapped(ip))


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place(gateway=GATEWAY)
    made.population.set_ip(made.number, mapped("10.0.0.2"), OTHER)
    yield made
    made.close()


def hear(place: Place, *frames: bytes, origin: int = 1) -> list[Event]:
    """What control is told when these come in."""
    responder = Responder(place.population)
    for k in range(0, len(frames), ROWS):
        place.run(respond, responder, frames[k : k + ROWS], origin)
    return place.told()


def test_news_is_told_and_what_is_known_is_not(place: Place) -> None:
    assert hear(place, request("10.0.0.2")) == [said("10.0.0.1")]
    place.population.set_ip(place.number, mapped("10.0.0.1"), MAC)
    assert hear(place, request("10.0.0.2")) == []


def test_a_gratuitous_message_moves_an_address(place: Place) -> None:
    """Whether it is a request or a reply (RFC 5944, 4.6)."""
    for operation in (ARP_REQUEST, ARP_REPLY):
        frame = request("10.0.0.2", sender="10.0.0.2", operation=operation)
        assert hear(place, frame) == [said("10.0.0.2")]


@pytest.mark.parametrize("frame", [
    request("10.0.0.2", sender="0.0.0.0"),
    request("10.0.0.2", sender="127.0.0.1"),
    request("10.0.0.2", sender="224.0.0.18"),
    request("10.0.0.2", sender="169.254.1.1"),
    request("10.0.0.2", claimed=OTHER + 7),
    request("10.0.0.2", mac=0x0300_0000_0001),
    request("10.0.0.2", mac=0),
    request("10.0.0.2", mac=GATEWAY),
    request("10.0.0.2", operation=8)])
def test_what_is_nobodys_to_say(place: Place, frame: bytes) -> None:
    assert hear(place, frame) == []


def advertisement(target: str, mac: int = MAC, option: int | None = None) -> bytes:
    told = octets(mac if option is None else option).hex(":")
    return bytes(Ether(src=octets(mac).hex(":"), dst="33:33:00:00:00:01")
                 / IPv6(src=target, dst="ff02::1", hlim=255)
                 / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=told))


def solicitation(target: str, source: str) -> bytes:
    return bytes(Ether(src=octets(MAC).hex(":"), dst="33:33:ff:00:00:02")
                 / IPv6(src=source, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=target)
                 / ICMPv6NDOptSrcLLAddr(lladdr=octets(MAC).hex(":")))


def test_neighbour_discovery_tells_as_well(place: Place) -> None:
    assert hear(place, advertisement("fd00::7")) == [said("fd00::7")]
    assert hear(place, solicitation("fd00::2", "fd00::8")) == [said("fd00::8")]
    assert hear(place, advertisement("fe80::7"), advertisement("fd00::7", option=OTHER),
                advertisement("::ffff:10.0.0.2"), solicitation("fd00::2", "fe80::1"),
                solicitation("fd00::2", "::ffff:10.0.0.2")) == []


@pytest.mark.parametrize(("flags", "expected"), [
    (RESPONDS, []), (RESPONDS | LEARNING, [said("10.0.0.1", port=FIRST_TUNNEL)])])
def test_tunnels_are_believed_where_the_network_learns(
        flags: int, expected: list[Event]) -> None:
    place = Place(flags=flags)
    assert hear(place, request("10.0.0.2"), origin=FIRST_TUNNEL) == expected
    place.close()


def test_a_network_that_does_not_respond_still_listens() -> None:
    place = Place(flags=0)
    place.population.set_ip(place.number, mapped("10.0.0.2"), OTHER)
    responder = Responder(place.population)
    outcome, = place.run(respond, responder, [request("10.0.0.2")])
    assert outcome.out is None
    assert place.told() == [said("10.0.0.1")]
    place.close()


def test_a_network_without_population_is_left_alone() -> None:
    place = Place()
    place.network["population"] = 0
    place.population.set_ip(place.number, mapped("10.0.0.2"), OTHER)
    outcome, = place.run(respond, Responder(place.population), [request("10.0.0.2")])
    assert outcome.out is None
    assert place.told() == []
    place.close()


def test_the_gateway_answers_for_itself(place: Place) -> None:
    place.population.set_ip(place.number, mapped("10.0.0.254"), GATEWAY)
    outcome, = place.run(respond, Responder(place.population), [request("10.0.0.254")])
    assert outcome.out is None


def test_the_owner_behind_another_sender(place: Place) -> None:
    """A station that sends frames from one address and speaks of another is both."""
    outcome, = place.run(respond, Responder(place.population), [
        request("10.0.0.2", sender="0.0.0.0", mac=MAC, claimed=OTHER)])
    assert outcome.out is None


def test_addresses_with_the_highest_bit() -> None:
    """A MAC address << 16 is a negative number for kernels."""
    place = Place()
    owner = 0xFE00_0000_0002
    place.population.set_ip(place.number, mapped("10.0.0.2"), owner)
    responder = Responder(place.population)
    asked, own = request("10.0.0.2"), request("10.0.0.2", sender="0.0.0.0", mac=owner)
    first, second = place.run(respond, responder, [asked, own])
    assert (first.out, first.frame[6:12], second.out) == (1, octets(owner), None)
    place.learn(owner, 1)
    here, = place.run(respond, responder, [asked], origin=1)
    there, = place.run(respond, responder, [asked], origin=2)
    assert (here.out, there.out) == (None, 2), "the owner's own port, and another"
    place.close()


def test_a_storm_of_claims_tells_a_share(place: Place) -> None:
    """One port invents addresses: control hears little of it, and all that others say."""
    storm = [request("10.0.0.2", sender=socket.inet_ntoa((0x0A010000 + k).to_bytes(4, "big")))
             for k in range(20 * ROWS)]
    told = hear(place, *storm)
    assert len(told) == SHARE
    assert place.events.missed == 20 * ROWS - SHARE
    assert hear(place, request("10.0.0.2", sender="10.0.0.9", mac=OTHER), origin=2) == [
        said("10.0.0.9", OTHER, 2)]


def test_replies_and_other_rows_side_by_side(place: Place) -> None:
    """Only undecided rows are looked at, each row for itself."""
    frames = [request("10.0.0.2"), b"\x02" * 60, request("10.0.0.3"), b"\x02" * 10,
              request("10.0.0.2", sender="10.0.0.7")]
    outcomes = place.run(respond, Responder(place.population), frames)
    assert [o.out for o in outcomes] == [1, None, None, None, 1]
    assert [o.frame for o in outcomes[1:4]] == frames[1:4]
