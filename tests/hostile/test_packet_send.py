# SPDX-License-Identifier: Apache-2.0
"""Frames that a hostile guest may have the switch send by a packet socket: the kernel refuses none.

What passes the switch's check is right, in the kernel's view, wherever it goes; and where the
kernel is stricter the frame is finished for it. The frames are those of offload_sweep: of every
shape, with headers and virtio_net_hdr that were spoiled. Each is sent by the kernels of the
af-packet port across a veth, as it is or in the segments that it makes for one that takes less.
"""

import os
import random
from collections.abc import Iterator

import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of
from byway.machine.netns import inside
from byway.packet.batch import MAX_FRAME
from byway.packet.offload import GSO_UDP, GSO_UDP_L4, NEEDS_CSUM
from byway.ports.af_packet_kernels import PACKET
from byway.ports.links import Links
from byway.ports.packet_socket import PacketSocket, kernel_takes
from byway.testing.finishing import PIECES
from byway.testing.offload_frames import UDP, Shape
from byway.testing.socket_kernels import packet_send
from tests.hostile.finished_or_whole import Sending
from tests.hostile.offload_sweep import MASKS, Sweep
from tests.system.peers.veth import Wire, shell

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SEED = 20265
CASES = 1000 if INTERPRETED else 20_000
LONGEST = 65535 + 14  # what an interface with the largest MTU takes, and a VLAN tag


class Sender(Sending):
    """Sends frames by a packet socket."""

    def __init__(self, made: PacketSocket) -> None:
        super().__init__(PACKET)
        self.record["fd"] = made.fileno()
        self.takes = kernel_takes(os.uname().release)

    def deliver(self, selected: int, n: int) -> int:
        return int(packet_send(address_of(self.record), self.place.batch.address, selected, n))


@pytest.fixture
def sender() -> Iterator[Sender]:
    with Wire("10.9.0.1") as wire:
        for namespace, device in ((wire.station, wire.device), (wire.outer, wire.ifname)):
            shell(f"ip -n {namespace} link set {device} mtu 65535")
        links = Links(wire.outer)
        found = links.find(wire.ifname)
        links.close()
        assert found
        made = inside(wire.outer, lambda: PacketSocket(found.index, 1522, None))
        sending = Sender(made)
        yield sending
        sending.place.close()
        made.close()


def test_no_frame_that_passed_is_refused(sender: Sender) -> None:
    sweep, rng = Sweep(SEED), random.Random(SEED)
    refused, sent_all, as_they_are = 0, 0, 0
    for number in range(CASES):
        frame, header = sweep.frame(rng)
        if len(frame) > LONGEST:
            continue
        pieces = rng.randrange(1, PIECES + 1) if len(frame) > PIECES else 1
        takes = sender.takes & (0xFF if rng.random() < 0.8 else rng.choice(MASKS))
        sent = sender.send(frame, header, pieces, takes)
        assert sender.drops == {}, f"case {number}: {frame.hex()} {header.hex()}"
        assert sent != 0, f"case {number}: {frame.hex()} {header.hex()}"
        refused += sent < 0
        sent_all += max(sent, 0)
        as_they_are += sent == 1 and header[0] & NEEDS_CSUM
    assert min(refused, as_they_are, sent_all - as_they_are) > CASES / 20


@pytest.mark.parametrize("segments", [1, 63, 64, 65, 127, 128, 129, 256])
@pytest.mark.parametrize("version", [4, 6])
def test_any_number_of_segments(sender: Sender, segments: int, version: int) -> None:
    """UDP: kernels take 64 or 128 segments in a frame; what has more is finished here."""
    shape = Shape(version, UDP, payload=bytes(100 * segments))
    for gso in (GSO_UDP_L4, GSO_UDP):
        assert sender.send(shape.build(), shape.header(gso, 104), 1, sender.takes) > 0
    assert sender.drops == {}


def test_a_frame_that_is_too_long_for_the_interface(sender: Sender) -> None:
    frame = (b"\x02\0\0\0\0\x01" * 2 + b"\x88\xb5").ljust(MAX_FRAME, b"x")
    assert sender.send(frame, bytes(10), 1, sender.takes) == 0
    assert sender.drops == {"over_mtu": 1}
