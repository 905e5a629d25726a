# SPDX-License-Identifier: Apache-2.0
"""Raw memory for kernels: loads, stores, atomics, copies, bit operations.

Used by every kernel. Each name is a few instructions when compiled, and a ctypes access when
interpreted (tests, coverage, fuzzing); the results are the same.

Everything is a signed 64-bit integer: addresses and values; 8/16/32-bit loads are zero-extended,
a 64-bit load gives the bit pattern as a signed number, stores truncate. Sums that may wrap are
masked (``& 0xFFFF``) or use the helpers below.

    ldN, stN            plain: for memory that only this thread touches
    ldNbe, stNbe        network byte order
    ldN_once, stN_once  read or written exactly once (relaxed atomic): whatever a guest can change
    ldN_acq, stN_rel    acquire and release: words polled by somebody else
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from byway.machine.dual import INT, PTR, compiled_for, dual, hint, i1, i8, i32, i64, signed

_CTYPE: dict[int, Any] = {
    8: ctypes.c_uint8, 16: ctypes.c_uint16, 32: ctypes.c_uint32, 64: ctypes.c_int64,
}
# Interpreted read-modify-write operations only: machine code has the processor's.
_interpreted_lock = threading.Lock()


def _pointer(b: Any, address: Any, bits: int) -> Any:
    return b.inttoptr(address, INT[bits].as_pointer())


def _widen(b: Any, value: Any) -> Any:
    return value if value.type == i64 else b.zext(value, i64)


def _narrow(b: Any, value: Any, bits: int) -> Any:
    return value if bits == 64 else b.trunc(value, INT[bits])


def _bswap(b: Any, value: Any) -> Any:
    kind = value.type
    return b.call(b.module.declare_intrinsic("llvm.bswap", [kind],
                                             ir.FunctionType(kind, [kind])), [value])


def _reversed(value: int, bits: int) -> int:
    swapped = (value & (1 << bits) - 1).to_bytes(bits // 8, "little")
    return int.from_bytes(swapped, "big")


def _load(name: str, bits: int, order: str = "", be: bool = False) -> Any:
    ctype = _CTYPE[bits]

    def emit(b: Any, address: Any) -> Any:
        p = _pointer(b, address, bits)
        value = b.load_atomic(p, order, bits // 8) if order else b.load(p, align=1)
        return _widen(b, _bswap(b, value) if be else value)

    def plain(address: int) -> int:
        value = int(ctype.from_address(int(address)).value)
        if be:
            value = _reversed(value, bits)
        return signed(value) if bits == 64 else value

    return dual(name, 1, emit, plain)


def _store(name: str, bits: int, order: str = "", be: bool = False) -> Any:
    ctype: Any = ctypes.c_uint64 if bits == 64 else _CTYPE[bits]

    def emit(b: Any, address: Any, value: Any) -> None:
        value = _narrow(b, value, bits)
        if be:
            value = _bswap(b, value)
        p = _pointer(b, address, bits)
        if order:
            b.store_atomic(value, p, order, bits // 8)
        else:
            b.store(value, p, align=1)

    def plain(address: int, value: int) -> None:
        value = int(value) & (1 << bits) - 1
        ctype.from_address(int(address)).value = _reversed(value, bits) if be else value

    return dual(name, 2, emit, plain, types.void)


ld8, ld16, ld32, ld64 = (_load(f"ld{n}", n) for n in (8, 16, 32, 64))
st8, st16, st32, st64 = (_store(f"st{n}", n) for n in (8, 16, 32, 64))
ld16be, ld32be, ld64be = (_load(f"ld{n}be", n, be=True) for n in (16, 32, 64))
st16be, st32be, st64be = (_store(f"st{n}be", n, be=True) for n in (16, 32, 64))
ld8_once, ld16_once, ld32_once, ld64_once = (
    _load(f"ld{n}_once", n, "monotonic") for n in (8, 16, 32, 64))
st8_once, st16_once, st32_once, st64_once = (
    _store(f"st{n}_once", n, "monotonic") for n in (8, 16, 32, 64))
ld16_acq, ld32_acq, ld64_acq = (_load(f"ld{n}_acq", n, "acquire") for n in (16, 32, 64))
st16_rel, st32_rel, st64_rel = (_store(f"st{n}_rel", n, "release") for n in (16, 32, 64))


# ---------------------------------------------------------------- atomics
def _rmw(name: str, op: str, bits: int, combine: Callable[[int, int], int]) -> Any:
    """name(address, value) -> previous value."""

    def emit(b: Any, address: Any, value: Any) -> Any:
        old = b.atomic_rmw(op, _pointer(b, address, bits), _narrow(b, value, bits), "acq_rel")
        return _widen(b, old)

    def plain(address: int, value: int) -> int:
        with _interpreted_lock:
            cell = _CTYPE[bits].from_address(int(address))
            old = int(cell.value)
            cell.value = combine(old, int(value)) & (1 << bits) - 1
        return old

    return dual(name, 2, emit, plain)


add64 = _rmw("add64", "add", 64, lambda old, value: old + value)
xchg64 = _rmw("xchg64", "xchg", 64, lambda old, value: value)
or8 = _rmw("or8", "or", 8, lambda old, value: old | value)


def _emit_cas64(b: Any, address: Any, old: Any, new: Any) -> Any:
    pair = b.cmpxchg(_pointer(b, address, 64), old, new, "acq_rel", "acquire")
    return b.extract_value(pair, 0)


def _plain_cas64(address: int, old: int, new: int) -> int:
    with _interpreted_lock:
        cell = ctypes.c_int64.from_address(int(address))
        found = cell.value
        if found == old:
            cell.value = int(new)
    return found


# cas64(address, expected, new) -> previous value (== expected where it succeeded)
cas64 = dual("cas64", 3, _emit_cas64, _plain_cas64)


def _emit_fence(b: Any) -> None:
    b.fence("seq_cst")


# A full barrier: no later load passes an earlier store (virtio 1.2, 2.7.13.4.1 and 2.7.14).
fence = dual("fence", 0, _emit_fence, lambda: None, types.void)


# ---------------------------------------------------------------- copies
def _plain_copy(destination: int, source: int, n: int) -> None:
    ctypes.memmove(int(destination), int(source), int(n))


def _emit_zero(b: Any, destination: Any, n: Any) -> None:
    function = b.module.declare_intrinsic("llvm.memset", [PTR, i64])
    b.call(function, [b.inttoptr(destination, PTR), i8(0), n, i1(0)])


def _plain_zero(destination: int, n: int) -> None:
    ctypes.memset(int(destination), 0, int(n))


memzero = dual("memzero", 2, _emit_zero, _plain_zero, types.void)


def _vector_copy(n: int) -> Any:
    """copyN(destination, source): N bytes by one unaligned vector."""
    pointer = ir.VectorType(i8, n).as_pointer()

    def emit(b: Any, destination: Any, source: Any) -> None:
        value = b.load(b.inttoptr(source, pointer), align=1)
        b.store(value, b.inttoptr(destination, pointer), align=1)

    return dual(f"copy{n}", 2, emit, lambda d, s: _plain_copy(d, s, n), types.void)


def _overlapping_copy(n: int) -> Any:
    """copyoN(destination, source, length): N..2N bytes by two overlapping vectors."""
    pointer = ir.VectorType(i8, n).as_pointer()

    def emit(b: Any, destination: Any, source: Any, length: Any) -> None:
        tail = b.sub(length, i64(n))
        first = b.load(b.inttoptr(source, pointer), align=1)
        last = b.load(b.inttoptr(b.add(source, tail), pointer), align=1)
        b.store(first, b.inttoptr(destination, pointer), align=1)
        b.store(last, b.inttoptr(b.add(destination, tail), pointer), align=1)

    return dual(f"copyo{n}", 3, emit, _plain_copy, types.void)


copy32, copy64 = (_vector_copy(n) for n in (32, 64))
copyo8, copyo16 = (_overlapping_copy(n) for n in (8, 16))


def _emit_masked(b: Any, destination: Any, source: Any, n: Any) -> None:
    vector, mask_type = ir.VectorType(i8, 64), ir.VectorType(i1, 64)
    pointer, i32 = vector.as_pointer(), INT[32]
    mask = b.bitcast(b.lshr(i64(-1), b.sub(i64(64), n)), mask_type)
    load = b.module.declare_intrinsic(
        "llvm.masked.load.v64i8.p0",
        fnty=ir.FunctionType(vector, [pointer, i32, mask_type, vector]))
    store = b.module.declare_intrinsic(
        "llvm.masked.store.v64i8.p0",
        fnty=ir.FunctionType(ir.VoidType(), [vector, pointer, i32, mask_type]))
    zero = ir.Constant(vector, None)
    value = b.call(load, [b.inttoptr(source, pointer), i32(1), mask, zero])
    b.call(store, [value, b.inttoptr(destination, pointer), i32(1), mask])


# 1..64 bytes by one masked load and store. Only for processors with AVX-512BW: elsewhere LLVM
# expands it into 64 branches (copying.py chooses).
copy_masked = dual("copy_masked", 3, _emit_masked, _plain_copy, types.void)


# ---------------------------------------------------------------- bits
likely, unlikely = hint("likely", True), hint("unlikely", False)


def _emit_ctz(b: Any, value: Any) -> Any:
    function = b.module.declare_intrinsic("llvm.cttz.i64", fnty=ir.FunctionType(i64, [i64, i1]))
    return b.call(function, [value, i1(0)])


def _plain_ctz(value: int) -> int:
    value = int(value) & (1 << 64) - 1
    return (value & -value).bit_length() - 1 if value else 64


ctz64 = dual("ctz64", 1, _emit_ctz, _plain_ctz)


def _emit_fold16(b: Any, value: Any) -> Any:
    # A number and itself turned round by half its width: the upper half of the sum has the carry.
    for kind, half in ((i64, 32), (i32, 16)):
        turned = b.or_(b.shl(value, kind(half)), b.lshr(value, kind(half)))
        value = b.lshr(b.add(value, turned), kind(half))
        value = b.trunc(value, i32) if kind == i64 else value
    return b.zext(value, i64)


def _plain_fold16(value: int) -> int:
    value = int(value) & (1 << 64) - 1
    return value and (value - 1) % 0xFFFF + 1


# a sum of words of 16 bits as one of them, by ones' complement (0 for 0 only)
fold16 = dual("fold16", 1, _emit_fold16, _plain_fold16)
# logical shift right (>> on int64 is arithmetic, compiled and interpreted)
shr64 = dual("shr64", 2, lambda b, v, n: b.lshr(v, n),
             lambda v, n: (int(v) & (1 << 64) - 1) >> int(n))
# wrapping product and sum, for hashes
mul64 = dual("mul64", 2, lambda b, x, y: b.mul(x, y), lambda x, y: signed(int(x) * int(y)))
wadd64 = dual("wadd64", 2, lambda b, x, y: b.add(x, y), lambda x, y: signed(int(x) + int(y)))

_CASTAGNOLI = 0x82F63B78  # the polynomial, bits in reverse


def _emit_crc32c(b: Any, crc: Any, word: Any) -> Any:
    if compiled_for("sse4.2"):
        function = b.module.declare_intrinsic(
            "llvm.x86.sse42.crc32.64.64", fnty=ir.FunctionType(i64, [i64, i64]))
        return b.call(function, [crc, word])
    crc = b.xor(crc, word)
    for _ in range(64):
        odd = b.sub(i64(0), b.and_(crc, i64(1)))  # all bits, or none
        crc = b.xor(b.lshr(crc, i64(1)), b.and_(odd, i64(_CASTAGNOLI)))
    return crc


def _plain_crc32c(crc: int, word: int) -> int:
    crc = (int(crc) ^ int(word)) & (1 << 64) - 1
    for _ in range(64):
        crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc


# a checksum of 32 bits goes on with 8 bytes more (CRC-32C, RFC 3385, without its complements)
crc32c = dual("crc32c", 2, _emit_crc32c, _plain_crc32c)
