# SPDX-License-Identifier: Apache-2.0
"""Capture files: round trip, both byte orders, and every way to be no capture."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.packet.ethernet import longest_frame, untagged_frame
from byway.packet.pcapfile import (
    MAGIC_MICRO,
    MAGIC_NANO,
    PcapError,
    read_frames,
    write_frame,
    write_header,
)


@given(frames=st.lists(st.binary(min_size=14, max_size=200), max_size=10))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, frames: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("pcap") / "a.pcap"
    with open(path, "wb") as file:
        write_header(file)
        for number, frame in enumerate(frames):
            write_frame(file, frame, 1.5 + number)
    assert list(read_frames(path)) == frames
    data = path.read_bytes()
    assert data[:4] == struct.pack("=I", MAGIC_MICRO)
    if frames:
        assert struct.unpack_from("=IIII", data, 24) == (1, 500000, len(frames[0]), len(frames[0]))


def capture(order: str, magic: int, linktype: int = 1, body: bytes = b"") -> bytes:
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, linktype) + body


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [MAGIC_MICRO, MAGIC_NANO])
def test_both_byte_orders(tmp_path: Path, order: str, magic: int) -> None:
    path = tmp_path / "a.pcap"
    body = struct.pack(order + "IIII", 1, 2, 14, 14) + bytes(14)
    path.write_bytes(capture(order, magic, body=body))
    assert list(read_frames(path)) == [bytes(14)]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "not a classic pcap file"), (b"\x0a\x0d\x0d\x0a" * 10, "not a classic pcap file"),
    (capture("<", MAGIC_MICRO)[:23], "not a classic pcap file"),
    (capture("<", MAGIC_MICRO, 113), "link type 113"),
    (capture("<", MAGIC_MICRO, body=bytes(15)), "ends in the header of frame 1"),
    (capture("<", MAGIC_MICRO, body=struct.pack("<IIII", 0, 0, 14, 14) + bytes(13)),
     "ends in frame 1"),
    (capture("<", MAGIC_MICRO, body=struct.pack("<IIII", 0, 0, 14, 60) + bytes(14)),
     "cut to 14 of 60"),
    (capture("<", MAGIC_MICRO, body=struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30)),
     "says it has 1073741824 bytes")])
def test_no_capture(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    with pytest.raises(PcapError, match=message) as raised:
        list(read_frames(path))
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_frames(tmp_path / "none"))


def test_ethernet_sizes() -> None:
    assert (untagged_frame(1500), longest_frame(1500)) == (1514, 1522)
