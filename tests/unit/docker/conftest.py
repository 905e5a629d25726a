# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Docker plugin share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.docker.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A switch, a kernel and a plugin, which know of no network of Docker's."""
    made = World(tmp_path)
    yield made
    made.close()
