# SPDX-License-Identifier: Apache-2.0
"""AF_XDP's rings against a plain kernel over the same memory: what comes in, what goes out, whose a
chunk is, when the kernel is asked to send, and checksums that were left undone."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from byway.machine.jit import INTERPRETED
from byway.packet.batch import ROWS
from byway.packet.offload import NEEDS_CSUM
from byway.packet.reason import Reason
from byway.ports.af_xdp_kernels import DESCRIPTORS, TRIES, XdpError
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.plain_xsk import HEADROOM, PlainXsk
from byway.testing.xdp_kernels import xdp_receive, xdp_return

EXAMPLES = 25 if INTERPRETED else 150
STARTS = [0, 0xFFFFFFF0, 0x80000000]
ROOM = 2048 - HEADROOM


def frame(seed: int, n: int) -> bytes:
    return random.Random(seed).randbytes(n)


@settings(max_examples=EXAMPLES, deadline=None)
@given(start=st.sampled_from(STARTS), seed=st.integers(0, 1000),
       rounds=st.lists(st.lists(st.integers(14, ROOM), max_size=64), min_size=1, max_size=6))
def test_receive(start: int, seed: int, rounds: list[list[int]]) -> None:
    """Frames come whole and in order; a chunk comes back to the kernel once its batch is over."""
    with PlainXsk(start=start) as xsk:
        total = 0
        for number, lengths in enumerate(rounds):
            frames = [frame(seed + 100 * number + k, n) for k, n in enumerate(lengths)]
            assert [xsk.put(one) for one in frames] == [True] * len(frames)
            assert xsk.waiting() == bool(frames)
            assert xsk.receive() == frames
            assert not xsk.waiting()
            total += sum(lengths)
        assert (xsk.error, int(xsk.counters["bytes"][0])) == (0, total)


@settings(max_examples=EXAMPLES, deadline=None)
@given(start=st.sampled_from(STARTS), seed=st.integers(0, 1000),
       rounds=st.lists(st.lists(st.integers(14, 2048), min_size=1, max_size=ROWS), min_size=1,
                       max_size=6), pieces=st.integers(1, 4))
def test_transmit(start: int, seed: int, rounds: list[list[int]], pieces: int) -> None:
    """Frames go whole and in order as long as there are chunks; each comes back once."""
    rng = random.Random(seed)
    with PlainXsk(start=start) as xsk:
        lost = 0
        for number, lengths in enumerate(rounds):
            frames = [frame(seed + 100 * number + k, n) for k, n in enumerate(lengths)]
            taken = xsk.send(frames, (pieces, 1))
            assert xsk.sent() == frames[:taken]
            lost += len(frames) - taken
            assert xsk.drops == ({"no_buffers": lost} if lost else {})
            rng.shuffle(xsk.held)
            xsk.complete(rng.randint(0, len(xsk.held)))
        xsk.complete()
        assert xsk.send([frame(k, 60) for k in range(64)]) == 64, "all chunks are there again"
        assert xsk.error == 0


@settings(max_examples=EXAMPLES, deadline=None)
@given(lengths=st.lists(st.integers(14, 5 * ROOM), min_size=1, max_size=12),
       cuts=st.integers(1, 5))
def test_frames_in_pieces(lengths: list[int], cuts: int) -> None:
    frames = [frame(k, n) for k, n in enumerate(lengths)]
    with PlainXsk(pieces=6, frames=128) as xsk:
        assert all(xsk.put(one) for one in frames)
        assert xsk.receive() == frames
        assert xsk.send(frames, (cuts,)) == len(frames)
        assert xsk.sent() == frames
        assert xsk.error == 0


def test_a_frame_whose_end_has_not_come_yet() -> None:
    with PlainXsk(pieces=6) as xsk:
        long = frame(1, 3 * ROOM)
        assert xsk.put(frame(0, 60))
        assert xsk.put(long)
        producer = xsk.rx.word(xsk.rx.ring.producer)
        producer.value -= 1
        assert xsk.receive() == [frame(0, 60)]
        assert xsk.receive() == []
        producer.value += 1
        assert xsk.receive() == [long]


def test_a_batch_at_a_time() -> None:
    with PlainXsk(frames=512) as xsk:
        frames = [frame(k, 60) for k in range(DESCRIPTORS + 20)]
        assert all(xsk.put(one) for one in frames)
        for k in range(0, len(frames), ROWS):
            assert xsk.receive() == frames[k : k + ROWS]


def test_the_frame_is_lent_and_not_copied() -> None:
    with PlainXsk() as xsk:
        xsk.put(frame(0, 100))
        assert xdp_receive(xsk.receiver, xsk.batch.address) == 1
        row = xsk.batch.batch.rows[0]
        assert int(row["addr"]) == xsk.area.address + HEADROOM
        assert xsk.fill.consume() == [], "nothing was given back yet"
        xdp_return(xsk.receiver, xsk.batch.address)
        assert xsk.fill.consume() == [(0,)]


def test_frames_that_are_too_long() -> None:
    with PlainXsk() as xsk:
        xsk.records.tx["max_frame"] = 1522
        assert xsk.send([bytes(1523), bytes(1522)]) == 1
        xsk.records.tx["max_frame"] = 9000
        assert xsk.send([bytes(2049)]) == 0
        assert xsk.drops == {"over_mtu": 1, "small_buffer": 1}


# ---------------------------------------------------------------- notifications
def test_the_kernel_is_asked_only_where_it_wants_to_be() -> None:
    with PlainXsk() as xsk:
        xsk.records.tx["copying"] = 0
        xsk.kick()
        xsk.send([frame(0, 60)])
        xsk.kick()
        assert xsk.calls() == 0, "it looks by itself"
        xsk.wake_wanted(xsk.tx)
        xsk.kick()
        assert xsk.calls() == 1
        xsk.sent()
        xsk.kick()
        assert xsk.calls() == 0, "there is nothing to send"


def test_a_driver_without_room_is_asked_again() -> None:
    with PlainXsk() as xsk:
        xsk.wake_wanted(xsk.tx)
        xsk.send([frame(0, 60)])
        xsk.kick()
        assert xsk.calls() == TRIES
        assert xsk.waiting(), "the worker must not sleep"
        assert xsk.receive() == []
        assert xsk.calls() == TRIES, "looking for frames asks again"
        xsk.sent()
        xsk.receive()
        assert not xsk.waiting()


def test_an_interface_that_does_not_send() -> None:
    with PlainXsk() as xsk:
        xsk.kernel.close()
        xsk.wake_wanted(xsk.tx)
        xsk.send([frame(0, 60)])
        xsk.kick()
        assert xsk.error == XdpError.NO_INTERFACE


def test_a_driver_that_waits_for_chunks_is_told() -> None:
    with PlainXsk() as xsk:
        xsk.wake_wanted(xsk.fill)
        xsk.put(frame(0, 60))
        xsk.receive()
        assert int(xsk.records.rx["kicks"][0]) == 1
        xsk.wake_wanted(xsk.fill, False)
        xsk.put(frame(0, 60))
        xsk.receive()
        assert int(xsk.records.rx["kicks"][0]) == 1


# ---------------------------------------------------------------- unfinished checksums
SHAPES = [
    Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2),
    Ether() / IP(src="10.0.0.1", dst="10.0.0.2", options=[b"\x01" * 4]) / UDP(sport=1, dport=2),
    Ether() / IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=1, dport=2),
    Ether() / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2),
    Ether() / Dot1Q(vlan=5) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2),
]


def pseudo(packet: Ether) -> tuple[int, int, int]:
    """(the sum that Linux leaves in the checksum field, where that segment begins, the field)."""
    layer = TCP if TCP in packet else UDP
    segment = bytes(packet[layer])
    ip = packet[IP] if IP in packet else packet[IPv6]
    if IP in packet:
        header = bytes(ip)[12:20] + struct.pack("!HH", 6 if layer is TCP else 17, len(segment))
    else:
        header = bytes(ip)[8:40] + struct.pack("!II", len(segment), 6 if layer is TCP else 17)
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total, len(bytes(packet)) - len(segment), 16 if layer is TCP else 6


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("payload", [b"", b"x", b"hello world!" * 50])
def test_a_checksum_left_undone_is_recognised(shape: int, payload: bytes) -> None:
    finished = bytes(SHAPES[shape] / payload)
    packet = Ether(finished)
    total, start, offset = pseudo(packet)
    at = start + offset
    unfinished = finished[:at] + struct.pack("!H", total) + finished[at + 2 :]
    with PlainXsk() as xsk:
        xsk.records.rx["complete"] = 1
        for one in (finished, unfinished, unfinished + bytes(4)):
            xsk.put(one)
        todo = Unfinished(NEEDS_CSUM, csum_start=start, csum_offset=offset)
        assert xsk.receive_all() == [
            (FINISHED, finished), (todo, unfinished), (todo, unfinished + bytes(4))]
        xsk.records.rx["complete"] = 0
        xsk.put(unfinished)
        assert xsk.receive_all() == [(FINISHED, unfinished)]


def test_what_is_not_taken_for_unfinished() -> None:
    """Fragments, no checksum at all, lengths that do not fit, other protocols, random bytes."""
    udp = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / b"data"
    total, start, offset = pseudo(Ether(bytes(udp)))
    plain = bytearray(bytes(udp))
    plain[start + offset : start + offset + 2] = struct.pack("!H", total)
    fragment, long, other, none = (bytearray(plain) for _ in range(4))
    fragment[20] |= 0x20  # more fragments
    long[16:18] = struct.pack("!H", 1000)
    other[23] = 132
    none[start + offset : start + offset + 2] = b"\0\0"
    frames = [bytes(one) for one in (fragment, long, other, none)]
    frames += [frame(k, 60) for k in range(20)] + [bytes(14), bytes(plain[:30])]
    with PlainXsk() as xsk:
        xsk.records.rx["complete"] = 1
        for one in frames:
            xsk.put(one)
        assert xsk.receive_all() == [(FINISHED, one) for one in frames]
        assert all(not isinstance(got, Reason) for got in xsk.receive_all())
