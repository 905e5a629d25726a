# SPDX-License-Identifier: Apache-2.0
"""Two switches, each a process of its own, linked by udp ports: their guests meet."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from byway.packet.offload import GSO_TCPV4
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.frames import TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.testing.offload_frames import Shape
from byway.testing.process import Station
from byway.virtio.features import Feature, mask
from tests.system.peers.switch import Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LEFT, RIGHT = "02:00:00:00:00:01", "02:00:00:00:00:02"
OFFLOADS = mask(Feature.CSUM, Feature.HOST_TSO4, Feature.MRG_RXBUF)
PINGS, FRAMES, WINDOW = 20, 2000, 40


def free_ports(address: str) -> tuple[int, int]:
    """Two UDP port numbers that nobody has."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as a, \
            socket.socket(family, socket.SOCK_DGRAM) as b:
        for made in (a, b):
            made.bind((address, 0))
        return int(a.getsockname()[1]), int(b.getsockname()[1])


def make(folder: Path, name: str) -> Switch:
    """A switch with a port for a guest."""
    (folder / name).mkdir()
    return Switch(folder / name, [Port("guest", folder / name / "vm.sock")])


def link(switch: Switch, local: str, remote: str) -> None:
    answer = switch.client.add_port(
        {"name": "link", "network": "blue", "kind": "udp", "local": local, "remote": remote})
    assert answer["state"] == "up"


@pytest.fixture(scope="module", params=["127.0.0.1", "::1"])
def switches(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Switch, Switch]]:
    own = folder / request.param.replace(":", "v6")
    own.mkdir()
    with make(own, "l") as left, make(own, "r") as right:
        host = f"[{request.param}]" if ":" in request.param else request.param
        here, there = (f"{host}:{number}" for number in free_ports(request.param))
        link(left, here, there)
        link(right, there, here)
        yield left, right


@contextmanager
def guests(switches: tuple[Switch, Switch], features: int = 0) -> Iterator[tuple[Guest, Guest]]:
    """A guest of each, the left one with these features."""
    left, right = (str(switch.folder / "vm.sock") for switch in switches)
    with Guest.connect(left, mac=LEFT, features=features) as a, \
            Guest.connect(right, mac=RIGHT) as b:
        for switch in switches:
            switch.wait_up()
        yield a, b


def test_guests_ping_each_other(switches: tuple[Switch, Switch]) -> None:
    with guests(switches) as (left, right):
        asking, answering = Station(left, "10.0.0.1"), Station(right, "10.0.0.2")
        thread = threading.Thread(
            target=answering.take, args=(60.0, lambda frame: True if frame[12:14] == b"\x88\xb5"
                                         else None))
        thread.start()
        assert asking.resolve("10.0.0.2") == RIGHT
        assert len(asking.ping("10.0.0.2", RIGHT, PINGS)) == PINGS
        left.send([ethernet(right.mac, left.mac, TEST_ETHERTYPE, b"the end")])
        thread.join(60.0)
        assert not thread.is_alive()


def test_every_frame_arrives_in_order(switches: tuple[Switch, Switch]) -> None:
    """A window at a time, of every size; the sockets have room for that."""
    rng = Random(1)
    with guests(switches) as (left, right):
        left.send([ethernet(right.mac, left.mac, TEST_ETHERTYPE, b"here")])
        right.receive_until(1)
        for source, to in ((left, right), (right, left)):
            sent = [ethernet(to.mac, source.mac, TEST_ETHERTYPE, rng.randbytes(rng.choice(
                (46, 47, 114, 115, 500, 1500)))) for _ in range(FRAMES)]
            got: list[bytes] = []
            for start in range(0, FRAMES, WINDOW):
                assert source.send(sent[start : start + WINDOW]) == WINDOW
                got += to.receive_until(WINDOW, 10.0)
            assert got == sent
    for switch in switches:
        assert switch.drops() == {}
        assert switch.ports()["link"]["rx_frames"] >= FRAMES


def test_frames_are_finished_before_they_travel(switches: tuple[Switch, Switch]) -> None:
    with guests(switches, OFFLOADS) as (left, right):
        shape = Shape(macs=right.mac + left.mac, payload=Random(2).randbytes(30 * 1000))
        left.send([(Unfinished(1, GSO_TCPV4, 1000, 34, 16), shape.build())])
        got = []
        while len(got) < 30 and right.wait(10.0):
            got += right.receive_unfinished()
        assert {todo for todo, _ in got} == {FINISHED}
        assert b"".join(frame[54:] for _, frame in got) == shape.payload
        first = Shape(**{**vars(shape), "payload": shape.payload[:1000]})
        assert got[0][1] == first.build(complete=True)


def test_an_end_that_is_killed_and_started_again(switches: tuple[Switch, Switch]) -> None:
    """The other end has nothing to do about it: frames are lost meanwhile, and pass again."""
    left, right = switches
    port = right.ports()["link"]
    right.kill()
    with Guest.connect(str(left.folder / "vm.sock"), mac=LEFT) as guest:
        left.wait_up()
        for _ in range(5):
            guest.send([ethernet(b"\xff" * 6, guest.mac, TEST_ETHERTYPE, b"lost")])
    right.start()
    link(right, port["local"], port["peer"])
    assert left.ports()["link"]["state"] == "up"
    with guests(switches) as (here, there):
        here.send([ethernet(there.mac, here.mac, TEST_ETHERTYPE, b"found".ljust(46, b"."))])
        assert there.receive_until(1, 10.0)[0][14:] == b"found".ljust(46, b".")
