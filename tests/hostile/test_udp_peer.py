# SPDX-License-Identifier: Apache-2.0
"""A peer at a udp port that sends anything: every datagram is a frame or a counted drop, and what
a guest gets is what was sent, never a byte more."""

import random
import socket
from pathlib import Path

import pytest

from byway.machine.jit import INTERPRETED
from byway.packet.ethernet import longest_frame
from tests.running import RunningSwitch

SEEDS = 6 if INTERPRETED else 40
DATAGRAMS = 150
SIZES = (0, 1, 13, 14, 15, 59, 60, 127, 128, 129, 1514, 1518, 1519, 1522, 1523, 1524, 9000, 65507)


def datagram(rng: random.Random) -> bytes:
    """Any bytes, often with addresses that are almost right."""
    start = rng.choice([b"", b"\xff" * 6, bytes(12), b"\x02" + bytes(4) + b"\x09\x02" + bytes(5),
                        b"\x01\x80\xc2\0\0\0\x02" + bytes(5)])
    tags = rng.choice([b"", b"", b"\x81\0\0\x05", b"\x81\0\0\x05" * 3])
    return (start + tags + rng.randbytes(64))[: rng.choice([20, 64])].ljust(
        rng.choice(SIZES), bytes([rng.getrandbits(8)]))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_peer_that_sends_anything(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with RunningSwitch(tmp_path, stepped=True) as switch, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        switch.network()
        switch.vhost("guest")
        peer.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
            found.bind(("127.0.0.1", 0))
            number = found.getsockname()[1]
        switch.add("udp", "u", local=f"127.0.0.1:{number}",
                   remote=f"127.0.0.1:{peer.getsockname()[1]}")
        with switch.guest("guest", 9) as guest:
            sent, got = [], []
            for _ in range(DATAGRAMS // 15):
                for _ in range(15):
                    sent.append(datagram(rng))
                    peer.sendto(sent[-1], ("127.0.0.1", number))
                switch.settle()
                got += guest.receive()
            port, other = switch.port("u"), switch.port("guest")
            known = {frame for frame in sent if 14 <= len(frame) <= longest_frame(1500)}
            assert set(got) <= known
            assert len(got) == other["tx_frames"]
            assert other["tx_frames"] + sum(port["drops"].values()) == DATAGRAMS
            assert port["state"] == "up"
