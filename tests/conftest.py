# SPDX-License-Identifier: Apache-2.0
"""What every test gets: the two ways of running kernels, and peers that may be missing.

Kernels run compiled by default and interpreted with NUMBA_DISABLE_JIT=1. Tests marked
`compiled_only` or `interpreted_only` are skipped in the other run. The fixture `need_peer` ends a
test whose peer is missing (see `peers.py`).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests import peers
from tests.system.peers import hugepages

HUGE_MIB = 32
INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


# A machine that is busy is no fault of what is tested.
settings.register_profile("steady", settings(), deadline=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_report_header() -> str:
    """One line that says which of the two runs this is."""
    kernels = "interpreted" if INTERPRETED else "compiled"
    missing = "a failure" if peers.required() else "a skip"
    return f"byway: kernels {kernels}; a missing peer is {missing}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what the other run tests."""
    unwanted = "compiled_only" if INTERPRETED else "interpreted_only"
    reason = f"{unwanted}: this run's kernels are {'interpreted' if INTERPRETED else 'compiled'}"
    for item in items:
        if item.get_closest_marker(unwanted):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Some free huge pages, reserved for this test and given back; a peer like others."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hugepages.reserve(HUGE_MIB))
        except hugepages.HugePagesMissing as error:
            peers.need_peer("huge pages", str(error))
        yield


@pytest.fixture(scope="session")
def need_peer() -> Callable[[str, str], NoReturn]:
    """The function `need_peer(name, reason)`: ends the test whose peer is missing."""
    return peers.need_peer
