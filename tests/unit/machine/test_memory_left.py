# SPDX-License-Identifier: Apache-2.0
"""How much memory is left: of the machine, and of each control group that has a limit."""

from pathlib import Path

import pytest

from byway.machine.memory_left import memory_left

MEMINFO = "MemTotal: 9000 kB\nMemAvailable: 5000 kB\nSwapFree: 1000 kB\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(("files", "left"), [
    ({}, 1 << 62),
    ({"proc/meminfo": MEMINFO}, 6000 << 10),
    ({"proc/meminfo": "MemAvailable: 5000 kB\n", "proc/self/cgroup": "0::/\n"}, 5000 << 10),
    ({"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a/b\n",
      "sys/fs/cgroup/a/memory.max": "9000\n", "sys/fs/cgroup/a/memory.current": "5000\n",
      "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": "5000\n"},
     4000),
    ({"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a\n",
      "sys/fs/cgroup/a/memory.max": "9000\n", "sys/fs/cgroup/a/memory.current": "8000\n",
      "sys/fs/cgroup/a/memory.stat": "anon 9\ninactive_file 500\nactive_file 40\n"}, 1540),
    ({"proc/self/cgroup": "9:cpu:/x\n4:memory:/x\n0::/\n",
      "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "700\n",
      "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "900\n"}, 0),
])
def test_the_least_that_somebody_allows(tmp_path: Path, files: dict[str, str], left: int) -> None:
    assert memory_left(machine(tmp_path, files)) == left


def test_of_this_machine() -> None:
    assert 0 < memory_left() < 1 << 62
