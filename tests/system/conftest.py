# SPDX-License-Identifier: Apache-2.0
"""What the system tests share: a short folder for sockets and logs, CPUs, peers or their absence.

With a failed test the end of every log in its folder is shown.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import peers
from tests.system.engines import image
from tests.system.peers import kernel, qemu, testpmd

TAIL = 4000
ENDS = 5.0  # seconds until a peer has ended


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):  # type: ignore[no-untyped-def]
    """Add the logs of the peers to the report of a test that failed."""
    report = yield
    given = getattr(item, "funcargs", {})
    folders = [given[name] for name in ("folder", "own_folder") if name in given]
    if report.failed:
        for log in sorted(path for folder in folders for path in folder.rglob("*.log")):
            report.sections.append(
                (f"the end of {log.name}", log.read_text("utf-8", "replace")[-TAIL:])
            )
    return report


def remove(path: Path) -> None:
    """Remove a folder in which a peer that ends may still write."""
    end = time.monotonic() + ENDS
    while path.exists():
        try:
            shutil.rmtree(path)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="byway-"))
    try:
        yield path
    finally:
        remove(path)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for the sockets and logs of a file's tests."""
    with short_folder() as path:
        yield path


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder for the sockets and logs of one test."""
    with short_folder() as path:
        yield path


@pytest.fixture(scope="session")
def cpus() -> tuple[int, int]:
    """(the switch's CPU, the guests' CPU); the same one on a machine that has only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@pytest.fixture(scope="session")
def dpdk() -> None:
    """testpmd is installed."""
    peers.find_program(testpmd.PROGRAM)
    peers.find_program("stdbuf")


@pytest.fixture(scope="session")
def guest_system(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(kernel, initramfs) for QEMU guests, which is installed."""
    peers.find_program(qemu.PROGRAM)
    image, modules = peers.find_kernel()
    if not kernel.BUSYBOX.exists():
        peers.need_peer("busybox", f"no {kernel.BUSYBOX} (package busybox-static)")
    folder = tmp_path_factory.mktemp("system")
    return (
        kernel.extract_elf(image, folder / "vmlinux"),
        kernel.build_initramfs(modules, qemu.MODULES, folder / "initramfs"),
    )


@pytest.fixture(scope="session")
def station_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the image that all containers run."""
    return image.build(tmp_path_factory.mktemp("image") / "station.tar")
