# SPDX-License-Identifier: Apache-2.0
"""An AF_PACKET ring and socket: frames from slots and from the queue of large ones, tags put back,
what is cut off or cannot be, and frames sent from wherever they lie."""

import errno
from collections.abc import Iterator
from random import Random

import pytest

from byway.packet.batch import ROWS
from byway.packet.offload import GSO_TCPV4, GSO_UDP_L4
from byway.packet.reason import Reason
from byway.ports.packet_socket import TAKES, TAKES_USO, kernel_takes, ring_shape
from byway.testing.finishing import net_header
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.offload_frames import UDP, Shape
from byway.testing.packet_ring import NOTHING, PLACE, TPACKET2_HDR, PacketRing
from byway.testing.socket_kernels import packet_receive, packet_send, reason

FRAME = bytes(range(256)) * 2
LARGE = Shape(macs=bytes.fromhex("020000000001020000000009"), payload=Random(1).randbytes(65000))


@pytest.fixture
def ring() -> Iterator[PacketRing]:
    with PacketRing() as made:
        yield made


def test_frames_in_slots(ring: PacketRing) -> None:
    assert not ring.waiting()
    frames = [FRAME[k : 60 + 30 * k] for k in range(8)]
    for frame in frames:
        ring.put(frame)
    assert ring.waiting()
    assert ring.receive() == frames
    assert set(ring.status()) == {0}
    assert int(ring.rx["frames"][0]) == 8
    assert int(ring.rx["bytes"][0]) == sum(map(len, frames))
    for k in range(300):  # the ring goes round
        ring.put(FRAME + bytes([k & 255]))
        assert ring.receive() == [FRAME + bytes([k & 255])]
    assert ring.receive() == []


def test_a_batch_at_a_time() -> None:
    with PacketRing() as ring:
        for k in range(100):
            ring.put(FRAME + bytes([k]))
        assert len(ring.receive()) == ROWS
        assert ring.status() == [0] * ROWS + [1] * (100 - ROWS) + [0] * 28
        assert [frame[-1] for frame in ring.receive()] == list(range(ROWS, 100))


def test_slots_are_the_kernels_again_only_when_they_are_given_back(ring: PacketRing) -> None:
    ring.put(FRAME)
    assert packet_receive(ring.address, ring.batch.address) == 1
    assert ring.status()[0] == 1
    assert not ring.waiting()


@pytest.mark.parametrize(("tag", "tpid", "inserted"), [
    (0x2005, 0x8100, "81002005"), (0, 0x88A8, "88a80000"), (7, 0, "81000007")])
def test_a_tag_is_put_back(ring: PacketRing, tag: int, tpid: int, inserted: str) -> None:
    ring.put(FRAME, tag=tag, tpid=tpid)
    assert ring.receive() == [FRAME[:12] + bytes.fromhex(inserted) + FRAME[12:]]


def test_a_tag_moves_the_checksum(ring: PacketRing) -> None:
    shape = Shape(protocol=UDP, payload=FRAME)
    tagged = Shape(protocol=UDP, payload=FRAME, tags=(5,))
    ring.put(shape.build(), shape.header(), tag=5)
    ring.put(shape.build(), shape.header(GSO_UDP_L4, 100), tag=5, tpid=0x8100)
    ring.put(FRAME, net_header(1, 0, 0, 0xFFFC, 6), tag=5)  # would be beyond all frames
    got = ring.receive_all()
    assert got[:2] == [(Unfinished(1, 0, 0, 38, 6), tagged.build()),
                       (Unfinished(1, GSO_UDP_L4, 100, 38, 6), tagged.build())]
    assert int(ring.batch.batch.rows["offload"][2]) == -1  # malformed: check_offloads drops it


def test_what_is_left_to_do(ring: PacketRing) -> None:
    ring.put(FRAME, net_header(2))
    ring.put(FRAME, net_header(1, GSO_TCPV4, 1448, 34, 16))
    assert ring.receive_all() == [
        (Unfinished(2), FRAME), (Unfinished(1, GSO_TCPV4, 1448, 34, 16), FRAME)]


def test_large_frames_come_by_the_queue(ring: PacketRing) -> None:
    ring.put(FRAME)
    ring.put_large(LARGE.build(), LARGE.header(GSO_TCPV4, 1448))
    ring.put_large(FRAME * 8)
    ring.put(FRAME)
    assert ring.receive_all() == [
        (FINISHED, FRAME), (Unfinished(1, GSO_TCPV4, 1448, 34, 16), LARGE.build()),
        (FINISHED, FRAME * 8), (FINISHED, FRAME)]
    assert set(ring.status()) == {0}


