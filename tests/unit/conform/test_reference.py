# SPDX-License-Identifier: Apache-2.0
"""The list of checks in the manual is what `byway conform --list` prints; names are well formed."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from byway.cli.main import app
from byway.conform.backend import catalogue as backend
from byway.conform.frontend import catalogue as frontend

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "conform-checks.md"
ROW = re.compile(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


@pytest.mark.parametrize("direction", ["backend", "frontend"])
def test_the_manual_lists_every_check(direction: str) -> None:
    done = CliRunner().invoke(app, ["conform", direction, "--list", "--json"])
    assert done.exit_code == 0
    listed = [(c["name"], c["level"], c["section"], c["done"]) for c in json.loads(done.stdout)]
    heading = {"backend": "## Back ends", "frontend": "## Front ends"}[direction]
    part = PAGE.read_text().split(heading)[1].split("\n## ")[0]
    assert ROW.findall(part) == listed


def test_names_are_unique_and_in_groups() -> None:
    for checks in (backend.all_checks(), frontend.all_checks()):
        names = [check.name for check in checks]
        assert len(set(names)) == len(names)
        assert [n for n in names if not re.fullmatch(r"[a-z]+(\.[a-z0-9-]+)+", n)] == []
    assert len(backend.all_checks()) > 250
    assert len(frontend.all_checks()) > 50


@pytest.mark.parametrize("words", [
    ["backend"],
    ["backend", "/tmp/x.sock", "--only", "no.such.check"],
    ["backend", "/tmp/x.sock", "--peer", "/tmp/y.sock", "--loopback"],
    ["backend", "/no/such/folder/x.sock"],
    ["backend", "/tmp/x.sock", "--mode", "sideways"],
    ["backend", "/tmp/" + "x" * 200],
    ["frontend"],
])
def test_a_wrong_call_ends_with_2(words: list[str]) -> None:
    assert CliRunner().invoke(app, ["conform", *words]).exit_code == 2
