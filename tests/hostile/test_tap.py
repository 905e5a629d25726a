# SPDX-License-Identifier: Apache-2.0
"""Frames that a hostile guest may have the switch write to a tap: the kernel refuses none.

What passes the switch's check is right, in the kernel's view, wherever it goes; and where the
kernel is stricter the frame is finished for it. The frames are those of offload_sweep: of every
shape, with headers and virtio_net_hdr that were spoiled. Each is written by the kernels of the tap
port to a real tap, as it is or in the segments that it makes for one that takes less.
"""

import random
from collections.abc import Iterator

import pytest

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of
from byway.packet.batch import MAX_FRAME
from byway.packet.offload import GSO_UDP, GSO_UDP_L4, NEEDS_CSUM, TAKES_VALID
from byway.ports.tap import FEATURES, Interface, Tap
from byway.ports.tap_kernels import HEADER, TAP
from byway.testing.finishing import PIECES, net_header
from byway.testing.offload_frames import UDP, Shape
from byway.testing.tap_kernels import tap_send
from byway.virtio.features import Feature, mask
from byway.virtio.offloads import host_takes
from tests.hostile.finished_or_whole import Sending
from tests.hostile.offload_sweep import MASKS, Sweep
from tests.system.peers.tapped import Tapped

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SEED = 20264
CASES = 1000 if INTERPRETED else 20_000


class Writer(Sending):
    """Writes frames to a tap."""

    def __init__(self, tap: Tap) -> None:
        super().__init__(TAP)
        self.record["file"] = tap.files[0]

    def deliver(self, selected: int, n: int) -> int:
        return int(tap_send(address_of(self.record), self.place.batch.address, selected, n))


@pytest.fixture
def writer() -> Iterator[Writer]:
    with Tapped("10.9.0.1") as station:
        tap = Tap(Interface("eth0", station.name, ("10.9.0.1/24", "fd00::1/64")))
        tap.set_up(FEATURES, HEADER)
        made = Writer(tap)
        yield made
        made.place.close()
        tap.close()


def test_no_frame_that_passed_is_refused(writer: Writer) -> None:
    sweep, rng = Sweep(SEED), random.Random(SEED)
    everything = host_takes(FEATURES) | TAKES_VALID
    refused, written, as_they_are = 0, 0, 0
    for number in range(CASES):
        frame, header = sweep.frame(rng)
        pieces = rng.randrange(1, PIECES + 1) if len(frame) > PIECES else 1
        takes = everything if rng.random() < 0.8 else rng.choice(MASKS)
        sent = writer.send(frame, header, pieces, takes)
        assert writer.drops == {}, f"case {number}: {frame.hex()} {header.hex()}"
        assert sent != 0, f"case {number}: {frame.hex()} {header.hex()}"
        refused += sent < 0
        written += max(sent, 0)
        as_they_are += sent == 1 and header[0] & NEEDS_CSUM
    assert min(refused, as_they_are, written - as_they_are) > CASES / 20


@pytest.mark.parametrize("segments", [1, 63, 64, 65, 127, 128, 129, 256])
@pytest.mark.parametrize("version", [4, 6])
def test_any_number_of_segments(writer: Writer, segments: int, version: int) -> None:
    """UDP: kernels take 64 or 128 segments in a frame."""
    shape = Shape(version, UDP, payload=bytes(100 * segments))
    takes = host_takes(mask(Feature.CSUM, Feature.HOST_USO))
    for gso in (GSO_UDP_L4, GSO_UDP):
        assert writer.send(shape.build(), shape.header(gso, 104), 1, takes) > 0
    assert writer.drops == {}


def test_frames_of_any_length(writer: Writer) -> None:
    """With a checksum to complete anywhere in them, or nothing left to do."""
    macs = b"\x02\0\0\0\0\x01" * 2
    for length in (14, 15, 60, 1514, 9018, 65535, MAX_FRAME):
        frame = (macs + b"\x88\xb5").ljust(length, b"x")
        for at in {14, length // 2, length - 2, length - 400}:
            fits = 14 <= at <= min(length - 2, 0xFFFF)
            header = net_header(NEEDS_CSUM, 0, 0, at, 0) if fits else bytes(HEADER)
            for pieces in (1, 13):
                assert writer.send(frame, header, min(pieces, length), 0xFF) > 0, (length, at)
    assert writer.drops == {}
