# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of translated functions: as Python's, wrapped to 64 bits."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.nf.parameters import signed
from byway.testing import arith_kernels as k

LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
_EDGES = (0, 1, -1, 2, -2, 63, 64, LOWEST, LOWEST + 1, HIGHEST)
_NUMBERS = st.one_of(st.sampled_from(_EDGES), st.integers(LOWEST, HIGHEST), st.integers(-70, 70))
_WRAPPING: list[tuple[Any, Callable[[int, int], int]]] = [
    (k.add, lambda a, b: a + b), (k.sub, lambda a, b: a - b), (k.mul, lambda a, b: a * b)]


@settings(deadline=None, max_examples=300)
@given(_NUMBERS, _NUMBERS)
def test_as_python_and_wrapped(a: int, b: int) -> None:
    for kernel, python in _WRAPPING:
        assert kernel(a, b) == signed(python(a, b))
    assert k.least(a, b) == min(a, b)
    assert k.most(a, b) == max(a, b)
    assert k.magnitude(a) == signed(abs(a))
    if b != 0:
        assert k.quotient(a, b) == signed(a // b)
        assert k.remainder(a, b) == a % b


@settings(deadline=None, max_examples=300)
@given(_NUMBERS, st.one_of(st.integers(0, 70), st.just(HIGHEST)))
def test_shifts_of_any_amount(a: int, n: int) -> None:
    assert k.shifted_left(a, n) == (signed(a << n) if n < 64 else 0)
    assert k.shifted_right(a, n) == a >> min(n, 63)


@pytest.mark.parametrize(("a", "b", "whole", "rest"), [
    (7, -2, -4, -1), (-7, 2, -4, 1), (-7, -2, 3, -1), (LOWEST, -1, LOWEST, 0), (6, -2, -3, 0)])
def test_division_rounds_down(a: int, b: int, whole: int, rest: int) -> None:
    assert (k.quotient(a, b), k.remainder(a, b)) == (whole, rest)
