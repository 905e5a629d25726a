# SPDX-License-Identifier: Apache-2.0
"""The page about state: its function works as it says, its lists are complete."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from byway import nf
from byway.functions.harness import Harness
from byway.functions.states import KINDS
from byway.nf.keys import BITS, FLOW
from byway.nf.maps import Map
from byway.testing.builders import tcp
from byway.testing.generated import generated
from tests.architecture.sources import ROOT

PAGE = (ROOT / "docs/reference/nf-state.md").read_text()


@pytest.fixture
def conversations(tmp_path: Path) -> Any:
    """The page's function."""
    source = re.search(r'```python title="conversations.py"\n(.*?)```', PAGE, re.S)
    assert source
    file = tmp_path / "conversations.py"
    file.write_text(source[1])
    spec = importlib.util.spec_from_file_location("conversations", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Conversations


def test_the_function_of_the_page(conversations: Any) -> None:
    frames = [tcp("10.1.0.1", data=bytes(1000))] * 30 + generated(200, seed=7)
    plain = nf.Plain(conversations, large=9000)
    compiled = Harness(conversations, large=9000)
    states = compiled.instances[0].states
    plain.instances[0].classes.put("10.1.0.0/16", 2)
    states["classes"].put("10.1.0.0/16", 2)
    outcomes = plain.run(frames, now=10**9)
    assert compiled.run(frames, now=10**9) == outcomes
    assert [one.reason for one in outcomes[:30]] == [""] * 20 + ["too many of class 2"] * 10
    counted = plain.instances[0]
    assert states["frames"].dump() == [{"key": "value", "value": counted.frames.value}]
    assert {row["key"] for row in states["known"].dump()} == {
        f"{nf.IPv4(address)},{port}" for (address, port), _ in counted.known.entries()}
    events = counted.seen.take()
    assert states["seen"].take() == events
    assert events[0]["octets"] == 9 * 1054


def test_all_kinds_and_their_methods_are_there() -> None:
    declared = [nf.Counter(), nf.Array(size=1), Map("u8", "u8", 1), Map("u8", {"a": "u8"}, 1),
                nf.Lpm(capacity=1), nf.Bucket(), nf.Buckets("u8", 1, 1), nf.Event(a="u8"),
                nf.Rules(capacity=1), nf.Maglev(capacity=1)]
    assert {type(each) for each in declared} == set(KINDS)
    rows = re.findall(r"^\| \[`nf.*$", PAGE, re.M)
    for state in declared:
        name = type(state).__name__
        row = next(each for each in rows if f"nf.{name}(" in each)
        for method in KINDS[type(state)].methods(state):
            shown = {"__contains__": "in", "__getitem__": "array[i]",
                     "__setitem__": "array[i]"}.get(method, method)
            assert f"`{shown}`" in row, (name, method)


def test_all_types_are_there() -> None:
    table = PAGE[PAGE.index("## Types"):PAGE.index("## Counters")]
    assert [kind for kind in (*BITS, FLOW) if f"`{kind}`" not in table] == []
