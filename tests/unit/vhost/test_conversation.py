# SPDX-License-Identifier: Apache-2.0
"""FrontEnd and BackEnd against each other: both sides of the protocol agree, and start over."""

import ctypes
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from byway.machine.regions import Region
from byway.testing.dialogue import OFFERED, PROTOCOL_OFFERED, IdleTarget
from byway.vhost import BackEnd, Closed, FrontEnd, ProtocolError
from byway.vhost.connection import Connection
from byway.vhost.frontend import PROTOCOL_FEATURES
from byway.virtio.features import Feature, mask

SIZE = 1 << 20
WANTED = mask(Feature.VERSION_1, Feature.EVENT_IDX)


class Server(threading.Thread):
    """A back end in a thread, for one connection."""

    def __init__(self, sock: socket.socket, target: IdleTarget, features: int,
                 protocol_features: int) -> None:
        super().__init__(daemon=True)
        sock.setblocking(False)
        self.connection = Connection(sock)
        self.target = target
        self.back_end = BackEnd(target, features=features, protocol_features=protocol_features)
        self.back_end.connection = self.connection
        target.back_end = self.back_end
        self.reason = ""
        self.start()

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        try:
            while poll.poll(10_000):
                while message := self.connection.receive():
                    self.back_end.handle(message)
        except (Closed, ProtocolError) as error:
            self.reason = error.reason
        self.back_end.close()
        self.connection.close()


Connect = Callable[..., tuple[FrontEnd, Server]]


@pytest.fixture
def connect(leaves_nothing: None) -> Iterator[Connect]:
    """Makes a front end and the server of its other end."""
    made: list[tuple[FrontEnd, Server]] = []

    def pair(target: IdleTarget | None = None, features: int = OFFERED,
             protocol_features: int = PROTOCOL_OFFERED) -> tuple[FrontEnd, Server]:
        ours, theirs = socket.socketpair()
        server = Server(theirs, target or IdleTarget(), features, protocol_features)
        made.append((FrontEnd(ours), server))
        return made[-1]

    yield pair
    for front, server in made:
        front.close()
        server.join(10)
        assert not server.is_alive()
        assert not server.target.attached


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region.create(SIZE)
    yield made
    made.close()


@pytest.fixture
def events() -> Iterator[list[int]]:
    made = [os.eventfd(0) for _ in range(4)]
    yield made
    for fd in made:
        os.close(fd)


def start(front: FrontEnd, region: Region, events: list[int], bases: tuple[int, int]) -> None:
    front.set_memory([region], [0])
    for i in (0, 1):
        at = region.address + 0x10000 * i
        front.start_ring(i, 256, bases[i], at, at + 0x2000, at + 0x3000, events[i], events[2 + i])
        front.enable_ring(i, True)


@pytest.mark.parametrize("protocol_features", [PROTOCOL_OFFERED, 1 << 3, 0])
@pytest.mark.parametrize("features", [OFFERED, mask(Feature.VERSION_1)])
def test_a_life(connect: Connect, region: Region, events: list[int], features: int,
                protocol_features: int) -> None:
    front, server = connect(features=features, protocol_features=protocol_features)
    assert front.negotiate(WANTED) == features & (WANTED | mask(Feature.PROTOCOL_FEATURES))
    start(front, region, events, (3, 4))
    assert [front.stop_ring(0), front.stop_ring(1)] == [3, 4]
    assert server.target.served == []
    ring = server.back_end.rings[0]
    assert (ring.enabled, ring.size) == (True, 256)
    start(front, region, events, (3, 4))
    front.negotiate(WANTED)  # a round trip
    assert server.target.served == [0, 1]


def test_the_back_end_sees_the_front_ends_memory(connect: Connect, region: Region,
                                                 events: list[int]) -> None:
    front, server = connect()
    front.negotiate(WANTED)
    start(front, region, events, (0, 0))
    region.view[0x10000] = 99
    table = server.back_end.memory
    host = table.user_to_host(region.address + 0x10000, 1)
    assert host == server.back_end.rings[1].desc
    assert ctypes.string_at(host, 1) == b"c"


def test_kick_and_call_arrive(connect: Connect, region: Region, events: list[int]) -> None:
    front, server = connect()
    front.negotiate(WANTED)
    start(front, region, events, (0, 0))
    os.eventfd_write(events[1], 3)
    assert os.eventfd_read(server.back_end.rings[1].kick) == 3
    os.eventfd_write(server.back_end.rings[0].call, 5)
    assert os.eventfd_read(events[2]) == 5
    front.set_call(0, events[3])
    front.enable_ring(0, True)
    os.eventfd_write(server.back_end.rings[0].call, 7)
    assert os.eventfd_read(events[3]) == 7


def test_reconnect(connect: Connect, region: Region, events: list[int]) -> None:
    """The front end goes on where it was; the target is the same, the back end a new one."""
    target = IdleTarget()
    for turn in range(3):
        front, server = connect(target=target)
        front.negotiate(WANTED)
        start(front, region, events, (10 * turn, 11 * turn))
        assert target.served == [0, 1]
        assert target.positions == {0: 10 * turn, 1: 11 * turn}
        front.close()
        server.join(10)
        assert (target.attached, server.back_end.memory.regions) == (False, [])


def test_memory_in_slots(connect: Connect, region: Region, events: list[int]) -> None:
    front, server = connect()
    front.negotiate(WANTED, PROTOCOL_FEATURES | 1 << 15)
    start(front, region, events, (0, 0))
    assert front.max_regions() == 32
    more = Region.create(8192)
    front.add_region(more, 1 << 30)
    assert len(server.back_end.memory.regions) == 2
    front.remove_region(more, 1 << 30)
    assert len(server.back_end.memory.regions) == 1
    assert server.target.served == [0, 1]
    front.remove_region(more, 1 << 30)  # QEMU before 8.1 does it for each queue pair
    with pytest.raises(ProtocolError, match="refused REM_MEM_REG"):
        front.remove_region(more, 1 << 31)
    more.close()
    server.join(10)
    assert "never added" in server.reason


def test_status_and_reset(connect: Connect, region: Region, events: list[int]) -> None:
    front, server = connect()
    front.negotiate(WANTED, PROTOCOL_FEATURES | 1 << 16)
    front.set_status(1)
    start(front, region, events, (0, 0))
    assert server.target.served == []
    front.set_status(15)
    assert (front.get_status(), server.target.served) == (15, [0, 1])
    front.reset()
    assert server.target.served == []
    assert not any(ring.enabled for ring in server.back_end.rings)


def test_mtu(connect: Connect) -> None:
    front, server = connect()
    front.negotiate(WANTED)
    front.set_mtu(9000)
    assert server.back_end.mtu == 9000
    with pytest.raises(ProtocolError, match="refused NET_SET_MTU"):
        front.set_mtu(9001)
    front.set_mtu(1500)
    assert server.back_end.mtu == 1500


def test_a_bad_ring_is_refused_and_ends_it(connect: Connect, region: Region,
                                           events: list[int]) -> None:
    front, server = connect()
    front.negotiate(WANTED)
    front.set_memory([region], [0])
    end = region.address + SIZE
    with pytest.raises(ProtocolError, match="refused SET_VRING_KICK"):
        front.start_ring(0, 256, 0, end - 16, end - 16, end - 16, events[0], events[2])
    server.join(10)
    assert server.reason.startswith("SET_VRING_KICK: ring 0: the descriptor table")
