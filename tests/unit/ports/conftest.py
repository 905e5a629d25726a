# SPDX-License-Identifier: Apache-2.0
"""A stepped switch with one network, for tests of ports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunningSwitch


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    """Without worker threads; network "blue"."""
    with RunningSwitch(tmp_path, stepped=True) as made:
        made.network()
        yield made
