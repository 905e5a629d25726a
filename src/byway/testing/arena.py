# SPDX-License-Identifier: Apache-2.0
"""An address sanitizer for interpreted kernels: every access must lie in a range that was named.

    arena = Arena()
    arena.allow("ring", address, size, shared=True)
    with arena:
        clear(batch)                 # NUMBA_DISABLE_JIT=1
        device_rx(queue, batch)
    assert arena.doubles == []

Used by the tests, and by whoever writes kernels of their own. It sees what goes through
byway.machine.mem and system; the fields of records, private by nature, it does not see.

A *double fetch* is a byte of a shared range (one that somebody hostile can change meanwhile) that
is read twice in one call: what was checked the first time may not be what is used the second time.
Words polled with acquire loads are meant to be read again and do not count.
"""

import bisect
import re
from dataclasses import dataclass
from typing import Any

from byway.machine.dual import Watch

_PLAIN = re.compile(r"(ld|st)(8|16|32|64)(be|_once|_acq|_rel)?")
_ATOMIC = re.compile(r"(add|xchg|cas)64")
_VECTOR = re.compile(r"copy(32|64)")
_COPIES = ("copyo8", "copyo16", "copy_masked")
_WRITE_CALL = 1  # the system call whose buffer is looked at


class BadAccess(Exception):
    """A kernel touched memory that it has no business in."""


@dataclass(frozen=True)
class Range:
    """A piece of memory that kernels may touch."""

    start: int
    end: int
    name: str
    shared: bool
    writable: bool


@dataclass(frozen=True)
class DoubleFetch:
    """A byte of a shared range that one call read twice."""

    name: str
    offset: int
    first: str  # the names of the two accesses
    second: str


class Arena:
    """Watches interpreted kernels while it is entered. Not reentrant; one at a time."""

    def __init__(self) -> None:
        self._ranges: list[Range] = []
        self._starts: list[int] = []
        self._read: dict[int, str] = {}
        self.doubles: list[DoubleFetch] = []
        self.accesses = 0

    def allow(self, name: str, address: int, size: int, *, shared: bool = False,
              writable: bool = True) -> None:
        """Kernels may touch [address, address + size). Ranges must not overlap (ValueError)."""
        made = Range(int(address), int(address) + int(size), name, shared, writable)
        at = bisect.bisect(self._starts, made.start)
        neighbours = self._ranges[max(at - 1, 0) : at + 1]
        if any(r.start < made.end and made.start < r.end for r in neighbours):
            raise ValueError(f"{name} overlaps one of {[r.name for r in neighbours]}")
        self._ranges.insert(at, made)
        self._starts.insert(at, made.start)

    def allow_array(self, name: str, array: Any, *, shared: bool = False) -> None:
        """As ``allow``, for a NumPy array."""
        self.allow(name, array.ctypes.data, array.nbytes, shared=shared)

    def next_call(self) -> None:
        """From here on bytes may be read again: a new call begins. What was found is kept."""
        self._read.clear()

    def range_of(self, address: int, n: int) -> Range | None:
        """The range that holds all n bytes, or None."""
        at = bisect.bisect(self._starts, address) - 1
        if at >= 0 and address + n <= self._ranges[at].end:
            return self._ranges[at]
        return None

    def touch(self, operation: str, address: int, n: int, write: bool) -> None:
        """One access; raises BadAccess where it is out of all ranges or not allowed."""
        self.accesses += 1
        address, n = int(address), int(n)
        if n <= 0:
            raise BadAccess(f"{operation} of {n} bytes at {address:#x}")
        found = self.range_of(address, n)
        if found is None:
            near = self.range_of(address, 1)
            place = f"beyond the end of {near.name}" if near else "in no known memory"
            raise BadAccess(f"{operation} of {n} bytes at {address:#x}: {place}")
        if write and not found.writable:
            raise BadAccess(f"{operation} writes {n} bytes of {found.name}, which is read-only")
        if found.shared and not write and not operation.endswith("_acq"):
            self._fetched(operation, found, address, n)

    def _fetched(self, operation: str, found: Range, address: int, n: int) -> None:
        for byte in range(address, address + n):
            first = self._read.get(byte)
            if first is None:
                self._read[byte] = operation
            else:
                self.doubles.append(DoubleFetch(
                    found.name, byte - found.start, first, operation))

    def see(self, name: str, arguments: tuple[Any, ...]) -> None:
        """What byway.machine tells of every operation."""
        if match := _PLAIN.fullmatch(name):
            self.touch(name, arguments[0], int(match[2]) // 8, match[1] == "st")
        elif match := _VECTOR.fullmatch(name):
            self._copy(name, arguments[0], arguments[1], int(match[1]))
        elif name in _COPIES:
            self._copy(name, *arguments)
        elif _ATOMIC.fullmatch(name):
            self.touch(name, arguments[0], 8, True)
        elif name == "memzero":
            if arguments[1] > 0:
                self.touch(name, arguments[0], arguments[1], True)
        elif name == "syscall3" and arguments[0] == _WRITE_CALL:
            self.touch("write", arguments[2], arguments[3], False)

    def _copy(self, name: str, destination: int, source: int, n: int) -> None:
        self.touch(name, source, n, False)
        self.touch(name, destination, n, True)

    def __enter__(self) -> "Arena":
        if Watch.see is not None:
            raise RuntimeError("another Arena watches already")
        self.next_call()
        Watch.see = self.see
        return self

    def __exit__(self, *exc: object) -> None:
        Watch.see = None
