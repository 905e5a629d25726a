# SPDX-License-Identifier: Apache-2.0
"""Capture files in the pcapng format, read by scapy and block by block."""

import io
import struct
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from byway.functions.export.pcapng import Writer

WHEN = 1_700_000_000_123_456_789  # nanoseconds


def blocks(octets: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each block; both lengths agree and fill whole words."""
    found = []
    while octets:
        kind, length = struct.unpack_from("=II", octets)
        assert length % 4 == 0
        assert length <= len(octets)
        assert struct.unpack_from("=I", octets, length - 4)[0] == length
        found.append((kind, octets[8:length - 4]))
        octets = octets[length:]
    return found


def options(octets: bytes) -> dict[int, bytes]:
    found = {}
    while octets:
        code, length = struct.unpack_from("=HH", octets)
        if code == 0:
            assert (length, octets[4:]) == (0, b"")
            break
        found[code] = octets[4:4 + length]
        octets = octets[4 + length + -length % 4:]
    return found


def test_a_section_begins_the_file() -> None:
    file = io.BytesIO()
    Writer(file, "a program")
    (kind, body), = blocks(file.getvalue())
    assert kind == 0x0A0D0D0A
    assert struct.unpack_from("=IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
    assert options(body[16:]) == {4: b"a program"}


def test_each_port_is_an_interface_and_described_once() -> None:
    file = io.BytesIO()
    writer = Writer(file, snaplen=64)
    for port in ("vm1", "vm2", "vm1"):
        writer.frame(port, bytes(60), WHEN)
    made = blocks(file.getvalue())
    assert [kind for kind, _ in made] == [0x0A0D0D0A, 1, 6, 1, 6, 6]
    assert struct.unpack_from("=HHI", made[1][1]) == (1, 0, 64)
    assert options(made[1][1][8:]) == {2: b"vm1", 9: b"\x09"}
    assert [struct.unpack_from("=I", made[k][1])[0] for k in (2, 4, 5)] == [0, 1, 0]


@pytest.mark.parametrize(("direction", "flags"), [("in", 1), ("out", 2), ("", None)])
def test_a_frame_has_its_time_its_lengths_and_its_direction(direction: str, flags: int | None
                                                            ) -> None:
    file = io.BytesIO()
    Writer(file).frame("vm1", b"x" * 61, WHEN, length=1514, direction=direction)
    body = blocks(file.getvalue())[-1][1]
    interface, high, low, kept, length = struct.unpack_from("=IIIII", body)
    assert (interface, high << 32 | low, kept, length) == (0, WHEN, 61, 1514)
    assert body[20:84] == b"x" * 61 + bytes(3)
    assert options(body[84:]) == ({2: struct.pack("=I", flags)} if flags else {})


def test_frames_are_cut_to_snaplen() -> None:
    file = io.BytesIO()
    Writer(file, snaplen=20).frame("vm1", bytes(100), WHEN)
    body = blocks(file.getvalue())[-1][1]
    assert struct.unpack_from("=II", body, 12) == (20, 100)
    assert len(body) == 40


def test_another_program_reads_it(tmp_path: Path) -> None:
    frames = [bytes([k]) * (60 + k) for k in range(9)]
    with open(tmp_path / "tap.pcapng", "wb") as file:
        writer = Writer(file)
        for k, frame in enumerate(frames):
            writer.frame(f"vm{k % 2}", frame, WHEN + k)
    found = list(RawPcapNgReader(str(tmp_path / "tap.pcapng")))
    assert [data for data, _ in found] == frames
    times = [(meta.tshigh << 32 | meta.tslow) for _, meta in found]
    assert times == [WHEN + k for k in range(9)]
