# SPDX-License-Identifier: Apache-2.0
"""The clock of the day plays no part, and a switch without etcd's libraries says so."""

import ast
import sys
from pathlib import Path

import pytest

import byway.control.cluster
from byway.control import daemon
from byway.control.model import SwitchConfig
from byway.control.problem import EngineError
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine

PACKAGE = Path(byway.control.cluster.__file__ or "").parent
# What gives or waits for the time of day (time(7)); monotonic clocks are free of jumps.
JUMPING = {"time.time", "time.time_ns", "time.gmtime", "time.localtime", "datetime.now"}


def test_no_part_of_the_cluster_looks_at_the_clock_of_the_day() -> None:
    seen = set()
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                seen.add(f"{node.value.id}.{node.attr}")
    assert "time.monotonic" in seen
    assert seen & JUMPING == set()


def test_a_switch_without_the_libraries_of_etcd_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "byway.control.joining", None)
    wanted = Wanted(FakeEngine(SwitchConfig()), SwitchConfig())
    with pytest.raises(EngineError, match=r"not installed; install byway\[cluster\]"):
        daemon._in_etcd(wanted)
