# SPDX-License-Identifier: Apache-2.0
"""Security groups between Linux's own stacks, at taps in namespaces: nothing that they need is
missing (handshakes, large segments, fragments, ICMP errors), and nothing else passes.
"""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from byway.control.actions import AddGroup, ChangeGroup
from byway.control.model import GroupConfig
from byway.machine.jit import INTERPRETED
from tests.running import RunningSwitch
from tests.system.peers.kernel import BUSYBOX
from tests.system.peers.tapped import Tapped
from tests.system.peers.veth import transfer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LEFT, RIGHT, OTHER = "10.9.0.1", "10.9.0.2", "10.9.0.3"
DATA = Random(4).randbytes((1 if INTERPRETED else 8) << 20)
SHORTLY = 0.7  # seconds to wait for what does not come
CLIENT = GroupConfig.model_validate({"name": "client", "rules": [{"direction": "egress"}]})
SERVER = GroupConfig.model_validate({"name": "server", "rules": [
    {"direction": "ingress", "protocol": "tcp", "remote_group": "client"},
    {"direction": "ingress", "protocol": "udp", "ports": "1000-1999", "remote": "10.9.0.0/24"},
    {"direction": "ingress", "protocol": "icmp", "icmp_type": 8},
    {"direction": "ingress", "protocol": "icmpv6", "icmp_type": 128}]})


@pytest.fixture
def switch(folder: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(folder) as made:
        made.network()
        made.apply([AddGroup(CLIENT), AddGroup(SERVER)])
        yield made


def add(switch: RunningSwitch, station: Tapped, group: str) -> None:
    address6 = f"fd09::{station.address.rpartition('.')[2]}/64"
    port = station.port | {"address": (*station.port["address"], address6)}
    switch.add("tap", station.address, **port, security_groups=(group,))


@pytest.fixture
def left(switch: RunningSwitch) -> Iterator[Tapped]:
    with Tapped(LEFT) as made:
        add(switch, made, "client")
        yield made
        switch.remove(LEFT)


@pytest.fixture
def right(switch: RunningSwitch) -> Iterator[Tapped]:
    with Tapped(RIGHT) as made:
        add(switch, made, "server")
        yield made
        switch.remove(RIGHT)


def refused(switch: RunningSwitch) -> dict[str, set[str]]:
    """Which ports had drops for security groups' reasons."""
    reasons = {"not_allowed", "bad_state", "connections"}
    return {name: reasons & set(drops) for name, drops in switch.drops().items()
            if reasons & set(drops)}


def connects(source: Tapped, to: Tapped, seconds: float = SHORTLY) -> bool:
    """Can a TCP connection be opened, within so many seconds?"""
    with closing(to.opened(socket.SOCK_STREAM)) as listener, \
            closing(source.opened(socket.SOCK_STREAM)) as sender:
        listener.bind((to.address, 5000))
        listener.listen()
        sender.settimeout(seconds)
        try:
            sender.connect((to.address, 5000))
        except TimeoutError:
            return False
        return True


def tcp_states(switch: RunningSwitch) -> list[tuple[str, str]]:
    """The direction and the state of each of the left one's TCP connections."""
    return [(one["direction"], one["state"])
            for one in switch.call(switch.engine.connections, LEFT, 100)
            if one["protocol"] == socket.IPPROTO_TCP]


def test_tcp_in_the_direction_that_is_allowed(
        switch: RunningSwitch, left: Tapped, right: Tapped) -> None:
    assert transfer(left, right, DATA) == DATA
    assert refused(switch) == {}
    switch.until(lambda: tcp_states(switch) == [("egress", "time_wait")])
    assert not connects(right, left)
    switch.until(lambda: refused(switch) == {RIGHT: {"not_allowed"}})


def test_a_remote_group_means_its_members(
        switch: RunningSwitch, left: Tapped, right: Tapped) -> None:
    with Tapped(OTHER) as other:
        add(switch, other, "server")
        switch.apply([ChangeGroup(SERVER, GroupConfig(
            name="server", rules=(*SERVER.rules, *CLIENT.rules)))])
        assert connects(left, right, 20)
        assert not connects(other, right)
        switch.until(lambda: refused(switch).get(RIGHT) == {"not_allowed"})
        switch.remove(OTHER)


def test_echo_whole_and_in_fragments(
        switch: RunningSwitch, left: Tapped, right: Tapped) -> None:
    assert left.ping(RIGHT) == 5
    assert left.ping(RIGHT, size=9000) == 5
    text = left.run(str(BUSYBOX), "ping", "-6", "-c", "3", "-i", "0.1", "-s", "4000", "fd09::2")
    assert "3 packets received" in text
    assert refused(switch).keys() <= {LEFT, RIGHT}
    assert all("connections" not in reasons for reasons in refused(switch).values())
    assert right.ping(LEFT, count=2, wait=2) == 0


def test_an_icmp_error_reaches_who_asked(
        switch: RunningSwitch, left: Tapped, right: Tapped) -> None:
    with closing(left.opened(socket.SOCK_DGRAM)) as sender:
        sender.connect((RIGHT, 1500))
        sender.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            sender.recv(100)
        sender.connect((RIGHT, 2500))
        sender.settimeout(SHORTLY)
        sender.send(b"anybody?")
        with pytest.raises(TimeoutError):
            sender.recv(100)
    switch.until(lambda: "not_allowed" in refused(switch).get(RIGHT, ()))


def test_new_rules_end_what_they_do_not_allow(
        switch: RunningSwitch, left: Tapped, right: Tapped) -> None:
    with closing(right.opened(socket.SOCK_STREAM)) as listener, \
            closing(left.opened(socket.SOCK_STREAM)) as sender:
        listener.bind((RIGHT, 5000))
        listener.listen()
        sender.connect((RIGHT, 5000))
        taken, _ = listener.accept()
        with closing(taken):
            taken.settimeout(10)
            sender.sendall(b"one")
            assert taken.recv(100) == b"one"
            none = GroupConfig(name="server")
            switch.apply([ChangeGroup(SERVER, none)])
            sender.sendall(b"two")
            taken.settimeout(SHORTLY)
            with pytest.raises(TimeoutError):
                taken.recv(100)
            switch.until(lambda: refused(switch) == {RIGHT: {"bad_state"}})
            switch.apply([ChangeGroup(none, SERVER)])
            taken.settimeout(10)
            assert taken.recv(100) == b"two", "the segment comes again and is picked up"
