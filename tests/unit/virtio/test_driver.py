# SPDX-License-Identifier: Apache-2.0
"""The driver: what a device may claim in a ring and in a header, and what comes of it; long frames,
merged ones, offloads. (Devices that keep to the rules: tests/oracles/test_driver.py.)"""

import struct

import pytest

from byway.packet.batch import FLOOD, MAX_CHAIN, MAX_FRAME, ROWS, SEGMENTS, UNDECIDED
from byway.packet.reason import Reason
from byway.testing.entries import guest_borrow, guest_sleep
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.plain_device import PlainPackedDevice, PlainSplitDevice
from byway.virtio.features import Feature, mask
from byway.virtio.ring import RingError
from tests.driving import BUFFER, Driven, driven

MODERN = mask(Feature.VERSION_1)
PACKED = MODERN | mask(Feature.RING_PACKED)
IN_ORDER, MERGE, CSUM, GUEST_CSUM, TSO4 = (mask(f) for f in (
    Feature.IN_ORDER, Feature.MRG_RXBUF, Feature.CSUM, Feature.GUEST_CSUM, Feature.GUEST_TSO4))
BOTH = pytest.mark.parametrize("features", [MODERN, PACKED], ids=["split", "packed"])
EVERY = pytest.mark.parametrize(
    "features", [MODERN, PACKED, MODERN | IN_ORDER, PACKED | IN_ORDER],
    ids=["split", "packed", "split in order", "packed in order"])
LIE = 0xFFFF_FFFF


def claim(q: Driven, entries: list[tuple[int, int]], index: int | None = None) -> None:
    """Write used entries (name, length), whatever they say; ``index``: a split ring's, if another
    than their number."""
    device = q.device
    if isinstance(device, PlainSplitDevice):
        for k, (name, length) in enumerate(entries):
            device.memory.write(device.used + 4 + 8 * k, struct.pack("<II", name, length))
        device._put(device.used + 2, len(entries) if index is None else index)
        return
    assert isinstance(device, PlainPackedDevice)
    for k, (name, length) in enumerate(entries):
        lap = 0x8080 if k < q.size else 0
        device.memory.write(device.desc + 16 * (k % q.size) + 8,
                            struct.pack("<IHH", length, name & 0xFFFF, lap | 2))


class TestLies:
    """What a device may claim in the ring."""

    @BOTH
    @pytest.mark.parametrize(("entries", "rows"), [
        ([(8, 72)], 0), ([(0xFFFF, 72)], 0), ([(3, 72), (3, 72)], 1), ([(0, 72), (8, 72)], 1),
        ([(7, 72), (0, 72), (7, 72)], 2)])
    def test_names_that_it_was_not_given(self, features: int, entries: list[tuple[int, int]],
                                         rows: int) -> None:
        with driven(8, features, True) as q, q.watched():
            claim(q, entries)
            assert len(q.receive()) == rows
            assert q.error == RingError.BAD_ID

    def test_names_of_32_bits(self) -> None:
        with driven(8, MODERN, True) as q, q.watched():
            claim(q, [(1 << 16 | 3, 72)])
            assert q.receive() == []
            assert q.error == RingError.BAD_ID

    @pytest.mark.parametrize("index", [9, 100, 65535])
    def test_an_index_that_jumps(self, index: int) -> None:
        with driven(8, MODERN, True) as q, q.watched():
            claim(q, [], index)
            assert q.receive() == []
            assert q.error == RingError.USED_JUMP

    def test_a_lap_too_far(self) -> None:
        """All eight buffers, and a ninth before the driver has posted any again."""
        with driven(8, PACKED, True) as q, q.watched():
            claim(q, [(k, 72) for k in range(8)])
            assert int(guest_borrow(q.queue.address, q.batch.address)) == 8
            q.device._put(q.device.desc + 14, 2)
            guest_borrow(q.queue.address, q.batch.address)
            assert q.error == RingError.USED_JUMP

    @BOTH
    def test_sent_buffers_that_it_does_not_have(self, features: int) -> None:
        with driven(8, features, False) as q, q.watched():
            q.send([bytes(60)] * 2)  # buffers 7 and 6
            claim(q, [(7, 0), (5, 0)])
            q.reap()
            assert (q.error, q.free) == (RingError.BAD_ID, 7)

    def test_more_than_was_sent(self) -> None:
        with driven(8, MODERN, False) as q, q.watched():
            q.send([bytes(60)] * 2)
            claim(q, [(7, 0), (6, 0), (5, 0)])
            q.reap()
            assert q.error == RingError.USED_JUMP

    @BOTH
    def test_the_middle_of_a_chain(self, features: int) -> None:
        """Only the first buffer of a chain is its name."""
        with driven(8, features, False) as q, q.watched():
            q.send([bytes(3 * BUFFER)])  # buffers 7, 6, 5, 4
            claim(q, [(6, 0)])
            q.reap()
            assert (q.error, q.free) == (RingError.BAD_ID, 4)

    @pytest.mark.parametrize("features", [MODERN | IN_ORDER, PACKED | IN_ORDER])
    def test_in_order_but_not_in_order(self, features: int) -> None:
        """A name skips those before it, which then count as used; naming those is wrong."""
        with driven(8, features, True) as q, q.watched():
            if features & PACKED == PACKED:
                claim(q, [(3, 72)] + [(9, 9)] * 3 + [(1, 72)])
                q.device._put(q.device.desc + 16 * 1 + 14, 0x82)
            else:
                claim(q, [(3, 72), (9, 9), (9, 9), (9, 9), (1, 72)])
            got = q.receive()
            assert [len(f) for f in got if isinstance(f, bytes)] == [BUFFER - 12] * 3 + [60]
            assert q.error == RingError.BAD_ID

    def test_one_name_for_more_than_the_index_says(self) -> None:
        with driven(8, MODERN | IN_ORDER, True) as q, q.watched():
            claim(q, [(3, 72)])
            q.receive()
            assert q.error == RingError.USED_JUMP

    @EVERY
    @pytest.mark.parametrize("length", [0, 11, 25, BUFFER + 1, LIE])
    def test_a_length_that_cannot_be_drops_one_frame(self, features: int, length: int) -> None:
        with driven(8, features, True) as q, q.watched() as arena:
            claim(q, [(0, length), (1, 72)])
            got = q.receive()
            assert got == [Reason.BAD_LENGTH, bytes(60)]
            assert (q.error, q.free) == (None, 0)
            assert arena.doubles == []

    def test_without_write_nothing_was_written(self) -> None:
        """2.8.5: the length is reserved then."""
        with driven(8, PACKED, True) as q, q.watched():
            claim(q, [(0, 72)])
            q.device._put(q.device.desc + 14, 0x8080)
            assert q.receive() == [Reason.BAD_LENGTH]


