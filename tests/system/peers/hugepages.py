# SPDX-License-Identifier: Apache-2.0
"""Huge pages, reserved for a while and given back.

Used by the bench (for DPDK; no hugetlbfs mount is needed, because `--in-memory` takes its pages by
memfd) and by the tests of huge guest memory. The tests' testpmd guests run with `--no-huge`.

How many there are is one number for the whole machine: who changes it keeps it to himself until it
is the old one again, and others wait. So `reserve` is not to be used inside of itself, nor by a
process that somebody inside of it waits for.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
PAGE_MIB = 2


class HugePagesMissing(Exception):
    """Not enough huge pages, and no way to get them; says why."""


@contextlib.contextmanager
def reserve(mib: int) -> Iterator[None]:
    """At least `mib` MiB of free 2 MiB pages inside the block; the old number comes back after."""
    wanted = -(-mib // PAGE_MIB)
    total, free = FOLDER / "nr_hugepages", FOLDER / "free_hugepages"
    if not total.exists():
        raise HugePagesMissing("this kernel has no 2 MiB huge pages")
    with total.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = int(lock.read())
        lacking = wanted - int(free.read_text())
        if lacking <= 0:
            yield
            return
        try:
            total.write_text(str(before + lacking))
        except PermissionError as error:
            raise HugePagesMissing(
                f"{lacking} more huge pages needed: run as root, or `sysctl vm.nr_hugepages="
                f"{before + lacking}` first"
            ) from error
        try:
            if int(free.read_text()) < wanted:
                raise HugePagesMissing(f"the kernel found no {wanted} free huge pages ({mib} MiB)")
            yield
        finally:
            total.write_text(str(before))
