# SPDX-License-Identifier: Apache-2.0
"""docs/reference/conform-findings.md: what `byway conform` found in other people's programs.

Used by test_conform. The page has a section a peer and version, with a table of the checks that
failed. A test that ran against the version of the page compares the names of those that must; with
BYWAY_WRITE_FINDINGS=1 it writes its section anew.
"""

import os
import re
from typing import Any

from tests.architecture.sources import ROOT

PAGE = ROOT / "docs" / "reference" / "conform-findings.md"
HEAD = """# What byway conform found

[`byway conform`](../how-to/test-your-own.md) run against other people's programs, as the tests of
Byway do it. A failed check is a difference from what the specification says, in the words of the
tester; whether it hurts anybody is for the reader to judge. [All checks](conform-checks.md).
"""
SECTION = re.compile(r"^## (?P<peer>.+?)\n(?P<body>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^\| `(?P<name>.+?)` \| (?P<level>must|should) \|", re.MULTILINE)


def _sections() -> dict[str, str]:
    text = PAGE.read_text() if PAGE.exists() else ""
    return {found["peer"]: found["body"] for found in SECTION.finditer(text)}


def documented(peer: str) -> dict[str, str] | None:
    """Name and level of what the page says of a peer, None where it does not know it."""
    body = _sections().get(peer)
    return None if body is None else {m["name"]: m["level"] for m in NAME.finditer(body)}


def record(peer: str, how: str, result: dict[str, Any]) -> None:
    """Write a peer's section anew, where that was asked for."""
    if os.environ.get("BYWAY_WRITE_FINDINGS", "") in ("", "0"):
        return
    counts = result["counts"]
    lines = [how, "", f"{counts['pass']} of {len(result['checks'])} checks passed, "
             f"{counts['must failed']} must and {counts['should failed']} should failed, "
             f"{counts['not-applicable']} do not apply, {counts['unable']} could not be made.", ""]
    rows = failed(result)
    if rows:
        lines += ["| check | level | what was seen |", "|---|---|---|"]
        lines += [f"| `{row['name']}` | {row['level']} | {_short(row['seen'])} |" for row in rows]
    sections = {**_sections(), peer: "\n" + "\n".join(lines) + "\n\n"}
    body = "".join(f"## {name}\n{sections[name].rstrip()}\n\n" for name in sorted(sections))
    PAGE.write_text(HEAD + "\n" + body.rstrip("\n") + "\n")


def _short(seen: str) -> str:
    """What was seen, without what is different in every run."""
    seen = re.sub(r"/\S+/(\S+\.sock|p\d)", r"\1", seen).split("; afterwards")[0]
    seen = re.sub(r"no connection to \S+ within .*", "nobody answers any more", seen)
    return seen.replace("|", "\\|").replace("<", "&lt;")


def failed(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks that failed."""
    return [check for check in result["checks"] if check["verdict"] == "fail"]
