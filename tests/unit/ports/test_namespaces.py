# SPDX-License-Identifier: Apache-2.0
"""News of names: who asked is called, nobody else, and nothing stays open."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.ports.namespaces import Namespaces, process_of
from byway.testing.loop import ManualLoop


class Asking:
    """Who asks about names; ``heard``: of which it was told."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.namespaces = Namespaces(self.loop)  # type: ignore[arg-type]
        self.heard: list[str] = []

    def ask(self, path: Path | str, what: str) -> "Listener":
        listener = Listener(self, what)
        self.namespaces.watch(str(path), listener.hear)
        return listener

    def news(self) -> list[str]:
        """What came since it was asked for last."""
        self.loop.run()
        heard, self.heard = self.heard, []
        return heard


class Listener:
    """One callback, always the same one."""

    def __init__(self, asking: Asking, what: str) -> None:
        self.asking, self.what = asking, what
        self.hear = self._hear

    def _hear(self) -> None:
        self.asking.heard.append(self.what)


@pytest.fixture
def asking() -> Iterator[Asking]:
    before = len(os.listdir("/proc/self/fd"))
    made = Asking()
    yield made
    assert made.loop.idle, "nobody asks any more, nothing is watched"
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_name_that_comes_and_goes(asking: Asking, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first, second, other = asking.ask(one, "1"), asking.ask(one, "1 too"), asking.ask(two, "2")
    assert len(asking.loop.readers) == 1
    assert asking.news() == []
    one.touch()
    assert asking.news() == ["1", "1 too"]
    (tmp_path / "three").touch()
    assert asking.news() == []
    one.rename(two)
    assert asking.news() == ["1", "1 too", "2"]
    asking.namespaces.forget(str(one), first.hear)
    asking.namespaces.forget(str(one), first.hear)  # idempotent
    one.touch()
    two.unlink()
    assert asking.news() == ["1 too", "2"]
    asking.namespaces.forget(str(one), second.hear)
    asking.namespaces.forget(str(two), other.hear)


def test_one_folder_by_two_names(asking: Asking, tmp_path: Path) -> None:
    """As /run and /var/run are."""
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    one = asking.ask(tmp_path / "run/a", "a")
    two = asking.ask(tmp_path / "link/b", "b")
    (tmp_path / "run/a").touch()
    (tmp_path / "run/b").touch()
    assert asking.news() == ["a", "b"]
    asking.namespaces.forget(str(tmp_path / "run/a"), one.hear)
    (tmp_path / "run/b").unlink()
    assert asking.news() == ["b"]
    asking.namespaces.forget(str(tmp_path / "link/b"), two.hear)


def test_a_folder_that_goes(asking: Asking, tmp_path: Path) -> None:
    """Who asked about a name in it is told, and may ask again when it is there again."""
    folder = tmp_path / "folder"
    folder.mkdir()
    one = asking.ask(folder / "a", "a")
    folder.rmdir()
    assert asking.news() == ["a"]
    with pytest.raises(FileNotFoundError):
        asking.ask(folder / "a", "a")
    asking.namespaces.forget(str(folder / "a"), one.hear)
    folder.mkdir()
    again = asking.ask(folder / "a", "again")
    (folder / "a").touch()
    assert asking.news() == ["again"]
    asking.namespaces.forget(str(folder / "a"), again.hear)


def test_who_is_called_may_stop_asking(asking: Asking, tmp_path: Path) -> None:
    path = tmp_path / "a"
    listener = Listener(asking, "a")

    def once() -> None:
        listener.hear()
        asking.namespaces.forget(str(path), once)

    asking.namespaces.watch(str(path), once)
    path.touch()
    assert asking.news() == ["a"]


def test_a_process_that_ends(asking: Asking) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        path = f"/proc/{process.pid}/ns/net"
        assert process_of(path) == process_of(f"/proc/{process.pid}/task/7/ns/net") == process.pid
        one, two = asking.ask(path, "one"), asking.ask(path, "two")
        assert asking.news() == []
        process.kill()
        process.wait()
    assert asking.news() == ["one", "two"]
    assert asking.news() == [], "once"
    for listener in (one, two):
        asking.namespaces.forget(path, listener.hear)
    with pytest.raises(ProcessLookupError):
        asking.ask(path, "gone")


def test_names_of_no_process() -> None:
    for name in ("red", "/run/netns/red", "/proc/self/ns/net", "/proc/1/ns/mnt"):
        assert process_of(name) is None
