# SPDX-License-Identifier: Apache-2.0
"""The udp port: frames as datagrams, on the loopback interface; who is heard and who is not."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from byway.control.problem import EngineError
from byway.packet.offload import GSO_UDP_L4
from byway.packet.reason import Reason
from byway.testing.frame_batch import Unfinished
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.offload_frames import UDP, Shape
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch

HERE, V6 = "127.0.0.1", "::1"
OTHER = bytes.fromhex("020000000022")
FRAMES = [ethernet(BROADCAST, OTHER, TEST_ETHERTYPE, bytes([k]) * (50 + 37 * k)) for k in range(39)]


@contextmanager
def peer(address: str = HERE) -> Iterator[socket.socket]:
    """A socket of somebody else's, and a port number that is free."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.bind((address, 0))
        made.settimeout(10)
        yield made


def endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def free_port(address: str = HERE) -> int:
    with peer(address) as found:
        return int(found.getsockname()[1])


def free_ports() -> tuple[int, int]:
    """Two different ones: the first is held while the other is asked for."""
    with peer() as found:
        return int(found.getsockname()[1]), free_port()


def link(switch: RunningSwitch, name: str, other: socket.socket, address: str = HERE) -> int:
    """A udp port whose peer is that socket, which is connected to it; -> its port number."""
    number = free_port(address)
    switch.add("udp", name, local=endpoint(address, number),
               remote=endpoint(address, other.getsockname()[1]))
    other.connect((address, number))
    return number


@pytest.mark.parametrize("address", [HERE, V6])
def test_frames_both_ways(switch: RunningSwitch, address: str) -> None:
    switch.vhost("guest")
    with peer(address) as other, switch.guest("guest", 1) as guest:
        link(switch, "u", other, address)
        for frame in FRAMES:
            other.send(frame)
        switch.settle()
        assert guest.receive() == FRAMES
        sent = [frame[:6] + guest.mac + frame[12:] for frame in FRAMES]
        assert guest.send(sent) == len(sent)
        switch.settle()
        assert [other.recv(2000) for _ in sent] == sent
    port = switch.port("u")
    assert (port["rx_frames"], port["tx_frames"], port["drops"]) == (39, 39, {})
    assert port["tx_bytes"] == sum(map(len, FRAMES))
    assert address in port["local"]
    assert address in port["peer"]


def test_two_switches_ends(switch: RunningSwitch) -> None:
    """A link between two networks of one switch."""
    switch.network("green")
    first, second = free_ports()
    switch.add("udp", "a", local=f"{HERE}:{first}", remote=f"{HERE}:{second}")
    switch.add("udp", "b", "green", local=f"{HERE}:{second}", remote=f"{HERE}:{first}")
    switch.vhost("left")
    switch.add("vhost-user", "right", "green")
    with switch.guest("left", 1) as left, switch.guest("right", 2) as right:
        left.send(FRAMES[:10])
        switch.until(lambda: switch.port("right")["tx_frames"] == 10)
        assert right.receive() == FRAMES[:10]


def test_strangers_are_not_heard(switch: RunningSwitch) -> None:
    switch.add("null", "sink")
    with peer() as other, peer() as stranger:
        number = link(switch, "u", other)
        stranger.sendto(FRAMES[0], (HERE, number))
        other.send(FRAMES[1])
        switch.settle()
    assert switch.port("u")["rx_frames"] == 1


def test_nobody_listens_yet(switch: RunningSwitch) -> None:
    """ECONNREFUSED is what a cable is that is not plugged in: nothing stops, nothing is down."""
    number, later = free_ports()
    switch.add("udp", "u", local=f"{HERE}:{number}", remote=f"{HERE}:{later}")
    switch.vhost("guest")
    with switch.guest("guest", 1) as guest:
        for _ in range(10):
            guest.send(FRAMES[:20])
            switch.settle()
        assert switch.port("u")["state"] == "up"
        assert switch.port("u")["tx_frames"] == 200
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((HERE, later))
            other.connect((HERE, number))
            other.settimeout(10)
            guest.send(FRAMES[:1])
            other.send(FRAMES[2])
            switch.settle()
            assert other.recv(2000) == FRAMES[0]
            assert guest.receive() == [FRAMES[2]]


