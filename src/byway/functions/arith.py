# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of translated functions: signed 64-bit numbers that wrap, with Python's rounding.

Used by the kernels that translation makes. Uses machine.dual: a few instructions when compiled,
plain Python with the same results when interpreted.

Whoever divides has made sure that the divisor is not 0, and whoever shifts that the amount is not
negative: those are faults, with the author's line.
"""

from llvmlite import ir

from byway.machine.dual import dual, i64, signed


def _parted(b, value, divisor):
    """Quotient and remainder rounded down, as Python's. The one overflow, the lowest number by -1,
    would end the process: -1 divides as 1, and the quotient is negated."""
    negated = b.icmp_signed("==", divisor, i64(-1))
    safe = b.select(negated, i64(1), divisor)
    quotient, rest = b.sdiv(value, safe), b.srem(value, safe)
    # Rounded towards zero: one lower where something is left, and the signs differ.
    differ = b.icmp_signed("<", b.xor(rest, safe), i64(0))
    lower = b.and_(differ, b.icmp_signed("!=", rest, i64(0)))
    return negated, b.sub(quotient, b.zext(lower, i64)), b.select(lower, b.add(rest, safe), rest)


def _quotient(b, value, divisor):
    negated, quotient, _ = _parted(b, value, divisor)
    return b.select(negated, b.sub(i64(0), value), quotient)


def _remainder(b, value, divisor):
    return _parted(b, value, divisor)[2]


def _left(b, value, amount):
    inside = b.icmp_unsigned("<", amount, i64(64))
    return b.select(inside, b.shl(value, b.and_(amount, i64(63))), i64(0))


def _right(b, value, amount):
    inside = b.icmp_unsigned("<", amount, i64(64))
    return b.ashr(value, b.select(inside, amount, i64(63)))


def _chosen(order):
    def emit(b, left, right):
        return b.select(b.icmp_signed(order, left, right), left, right)

    return emit


def _magnitude(b, value):
    return b.select(b.icmp_signed("<", value, i64(0)), b.sub(i64(0), value), value)


add = dual("add", 2, ir.IRBuilder.add, lambda a, c: signed(a + c))
sub = dual("sub", 2, ir.IRBuilder.sub, lambda a, c: signed(a - c))
mul = dual("mul", 2, ir.IRBuilder.mul, lambda a, c: signed(a * c))
quotient = dual("quotient", 2, _quotient, lambda a, c: signed(a // c))
remainder = dual("remainder", 2, _remainder, lambda a, c: a % c)
shifted_left = dual("shifted_left", 2, _left, lambda a, n: signed(a << n) if n < 64 else 0)
shifted_right = dual("shifted_right", 2, _right, lambda a, n: a >> n if n < 64 else a >> 63)
least = dual("least", 2, _chosen("<"), min)
most = dual("most", 2, _chosen(">"), max)
magnitude = dual("magnitude", 1, _magnitude, lambda a: signed(abs(a)))