class TestLongFrames:
    """A frame that takes several buffers."""

    @EVERY
    @pytest.mark.parametrize("pieces", [1, 3, 16])
    def test_as_a_chain(self, features: int, pieces: int) -> None:
        with driven(64, features, False) as q, q.watched():
            frames = [bytes([k]) * n for k, n in enumerate(
                [60, BUFFER - 12, BUFFER - 11, 2 * BUFFER - 12, 9000, 64, 8999])]
            assert q.send(frames, (pieces,)) == 7
            taken = q.device.take()
            assert [c.descriptors for c in taken] == [1, 1, 2, 2, 5, 1, 5]
            assert [q.device.content(c)[12:] for c in taken] == frames
            q.device.use(taken)
            q.reap()
            assert q.free == 64

    @BOTH
    def test_longer_than_the_mtu(self, features: int) -> None:
        with driven(64, features, False, max_frame=1522) as q:
            assert q.send([bytes(1523), bytes(1522)]) == 1
            assert q.drops == {"over_mtu": 1}
            assert q.device.frames() == [(bytes(12), bytes(1522))]

    @BOTH
    def test_a_frame_to_be_cut_may_be_longer(self, features: int) -> None:
        """What counts is what it makes on the wire."""
        todo = Unfinished(1, 1, 1448, 34, 16)
        frame = bytes(12) + b"\x08\x00\x45" + bytes(8) + b"\x06" + bytes(22) + b"\x50"
        frame = frame.ljust(MAX_FRAME, b"x")
        with driven(64, features | CSUM, False, max_frame=1522) as q:
            assert q.send([(todo, frame), (Unfinished(1, 1, 1469, 34, 16), frame)]) == 1
            assert q.drops == {"over_mtu": 1}
            (header, got), = q.device.frames()
            assert got == frame
            assert header == struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 0)

    @BOTH
    def test_more_buffers_than_the_ring_has(self, features: int) -> None:
        with driven(4, features, False) as q:
            assert q.send([bytes(4 * BUFFER - 11), bytes(4 * BUFFER - 12)]) == 1
            assert q.drops == {"small_buffer": 1}

    def test_more_buffers_than_a_chain_may_have(self) -> None:
        with driven(256, MODERN, False, buffer=64, max_frame=65000) as q:
            assert q.send([bytes(64 * MAX_CHAIN - 11), bytes(64 * MAX_CHAIN - 12)]) == 1
            assert q.drops == {"small_buffer": 1}
            assert [c.descriptors for c in q.device.take()] == [MAX_CHAIN]

    @EVERY
    def test_more_buffers_than_are_free(self, features: int) -> None:
        """It and what comes behind it is counted; nothing of it was sent."""
        with driven(8, features, False) as q:
            assert q.send([bytes(60)] * 6 + [bytes(3 * BUFFER - 12), bytes(60)]) == 6
            assert (q.drops, q.free) == ({"no_buffers": 2}, 2)
            q.device.frames()
            assert q.send([bytes(3 * BUFFER - 12)]) == 1


