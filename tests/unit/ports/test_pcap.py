# SPDX-License-Identifier: Apache-2.0
"""The pcap port: files that cannot be used, what is written when, and a disk that is full."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from byway.control.problem import EngineError
from byway.packet.pcapfile import read_frames, write_frame, write_header
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from tests.running import RunningSwitch

F_ADD_SEALS, F_SEAL_GROW = 1033, 4
FRAMES = [ethernet(BROADCAST, b"\x02\0\0\0\0\x07", TEST_ETHERTYPE, bytes([k]) * (50 + k))
          for k in range(100)]


def capture(path: Path, frames: list[bytes]) -> str:
    with path.open("wb") as file:
        write_header(file)
        for frame in frames:
            write_frame(file, frame, 0.0)
    return str(path)


def test_from_file_to_file(switch: RunningSwitch, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    switch.add("pcap", "out", write=str(out))
    switch.add("pcap", "in", read=capture(tmp_path / "in.pcap", FRAMES))
    switch.settle()
    switch.remove("out")  # what is left is written then
    assert list(read_frames(out)) == FRAMES
    assert switch.port("in")["rx_frames"] == 100
    assert switch.port("in")["peer"] == str(tmp_path / "in.pcap")


def test_one_port_with_both(switch: RunningSwitch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        switch.add("pcap", name, read=capture(tmp_path / f"{name}-in", FRAMES[:3]),
                   write=str(tmp_path / f"{name}-out"))
    switch.settle()
    switch.remove("a")
    assert list(read_frames(tmp_path / "a-out")) == FRAMES[:3]


def test_an_empty_capture(switch: RunningSwitch, tmp_path: Path) -> None:
    switch.add("pcap", "in", read=capture(tmp_path / "in.pcap", []))
    switch.settle()
    assert (switch.port("in")["state"], switch.port("in")["rx_frames"]) == ("up", 0)


def test_a_file_that_is_written_anew(switch: RunningSwitch, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    out.write_bytes(b"something else, and longer than a file header")
    switch.add("pcap", "out", write=str(out))
    switch.remove("out")
    assert list(read_frames(out)) == []


@pytest.mark.parametrize(("options", "message"), [
    ({"read": "none.pcap"}, "read: .*none.pcap: No such file"),
    ({"read": "text"}, "read: .*text: not a classic pcap file"),
    ({"write": "none/out.pcap"}, "write: .*out.pcap: No such file")])
def test_files_that_cannot_be_used(switch: RunningSwitch, tmp_path: Path,
                                   options: dict[str, str], message: str) -> None:
    (tmp_path / "text").write_text("no capture")
    paths = {key: str(tmp_path / name) for key, name in options.items()}
    with pytest.raises(EngineError, match=f'port "file": {message}'):
        switch.add("pcap", "file", **paths)
    assert switch.call(switch.engine.ports) == []


def test_no_descriptor_that_would_wake_us(switch: RunningSwitch, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "eventfd", refused)
    with pytest.raises(EngineError, match="Too many open files"):
        switch.add("pcap", "out", write=str(tmp_path / "out"))
    assert switch.call(switch.engine.ports) == []


def test_a_file_that_cannot_grow(switch: RunningSwitch, tmp_path: Path) -> None:
    """As on a disk that is full: the port goes down and says why; the others go on."""
    fd = os.memfd_create("full", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_GROW)
    path = f"/proc/self/fd/{fd}"
    switch.add("pcap", "out", write=path)
    switch.add("null", "sink")
    switch.add("pcap", "in", read=capture(tmp_path / "in.pcap", FRAMES))
    switch.until(lambda: switch.port("out")["state"] == "down")
    assert switch.port("out")["reason"] == f"{path}: Operation not permitted"
    switch.settle()
    assert switch.port("sink")["tx_frames"] == 100
    switch.remove("out")
    os.close(fd)