def test_datagrams_that_are_no_frames(switch: RunningSwitch) -> None:
    switch.add("null", "sink")
    with peer() as other:
        link(switch, "u", other)
        longest = 14 + 8 + 1500
        for size in (0, 1, 13):
            other.send(bytes(size))
        tagged = ethernet(BROADCAST, OTHER, 0x8100, bytes(2) + b"\x81\x00" + bytes(1500))
        other.send(tagged.ljust(longest, b"\0"))
        for size in (longest + 1, longest + 2, 65507):
            other.send(FRAMES[0].ljust(size, b"\0"))
        other.send(FRAMES[0])
        switch.settle()
    port = switch.port("u")
    assert port["drops"] == {"runt": 3, "over_mtu": 3}
    assert switch.port("sink")["tx_frames"] == 2


def test_what_is_left_to_do_is_done_before(switch: RunningSwitch) -> None:
    switch.vhost("guest")
    features = mask(Feature.CSUM, Feature.HOST_USO)
    with peer() as other, switch.guest("guest", 1, features=features) as guest:
        link(switch, "u", other)
        shape = Shape(protocol=UDP, payload=bytes(range(250)) * 12, macs=BROADCAST + guest.mac)
        guest.send([(Unfinished(1, GSO_UDP_L4, 1000, 34, 6), shape.build())])
        switch.settle()
        got = [other.recv(2000) for _ in range(3)]
        assert got[0] == Shape(**{**vars(shape), "payload": shape.payload[:1000]}).build(True)
        assert b"".join(frame[42:] for frame in got) == shape.payload


def test_more_than_the_socket_holds(switch: RunningSwitch) -> None:
    """What the kernel had no room for is counted too."""
    switch.add("null", "sink")
    with peer() as other:
        link(switch, "u", other)
        count = 0
        while not switch.port("u")["drops"]:
            other.send(bytes(60000))
            count += 1
        switch.settle()
    port = switch.port("u")
    assert port["drops"][Reason.RING_FULL.name.lower()] + port["drops"]["over_mtu"] == count


def test_an_idle_port_is_woken(switch: RunningSwitch) -> None:
    switch.add("null", "sink")
    with peer() as other:
        link(switch, "u", other)
        switch.settle()
        for k in range(3):
            switch.step(now=1 << 62)  # idle for ever: all go to sleep
            other.send(FRAMES[0])
            switch.until(lambda k=k: switch.port("u")["rx_frames"] == k + 1)  # type: ignore[misc]


@pytest.mark.parametrize(("local", "remote", "message"), [
    ("192.0.2.1:4000", "192.0.2.2:4000", "local: 192.0.2.1:4000 is none of this machine's"),
    ("127.0.0.1:{taken}", "127.0.0.1:4000", "local: 127.0.0.1:[0-9]+ is in use already")])
def test_addresses_that_cannot_be_had(switch: RunningSwitch, local: str, remote: str,
                                      message: str) -> None:
    with peer() as other, pytest.raises(EngineError, match=f'port "u": {message}'):
        switch.add("udp", "u", local=local.format(taken=other.getsockname()[1]), remote=remote)
    assert switch.call(switch.engine.ports) == []


def test_a_port_that_goes_and_comes(switch: RunningSwitch) -> None:
    with peer() as other:
        number = link(switch, "u", other)
        switch.remove("u")
        switch.add("udp", "u", local=f"{HERE}:{number}",
                   remote=endpoint(HERE, other.getsockname()[1]))
        assert switch.port("u")["state"] == "up"