class TestMerged:
    """MRG_RXBUF (5.1.6.4): num_buffers, and what it may say."""

    def deliver(self, q: Driven, buffers: int, lengths: list[int]) -> None:
        """Use the first buffers with these lengths; the first header says ``buffers``."""
        taken = q.device.take()[: len(lengths)]
        for k, (chain, n) in enumerate(zip(taken, lengths, strict=True)):
            header = bytes(10) + struct.pack("<H", buffers) if k == 0 else b""
            q.device.fill(chain, header + bytes([65 + k]) * (min(n, BUFFER) - len(header)))
        q.device.use(taken, lengths)

    @BOTH
    @pytest.mark.parametrize("buffers", [0, 9, MAX_CHAIN + 1, 65535])
    def test_a_number_that_cannot_be(self, features: int, buffers: int) -> None:
        with driven(8, features | MERGE, True) as q, q.watched():
            self.deliver(q, buffers, [72])
            assert q.receive() == [Reason.BAD_LENGTH]
            assert (q.error, q.free) == (None, 0)

    @BOTH
    @pytest.mark.parametrize("lengths", [
        [12, 48], [11, 60], [60, 0], [BUFFER, BUFFER + 1], [13, 12], [60, LIE]])
    def test_lengths_that_cannot_be(self, features: int, lengths: list[int]) -> None:
        with driven(8, features | MERGE, True) as q, q.watched():
            self.deliver(q, 2, lengths)
            got = q.receive()
            assert got[0] is Reason.BAD_LENGTH
            assert (q.error, q.free) == (None, 0)

    @BOTH
    def test_longer_than_any_frame(self, features: int) -> None:
        n = MAX_FRAME // BUFFER + 1
        with driven(64, features | MERGE, True) as q, q.watched():
            self.deliver(q, n, [BUFFER] * n)
            assert q.receive() == [Reason.BAD_LENGTH]

    @BOTH
    def test_it_waits_for_the_rest(self, features: int) -> None:
        """What is behind it waits as well; when the rest comes all is there."""
        with driven(8, features | MERGE, True) as q, q.watched():
            self.deliver(q, 3, [BUFFER, BUFFER])
            for _ in range(3):
                assert q.receive() == []
                assert (q.error, q.free) == (None, 2)
            rest, = [*q.device.held.values()][:1]
            q.device.use([rest], [q.device.fill(rest, b"C" * 10)])
            assert q.receive() == [b"A" * (BUFFER - 12) + b"B" * BUFFER + b"C" * 10]
            assert q.device.deliver([b"D" * 60]) == 1
            assert q.receive() == [b"D" * 60]
            assert q.free == 0

    @BOTH
    def test_the_rest_is_counted_before_it_is_whole(self, features: int) -> None:
        """num_buffers is read again while the frame waits; each answer is good for itself."""
        with driven(8, features | MERGE, True) as q, q.watched():
            self.deliver(q, 3, [BUFFER, 72])
            assert q.receive() == []
            first = q.queue.buffers
            q.memory.write(q.gpa(first) + 10, struct.pack("<H", 2))
            assert q.receive() == [b"A" * (BUFFER - 12) + b"B" * 72]

    def test_without_the_feature_it_is_not_read(self) -> None:
        with driven(8, MODERN, True) as q:
            self.deliver(q, 77, [72])
            assert q.receive() == [b"A" * 60]

    @BOTH
    def test_frames_wait_where_a_batch_has_no_room_for_segments(self, features: int) -> None:
        """Ten frames of 100 and more buffers: a batch holds SEGMENTS."""
        with driven(2048, features | MERGE, True, buffer=256) as q, q.watched():
            frames = [bytes([k]) * (256 * 120 - 12) for k in range(10)]
            assert q.device.deliver(frames) == 10
            n = SEGMENTS // 120
            assert q.receive() == frames[:n]
            assert guest_sleep(q.queue.address) == 1, "there is something to do"
            assert q.receive() == frames[n:]
            assert (q.receive(), q.free) == ([], 0)
            assert guest_sleep(q.queue.address) == 0

    @pytest.mark.parametrize("features", [MODERN | IN_ORDER, PACKED | IN_ORDER])
    def test_one_used_entry_for_more_than_a_batch(self, features: int) -> None:
        """All on the list at once; what a batch does not hold does not wait for another call."""
        with driven(256, features, True, buffer=256) as q, q.watched():
            chains = q.device.take()
            frame = bytes(range(244))
            for chain in chains:
                q.device.fill(chain, bytes(12) + frame)
            q.device.use(chains, [256] * 256, as_one=True)
            for batch in range(4):
                assert q.receive() == [frame] * ROWS
                assert guest_sleep(q.queue.address) == int(batch < 3)
            assert (q.receive(), q.free, q.error) == ([], 0, None)

    @BOTH
    def test_a_batch_of_merged_frames(self, features: int) -> None:
        """More frames than rows, each of two buffers; their buffers go back frame by frame."""
        with driven(256, features | MERGE, True, buffer=256) as q, q.watched():
            frames = [bytes([k]) * 300 for k in range(ROWS + 10)]
            assert q.device.deliver(frames) == ROWS + 10
            assert q.receive() == frames[:ROWS]
            assert q.receive() == frames[ROWS:]
            assert q.free == 0


