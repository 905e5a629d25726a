# SPDX-License-Identifier: Apache-2.0
"""Tunnels to hosts that others named: whatever is wrong with one, the others go on, and it says so.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from byway.control.actions import AddNetwork, SetUnderlay
from byway.control.model import NetworkConfig, UnderlayConfig
from byway.control.problem import EngineError
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from tests.running import RunningSwitch

HERE, THERE, ELSEWHERE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
MAC = 0x020000000099


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind((HERE, 0))
        return int(found.getsockname()[1])


def underlaid(switch: RunningSwitch, port: int = 0) -> int:
    """A network with a VNI, and an underlay; -> its UDP port."""
    port = port or free_port()
    switch.apply([AddNetwork(NetworkConfig(name="red", vni=100, mtu=1450)),
                  SetUnderlay(UnderlayConfig(address=HERE, port=port, mtu=1500))])
    return port


def tell(switch: RunningSwitch, name: str, *arguments: Any) -> None:
    """As the population does for what etcd says."""
    switch.call(getattr(switch.engine.overlay, name), *arguments)


def host(switch: RunningSwitch, name: str) -> dict[str, Any]:
    (found,) = [one for one in switch.call(switch.engine.overlay.hosts) if one["name"] == name]
    return found


@contextmanager
def listening(address: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize(("address", "reason"), [
    (HERE, "is this host's own"), ("2001:db8::1", "is not of the underlay's family")])
def test_a_host_that_cannot_be_is_down(switch: RunningSwitch, address: str, reason: str) -> None:
    underlaid(switch)
    tell(switch, "set_tunnel", "wrong", address)
    tell(switch, "flood", "red", "wrong", True)
    tell(switch, "set_entry", "red", MAC, (), "wrong")
    assert host(switch, "wrong")["state"] == "down"
    assert reason in host(switch, "wrong")["reason"]
    switch.vhost("guest", network="red")
    with switch.guest("guest", 1) as guest:
        guest.send([ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b""),
                    ethernet(MAC.to_bytes(6, "big"), guest.mac, TEST_ETHERTYPE, b"")])
        switch.settle()
    assert switch.port("guest")["drops"] == {"port_down": 2}
    tell(switch, "drop_tunnel", "wrong")
    assert switch.call(switch.engine.overlay.hosts) == []


def test_a_host_may_get_a_right_address(switch: RunningSwitch) -> None:
    port = underlaid(switch)
    tell(switch, "set_tunnel", "far", HERE)
    tell(switch, "flood", "red", "far", True)
    switch.vhost("guest", network="red")
    with switch.guest("guest", 1) as guest, listening(THERE, port) as sock:
        tell(switch, "set_tunnel", "far", THERE)
        assert (host(switch, "far")["state"], host(switch, "far")["reason"]) == ("up", "")
        frame = ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"")
        guest.send([frame])
        switch.settle()
        assert sock.recv(2000)[8:] == frame
        tell(switch, "set_tunnel", "far", HERE)
        assert host(switch, "far")["state"] == "down"
        guest.send([frame])
        switch.settle()
        with pytest.raises(BlockingIOError):
            sock.recv(2000)


def test_two_hosts_with_one_address(switch: RunningSwitch) -> None:
    """The first has it; the second gets it once the first is gone."""
    underlaid(switch)
    tell(switch, "set_tunnel", "first", THERE)
    tell(switch, "set_tunnel", "second", THERE)
    assert (host(switch, "first")["state"], host(switch, "second")["state"]) == ("up", "down")
    assert 'is that of host "first"' in host(switch, "second")["reason"]
    switch.call(switch.engine.overlay.tunnels.tick)
    assert host(switch, "second")["state"] == "down"
    tell(switch, "drop_tunnel", "first")
    switch.call(switch.engine.overlay.tunnels.tick)
    assert host(switch, "second")["state"] == "up"


def test_without_an_underlay(switch: RunningSwitch) -> None:
    switch.apply([AddNetwork(NetworkConfig(name="red", vni=100, mtu=1450))])
    tell(switch, "set_tunnel", "far", THERE)
    tell(switch, "flood", "red", "far", True)
    tell(switch, "set_entry", "red", MAC, (bytes(16),), "far")
    tell(switch, "flood", "red", "far", False)
    tell(switch, "drop_entry", "red", MAC, (bytes(16),))
    tell(switch, "drop_tunnel", "far")
    assert switch.call(switch.engine.overlay.hosts) == []


def test_networks_that_are_not_here(switch: RunningSwitch) -> None:
    underlaid(switch)
    tell(switch, "set_tunnel", "far", THERE)
    tell(switch, "flood", "nowhere", "far", True)
    tell(switch, "set_entry", "nowhere", MAC, (), "far")
    tell(switch, "drop_entry", "nowhere", MAC)
    assert host(switch, "far")["networks"] == []


def test_another_underlay_under_the_same_tunnels(switch: RunningSwitch) -> None:
    underlaid(switch)
    tell(switch, "set_tunnel", "far", THERE)
    tell(switch, "flood", "red", "far", True)
    other = free_port()
    switch.vhost("guest", network="red")
    with switch.guest("guest", 1) as guest, listening(THERE, other) as sock:
        switch.apply([SetUnderlay(None)])
        assert (host(switch, "far")["state"], host(switch, "far")["reason"]) == (
            "down", "there is no underlay")
        switch.apply([SetUnderlay(UnderlayConfig(address=HERE, port=other, mtu=1500))])
        assert host(switch, "far")["state"] == "up"
        frame = ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"")
        guest.send([frame])
        switch.settle()
        assert sock.recv(2000)[8:] == frame


def test_an_underlay_that_cannot_be_had_leaves_the_tunnels_down(switch: RunningSwitch) -> None:
    underlaid(switch)
    tell(switch, "set_tunnel", "far", THERE)
    with pytest.raises(EngineError, match="none of this machine's addresses"):
        switch.call(switch.engine.overlay.tunnels.set_underlay,
                    UnderlayConfig(address="192.0.2.1", port=free_port(), mtu=1500))
    assert host(switch, "far")["state"] == "down"
    switch.call(switch.engine.overlay.tunnels.tick)
    assert host(switch, "far")["state"] == "down"


def test_hosts_that_never_can_be_keep_nobody_from_being_tried(switch: RunningSwitch) -> None:
    underlaid(switch)
    for k in range(20):
        tell(switch, "set_tunnel", f"wrong{k}", HERE)
    tell(switch, "set_tunnel", "one", THERE)
    tell(switch, "set_tunnel", "other", THERE)
    tell(switch, "drop_tunnel", "one")  # now the other one can be
    for _ in range(4):
        switch.call(switch.engine.overlay.tunnels.tick)
    assert host(switch, "other")["state"] == "up"
