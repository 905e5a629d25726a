# SPDX-License-Identifier: Apache-2.0
"""Each function that comes with Byway has its page, which names its parameters and the reasons of
its drops, and is in the list of all."""

from pathlib import Path

import pytest

from byway.functions.finding import builtins, find
from byway.functions.translate import translate
from byway.nf.function import definition

PAGES = Path(__file__).parents[3] / "docs" / "reference" / "functions"


@pytest.mark.parametrize("use", builtins())
def test_a_page_names_parameters_and_reasons(use: str) -> None:
    cls, files = find(use, PAGES)
    stem = use.removeprefix("byway.")
    page = (PAGES / f"{stem}.md").read_text()
    assert page.startswith(f"# {use}\n")
    missing = [f"parameter {each.name}" for each in definition(cls).parameters
               if f"`{each.name}`" not in page]
    missing += [f"reason {reason}" for reason in translate(definition(cls), use, files).reasons
                if f"`{reason}`" not in page]
    assert missing == []
    assert f"[`{use}`]({stem}.md)" in (PAGES / "index.md").read_text()
