# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the vhost tests: files to attach, dialogues, and the count of what is open."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byway.testing.dialogue import MEMORY_NAME, Dialogue, Files


def _held() -> tuple[int, int]:
    """Open file descriptors, and mappings of the dialogues' memory."""
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), maps.count(MEMORY_NAME)


@pytest.fixture(scope="session")
def files() -> Iterator[Files]:
    """One file descriptor of each kind."""
    made = Files()
    yield made
    made.close()


@pytest.fixture
def leaves_nothing(files: Files) -> Iterator[None]:
    """The test must leave no file descriptor and no mapping behind."""
    files_before, mapped_before = _held()
    yield
    files_now, mapped = _held()
    assert files_now <= files_before  # less: what other tests have left went meanwhile
    assert mapped <= mapped_before


@pytest.fixture
def talk(files: Files, leaves_nothing: None) -> Iterator[Dialogue]:
    """A dialogue with a fresh back end."""
    made = Dialogue(files)
    yield made
    made.close()


@pytest.fixture
def new_talk(files: Files, leaves_nothing: None) -> Iterator[Callable[..., Dialogue]]:
    """Makes dialogues; closes them."""
    made: list[Dialogue] = []

    def make(**options: int) -> Dialogue:
        made.append(Dialogue(files, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
