# SPDX-License-Identifier: Apache-2.0
"""The configuration of af-packet and udp ports, and what it says against itself."""

import pytest
from pydantic import ValidationError

from byway.control.fitting import cross_check
from byway.control.model import AfPacketPort, Config, NetworkConfig, UdpPort


def packet_port(**keys: object) -> AfPacketPort:
    return AfPacketPort.model_validate(
        {"name": "p", "network": "blue", "kind": "af-packet", "ifname": "eth1", **keys})


def udp_port(**keys: object) -> UdpPort:
    return UdpPort.model_validate(
        {"name": "u", "network": "blue", "kind": "udp", "local": "127.0.0.1:4000",
         "remote": "127.0.0.1:4001", **keys})


def test_an_af_packet_port() -> None:
    plain = packet_port()
    assert (plain.ifname, plain.netns, plain.queues) == ("eth1", None, 1)
    full = packet_port(netns="/proc/123/ns/net", queues=4)
    assert (full.netns, full.queues) == ("/proc/123/ns/net", 4)
    assert packet_port(netns="red").netns == "red"


@pytest.mark.parametrize(("keys", "message"), [
    ({"ifname": "a/b"}, "is no interface name"),
    ({"ifname": ""}, "is no interface name"),
    ({"netns": "a/b"}, "is no name of a network namespace"),
    ({"netns": "/a\0b"}, "NUL"),
    ({"queues": 0}, "greater than or equal to 1"),
    ({"queues": 33}, "less than or equal to 32"),
    ({"address": ["10.0.0.1/24"]}, "Extra inputs"),
])
def test_an_af_packet_port_that_is_wrong(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        packet_port(**keys)


@pytest.mark.parametrize(("local", "remote", "kept"), [
    ("127.0.0.1:4000", "192.0.2.1:65535", "127.0.0.1:4000"),
    ("[::1]:4000", "[2001:db8::1]:1", "[::1]:4000"),
    ("[0:0::1]:04000", "[::1]:4001", "[::1]:4000"),
])
def test_a_udp_port(local: str, remote: str, kept: str) -> None:
    assert udp_port(local=local, remote=remote).local == kept


@pytest.mark.parametrize("bad", [
    "127.0.0.1", "4000", ":4000", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1",
    "127.0.0.1:x", "127.0.0.1:\u0664", "localhost:4000", "::1:4000", "[127.0.0.1]:4000",
    "[::1:4000", "::1]:4000", "[fe80::1%eth0]:4000", "127.0.0.1:4000 ", "1.2.3:4",
    "127.0.0.1:" + "9" * 5000])
def test_what_is_no_address(bad: str) -> None:
    with pytest.raises(ValidationError) as caught:
        udp_port(local=bad)
    assert 'is no address with a port number; write it as in "192.0.2.1:4000"' in str(caught.value)


@pytest.mark.parametrize(("keys", "message"), [
    ({"local": "[::1]:4000"}, "are not of one family"),
    ({"remote": "127.0.0.1:4000"}, 'local and remote are both "127.0.0.1:4000"'),
    ({"remote": "224.0.0.1:4000"}, "is not the address of one machine"),
    ({"remote": "0.0.0.0:4000"}, "is not the address of one machine"),
    ({"local": "[::]:4000", "remote": "[::1]:4000"}, "is not the address of one machine"),
    ({"queues": 2}, "one queue pair"),
])
def test_a_udp_port_that_is_wrong(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        udp_port(**keys)
    assert message in str(caught.value)


def test_what_two_ports_may_not_share() -> None:
    blue = NetworkConfig(name="blue")
    ports = (packet_port(), packet_port(name="q", netns="red"), packet_port(name="r"),
             udp_port(), udp_port(name="v", remote="127.0.0.1:4002"))
    assert [str(p) for p in cross_check(Config(networks=(blue,), ports=ports))] == [
        'port "r": ifname: "eth1" is also that of port "p": ifname;'
        " attach to an interface once",
        'port "v": local: "127.0.0.1:4000" is also that of port "u": local;'
        " give it another port number"]
