# SPDX-License-Identifier: Apache-2.0
"""Survive a peer that truncates the memory it shares with us.

Used by vhost (every mapped region), installed by the daemon and by tests.

Theory of operation
-------------------
A load or store on a page that the file no longer has raises SIGBUS in the thread that did it,
normally a worker. The handler is a kernel (no Python, no GIL, no libc: system calls only, which
is async-signal-safe): it finds the region in the table below, maps zeroed anonymous memory over
the whole of it, sets the owner's flag, rings the alarm event fd, and returns; the instruction
runs again and succeeds. The worker sees the flag at its next look at the port and leaves it; the
control thread hears the alarm and takes the port down.

An address in no region is not ours: the previous handler is put back and the instruction runs
again into it (faulthandler's traceback, or a core dump).

Order: install() after faulthandler.enable(), and no signal.signal(SIGBUS) afterwards. Remove a
region only after no worker can reach it, and unmap it after that. add/remove/install belong to
the control thread. The table is one of the process (as signal handlers are): the one place where
state of a module is meant.
"""

import ctypes
import os
import signal
from typing import Any

import numpy as np

from byway.machine.jit import INTERPRETED, Native
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import add64, ld64, ld64_acq, st64_rel
from byway.machine.system import (
    SYS_MMAP,
    SYS_RT_SIGACTION,
    SYS_WRITE,
    plain_syscall,
    symbol,
    syscall3,
    syscall4,
    syscall6,
)

MAX_REGIONS = 4096
GUARDED, guarded_at, G = record("guarded", ["start", "size", "flag", "faults", "last"])
# ``old``: the previous action in the kernel's layout; ``one``: what is written to the alarm.
FAULTS, faults_at, F = record("faults", ["n", "foreign", "alarm", "one", ("old", "u1", (32,))])

_table = alloc(GUARDED, MAX_REGIONS)
_head = alloc(FAULTS, 1)
_head["alarm"] = -1
_head["one"] = 1
_table_address = symbol("byway_guarded_regions", address_of(_table))
_head_address = symbol("byway_faults", address_of(_head))

PROT_READ_WRITE = 3
MAP_PRIVATE_FIXED_ANONYMOUS_NORESERVE = 0x02 | 0x10 | 0x20 | 0x4000
SA_SIGINFO, SA_NODEFER = 4, 0x40000000
SIGINFO_ADDRESS = 16  # siginfo_t.si_addr on x86-64
GLIBC_SIGACTION_SIZE, GLIBC_SIGACTION_FLAGS = 152, 136


def on_sigbus(number, info, context):
    """The signal handler (compiled; see the theory above)."""
    address = ld64(info + SIGINFO_ADDRESS)
    head = _head_address()
    n = ld64_acq(head + F.n)
    table = _table_address()
    for i in range(n):
        entry = table + 64 * i
        start = ld64_acq(entry + G.start)
        size = ld64(entry + G.size)
        if start != 0 and address >= start and address < start + size:
            mapped = syscall6(SYS_MMAP, start, size, PROT_READ_WRITE,
                              MAP_PRIVATE_FIXED_ANONYMOUS_NORESERVE, -1, 0)
            if mapped == start:
                add64(entry + G.faults, 1)
                st64_rel(entry + G.last, address)
                flag = ld64(entry + G.flag)
                if flag != 0:
                    st64_rel(flag, 1)
                alarm = ld64_acq(head + F.alarm)
                if alarm >= 0:
                    syscall3(SYS_WRITE, alarm, head + F.one, 8)
                return 0
    add64(head + F.foreign, 1)
    syscall4(SYS_RT_SIGACTION, 7, head + F.old, 0, 8)
    return 0


class _Handler:
    """The compiled handler, kept alive for as long as the process."""

    native: Native | None = None


def install() -> None:
    """Compile and install the handler. Idempotent. Not for interpreted runs.

    A Python function cannot be a signal handler of its own thread's memory faults: interpreted
    runs test ``on_sigbus`` by calling it.
    """
    if INTERPRETED:
        return
    if _Handler.native is None:
        _Handler.native = Native(on_sigbus, 3)
    action = (ctypes.c_uint8 * GLIBC_SIGACTION_SIZE)()
    ctypes.c_uint64.from_buffer(action, 0).value = _Handler.native.address
    ctypes.c_uint32.from_buffer(action, GLIBC_SIGACTION_FLAGS).value = SA_SIGINFO | SA_NODEFER
    old = (ctypes.c_uint64 * 4)()  # the kernel's struct: handler, flags, restorer, mask
    failed = plain_syscall(SYS_RT_SIGACTION, int(signal.SIGBUS), 0, ctypes.addressof(old), 8)
    if failed:
        raise OSError(-failed, "rt_sigaction: " + os.strerror(-failed))
    if old[0] != _Handler.native.address:
        _head["old"][0] = np.frombuffer(bytes(old), np.uint8)
    # glibc's function supplies the trampoline that a handler returns through.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaction(int(signal.SIGBUS), action, None):
        raise OSError(ctypes.get_errno(), "sigaction")


def set_alarm(fd: int) -> None:
    """The event fd that is written on every fault (-1: none)."""
    _head["alarm"] = fd


def add(start: int, size: int, flag_address: int = 0) -> int:
    """Guard [start, start + size); a fault sets the int64 at ``flag_address``; -> slot."""
    free = np.flatnonzero(_table["start"] == 0)
    if not len(free):
        raise MemoryError(f"{MAX_REGIONS} memory regions are guarded already")
    slot = int(free[0])
    entry = _table[slot]
    entry["size"], entry["flag"], entry["faults"], entry["last"] = size, flag_address, 0, 0
    _table["start"][slot] = start  # last: makes the entry live
    _head["n"] = max(int(_head["n"][0]), slot + 1)
    return slot


def remove(slot: int) -> None:
    """No longer guard; after this no thread may touch the region."""
    _table["start"][slot] = 0


def info(slot: int) -> dict[str, Any]:
    """start, size, faults and the last faulting address of a slot."""
    return {k: int(_table[k][slot]) for k in ("start", "size", "faults", "last")}
