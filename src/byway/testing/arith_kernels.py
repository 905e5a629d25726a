# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of translated functions as tests call it: see functions/arith.py.

Used by tests. Uses functions.
"""

from byway.functions import arith
from byway.machine.jit import kernel


@kernel(entry=True)
def add(a, b):
    return arith.add(a, b)


@kernel(entry=True)
def sub(a, b):
    return arith.sub(a, b)


@kernel(entry=True)
def mul(a, b):
    return arith.mul(a, b)


@kernel(entry=True)
def quotient(a, b):
    return arith.quotient(a, b)


@kernel(entry=True)
def remainder(a, b):
    return arith.remainder(a, b)


@kernel(entry=True)
def shifted_left(a, n):
    return arith.shifted_left(a, n)


@kernel(entry=True)
def shifted_right(a, n):
    return arith.shifted_right(a, n)


@kernel(entry=True)
def least(a, b):
    return arith.least(a, b)


@kernel(entry=True)
def most(a, b):
    return arith.most(a, b)


@kernel(entry=True)
def magnitude(a):
    return arith.magnitude(a)
