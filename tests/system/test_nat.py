# SPDX-License-Identifier: Apache-2.0
"""Address translation with real traffic, between network namespaces.

    blue1 --+-- [blue] host [wan] -- outside        IPv4 10.10.0.0/24, 10.20.0.0/24, 10.90.0.0/24
    blue2 --+                                       IPv6 fd10::/64, fd20::/64, fd90::/64
    red1 ------ [red]

The host is the first address of each network, outside is 10.90.0.2 and fd90::2. `blue` is a bridge,
so that two containers stand in one network.
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from byway.machine.netns import inside
from byway.nat import Content, NatError, Publication, Table
from tests import peers
from tests.system.peers import calls

pytestmark = pytest.mark.system

BLUE, RED = ["10.10.0.0/24", "fd10::/64"], ["10.20.0.0/24", "fd20::/64"]
HOST = {4: "10.90.0.1", 6: "fd90::1"}
OUTSIDE = {4: "10.90.0.2", 6: "fd90::2"}
BLUE1 = {4: "10.10.0.2", 6: "fd10::2"}
BLUE2 = {4: "10.10.0.3", 6: "fd10::3"}
RED1 = {4: "10.20.0.2", 6: "fd20::2"}
LAB = f"bywN{os.getpid()}-"
SCRIPT = """
link add blue type bridge
link add red type veth peer name eth0 netns {lab}red1
link add wan type veth peer name eth0 netns {lab}outside
link add b1 type veth peer name eth0 netns {lab}blue1
link add b2 type veth peer name eth0 netns {lab}blue2
link set b1 master blue up
link set b2 master blue up
addr add 10.10.0.1/24 dev blue
addr add 10.20.0.1/24 dev red
addr add 10.90.0.1/24 dev wan
addr add fd10::1/64 dev blue nodad
addr add fd20::1/64 dev red nodad
addr add fd90::1/64 dev wan nodad
link set blue up
link set red up
link set wan up
link set lo up
"""


def ip(place: str, script: str) -> None:
    """Commands of ip(8) in one of the lab's namespaces."""
    subprocess.run(["ip", "-n", LAB + place, "-batch", "-"], input=script, text=True, check=True)