def test_what_is_cut_off(ring: PacketRing) -> None:
    ring.put(FRAME, length=len(FRAME) + 1)  # neither slot nor queue had room
    ring.put_large(FRAME * 8)
    ring.port.recv(1 << 17)  # the queue is empty, whatever the slot says
    ring.put(FRAME)
    assert ring.receive_all() == [Reason.TRUNCATED, Reason.TRUNCATED, (FINISHED, FRAME)]
    assert int(ring.rx["frames"][0]) == 1
    ring.put_large(bytes(70000))  # longer than any frame: cut off by us
    assert ring.receive_all() == [Reason.TRUNCATED]


@pytest.mark.parametrize(("place", "snaplen"), [
    (61, 60), (0, 60), (96, 2048 - 95), (0xFFFF, 60), (96, 0xFFFFFFFF), (2049, 0)])
def test_a_slot_that_cannot_be(ring: PacketRing, place: int, snaplen: int) -> None:
    ring.write(TPACKET2_HDR.pack(1, snaplen, snaplen, place, 0, 0, 0, 0, 0))
    ring.put(FRAME)
    assert ring.receive_all() == [Reason.BAD_LENGTH, (FINISHED, FRAME)]


def test_a_frame_that_ends_with_its_slot(ring: PacketRing) -> None:
    longest = bytes(2048 - PLACE)
    for _ in range(4):  # the last one of the ring ends at a forbidden page
        for _ in range(32):
            ring.put(longest)
        assert ring.receive() == [longest] * 32


# ---------------------------------------------------------------- sending
def test_frames_are_sent_from_where_they_lie(ring: PacketRing) -> None:
    frames = [FRAME[: 14 + 37 * k] for k in range(10)]
    assert ring.send(frames, pieces=[1, 2, 5, 16]) == 10
    assert ring.sent() == [NOTHING + frame for frame in frames]
    assert int(ring.tx["frames"][0]) == 10
    assert int(ring.tx["bytes"][0]) == sum(map(len, frames))


def test_headers_say_what_is_left_to_do(ring: PacketRing) -> None:
    shape = Shape(protocol=UDP, payload=FRAME)
    todo = Unfinished(1, GSO_UDP_L4, 100, 34, 6)
    assert ring.send([(todo, shape.build()), FRAME]) == 2
    assert ring.sent() == [shape.header(GSO_UDP_L4, 100) + shape.build(), NOTHING + FRAME]


def test_more_than_the_kernel_has_room_for(ring: PacketRing) -> None:
    room = 0
    while ring.send([FRAME]):
        room += 1
    ring.sent()
    assert ring.send([FRAME] * 64) == min(room, 64)
    assert ring.drops == {"no_buffers": 1 + 64 - min(room, 64)}


def test_memory_that_its_owner_took_away(ring: PacketRing) -> None:
    """That frame is dropped; those before and behind it are sent."""
    n = ring.batch.place([FRAME] * 3)
    ring.batch.batch.rows["addr"][1] = 4096  # nothing is there
    assert packet_send(ring.address, ring.batch.address, ring.batch.selected, n) == 2
    assert ring.sent() == [NOTHING + FRAME] * 2
    assert ring.drops == {"bad_address": 1}


def test_a_socket_that_is_closed(ring: PacketRing) -> None:
    ring.kernel.close()
    assert ring.send([FRAME] * 5) == 0
    assert sum(ring.drops.values()) == 5


def test_why_frames_are_refused() -> None:
    assert {reason(e) for e in (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)} == {Reason.NO_BUFFERS}
    assert {reason(e) for e in (errno.ENETDOWN, errno.ENXIO)} == {Reason.INTERFACE_DOWN}
    assert [reason(e) for e in (errno.EFAULT, errno.EMSGSIZE, errno.EINVAL, errno.EPERM)] == [
        Reason.BAD_ADDRESS, Reason.OVER_MTU, Reason.REFUSED, Reason.REFUSED]


# ---------------------------------------------------------------- shapes
@pytest.mark.parametrize(("longest", "size", "slots"), [
    (1522, 2048, 1024), (1954, 2048, 1024), (1955, 4096, 512), (9022, 16384, 256)])
def test_the_shape_of_a_ring(longest: int, size: int, slots: int) -> None:
    assert ring_shape(longest) == (size, slots)


def test_what_a_kernel_takes() -> None:
    assert kernel_takes("6.1.0-18-amd64") == TAKES
    assert kernel_takes("6.18.44-fc") == kernel_takes("7.0") == TAKES | TAKES_USO
