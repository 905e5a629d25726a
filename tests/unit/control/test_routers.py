# SPDX-License-Identifier: Apache-2.0
"""The router at a trunk: one port, a gateway in each of its networks, answers under their tags."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.control.actions import AddRouter
from byway.control.model import RouterConfig
from byway.testing.frames import ARP_REQUEST, BROADCAST, ECHO_REPLY, ECHO_REQUEST, Arp, Echo
from byway.testing.guest import Guest
from tests.running import RunningSwitch
from tests.running import mac as mac_text

TAG = b"\x81\x00\x00\x0a"
GATEWAY = bytes.fromhex("026277000000")


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        for number, name in enumerate(("blue", "red")):
            made.network(name, gateway=(f"10.0.{number}.1/24",))
        made.apply([AddRouter(RouterConfig(name="r", networks=("blue", "red")))])
        made.add("vhost-user", "trunk", "blue", vlans={"10": "red"}, mac=mac_text(1))
        yield made


def tagged(frame: bytes) -> bytes:
    return frame[:12] + TAG + frame[12:]


def untagged(frame: bytes) -> bytes:
    assert frame[12:16] == TAG
    return frame[:12] + frame[16:]


def exchange(switch: RunningSwitch, guest: Guest, frame: bytes) -> list[bytes]:
    """A guest sends; what it gets."""
    guest.send([frame])
    switch.settle()
    return guest.receive()


def test_a_trunk_has_a_gateway_in_each_network(switch: RunningSwitch) -> None:
    with switch.guest("trunk", 1) as guest:
        for number, wrap, unwrap in ((0, bytes, bytes), (1, tagged, untagged)):
            own, gate = f"10.0.{number}.2", f"10.0.{number}.1"
            question = Arp(ARP_REQUEST, guest.mac, own, bytes(6), gate).frame(BROADCAST)
            answer, = exchange(switch, guest, wrap(question))
            arp = Arp.parse(unwrap(answer))
            assert arp is not None
            assert (arp.sender_ip, arp.sender_mac) == (gate, GATEWAY)
            echo = Echo(ECHO_REQUEST, own, gate, 1, 2).frame(GATEWAY, guest.mac)
            answer, = exchange(switch, guest, wrap(echo))
            assert Echo.parse(unwrap(answer)) == Echo(ECHO_REPLY, gate, own, 1, 2)


def test_what_a_trunk_routes_to_itself_changes_its_tag(switch: RunningSwitch) -> None:
    """From the native network to the tagged one: both are the same guest's."""
    with switch.guest("trunk", 1) as guest:
        asked = exchange(switch, guest, Echo(
            ECHO_REQUEST, "10.0.0.2", "10.0.1.2", 1, 2).frame(GATEWAY, guest.mac))
        question = Arp.parse(untagged(asked[0]))
        assert question is not None
        assert (question.sender_ip, question.target_ip) == ("10.0.1.1", "10.0.1.2")
        assert switch.port("trunk")["drops"] == {"no_neighbour": 1}
