# SPDX-License-Identifier: Apache-2.0
"""Remote hosts, and strangers, that send anything into a tunnel: every datagram is a frame or a
counted drop, what a guest gets is what was sent, and nothing goes back into a tunnel."""

import random
import socket
from pathlib import Path

import pytest

from byway.control.actions import AddHost, AddNetwork, SetUnderlay
from byway.control.model import HostConfig, NetworkConfig, UnderlayConfig
from byway.machine.jit import INTERPRETED
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.offload_frames import ACK, PSH, UDP, Shape
from tests.running import RunningSwitch

SEEDS = 4 if INTERPRETED else 25
DATAGRAMS = 120
VNI = 100
HERE, KNOWN, STRANGER = "127.0.0.1", "127.0.0.2", "127.0.0.3"
UDP_SEGMENT = 103
SIZES = (0, 1, 7, 8, 9, 21, 22, 23, 67, 68, 135, 136, 1472, 1522, 1523, 9000, 65507)


def shape(rng: random.Random) -> Shape:
    """TCP or UDP that is almost right."""
    version = rng.choice([4, 6])
    options = bytes([1] * 4 * rng.randrange(11)) if rng.random() < 0.2 and version == 4 else b""
    return Shape(version, protocol=rng.choice([6, 17]), tags=(5,) * rng.choice([0, 0, 0, 1, 2, 3]),
                 options=options, flags=rng.choice([ACK, ACK | PSH, rng.getrandbits(8)]),
                 payload=rng.randbytes(rng.choice([0, 1, 100, 1400, 1500, 9000, 60000])))


def inner(rng: random.Random) -> bytes:
    """Any frame."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(100))
    if kind == 1:
        return ethernet(rng.choice([BROADCAST, bytes(6), b"\x02" + bytes(5)]),
                        rng.choice([BROADCAST, bytes(6), b"\x02" + bytes(4) + b"\x09"]),
                        TEST_ETHERTYPE, rng.randbytes(rng.randrange(1500)))
    made = bytearray(shape(rng).build(complete=rng.random() < 0.5))
    for _ in range(rng.choice([0, 0, 1, 5])):
        made[rng.randrange(len(made))] = rng.getrandbits(8)
    return bytes(made)


def header(rng: random.Random) -> bytes:
    """A VXLAN header, mostly a good one."""
    if rng.random() < 0.2:
        return rng.randbytes(8)
    vni = rng.choice([VNI] * 6 + [0, 1, VNI + 1, 0xFFFFFF])
    return bytes([rng.choice([8, 8, 8, 0xFF, 0])]) + rng.randbytes(3) + vni.to_bytes(3, "big") \
        + rng.randbytes(1)


def datagram(rng: random.Random) -> bytes:
    """What is in one datagram; now and then a tunnel in a tunnel."""
    made = header(rng) + inner(rng)
    if rng.random() < 0.1:
        nested = Shape(4, UDP, ports=(50000, 4789), payload=made[:1300]).build(complete=True)
        made = header(rng) + nested
    if rng.random() < 0.1:
        made = made[: rng.choice(SIZES)]
    return made[:65507]


def say(rng: random.Random, sock: socket.socket, port: int) -> int:
    """Send one or many; -> frames that they should count as."""
    ecn = [(0, 1, rng.randrange(4).to_bytes(4, "little"))]
    if rng.random() < 0.7:
        sock.sendmsg([datagram(rng)], ecn, 0, (HERE, port))
        return 1
    size = rng.choice([22, 68, 100, 1000])
    count = rng.randrange(2, 60)
    made = b"".join((header(rng) + inner(rng)).ljust(size, b"\0")[:size] for _ in range(count))
    sock.sendmsg([made], [(17, UDP_SEGMENT, size.to_bytes(2, "little")), *ecn], 0, (HERE, port))
    return count


@pytest.mark.parametrize("seed", range(SEEDS))
def test_hosts_that_send_anything(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with RunningSwitch(tmp_path, stepped=True) as switch, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as known, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
            found.bind((HERE, 0))
            port = found.getsockname()[1]
        known.bind((KNOWN, port))
        stranger.bind((STRANGER, 0))
        switch.apply([
            SetUnderlay(UnderlayConfig(address=HERE, port=port, mtu=1500)),
            AddNetwork(NetworkConfig(name="red", vni=VNI, mtu=1450)),
            AddHost(HostConfig(name="far", address=KNOWN, networks=("red",)))])
        switch.vhost("guest", network="red")
        with switch.guest("guest", 9) as guest:
            told, received = 0, 0
            for _ in range(DATAGRAMS // 10):
                for _ in range(10):
                    told += say(rng, rng.choice([known, known, known, stranger]), port)
                switch.settle()
                while frames := guest.receive():
                    received += len(frames)
            below = switch.call(lambda: switch.engine.overlay.underlay.status())  # type: ignore[union-attr]
            other = switch.port("guest")
            assert received == other["tx_frames"]
            # Joined frames are one for several, cut ones several for one: nothing is missing.
            assert below["rx_frames"] > 0
            assert sum(below["drops"].values()) > 0
            assert below["rx_frames"] + sum(below["drops"].values()) <= 2 * told
            assert {"unknown_tunnel", "unknown_vni", "bad_tunnel"} <= set(below["drops"])
            assert below["state"] == other["state"] == "up"
            known.setblocking(False)
            with pytest.raises(BlockingIOError):  # to the host that it came from, or any other
                known.recv(65536)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_datagram_is_a_frame_or_a_drop(tmp_path: Path, seed: int) -> None:
    """Where nothing is joined or cut the sums are exact."""
    rng = random.Random(seed)
    with RunningSwitch(tmp_path, stepped=True) as switch, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as known:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
            found.bind((HERE, 0))
            port = found.getsockname()[1]
        known.bind((KNOWN, port))
        switch.apply([
            SetUnderlay(UnderlayConfig(address=HERE, port=port, mtu=1500)),
            AddNetwork(NetworkConfig(name="red", vni=VNI, mtu=1450)),
            AddHost(HostConfig(name="far", address=KNOWN, networks=("red",)))])
        switch.add("null", "sink", "red")
        sent = 0
        for _ in range(60):
            size = rng.choice([8, 21, 22, 60, 100, 1472, 1473, 1500])
            data = header(rng) + bytes([2]) + rng.randbytes(11) + b"\x88\xb5" + bytes(1500)
            count = rng.choice([1, 1, 40])
            say_it = [(17, UDP_SEGMENT, size.to_bytes(2, "little"))] if count > 1 else []
            known.sendmsg([data[:size] * count], say_it, 0, (HERE, port))
            sent += count
            switch.settle()
        below = switch.call(lambda: switch.engine.overlay.underlay.status())  # type: ignore[union-attr]
        assert switch.port("sink")["tx_frames"] + sum(below["drops"].values()) == sent
