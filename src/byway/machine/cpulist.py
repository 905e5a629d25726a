# SPDX-License-Identifier: Apache-2.0
"""Lists of CPUs as the kernel writes them ("0-3,8").

Used by the configuration checks and by `byway doctor`. Uses nothing.
Source: Linux, Documentation/admin-guide/cputopology.rst.
"""

from collections.abc import Iterable
from pathlib import Path

ONLINE = Path("/sys/devices/system/cpu/online")


def parse_cpu_list(text: str) -> list[int]:
    """The numbers in a list such as "0-3,8"; an empty text is an empty list."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def format_cpu_list(cpus: Iterable[int]) -> str:
    """The shortest form of a list of CPUs, such as "0-3,8"."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def online_cpus() -> list[int]:
    """The CPUs that are on line now."""
    return parse_cpu_list(ONLINE.read_text())
