# SPDX-License-Identifier: Apache-2.0
"""The processor and the kernel as kernels see them: time stamps, hints, system calls, C calls.

Used by worker (sleep, notification), virtio (prefetch), sigbus. x86-64 only: the raw ``syscall``
instruction answers -errno in rax, so there is no errno variable and nothing to spoil the cache.
"""

import ctypes
import time
from typing import Any

from llvmlite import ir
from numba.core import types

from byway.machine.dual import INT, PTR, Interpreted, dual, i64

SYS_READ, SYS_WRITE, SYS_POLL, SYS_MMAP = 0, 1, 7, 9
SYS_RT_SIGACTION, SYS_WRITEV, SYS_SCHED_YIELD = 13, 20, 24
SYS_EPOLL_CTL, SYS_EPOLL_PWAIT = 233, 281
EINTR = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _assembly(name: str, text: str, constraints: str, arguments: int, result: Any,
              plain: Any) -> Any:
    def emit(b: Any, *values: Any) -> Any:
        returned = i64 if result is types.int64 else ir.VoidType()
        made = b.asm(ir.FunctionType(returned, [i64] * arguments), text, constraints,
                     list(values), side_effect=True)
        return made if result is types.int64 else None

    return dual(name, arguments, emit, plain, result)


# Tells the processor that this is a spin loop.
pause = _assembly("pause", "pause", "~{memory}", 0, types.void, lambda: None)


def _emit_rdtsc(b: Any) -> Any:
    return b.call(b.module.declare_intrinsic("llvm.readcyclecounter",
                                             fnty=ir.FunctionType(i64, [])), [])


# The time stamp counter; interpreted runs count nanoseconds.
rdtsc = dual("rdtsc", 0, _emit_rdtsc, time.perf_counter_ns)


def _prefetch(name: str, write: int) -> Any:
    """Never faults, whatever the address."""

    def emit(b: Any, address: Any) -> None:
        i32 = INT[32]
        function = b.module.declare_intrinsic(
            "llvm.prefetch.p0", fnty=ir.FunctionType(ir.VoidType(), [PTR, i32, i32, i32]))
        b.call(function, [b.inttoptr(address, PTR), i32(write), i32(3), i32(1)])

    return dual(name, 1, emit, lambda address: None, types.void)


# To be read soon; to be written soon (the line is fetched for this processor alone).
prefetch, prefetchw = _prefetch("prefetch", 0), _prefetch("prefetchw", 1)


def plain_syscall(*arguments: int) -> int:
    """A system call from Python; -> its result or -errno."""
    result = int(_libc.syscall(*[ctypes.c_long(int(a)) for a in arguments]))
    return -ctypes.get_errno() if result == -1 else result


def _syscall(n: int) -> Any:
    registers = ["{rdi}", "{rsi}", "{rdx}", "{r10}", "{r8}", "{r9}"][:n]
    constraints = ",".join(["={rax}", "{rax}", *registers, "~{rcx}", "~{r11}", "~{memory}",
                            "~{dirflag}", "~{fpsr}", "~{flags}"])
    return _assembly(f"syscall{n}", "syscall", constraints, n + 1, types.int64, plain_syscall)


syscall0, syscall3, syscall4, syscall6 = (_syscall(n) for n in (0, 3, 4, 6))


def _load_symbol(name: str, address: int) -> Any:
    def emit(b: Any) -> Any:
        known = b.module.globals.get(name) or ir.GlobalVariable(b.module, INT[8], name)
        known.linkage = "external"
        return b.ptrtoint(known, i64)

    return dual(name, 0, emit, lambda: address)


def symbol(name: str, address: int) -> Any:
    """A kernel-callable that answers ``address``, resolved when machine code is loaded.

    Cached code cannot contain the addresses of this process; a symbol it can.
    """
    import llvmlite.binding as llvm

    llvm.add_symbol(name, address)
    return _load_symbol(name, address)


# ---------------------------------------------------------------- calls by address
def _call(n: int) -> Any:
    """callN(address, ...): the kernel at an address (jit.Native), with N int64 arguments.

    It costs some ten cycles: right for once a batch, wrong for once a frame."""

    def emit(b: Any, address: Any, *values: Any) -> Any:
        kind = ir.FunctionType(i64, [i64] * n)
        return b.call(b.inttoptr(address, kind.as_pointer()), list(values))

    return dual(f"call{n}", n + 1, emit, lambda address, *values:
                Interpreted.functions[int(address)](*values))


call2, call3, call5 = _call(2), _call(3), _call(5)
