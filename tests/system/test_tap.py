# SPDX-License-Identifier: Apache-2.0
"""tap ports in namespaces: the kernel's own stacks are the judges of what passes.

TCP with segmentation and checksums left to do passes whole where both ends take them, and is
finished where one does not. No wake-up is lost. What becomes of ports whose interface or namespace
goes is in test_tap_life.py.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from byway.machine.jit import INTERPRETED
from byway.packet.offload import GSO_UDP_L4
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.guest import Guest
from byway.testing.offload_frames import UDP, Shape
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch
from tests.system.peers.tapped import Tapped
from tests.system.peers.veth import transfer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LEFT, RIGHT, GUEST = "10.9.0.1", "10.9.0.2", "10.9.0.9"
DATA = Random(4).randbytes((1 if INTERPRETED else 8) << 20)
SMALLEST = len(DATA) / 1448  # frames, were each as long as the MTU allows
OFFLOADS = mask(Feature.CSUM, Feature.GUEST_CSUM, Feature.GUEST_TSO4, Feature.GUEST_USO4,
                Feature.GUEST_USO6, Feature.HOST_TSO4, Feature.HOST_USO, Feature.MRG_RXBUF)
NOTHING = {"off": ("csum", "guest_csum")}
UDP_SEGMENT = 103  # linux/udp.h
SIZE = 1000  # of the payload of a segment
PAYLOAD = Random(5).randbytes(30 * SIZE + 7)
FLOWS, QUEUES = 64, 3
MESSAGES = 3000


@pytest.fixture
def switch(folder: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(folder) as made:
        made.network()
        yield made


@pytest.fixture
def left() -> Iterator[Tapped]:
    with Tapped(LEFT) as made:
        yield made


@pytest.fixture
def right() -> Iterator[Tapped]:
    with Tapped(RIGHT) as made:
        yield made


def test_two_stations(switch: RunningSwitch, left: Tapped, right: Tapped) -> None:
    switch.add("tap", "left", **left.port, mac="02:00:00:00:00:01",
               routes=({"to": "10.77.0.0/16", "via": RIGHT},))
    switch.add("tap", "right", **right.port)
    assert left.ping(RIGHT) == 5
    port = switch.port("left")
    assert (port["state"], port["carrier"], port["mac"]) == ("up", True, "02:00:00:00:00:01")
    assert port["peer"] == f"eth0 in {left.name}"
    assert {"csum", "guest_tso4", "host_tso6"} <= set(port["features"]["acked"])
    assert left.mac.hex(":") == "02:00:00:00:00:01"
    assert f"10.77.0.0/16 via {RIGHT}" in left.run("ip", "route")
    assert switch.lost() == {}


@pytest.mark.parametrize(("one", "other"), [({}, {}), ({}, NOTHING), (NOTHING, {}),
                                            (NOTHING, NOTHING), ({}, {"off": ("host_tso4",)})])
def test_tcp(switch: RunningSwitch, left: Tapped, right: Tapped, one: dict[str, tuple[str, ...]],
             other: dict[str, tuple[str, ...]]) -> None:
    switch.add("tap", "left", **left.port, features=one)
    switch.add("tap", "right", **right.port, features=other)
    assert transfer(left, right, DATA) == DATA
    came, went = switch.port("left")["rx_frames"], switch.port("right")["tx_frames"]
    assert (came < SMALLEST / 3) == (one == {}), "the kernel leaves the segments to us"
    assert (went < SMALLEST / 3) == (one == other == {}), "and we to the other one"
    assert transfer(right, left, DATA) == DATA
    assert left.checksum_errors() == right.checksum_errors() == {}
    assert switch.lost() == {}


# ---------------------------------------------------------------- with a guest
def meet(station: Tapped, guest: Guest) -> None:
    """Neither has to ask who the other one is."""
    station.run("ip", "neigh", "add", GUEST, "lladdr", guest.mac.hex(":"), "dev", station.device)


def udp_frames(guest: Guest, count: int) -> list[tuple[Unfinished, bytes]]:
    """The next UDP frames that the guest receives."""
    found: list[tuple[Unfinished, bytes]] = []
    while len(found) < count:
        assert guest.wait(10.0), f"{len(found)} of {count} came"
        found += [(todo, frame) for todo, frame in guest.receive_unfinished()
                  if frame[12:14] == b"\x08\x00" and frame[23] == UDP]
    return found


def test_a_guest_gets_large_frames_whole(switch: RunningSwitch, left: Tapped) -> None:
    switch.add("tap", "left", **left.port)
    switch.vhost("guest")
    with switch.guest("guest", 9, features=OFFLOADS) as guest, \
            left.opened(socket.SOCK_DGRAM) as sender:
        meet(left, guest)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
        sender.sendto(PAYLOAD, (GUEST, 7))
        ((todo, frame),) = udp_frames(guest, 1)
        assert (todo, frame[42:]) == (Unfinished(1, GSO_UDP_L4, SIZE, 34, 6), PAYLOAD)


def test_a_plain_guest_gets_them_finished(switch: RunningSwitch, left: Tapped) -> None:
    switch.add("tap", "left", **left.port)
    switch.vhost("guest")
    with switch.guest("guest", 9) as guest, left.opened(socket.SOCK_DGRAM) as sender:
        meet(left, guest)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
        sender.sendto(PAYLOAD, (GUEST, 7))
        frames = udp_frames(guest, 31)
        assert {todo for todo, _ in frames} == {FINISHED}
        assert b"".join(frame[42:] for _, frame in frames) == PAYLOAD


def test_a_guest_sends_large_frames(switch: RunningSwitch, left: Tapped) -> None:
    """The last has more segments than some kernels take in one frame: it is finished for them."""
    switch.add("tap", "left", **left.port)
    switch.vhost("guest")
    with switch.guest("guest", 9, features=OFFLOADS) as guest, \
            left.opened(socket.SOCK_DGRAM) as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        taker.bind((LEFT, 5001))
        for payload, size in ((PAYLOAD[:700], 0), (PAYLOAD, SIZE), (PAYLOAD[:20_000], 100)):
            shape = Shape(protocol=UDP, source=socket.inet_aton(GUEST), payload=payload,
                          destination=socket.inet_aton(LEFT), macs=left.mac + guest.mac)
            gso = GSO_UDP_L4 if size else 0
            assert guest.send([(Unfinished(1, gso, size, 34, 6), shape.build())]) == 1
            count = -(-len(payload) // size) if size else 1
            assert b"".join(taker.recv(2000) for _ in range(count)) == payload
    assert left.checksum_errors() == {}
    drops = switch.lost()
    drops.get("guest", {}).pop("no_buffers", 0)  # told to all before the guest had any
    assert not any(drops.values())


# ---------------------------------------------------------------- queues and sleep
def test_several_queues(switch: RunningSwitch, left: Tapped, right: Tapped) -> None:
    switch.add("tap", "left", **left.port, queues=QUEUES)
    switch.add("tap", "right", **right.port)
    assert switch.port("left")["queues_enabled"] == QUEUES
    assert left.ping(RIGHT) == 5
    with right.opened(socket.SOCK_DGRAM) as taker:
        taker.bind((RIGHT, 7))
        for flow in range(FLOWS):
            with left.opened(socket.SOCK_DGRAM) as one:
                one.connect((RIGHT, 7))
                one.send(bytes([flow]))
                data, back = taker.recvfrom(9)
                taker.sendto(data, back)
                assert one.recv(9) == bytes([flow])
    port = switch.engine._ports["left"]
    assert sum(frames > 0 for frames in port.rx["frames"]) > 1, "the kernel spreads flows"
    assert sum(frames > 0 for frames in port.tx["frames"]) > 1, "and so do we"
    assert transfer(left, right, DATA) == transfer(right, left, DATA) == DATA
    assert switch.lost() == {}


@pytest.mark.compiled_only
def test_no_wake_up_is_lost(switch: RunningSwitch, left: Tapped, right: Tapped) -> None:
    """Messages one at a time, sent at any moment around that at which the worker goes to sleep.
    Each is waited for, so one that had not woken it would be missed."""
    switch.add("tap", "left", **left.port)
    switch.add("tap", "right", **right.port)
    assert left.ping(RIGHT) == 5
    before = switch.worker()
    pauses = Random(7)
    with left.opened(socket.SOCK_DGRAM) as one, right.opened(socket.SOCK_DGRAM) as other:
        other.bind((RIGHT, 7))
        one.connect((RIGHT, 7))
        for k in range(MESSAGES):
            one.send(k.to_bytes(2, "big"))
            assert other.recv(9) == k.to_bytes(2, "big")
            for _ in range(pauses.randrange(4000)):  # up to some hundred microseconds
                pass
    after = switch.worker()
    assert after["sleeps"] - before["sleeps"] > MESSAGES / 20
    assert switch.lost() == {}
