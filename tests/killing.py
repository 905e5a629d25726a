# SPDX-License-Identifier: Apache-2.0
"""A child process that is killed just before its k-th write to a file system: at every k in turn.

Used by tests of what survives SIGKILL. The child is traced (ptrace(2), PTRACE_SYSCALL); of its
system calls those are counted that write, sync, cut, make or remove files. Between two of them
nothing on the disk changes, so to kill before each is to kill at every point there is.
"""

import ctypes
import os
import signal
from collections.abc import Callable

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_SYSGOOD, _EXITKILL = 1, 0x100000  # PTRACE_O_...
_ENTRY = 1
_INFO_BYTES = 88  # struct ptrace_syscall_info
_NUMBER = slice(24, 32)
# x86-64: write, pwrite64, writev, fsync, fdatasync, truncate, ftruncate, rename, mkdir, unlink,
# openat, mkdirat, unlinkat, pwritev, renameat2
WRITES = frozenset({1, 18, 20, 74, 75, 76, 77, 82, 83, 87, 257, 258, 263, 296, 316})
SENDS = frozenset({44, 46})  # sendto, sendmsg

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long] * 4
_libc.ptrace.restype = ctypes.c_long


def run_killed(work: Callable[[], None], k: int, calls: frozenset[int] = WRITES) -> bool:
    """Run `work` in a child and kill it before its write number k; -> whether it came so far.

    `calls`: the numbers of the system calls that count as writes.
    A child that ends by itself must end well: AssertionError otherwise."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _libc.ptrace(_TRACEME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            status = 0
        finally:
            os._exit(status)
    os.waitpid(child, 0)
    _trace(_SETOPTIONS, child, 0, _SYSGOOD | _EXITKILL)
    info = ctypes.create_string_buffer(_INFO_BYTES)
    writes = 0
    passed = 0
    while True:
        _trace(_SYSCALL, child, 0, passed)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the child failed by itself"
            return False
        assert os.WIFSTOPPED(status), status
        stopped_by = os.WSTOPSIG(status)
        passed = 0 if stopped_by == signal.SIGTRAP | 0x80 else stopped_by
        if passed:
            continue
        _trace(_GET_SYSCALL_INFO, child, _INFO_BYTES, ctypes.addressof(info))
        number = int.from_bytes(info.raw[_NUMBER], "little")
        if info.raw[0] == _ENTRY and number in calls:
            if writes == k:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return True
            writes += 1


def _trace(request: int, child: int, address: int, data: int) -> None:
    if _libc.ptrace(request, child, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "ptrace")