@pytest.fixture(scope="module")
def lab() -> Iterator[None]:
    """The namespaces of the picture above."""
    peers.find_program("nft")
    if os.geteuid() or shutil.which("ip") is None:
        peers.need_peer("network namespaces", "they need root and iproute2")
    places = {"outside": OUTSIDE, "blue1": BLUE1, "blue2": BLUE2, "red1": RED1}
    with contextlib.ExitStack() as stack:
        for place in ("host", *places):
            subprocess.run(["ip", "netns", "add", LAB + place], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", LAB + place], check=True)
        ip("host", SCRIPT.format(lab=LAB))
        inside(LAB + "host", _bridged_frames_pass_no_rules)
        for place, own in places.items():
            ip(place, f"link set lo up\nlink set eth0 up\naddr add {own[4]}/24 dev eth0\n"
                      f"addr add {own[6]}/64 dev eth0 nodad\n")
            if place != "outside":  # which knows nothing of the networks behind the host
                ip(place, f"route add default via {own[4].rpartition('.')[0]}.1\n"
                          f"route add default via {own[6].rpartition('::')[0]}::1\n")
        yield


def _bridged_frames_pass_no_rules() -> None:
    with open("/proc/sys/net/bridge/bridge-nf-call-iptables", "w") as setting:
        setting.write("0")
    with open("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "w") as setting:
        setting.write("0")


@pytest.fixture
def table(lab: None) -> Iterator[Table]:
    """A table of the host in which both networks are masqueraded; gone afterwards."""
    made = Table("byway-test", LAB + "host")
    made.masquerade(BLUE, "blue")
    made.masquerade(RED, "red")
    yield made
    made.remove()


def server(place: str, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket in one of the lab's namespaces that waits for calls."""
    return calls.server(LAB + place, address, port, kind)


def caller(place: str, target: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket in one of the lab's namespaces, connected to a target."""
    return calls.caller(LAB + place, target, port, kind)


def seen(listening: socket.socket, place: str, target: str, port: int) -> str:
    """Call ``target`` by TCP, have both ends speak; -> the address that the server saw."""
    return calls.seen(listening, LAB + place, target, port)


def unreachable(place: str, target: str, port: int) -> bool:
    """Is there no way to ``target`` by TCP?"""
    return calls.unreachable(LAB + place, target, port)


@pytest.mark.parametrize("version", [4, 6])
def test_outside_sees_the_hosts_address(table: Table, version: int) -> None:
    with server("outside", OUTSIDE[version], 7000) as listening:
        assert seen(listening, "blue1", OUTSIDE[version], 7000) == HOST[version]
        assert seen(listening, "red1", OUTSIDE[version], 7000) == HOST[version]


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_find_their_way_back(table: Table, version: int) -> None:
    with server("outside", OUTSIDE[version], 7001, socket.SOCK_DGRAM) as listening, \
            caller("blue1", OUTSIDE[version], 7001, socket.SOCK_DGRAM) as calling:
        calling.send(b"there")
        text, peer = listening.recvfrom(100)
        listening.sendto(b"and back", peer)
        assert (text, peer[0], calling.recv(100)) == (b"there", HOST[version], b"and back")


@pytest.mark.parametrize("version", [4, 6])
def test_a_published_port_is_reached_from_outside_by_its_true_address(
        table: Table, version: int) -> None:
    table.publish([Publication("tcp", 8080, BLUE1[version], 80)], "blue")
    with server("blue1", BLUE1[version], 80) as listening:
        assert seen(listening, "outside", HOST[version], 8080) == OUTSIDE[version]


@pytest.mark.parametrize("version", [4, 6])
def test_a_published_port_is_reached_from_the_host(table: Table, version: int) -> None:
    table.publish([Publication("tcp", 8080, BLUE1[version], 80)], "blue")
    gateway = {4: "10.10.0.1", 6: "fd10::1"}[version]
    with server("blue1", BLUE1[version], 80) as listening:
        assert seen(listening, "host", HOST[version], 8080) != ""
        assert seen(listening, "host", gateway, 8080) == gateway


def test_a_published_port_is_reached_by_the_loopback_address(table: Table) -> None:
    table.publish([Publication("tcp", 8080, BLUE1[4], 80)], "blue")
    with server("blue1", BLUE1[4], 80) as listening:
        assert seen(listening, "host", "127.0.0.1", 8080) == "10.10.0.1"


def test_the_loopback_address_of_ipv6_stays_the_hosts_own(table: Table) -> None:
    table.publish([Publication("tcp", 8080, BLUE1[6], 80)], "blue")
    with server("blue1", BLUE1[6], 80), server("host", "::1", 8080) as own:
        assert seen(own, "host", "::1", 8080) == "::1"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("place", ["blue1", "blue2", "red1"])
def test_containers_call_published_ports_of_their_host(
        table: Table, version: int, place: str) -> None:
    table.publish([Publication("tcp", 8080, BLUE1[version], 80)], "blue")
    with server("blue1", BLUE1[version], 80) as listening:
        assert seen(listening, place, HOST[version], 8080) != ""


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("place", ["blue1", "blue2"])
def test_containers_of_a_network_that_is_not_masqueraded_call_published_ports(
        lab: None, version: int, place: str) -> None:
    table = Table("byway-test", LAB + "host")
    table.publish([Publication("tcp", 8080, BLUE1[version], 80)], "blue", BLUE)
    with server("blue1", BLUE1[version], 80) as listening:
        assert seen(listening, place, HOST[version], 8080) != ""
    assert table.content().subnets == frozenset()
    table.withdraw(BLUE, [Publication("tcp", 8080, BLUE1[version], 80)])
    assert subprocess.run(  # nothing but the rules is left
        ["ip", "netns", "exec", LAB + "host", "nft", "list", "table", "inet", "byway-test"],
        capture_output=True, text=True, check=True).stdout.count("elements") == 0
    table.remove()


def test_a_port_of_one_address_is_not_one_of_another(table: Table) -> None:
    table.publish([Publication("tcp", 8080, BLUE1[4], 80, host="10.10.0.1")], "blue")
    with server("blue1", BLUE1[4], 80) as listening:
        assert seen(listening, "host", "10.10.0.1", 8080) == "10.10.0.1"
        assert unreachable("outside", HOST[4], 8080)


def test_a_range_of_ports_leads_port_by_port(table: Table) -> None:
    table.publish([Publication("tcp", 9000, BLUE1[4], 5000, count=3)], "blue")
    for k in range(3):
        with server("blue1", BLUE1[4], 5000 + k) as listening:
            assert seen(listening, "outside", HOST[4], 9000 + k) == OUTSIDE[4]
    assert unreachable("outside", HOST[4], 9003)


def test_what_is_withdrawn_is_out_of_reach(table: Table) -> None:
    publication = Publication("tcp", 8080, BLUE1[4], 80)
    table.publish([publication], "blue")
    table.withdraw(publications=[publication])
    with server("blue1", BLUE1[4], 80):
        assert unreachable("outside", HOST[4], 8080)
    table.withdraw(subnets=BLUE)
    with server("outside", OUTSIDE[4], 7002):
        assert unreachable("blue1", OUTSIDE[4], 7002)


@pytest.mark.parametrize("version", [4, 6])
def test_networks_reach_each_other_by_published_ports_only(table: Table, version: int) -> None:
    with server("blue1", BLUE1[version], 80) as listening:
        assert unreachable("red1", BLUE1[version], 80)
        table.remove()  # the routes are there: it is the table that keeps them apart
        assert seen(listening, "red1", BLUE1[version], 80) == RED1[version]


def test_no_container_reaches_the_hosts_loopback_address(table: Table) -> None:
    table.publish([Publication("tcp", 8080, BLUE1[4], 80)], "blue")  # route_localnet is on
    ip("blue1", "route add 127.0.0.9/32 via 10.10.0.1\n")
    with server("host", "127.0.0.9", 7003):
        for setting in ("all", "eth0"):
            inside(LAB + "blue1", lambda name=setting: _allow_loopback(name))
        assert unreachable("blue1", "127.0.0.9", 7003)


def _allow_loopback(name: str) -> None:
    with open(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "w") as setting:
        setting.write("1")


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_that_goes_on_sending_reaches_who_has_the_port_now(
        table: Table, version: int) -> None:
    first = Publication("udp", 5000, BLUE1[version], 50)
    second = Publication("udp", 5000, BLUE2[version], 50)
    datagrams = socket.SOCK_DGRAM
    with server("blue1", BLUE1[version], 50, datagrams) as one, \
            server("blue2", BLUE2[version], 50, datagrams) as two, \
            server("host", HOST[version], 5000, datagrams) as own, \
            caller("outside", HOST[version], 5000, datagrams) as client:
        client.send(b"before")
        assert own.recv(100) == b"before"  # nothing is published yet
        table.publish([first], "blue")
        client.send(b"first")
        assert one.recv(100) == b"first"
        table.withdraw(publications=[first])
        table.publish([second], "blue")
        client.send(b"second")
        assert two.recv(100) == b"second"
        table.withdraw(publications=[second])
        client.send(b"after")
        assert own.recv(100) == b"after"


def test_a_table_is_replaced_whole_and_others_are_left_alone(table: Table) -> None:
    other = Table("byway-other", LAB + "host")
    other.publish([Publication("udp", 53, RED1[4], 53)], "red")
    before = other.content()
    table.publish([Publication("tcp", 8080, BLUE1[4], 80)], "blue")  # a killed owner leaves this
    wanted = Publication("tcp", 8081, BLUE1[6], 80)
    for _ in range(2):
        table.replace([BLUE], [wanted])
        assert table.content() == Content(frozenset(BLUE), frozenset([wanted]))
    table.remove()
    assert table.content() == Content(frozenset(), frozenset())
    assert other.content() == before
    other.remove()


def test_a_port_has_one_owner(table: Table) -> None:
    mine = Publication("tcp", 8080, BLUE1[4], 80)
    table.publish([mine], "blue")
    table.publish([mine], "blue")
    with pytest.raises(NatError, match="published already, and leads elsewhere"):
        table.publish([Publication("tcp", 8081, BLUE2[4], 80),
                       Publication("tcp", 8080, BLUE2[4], 80)], "blue")
    table.withdraw(publications=[Publication("tcp", 8080, BLUE2[4], 80)])  # not what is there
    assert table.content().publications == {mine}


def test_a_network_that_overlaps_is_refused(table: Table) -> None:
    with pytest.raises(NatError, match="overlaps"):
        table.masquerade(["10.10.0.0/16"])
    assert table.content().subnets == {*BLUE, *RED}


def test_what_was_switched_on_is_said_once(lab: None) -> None:
    subprocess.run(["ip", "netns", "add", LAB + "fresh"], check=True)
    try:
        ip("fresh", "link add gw type bridge\n")
        fresh = Table("byway-test", LAB + "fresh")
        assert fresh.masquerade(BLUE, "gw") == [
            "net.ipv4.ip_forward was 0 and is 1 now",
            "net.ipv4.conf.gw.route_localnet was 0 and is 1 now",
            "net.ipv6.conf.all.forwarding was 0 and is 1 now",
        ]
        assert fresh.masquerade(BLUE, "gw") == []
    finally:
        subprocess.run(["ip", "netns", "del", LAB + "fresh"], check=True)


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(NatError, match=r"namespace /run/netns/nowhere-\d+ cannot be entered"):
        Table("byway-test", f"nowhere-{os.getpid()}").masquerade(BLUE)
