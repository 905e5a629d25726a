# SPDX-License-Identifier: Apache-2.0
"""CPUs: which may be used, how lists of them are written."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.machine.cpu import usable_cpus
from byway.machine.cpulist import format_cpu_list, online_cpus, parse_cpu_list


def test_usable() -> None:
    assert set(usable_cpus()) == os.sched_getaffinity(0)
    assert set(usable_cpus()) <= set(online_cpus())


@given(st.sets(st.integers(0, 300)))
def test_lists_survive_a_round_trip(cpus: set[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus)) == sorted(cpus)


@pytest.mark.parametrize(("text", "cpus"), [
    ("", []), ("0\n", [0]), ("0-3,8", [0, 1, 2, 3, 8]), ("5,1-1", [5, 1])])
def test_lists_as_the_kernel_writes_them(text: str, cpus: list[int]) -> None:
    assert parse_cpu_list(text) == cpus
