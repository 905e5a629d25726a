# SPDX-License-Identifier: Apache-2.0
"""Consecutive TCP segments become one large frame; cut again, they are what they were."""

import ctypes
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from byway.machine.layout import address_of
from byway.packet.batch import HEAD
from byway.packet.offload import GSO_TCPV4, GSO_TCPV6, TAKES_CSUM, TAKES_TSO4, TAKES_TSO6
from byway.packet.segment import Finisher
from byway.testing.finishing import content
from byway.testing.frame_batch import FrameBatch, Unfinished
from byway.testing.offload_frames import ACK, CWR, ECE, FIN, PSH, RST, SYN, UDP, URG, Shape
from byway.testing.offload_kernels import begin, check, following
from byway.testing.tunnel_kernels import joined

TUNNEL = b"\x08\0\0\0\0\0\x64\0"
SIZE = 1000


class Bench:
    """Frames as they lie in a received message, a row, and what cuts it again."""

    def __init__(self) -> None:
        self.batch = FrameBatch()
        self.row = self.batch.batch.rows[0]
        self.finisher = Finisher()

    def join(self, frames: Sequence[bytes], tunnels: Sequence[bytes] = ()) -> int:
        """-> how many of the frames were joined into the row."""
        tunnels = tunnels or [TUNNEL] * len(frames)
        whole = b"".join(a + b for a, b in zip(tunnels, frames, strict=True))
        self.memory = np.frombuffer(bytearray(whole), np.uint8)
        first = address_of(self.memory) + 8
        n, segs = len(frames[0]), int(self.batch.batch.record["segs"][0])
        return int(joined(address_of(self.batch.batch.rows), first, n, n + 8, len(whole) - 8, segs))

    def large(self) -> tuple[Unfinished, bytes]:
        """The frame of the row."""
        ((todo, data),) = self.batch.content(1)  # type: ignore[misc]
        return todo, data

    def cut(self) -> list[bytes]:
        """The row's frame, checked as every frame is, for a destination that takes nothing."""
        _, data = self.large()
        head = np.frombuffer(data[:HEAD], np.uint8)
        place = int(self.row["head"])
        ctypes.memmove(place, address_of(head), len(head))
        self.batch.batch.record["n"], self.batch.batch.record["offloads"] = 1, 1
        check(self.batch.address)
        assert begin(self.finisher.address, address_of(self.batch.batch.rows), 0) == 0
        made = []
        while n := int(following(self.finisher.address)):
            made += [content(row) for row in self.finisher.rows[:n]]
        return made


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def segments(shape: Shape, sizes: Sequence[int], last: int = ACK | PSH) -> list[bytes]:
    """The frames of a flow that goes on, PSH in the last one."""
    rng = random.Random(sum(sizes))
    made, sequence = [], shape.sequence
    for k, size in enumerate(sizes):
        flags = last if k == len(sizes) - 1 else shape.flags
        made.append(replace(shape, sequence=sequence, ident=shape.ident + k, flags=flags,
                            payload=rng.randbytes(size)).build(complete=True))
        sequence += size
    return made


