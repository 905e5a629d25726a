# SPDX-License-Identifier: Apache-2.0
"""The stages of ports in an engine: what configurations ask for is what happens to frames, and it
changes while ports go on."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from byway.control.actions import (
    AddGroup,
    AddNetwork,
    AddPort,
    AddRouter,
    ChangeGroup,
    ChangeNetwork,
    ChangePort,
    RemoveGroup,
    RemoveRouter,
)
from byway.control.model import GroupConfig, NetworkConfig, RouterConfig
from byway.control.problem import EngineError
from byway.testing.frames import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    ECHO_REPLY,
    ECHO_REQUEST,
    TEST_ETHERTYPE,
    Arp,
    Echo,
    ethernet,
)
from byway.testing.guest import Guest
from tests.running import RunningSwitch, mac

NOBODY = bytes(6)


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        yield made


class Yard:
    """Guests on ports of networks, each port with its options."""

    def __init__(self, switch: RunningSwitch, stack: ExitStack, **ports: dict[str, Any]) -> None:
        self.switch = switch
        self.configs: dict[str, Any] = {}
        self.guests: dict[str, Guest] = {}
        for number, (name, options) in enumerate(ports.items(), 1):
            config = switch.config("vhost-user", name, **{"mac": mac(number), **options})
            switch.apply([AddPort(config)])
            self.configs[name] = config
            self.guests[name] = stack.enter_context(switch.guest(name, number))

    def __getitem__(self, name: str) -> Guest:
        return self.guests[name]

    def send(self, name: str, *frames: bytes) -> dict[str, list[bytes]]:
        """A guest sends; -> who got what."""
        self.guests[name].send(list(frames))
        self.switch.settle()
        got = {other: guest.receive() for other, guest in self.guests.items()}
        return {other: frames for other, frames in got.items() if frames}

    def change(self, name: str, **options: Any) -> None:
        """Change a port in place."""
        old = self.configs[name]
        new = self.configs[name] = type(old)(**{**old.model_dump(), **options})
        self.switch.apply([ChangePort(old, new)])

    def hello(self, name: str, to: bytes = BROADCAST, tag: int = 0) -> bytes:
        """A frame of a guest, with a VLAN tag where there is one."""
        frame = ethernet(to, self.guests[name].mac, TEST_ETHERTYPE, name.encode())
        return frame[:12] + b"\x81\0" + tag.to_bytes(2, "big") + frame[12:] if tag else frame

    def ask(self, name: str, target: str, sender: str) -> dict[str, list[bytes]]:
        """A guest asks by ARP."""
        return self.send(name, Arp(ARP_REQUEST, self.guests[name].mac, sender, NOBODY,
                                   target).frame(BROADCAST))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def untagged(frame: bytes) -> bytes:
    return frame[:12] + frame[16:]


# ---------------------------------------------------------------- trunks
def test_a_trunk_carries_networks_by_tag(switch: RunningSwitch, stack: ExitStack) -> None:
    for name in ("blue", "red", "green"):
        switch.network(name)
    yard = Yard(switch, stack, trunk={"network": "green", "vlans": {"10": "blue", "20": "red"}},
                blue={"network": "blue"}, red={"network": "red"}, green={"network": "green"})
    for tag, name in ((10, "blue"), (20, "red")):
        frame = yard.hello("trunk", tag=tag)
        assert yard.send("trunk", frame) == {name: [untagged(frame)]}
        answer = yard.hello(name, yard["trunk"].mac)
        assert yard.send(name, answer) == {
            "trunk": [answer[:12] + b"\x81\0" + tag.to_bytes(2, "big") + answer[12:]]}
        everybody = yard.hello(name)
        assert list(yard.send(name, everybody)) == ["trunk"]
    assert yard.send("trunk", yard.hello("trunk")) == {"green": [yard.hello("trunk")]}
    assert yard.send("trunk", yard.hello("trunk", tag=30)) == {}
    assert switch.drops() == {"trunk": {"vlan_tag": 1}}
    known = {(entry["network"], entry["port"]) for entry in switch.call(switch.engine.fdb, None)}
    assert {("blue", "trunk"), ("red", "trunk"), ("green", "trunk"), ("red", "red")} <= known


def test_all_tags_in_one_batch(switch: RunningSwitch, stack: ExitStack) -> None:
    for name in ("blue", "red", "green"):
        switch.network(name)
    yard = Yard(switch, stack, trunk={"network": "green", "vlans": {"10": "blue", "20": "red"}},
                blue={"network": "blue"}, red={"network": "red"}, green={"network": "green"})
    tags = [10, 10, 20, 0, 10, 20, 20, 0]
    got = yard.send("trunk", *[yard.hello("trunk", tag=tag) for tag in tags])
    assert {name: len(frames) for name, frames in got.items()} == {
        "blue": tags.count(10), "red": tags.count(20), "green": tags.count(0)}


def test_a_trunk_leaves_nothing_behind(switch: RunningSwitch) -> None:
    for name in ("blue", "green"):
        switch.network(name)
    numbers = switch.engine._port_numbers
    left = numbers.left
    for _ in range(3):
        switch.add("vhost-user", "trunk", "green", vlans={"10": "blue"})
        with switch.guest("trunk", 1) as guest:
            guest.send([ethernet(BROADCAST, guest.mac, 0x8100, b"\0\x0a\x88\xb5")])
            switch.settle()
            assert [e["port"] for e in switch.call(switch.engine.fdb, "blue")] == ["trunk"]
        switch.remove("trunk")
        assert switch.call(switch.engine.fdb, "blue") == []
        assert [n["ports"] for n in switch.call(switch.engine.networks)] == [[], []]
        assert numbers.left == left


# ---------------------------------------------------------------- mirrors, meters
def test_a_mirror_gets_what_a_port_sends_and_is_sent(switch: RunningSwitch,
                                                     stack: ExitStack) -> None:
    switch.network("blue")
    switch.network("watch")
    yard = Yard(switch, stack, one={"mirror": {"to": "eye"}}, two={}, eye={"network": "watch"})
    there, back = yard.hello("one"), yard.hello("two", yard["one"].mac)
    assert yard.send("one", there) == {"two": [there], "eye": [there]}
    assert yard.send("two", back) == {"one": [back], "eye": [back]}
    yard.change("one", mirror={"to": "eye", "direction": "tx"})
    assert yard.send("one", there) == {"two": [there]}
    assert yard.send("two", back) == {"one": [back], "eye": [back]}
    yard.change("one", mirror=None)
    assert yard.send("two", back) == {"one": [back]}


def test_a_mirror_comes_and_goes(switch: RunningSwitch, stack: ExitStack) -> None:
    switch.network("blue")
    switch.network("watch")
    yard = Yard(switch, stack, one={"mirror": {"to": "eye"}}, two={})
    assert list(yard.send("one", yard.hello("one"))) == ["two"]
    switch.vhost("eye", network="watch")
    with switch.guest("eye", 9) as eye:
        yard.send("one", yard.hello("one"))
        assert eye.receive() == [yard.hello("one")]
    switch.remove("eye")
    assert list(yard.send("one", yard.hello("one"))) == ["two"]


def test_limits_change_while_the_port_goes_on(switch: RunningSwitch, stack: ExitStack) -> None:
    switch.network("blue")
    yard = Yard(switch, stack, one={}, two={})
    frame = yard.hello("one", yard["two"].mac)
    yard.send("two", yard.hello("two"))
    assert len(yard.send("one", *[frame] * 40)["two"]) == 40
    yard.change("one", limit={"rx_frames": 10, "burst": 1000})
    assert 10 <= len(yard.send("one", *[frame] * 60)["two"]) < 40
    assert set(switch.drops()["one"]) == {"rate"}
    yard.change("one", limit=None)
    assert len(yard.send("one", *[frame] * 40)["two"]) == 40
    assert switch.port("one")["state"] == "up"


# ---------------------------------------------------------------- security groups
PING = {"direction": "ingress", "protocol": "icmp", "icmp_type": 8}


def echo(yard: Yard, one: str, other: str, kind: int) -> bytes:
    """An echo message between guests whose addresses are 10.0.0.<their number>."""
    numbers = {name: k for k, name in enumerate(yard.guests, 1)}
    return Echo(kind, f"10.0.0.{numbers[one]}", f"10.0.0.{numbers[other]}", 7, 1).frame(
        yard[other].mac, yard[one].mac)


def test_groups_and_their_change(switch: RunningSwitch, stack: ExitStack) -> None:
    switch.network("blue")
    closed, opened = GroupConfig(name="web"), GroupConfig(name="web", rules=(PING,))
    switch.apply([AddGroup(closed)])
    yard = Yard(switch, stack, one={}, two={"security_groups": ["web"]})
    yard.ask("two", "10.0.0.9", "10.0.0.2")  # groups say nothing of ARP
    question, answer = echo(yard, "one", "two", ECHO_REQUEST), echo(yard, "two", "one", ECHO_REPLY)
    assert yard.send("one", question) == {}
    assert switch.drops() == {"two": {"not_allowed": 1}}
    switch.apply([ChangeGroup(closed, opened)])
    assert yard.send("one", question) == {"two": [question]}
    assert yard.send("two", answer) == {"one": [answer]}
    (known,) = switch.call(switch.engine.connections, "two", 10)
    assert (known["direction"], known["protocol"], known["port"]) == ("ingress", 1, "two")
    assert known["source"].startswith("10.0.0.1:")
    assert known["left"] > 0
    switch.apply([ChangeGroup(opened, closed)])
    assert yard.send("one", question) == {}
    yard.change("two", security_groups=())
    assert yard.send("one", question) == {"two": [question]}
    switch.apply([RemoveGroup("web")])


def test_the_groups_of_a_trunk_are_those_of_all_its_networks(
        switch: RunningSwitch, stack: ExitStack) -> None:
    for name in ("blue", "green"):
        switch.network(name)
    closed = GroupConfig(name="web")
    opened = GroupConfig(name="web", rules=({"direction": "egress"},))
    switch.apply([AddGroup(closed)])
    yard = Yard(switch, stack, blue={"network": "blue"},
                trunk={"network": "green", "vlans": {"10": "blue"}, "security_groups": ["web"]})
    question = echo(yard, "trunk", "blue", ECHO_REQUEST)
    tagged = question[:12] + b"\x81\0\0\x0a" + question[12:]
    answer = echo(yard, "blue", "trunk", ECHO_REPLY)
    assert yard.send("trunk", tagged) == {}
    assert yard.send("blue", answer) == {}
    assert switch.drops() == {"trunk": {"not_allowed": 1, "bad_state": 1}}
    switch.apply([ChangeGroup(closed, opened)])
    assert yard.send("trunk", tagged) == {"blue": [question]}
    assert list(yard.send("blue", answer)) == ["trunk"]
    assert [one["port"] for one in switch.call(switch.engine.connections, "trunk", 10)] == ["trunk"]
    assert switch.call(switch.engine.connections, "blue", 10) == []
    switch.remove("trunk")
    assert switch.call(switch.engine.connections, None, 10) == []


def test_a_port_may_have_so_many_connections(switch: RunningSwitch, stack: ExitStack) -> None:
    switch.network("blue")
    switch.apply([AddGroup(GroupConfig(name="out", rules=({"direction": "egress"},)))])
    yard = Yard(switch, stack, two={},
                one={"security_groups": ["out"], "limit": {"connections": 2}})
    questions = [Echo(ECHO_REQUEST, "10.0.0.1", "10.0.0.2", number, 1).frame(
        yard["two"].mac, yard["one"].mac) for number in range(5)]
    yard.send("one", *questions)
    assert len(switch.call(switch.engine.connections, "one", 10)) == 2
    yard.change("one", limit={"connections": 4})
    yard.send("one", *questions)
    assert len(switch.call(switch.engine.connections, "one", 10)) == 4


def test_a_rule_names_a_group(switch: RunningSwitch, stack: ExitStack) -> None:
    switch.network("blue")
    switch.apply([
        AddGroup(GroupConfig(name="friends", rules=({"direction": "egress"},))),
        AddGroup(GroupConfig(name="web", rules=({**PING, "remote_group": "friends"},)))])
    yard = Yard(switch, stack, one={"ips": ["10.0.0.1"], "security_groups": ["friends"]},
                two={"security_groups": ["web"]}, three={"ips": ["10.0.0.3"]})
    yard.ask("two", "10.0.0.9", "10.0.0.2")
    assert list(yard.send("one", echo(yard, "one", "two", ECHO_REQUEST))) == ["two"]
    assert yard.send("three", echo(yard, "three", "two", ECHO_REQUEST)) == {}
    yard.change("three", security_groups=("friends",))
    assert list(yard.send("three", echo(yard, "three", "two", ECHO_REQUEST))) == ["two"]


# ---------------------------------------------------------------- answers, routes
def test_who_asks_is_answered_by_the_switch(switch: RunningSwitch, stack: ExitStack) -> None:
    switch.network("blue", responder=True)
    yard = Yard(switch, stack, one={"ips": ["10.0.0.1"]}, two={"ips": ["10.0.0.2"]}, three={})
    got = yard.ask("one", "10.0.0.2", "10.0.0.1")
    assert list(got) == ["one"]
    answer = Arp.parse(got["one"][0])
    assert answer
    assert (answer.operation, answer.sender_mac) == (ARP_REPLY, yard["two"].mac)
    assert set(yard.ask("one", "10.0.0.9", "10.0.0.1")) == {"two", "three"}, "nobody knows it"
    yard.change("two", ips=("10.0.0.9",))
    assert list(yard.ask("one", "10.0.0.9", "10.0.0.1")) == ["one"]
    assert set(yard.ask("one", "10.0.0.2", "10.0.0.1")) == {"two", "three"}, "given up"


def test_what_guests_say_of_themselves_is_known(switch: RunningSwitch, stack: ExitStack) -> None:
    switch.network("blue", responder=True)
    yard = Yard(switch, stack, one={"mac": None}, two={"mac": None})
    assert set(yard.ask("two", "10.0.0.77", "10.0.0.2")) == {"one"}
    assert list(yard.ask("one", "10.0.0.2", "10.0.0.1")) == ["one"], "it was heard"
    known = {entry["mac"]: (entry["ips"], entry["port"])
             for entry in switch.call(switch.engine.population, "blue")}
    assert known == {mac(1): (["10.0.0.1"], "one"), mac(2): (["10.0.0.2"], "two")}
    yard.change("one", limit={"rx_frames": 1_000_000})
    assert list(yard.ask("two", "10.0.0.1", "10.0.0.2")) == ["two"], "and stays known"
    switch.remove("two")
    assert [e["mac"] for e in switch.call(switch.engine.population, "blue")] == [mac(1)]


def test_an_address_is_here_while_its_port_is_up(switch: RunningSwitch) -> None:
    """So a guest that is moved to another host takes its address along when it moves."""
    switch.network("blue", responder=True)
    switch.add("vhost-user", "one", mac=mac(1), ips=["10.0.0.1"])

    def known() -> list[str]:
        return [entry["mac"] for entry in switch.call(switch.engine.population, "blue")]

    assert known() == []
    with switch.guest("one", 1):
        assert known() == [mac(1)]
    switch.until(lambda: switch.port("one")["state"] != "up")
    assert known() == []


GATEWAY_BLUE, GATEWAY_RED = "10.0.0.254", "10.0.1.254"


def two_networks(switch: RunningSwitch, stack: ExitStack) -> Yard:
    switch.network("blue", gateway=[f"{GATEWAY_BLUE}/24"])
    switch.network("red", gateway=[f"{GATEWAY_RED}/24"])
    return Yard(switch, stack, one={"ips": ["10.0.0.1"]},
                two={"network": "red", "ips": ["10.0.1.2"]})


def routed(yard: Yard, gateway: bytes) -> dict[str, list[bytes]]:
    return yard.send("one", Echo(ECHO_REQUEST, "10.0.0.1", "10.0.1.2", 7, 1).frame(
        gateway, yard["one"].mac))


def test_a_gateway_answers_and_a_router_joins(switch: RunningSwitch, stack: ExitStack) -> None:
    yard = two_networks(switch, stack)
    answer = Arp.parse(yard.ask("one", GATEWAY_BLUE, "10.0.0.1")["one"][0])
    assert answer
    assert answer.sender_ip == GATEWAY_BLUE
    gateway = answer.sender_mac
    pong = yard.send("one", Echo(ECHO_REQUEST, "10.0.0.1", GATEWAY_BLUE, 7, 1).frame(
        gateway, yard["one"].mac))
    reply = Echo.parse(pong["one"][0])
    assert reply
    assert (reply.kind, reply.source) == (ECHO_REPLY, GATEWAY_BLUE)
    assert "two" not in routed(yard, gateway), "no router joins them"
    switch.apply([AddRouter(RouterConfig(name="r", networks=("blue", "red")))])
    got = routed(yard, gateway)
    assert list(got) == ["two"]
    assert got["two"][0][:6] == yard["two"].mac
    assert got["two"][0][22] == 63, "one hop less"
    switch.apply([RemoveRouter("r")])
    assert "two" not in routed(yard, gateway)


def test_a_network_gets_a_gateway_while_ports_go_on(switch: RunningSwitch,
                                                    stack: ExitStack) -> None:
    switch.network("blue")
    yard = Yard(switch, stack, one={"ips": ["10.0.0.1"]}, two={})
    assert set(yard.ask("one", GATEWAY_BLUE, "10.0.0.1")) == {"two"}
    plain = NetworkConfig(name="blue")
    with_one = NetworkConfig(name="blue", gateway=(f"{GATEWAY_BLUE}/24",))
    switch.apply([ChangeNetwork(plain, with_one)])
    assert set(yard.ask("one", GATEWAY_BLUE, "10.0.0.1")) == {"one"}
    switch.apply([ChangeNetwork(with_one, plain)])
    assert set(yard.ask("one", GATEWAY_BLUE, "10.0.0.1")) == {"two"}


def test_what_fails_leaves_the_policy_as_it_was(switch: RunningSwitch, stack: ExitStack) -> None:
    yard = two_networks(switch, stack)
    with pytest.raises(EngineError):
        switch.apply([AddRouter(RouterConfig(name="r", networks=("blue", "red"))),
                      AddGroup(GroupConfig(name="web")),
                      AddNetwork(NetworkConfig(name="blue"))])
    answer = Arp.parse(yard.ask("one", GATEWAY_BLUE, "10.0.0.1")["one"][0])
    assert answer
    assert "two" not in routed(yard, answer.sender_mac)
    switch.apply([AddGroup(GroupConfig(name="web"))])
