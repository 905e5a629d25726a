# SPDX-License-Identifier: Apache-2.0
"""The state file on a file system that is full, or that can only be read: nothing in it is lost."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.control.actions import AddNetwork, AddPort, RemovePort
from byway.control.model import NetworkConfig, NullPort
from byway.control.store import Store, StoreError
from tests import peers

pytestmark = pytest.mark.system
BLUE = NetworkConfig(name="blue")


def null(name: str) -> NullPort:
    return NullPort(name=name, network="blue", kind="null")


@pytest.fixture
def disk(own_folder: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() or shutil.which("mount") is None:
        peers.need_peer("mount", "a small file system needs root")
    place = own_folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    """Write into a file until there is no room (OSError)."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(file, bytes(4096))
    finally:
        os.close(file)


def names(path: str) -> list[str]:
    """The ports in a state file."""
    store = Store(path)
    ports = [part for part in store.load()[0] if isinstance(part, NullPort)]
    store.close()
    return [port.name for port in ports]


def test_a_full_disk_refuses_a_change_and_loses_nothing(disk: Path) -> None:
    path = str(disk / "lab.db")
    store = Store(path)
    store.keep([AddNetwork(BLUE), AddPort(null("a")), AddPort(null("b"))])
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        fill(ballast)
    with pytest.raises(StoreError, match="the disk is full; make room and try again"):
        store.keep([AddPort(null(f"p{k}")) for k in range(100)])
    store.close()
    assert names(path) == ["a", "b"]  # a switch can start on a full disk
    ballast.unlink()
    store = Store(path)
    store.keep([RemovePort("a"), AddPort(null("c"))])
    store.close()
    assert names(path) == ["b", "c"]


def test_a_file_system_that_can_only_be_read(disk: Path) -> None:
    path = str(disk / "lab.db")
    store = Store(path)
    store.keep([AddNetwork(BLUE), AddPort(null("a"))])
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StoreError, match=r"cannot be opened \(Read-only file system\); make it"):
        Store(path)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert names(path) == ["a"]
