# SPDX-License-Identifier: Apache-2.0
"""Formulas give the same numbers as machine code and as Python."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.dual import signed
from byway.machine.formula import formula, logical
from byway.machine.jit import kernel
from byway.machine.mem import ld32, st32

NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from([0, 1, -1, -(1 << 63)])


@formula
def mingled(a, b):  # type: ignore[no-untyped-def]
    """All operators, on either side."""
    x = (a >> 3 & 0xFFFF) - (5 - (b & 255)) * (7 | b & 3)
    return (1 << (b & 31)) + (x ^ 9) + (6 ^ ~x) + logical(a, 60) + (3 & a) + (a & 7 << 2) - x


@formula
def product(a, b):  # type: ignore[no-untyped-def]
    """It wraps."""
    return (a ^ logical(b, 32)) * b


@formula
def constant(a):  # type: ignore[no-untyped-def]
    """What does not depend on the number."""
    return 7


@formula
def replaced(at, value):  # type: ignore[no-untyped-def]
    """Loads and stores, in this order; another formula."""
    old = ld32(at)
    st32(at, product(value, old))
    return old << 32 | ld32(at)


@kernel(entry=True)
def evaluate(a, b, which):  # type: ignore[no-untyped-def]
    """Call one of them from a kernel."""
    if which == 0:
        return mingled(a, b)
    if which == 3:
        return replaced(a, b)
    return product(a, b) if which == 1 else constant(a)


@settings(deadline=None)
@given(a=NUMBERS, b=NUMBERS)
def test_compiled_as_interpreted(a: int, b: int) -> None:
    assert evaluate(a, b, 0) == mingled(a, b)
    assert evaluate(a, b, 1) == product(a, b) == signed((a ^ (b & (1 << 64) - 1) >> 32) * b)
    assert evaluate(a, b, 2) == constant(a) == 7


def test_loads_and_stores_stand_where_they_are_written() -> None:
    compiled, interpreted = np.array([5], np.uint32), np.array([5], np.uint32)
    assert evaluate(compiled.ctypes.data, 9, 3) == replaced(interpreted.ctypes.data, 9)
    assert compiled[0] == interpreted[0] == 9 * 5
