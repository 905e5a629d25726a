# SPDX-License-Identifier: Apache-2.0
"""Takes away what engines leave: processes, mounts and control groups.

Used by the tests' fixtures at their end, after each engine was asked to stop; what was killed in
the middle of its work leaves shims, mounted file systems and groups. Nothing is touched that does
not belong to the test: a process is one whose command line names the test's folder, a mount lies
below that folder, and a group has the test's name.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.system.peers.process import wait_until

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
RUNC = Path("/run/containerd/runc")  # what runc keeps of containers, by containerd's namespace


def processes(folder: Path) -> list[int]:
    """The processes whose command line names the folder, but for this one."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                if any(f"{folder}/" in word for word in words):
                    found.append(int(entry.name))
    return found


def end_processes(folder: Path) -> None:
    """SIGKILL to each of the folder's processes, until there is none."""

    def gone() -> bool:
        left = processes(folder)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(gone, f"no process of {folder} is left", 10)


def mounts(folder: Path) -> list[str]:
    """The mounts below the folder, inner ones first (proc(5), mountinfo field 5)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in reversed(points) if point.startswith(f"{folder}/")]


def unmount(folder: Path) -> None:
    """Take away every mount below the folder; the deepest that is busy goes when it is free."""
    for point in mounts(folder):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def groups(name: str) -> list[Path]:
    """The control groups called ``name`` and those in them, inner ones first."""
    tops = [top for top in [*GROUPS.glob(name), *GROUPS.glob(f"*/{name}")] if top.is_dir()]
    inner = [path for top in tops for path in top.rglob("*") if path.is_dir()]
    return sorted([*tops, *inner], key=lambda path: len(path.parts), reverse=True)


def group_processes(name: str) -> set[int]:
    """The processes in these control groups."""
    found: set[int] = set()
    for group in groups(name):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
    return found


def end_groups(name: str) -> None:
    """SIGKILL to what runs in the test's control groups, then remove them."""

    def gone() -> bool:
        for pid in group_processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for group in groups(name):
            with contextlib.suppress(OSError):  # busy until its last process was waited for
                group.rmdir()
        return not groups(name)

    wait_until(gone, f"no control group {name} is left", 10)


def sweep(folder: Path, group: str) -> None:
    """All of it: ends what belongs to a test that has its folder and its control group."""
    with contextlib.ExitStack() as stack:  # the last one first; each, also where one cannot be done
        stack.callback(shutil.rmtree, RUNC / group, ignore_errors=True)
        stack.callback(unmount, folder)
        stack.callback(end_groups, group)
        stack.callback(end_processes, folder)
