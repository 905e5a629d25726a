# SPDX-License-Identifier: Apache-2.0
"""What is kept in the cache is found as it was, or not at all; and nobody else can put it there."""

import os
import stat
from pathlib import Path

import pytest

from byway.machine.cachedir import forget, keep, kept, private, read_file

DATA = b"code " * 100


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "root" / "digest" / "file"
    keep(path, DATA)
    return path


def test_what_is_kept_is_found(file: Path) -> None:
    assert kept(file) == DATA
    keep(file, DATA + b"more")
    assert kept(file) == DATA + b"more"
    assert os.listdir(file.parent) == ["file"]
    for path, mode in ((file, 0o600), (file.parent, 0o700), (file.parent.parent, 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert kept(file.with_name("other")) is None


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:40], lambda data: data[:-1], lambda data: data + b"x",
    lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], lambda data: DATA])
def test_a_damaged_file_is_none(file: Path, damage: "type[bytes]") -> None:
    file.write_bytes(damage(file.read_bytes()))
    assert kept(file) is None


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
@pytest.mark.parametrize("above", [0, 1])
def test_where_others_can_write_nothing_is_believed(file: Path, mode: int, above: int) -> None:
    file.parents[above].chmod(mode)
    assert kept(file) is None
    with pytest.raises(PermissionError, match="others may write here"):
        keep(file, DATA)
    with pytest.raises(PermissionError, match="set BYWAY_CACHE"):
        private(file.parent)


def test_what_belongs_to_another_is_not_believed(
        file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root's own would be believed by all
        os.chown(file.parent, 4321, 4321)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert kept(file) is None


def test_no_file_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "long").write_bytes(bytes(101))
    (tmp_path / "right").write_bytes(bytes(100))
    for name in ("fifo", "endless", "long", "", "gone"):
        with pytest.raises(OSError, match=r"ordinary|more than 100|No such|directory"):
            read_file(tmp_path / name, 100)
    assert read_file(tmp_path / "right", 100) == bytes(100)


def test_what_nobody_asked_for_is_forgotten(file: Path) -> None:
    for k in range(6):
        keep(file.with_name(f"made_{k}"), DATA)
        os.utime(file.with_name(f"made_{k}"), (k * 1000, k * 1000))
    os.utime(file, (0, 0))
    assert kept(file.with_name("made_1")) == DATA  # now it is the one asked for last
    forget(file.parent, ("made_", "other"), 3)
    assert sorted(os.listdir(file.parent)) == ["file", "made_1", "made_4", "made_5"]
    forget(file.parent.with_name("nothing"), ("made_",), 0)
