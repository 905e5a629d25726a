# SPDX-License-Identifier: Apache-2.0
"""Every scenario: a file of text that says what a switch is made of, what comes in and goes out."""

from pathlib import Path

import pytest

from tests.scenarios.scenario import Scenario

FILES = sorted(Path(__file__).parent.glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_scenario(path: Path, tmp_path: Path) -> None:
    Scenario(path).play(tmp_path)


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 15