SHAPES = [Shape(4), Shape(6), Shape(4, tcp_options=bytes([1, 1, 8, 10]) + bytes(8)),
          Shape(6, tcp_options=bytes([1, 1, 8, 10]) + bytes(8)), Shape(4, flags=ACK | ECE),
          Shape(4, sequence=(1 << 32) - 1500), Shape(4, ident=0xFFFE),
          Shape(4, dont_fragment=False, ident=0xFFFE)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sizes", [[SIZE] * 2, [SIZE] * 9, [SIZE] * 5 + [1], [1, 1], [SIZE] * 64])
def test_segments_become_one_and_come_apart_again(
        bench: Bench, shape: Shape, sizes: list[int]) -> None:
    flags = shape.flags | PSH
    frames = segments(shape, sizes, flags)
    assert bench.join(frames) == len(frames)
    todo, data = bench.large()
    gso = GSO_TCPV4 if shape.version == 4 else GSO_TCPV6
    assert todo == Unfinished(1, gso, sizes[0], shape.l4, 16)
    payload = b"".join(frame[shape.header_bytes :] for frame in frames)
    assert data == replace(shape, flags=flags, payload=payload).build(complete=False)
    assert bench.cut() == frames


def test_who_takes_large_frames_gets_them(bench: Bench) -> None:
    frames = segments(Shape(4), [SIZE] * 4)
    assert bench.join(frames) == 4
    whole = bench.large()[1]
    mask = TAKES_CSUM | TAKES_TSO4 | TAKES_TSO6
    assert begin(bench.finisher.address, address_of(bench.batch.batch.rows), mask) == 0
    assert following(bench.finisher.address) == 1
    assert len(whole) == 54 + 4 * SIZE


def test_push_ends_a_frame(bench: Bench) -> None:
    frames = segments(Shape(4), [SIZE] * 6)
    frames[2] = segments(Shape(4), [SIZE] * 3)[2]
    sequence = 1 + 3 * SIZE
    frames[3:] = segments(Shape(4, sequence=sequence, ident=4), [SIZE] * 3)
    assert bench.join(frames) == 3
    assert bench.join(frames[3:]) == 3
    assert bench.join(segments(Shape(4, flags=ACK | PSH), [SIZE] * 2)) == 1


def test_a_shorter_one_ends_a_frame(bench: Bench) -> None:
    """In a message only the last may be shorter; its TCP payload may be what is shorter in it."""
    frames = segments(Shape(4), [SIZE, SIZE, 10])
    assert bench.join([*frames[:2], frames[2]]) == 3


# ---------------------------------------------------------------- what is not joined
def changed(at: int, bits: int) -> Callable[[bytes], bytes]:
    def change(frame: bytes) -> bytes:
        made = bytearray(frame)
        made[at] ^= bits
        return bytes(made)
    return change


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("at", [*range(54), 60, 500, 1053])
@pytest.mark.parametrize("version", [4, 6])
def test_what_was_damaged_stays_alone(bench: Bench, version: int, at: int, which: int) -> None:
    """One bit anywhere: nothing that is wrong is given out as good."""
    frames = segments(Shape(version), [SIZE] * 3)
    whole = len(frames[0])
    at = at if at < whole else whole - 1
    for bit in (1, 0x80):
        spoiled = list(frames)
        spoiled[which] = changed(at, bit)(frames[which])
        count = bench.join(spoiled)
        assert count == 1, f"byte {at}, bit {bit:#x}"
    assert bench.memory.tobytes()[8 : 8 + whole] == spoiled[0], "and untouched"


OTHERS: dict[str, dict[str, Any]] = {
    "another flow": {"ports": (40000, 5002)}, "another source": {"source": b"\x0a\0\0\x09"},
    "a gap": {"sequence": 1 + SIZE + 1}, "a repetition": {"sequence": 1},
    "SYN": {"flags": ACK | SYN}, "FIN": {"flags": ACK | FIN}, "RST": {"flags": ACK | RST},
    "URG": {"flags": ACK | URG}, "CWR": {"flags": ACK | CWR}, "ECE": {"flags": ACK | ECE},
    "no ACK": {"flags": 0}, "options": {"tcp_options": bytes([1] * 4)},
    "other MACs": {"macs": bytes.fromhex("020000000003" "020000000001")},
    "a tag": {"tags": (5,)}, "not TCP": {"protocol": UDP},
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("what", OTHERS)
def test_what_does_not_go_on_ends_a_frame(bench: Bench, version: int, what: str) -> None:
    base = {"version": version, "sequence": 1 + SIZE, "ident": 2, "payload": bytes(SIZE)}
    first = Shape(version, payload=bytes(SIZE))
    other = Shape(**{**base, **OTHERS[what]}).build(complete=True)
    n = len(first.build())
    other = other[:n] if len(other) > n else other
    assert bench.join([first.build(complete=True), other]) == 1
    assert bench.join([first.build(complete=True),
                       Shape(**base).build(complete=True)]) == 2  # type: ignore[arg-type]


def test_other_windows_idents_and_options_in_ip(bench: Bench) -> None:
    first = segments(Shape(4, dont_fragment=False), [SIZE] * 3)
    jump = replace(Shape(4, dont_fragment=False), ident=7, sequence=1 + SIZE,
                   payload=bytes(SIZE)).build(complete=True)
    assert bench.join([first[0], jump]) == 1
    optional = segments(Shape(4, options=bytes([1] * 4)), [SIZE] * 3)
    assert bench.join(optional) == 1
    fragment = Shape(4, payload=bytes(SIZE))
    cut = fragment.ethernet() + fragment.ip(20 + SIZE, fragment=0x2000) + fragment.transport(True)
    assert bench.join([cut, cut]) == 1
    extended = segments(Shape(6, extensions=((60, bytes([1, 4, 0, 0, 0, 0])),)), [SIZE] * 2)
    assert bench.join(extended) == 1
    padded = [frame + bytes(6) for frame in segments(Shape(4), [1, 1])]
    assert bench.join(padded) == 1
    assert bench.join(segments(Shape(4), [0, 0], ACK)) == 1


def test_another_network_in_between(bench: Bench) -> None:
    frames = segments(Shape(4), [SIZE] * 3)
    other = b"\x08\0\0\0\0\0\x65\0"
    assert bench.join(frames, [TUNNEL, TUNNEL, other]) == 2
    assert bench.join(frames, [TUNNEL, other, TUNNEL]) == 1


def test_no_more_than_fits_into_ip(bench: Bench) -> None:
    frames = segments(Shape(4), [1400] * 46)
    assert bench.join(frames) == 46
    long = segments(Shape(4), [8900] * 8)
    assert bench.join(long) == 7
    assert len(bench.large()[1]) - 14 <= 65535


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_behind_a_good_segment(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    frames = segments(Shape(rng.choice([4, 6])), [100] * 5)
    for _ in range(30):
        spoiled = list(frames)
        k = rng.randrange(5)
        made = bytearray(frames[k])
        for _ in range(rng.randrange(1, 4)):
            made[rng.randrange(len(made))] = rng.getrandbits(8)
        spoiled[k] = bytes(made)
        n = rng.choice([len(made), rng.randrange(1, len(made))])
        if k == 4:
            spoiled[k] = spoiled[k][:n]
        count = bench.join(spoiled)
        assert count <= max(k, 1) or spoiled[k] == frames[k] or same_sum(spoiled[k], frames[k])


def same_sum(a: bytes, b: bytes) -> bool:
    """Do the changes cancel out in a sum of words?"""
    def total(data: bytes) -> int:
        return sum(np.frombuffer(data + bytes(len(data) % 2), ">u2").astype(int)) % 0xFFFF
    return len(a) == len(b) and total(a) == total(b)
