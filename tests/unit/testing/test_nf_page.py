# SPDX-License-Identifier: Apache-2.0
"""The author's page: it names all that authors may import, and its programs run."""

import os
import re
import subprocess
import sys
from pathlib import Path

from byway import nf

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference"
PAGE = REFERENCE / "nf.md"


def test_everything_of_the_module_is_on_the_pages() -> None:
    text = "".join(page.read_text() for page in sorted(REFERENCE.glob("nf*.md")))
    assert [name for name in nf.__all__ if not re.search(rf"\bnf\.{name}\b", text)] == []


def test_its_programs_run(tmp_path: Path) -> None:
    """Blocks with a title are files; the others use them."""
    text = PAGE.read_text()
    for title, body in re.findall(r'```python title="(.*?)"\n(.*?)```', text, re.S):
        (tmp_path / title).write_text(body)
    programs = re.findall(r"```python\n(.*?)```", text, re.S)
    assert programs
    for program in programs:
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60,
                       env={**os.environ, "PYTHONPATH": str(tmp_path)})
