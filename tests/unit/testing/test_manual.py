# SPDX-License-Identifier: Apache-2.0
"""The manual's page on testing devices does what it says."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "test-a-device.md"


def test_its_program_runs() -> None:
    """All examples of the page are one program."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 4
    exec(compile("".join(blocks), str(PAGE), "exec"), {})
