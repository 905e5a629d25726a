# SPDX-License-Identifier: Apache-2.0
"""The memory of the guests that devices are held against."""

from collections.abc import Iterator

import pytest

from byway.testing.guarded import Guarded
from tests.oracles.rings import FIRST, GPA, SECOND


@pytest.fixture(scope="module")
def regions() -> Iterator[list[tuple[int, int, int]]]:
    """Two pieces of guarded memory that the guest sees side by side, and one apart."""
    pieces = [Guarded(FIRST), Guarded(SECOND), Guarded(SECOND)]
    yield [(GPA, pieces[0].address, FIRST), (GPA + FIRST, pieces[1].address, SECOND),
           (7 << 32, pieces[2].address, SECOND)]
    for piece in pieces:
        piece.close()
