# SPDX-License-Identifier: Apache-2.0
"""How much memory this process can still have.

Used by byway.functions, whose tables may be large: Linux promises more memory than there is, and
ends a process when the promise is taken up. Reads /proc and /sys/fs/cgroup.
"""

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def memory_left(root: Path = _ROOT) -> int:
    """Bytes that the machine, and the control groups around this process, have left. ``root``:
    stands for / (tests bring their own)."""
    told = dict(line.split(":", 1) for line in _read(root / "proc/meminfo").splitlines())
    found = [1024 * sum(int(told.get(name, "0 kB").split()[0])
                        for name in ("MemAvailable", "SwapFree"))] if told else []
    found += _of_groups(root)
    return max(0, min(found, default=1 << 62))


def _of_groups(root: Path) -> Iterator[int]:
    """What each control group has left that has a limit."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, kinds, path = line.split(":", 2)
        if number != "0" and "memory" not in kinds.split(","):
            continue
        first = root / "sys/fs/cgroup" / ("" if number == "0" else "memory")
        most, used = (("memory.max", "memory.current") if number == "0" else
                      ("memory.limit_in_bytes", "memory.usage_in_bytes"))
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):
            texts = _read(first / group / most), _read(first / group / used)
            if all(text.strip().isdecimal() for text in texts):  # (none: "max", or no file)
                yield int(texts[0]) - int(texts[1]) + _cached(first / group)


def _cached(group: Path) -> int:
    """What of a group's memory is kept of files, and given away where memory lacks."""
    told = dict(line.split(" ", 1) for line in _read(group / "memory.stat").splitlines())
    return sum(int(told.get(name, "0")) for name in ("inactive_file", "active_file"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
