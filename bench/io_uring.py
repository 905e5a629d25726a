# SPDX-License-Identifier: Apache-2.0
"""An io_uring driven by kernels: requests are written to a ring, one system call submits them all.

Used by tap_syscalls.py. Sources: io_uring(7), io_uring_setup(2), io_uring_enter(2),
include/uapi/linux/io_uring.h.

A request is ``prepare``d, any number of them ``submit``ted, their completions ``reap``ed. Without
SQPOLL, submit is the system call and waits for as many completions as it is told. With it a thread
of the kernel looks at the ring by itself, and is only woken where it has gone to sleep.
"""

import mmap
import os
import struct

import numpy as np

from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import fence, ld32, ld32_acq, memzero, st8, st32, st32_rel, st64
from byway.machine.system import plain_syscall, syscall6

SYS_SETUP, SYS_ENTER = 425, 426
READ, WRITE, READV, WRITEV = 22, 23, 1, 2
SQPOLL, SQ_AFF, COOP_TASKRUN, SINGLE_ISSUER, DEFER_TASKRUN = 2, 4, 0x100, 0x1000, 0x2000
_GETEVENTS, _SQ_WAKEUP, _NEED_WAKEUP = 1, 2, 1
_PARAMETERS, _SQ_OFFSETS, _CQ_OFFSETS = 120, 40, 80
_SQES = 0x10000000
_POPULATE = 0x8000
IDLE_MS = 20  # that the kernel's thread looks for requests before it sleeps

URING, uring_at, U = record("uring", [
    "file", "sq_tail", "sq_flags", "sq_mask", "sqes", "cq_head", "cq_tail", "cq_mask", "cqes",
    "tail", "head", "polled"], size=128)


@kernel
def prepare(uring, operation, file, address, n):
    """Write a request: an operation on ``file`` with ``n`` bytes (or iovecs) at ``address``."""
    u = uring_at(uring)
    entry = u.sqes + 64 * (u.tail & u.sq_mask)
    memzero(entry, 64)
    st8(entry, operation)
    st32(entry + 4, file)
    st64(entry + 8, -1)  # no position
    st64(entry + 16, address)
    st32(entry + 24, n)
    u.tail += 1


@kernel
def submit(uring, n):
    """Have the n requests prepared last done; -> 0, or -errno. All are complete where the ring is
    not polled."""
    u = uring_at(uring)
    st32_rel(u.sq_tail, u.tail)
    if u.polled == 0:
        return min(0, syscall6(SYS_ENTER, u.file, n, n, _GETEVENTS, 0, 0))
    fence()
    if ld32_acq(u.sq_flags) & _NEED_WAKEUP != 0:
        return min(0, syscall6(SYS_ENTER, u.file, 0, 0, _SQ_WAKEUP, 0, 0))
    return 0


@kernel
def reap(uring, n):
    """Wait for n completions; -> how many were successful."""
    u = uring_at(uring)
    done = 0
    good = 0
    while done < n:
        if u.head & 0xFFFFFFFF != ld32_acq(u.cq_tail):
            if ld32(u.cqes + 16 * (u.head & u.cq_mask) + 8) < 0x80000000:
                good += 1
            u.head += 1
            done += 1
    st32_rel(u.cq_head, u.head)
    return good


class Uring:
    """A ring of ``entries``; OSError where the kernel does not let us have one.

    ``polled_on``: the CPU of the kernel's thread (SQPOLL), -1 for none."""

    def __init__(self, entries: int, polled_on: int = -1) -> None:
        polled = polled_on >= 0
        flags = SQPOLL | SQ_AFF if polled else SINGLE_ISSUER | DEFER_TASKRUN | COOP_TASKRUN
        given = alloc(np.dtype("u1"), _PARAMETERS)
        struct.pack_into("=IIIII", given, 0, 0, 0, flags, max(polled_on, 0), IDLE_MS)
        self.file = plain_syscall(SYS_SETUP, entries, address_of(given))
        if self.file < 0:
            raise OSError(-self.file, os.strerror(-self.file))
        size, completions = struct.unpack_from("=II", given, 0)
        sq = struct.unpack_from("=7I", given, _SQ_OFFSETS)  # head tail mask entries flags . array
        cq = struct.unpack_from("=6I", given, _CQ_OFFSETS)  # head tail mask entries . entries
        length = max(sq[6] + 4 * size, cq[5] + 16 * completions)
        shared = mmap.MAP_SHARED | _POPULATE
        self._ring = mmap.mmap(self.file, length, shared)
        self._entries = mmap.mmap(self.file, 64 * size, shared, offset=_SQES)
        ring = address_of(np.frombuffer(self._ring, np.uint8))
        np.frombuffer(self._ring, np.uint32, size, sq[6])[:] = np.arange(size)
        self.record = alloc(URING, 1)
        row = self.record[0]
        row["file"], row["polled"] = self.file, polled
        row["sqes"] = address_of(np.frombuffer(self._entries, np.uint8))
        row["sq_tail"], row["sq_flags"], row["sq_mask"] = ring + sq[1], ring + sq[4], size - 1
        row["cq_head"], row["cq_tail"], row["cqes"] = ring + cq[0], ring + cq[1], ring + cq[5]
        row["cq_mask"] = completions - 1
        self.address = address_of(self.record)

    def close(self) -> None:
        """End it, and the kernel's thread."""
        os.close(self.file)