class TestOffloads:
    """The virtio header both ways (5.1.6.2, 5.1.6.4)."""

    HEADERS = (
        (Unfinished(1, 0, 0, 34, 6), "01 00 0000 0000 2200 0600"),
        (Unfinished(2), "02 00 0000 0000 0000 0000"),
        (Unfinished(1, 0x81, 1448, 34, 16), "01 81 3600 a805 2200 1000"),
        (FINISHED, "00 00 0000 0000 0000 0000"),
        (FINISHED, "04 00 7700 8888 9999 aaaa"))  # unknown flags, fields that say nothing

    @BOTH
    def test_received(self, features: int) -> None:
        with driven(8, features | GUEST_CSUM | TSO4, True) as q, q.watched() as arena:
            frames = [bytes([k]) * 100 for k in range(len(self.HEADERS))]
            q.device.deliver(frames, [bytes.fromhex(h) for _, h in self.HEADERS])
            expected = [todo for todo, _ in self.HEADERS]
            assert q.receive_all() == list(zip(expected, frames, strict=True))
            assert int(q.batch.batch.record["offloads"][0]) == (
                expected[0].word | expected[1].word | expected[2].word)
            assert arena.doubles == []

    @BOTH
    @pytest.mark.parametrize("header", [
        "00 01 3600 a805 2200 1000", "01 01 3600 0000 2200 1000", "01 07 3600 a805 2200 1000",
        "01 00 0000 0000 2200 0001"])
    def test_nonsense(self, features: int, header: str) -> None:
        with driven(8, features | GUEST_CSUM, True) as q:
            q.device.deliver([bytes(100), bytes(60)], [bytes.fromhex(header), bytes(10)])
            assert q.receive_all() == [Reason.BAD_OFFLOAD, (FINISHED, bytes(60))]
            assert (q.error, q.free) == (None, 0)

    def test_not_read_where_nothing_was_negotiated(self) -> None:
        with driven(8, MODERN, True) as q:
            q.device.deliver([bytes(100)], [bytes.fromhex("01 01 3600 0000 2200 1000")])
            assert q.receive_all() == [(FINISHED, bytes(100))]
            assert int(q.batch.batch.record["offloads"][0]) == 0

    @BOTH
    def test_merged_with_an_offload(self, features: int) -> None:
        with driven(64, features | MERGE | GUEST_CSUM | TSO4, True) as q, q.watched():
            frame = bytes(range(256)) * 200
            header = struct.pack("<BBHHHH", 1, 1, 54, 1448, 34, 16)
            assert q.device.deliver([frame], [header]) == 1
            assert q.receive_all() == [(Unfinished(1, 1, 1448, 34, 16), frame)]

    @BOTH
    def test_sent(self, features: int) -> None:
        """DATA_VALID is not a driver's to say (5.1.6.2.1); num_buffers is 0."""
        frame = (bytes(12) + b"\x08\x00\x45" + bytes(8) + b"\x11" + bytes(22)).ljust(100)
        with driven(8, features | CSUM, False) as q:
            q.send([(Unfinished(1, 0, 0, 34, 6), frame), (Unfinished(2), frame),
                    (Unfinished(3, 0, 0, 34, 6), frame), frame])
            assert [header for header, _ in q.device.frames()] == [
                struct.pack("<BBHHHHH", flags, 0, n, 0, start, offset, 0)
                for flags, n, start, offset in
                [(1, 42, 34, 6), (0, 0, 0, 0), (1, 42, 34, 6), (0, 0, 0, 0)]]


def test_rows_are_undecided() -> None:
    with driven(8, MODERN, True) as q:
        q.device.deliver([bytes(60)])
        n = int(guest_borrow(q.queue.address, q.batch.address))
        assert q.batch.batch.rows["out"][:n].tolist() == [UNDECIDED]
        assert UNDECIDED < FLOOD
