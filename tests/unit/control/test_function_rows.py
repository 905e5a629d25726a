# SPDX-License-Identifier: Apache-2.0
"""Rows of tables as users give them over the API: what is wrong is said with table, key and what is
wanted, and has changed nothing."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.running import RunningSwitch
from tests.unit.control.test_api_functions import request
from tests.unit.control.test_functions import GUARD, Lab

TABLES = GUARD.replace("    table = nf.Map", """\
    sums = nf.Array("u8", size=4)
    routes = nf.Lpm(value="ipv4", capacity=2)
    pairs = nf.Map(key=("ipv4", "u16"), value={"n": "u8", "to": "mac"}, capacity=2)
    marks = nf.Map(key="u8", value="u8", capacity=2)
    rules = nf.Rules(capacity=3)
    members = nf.Maglev(7, capacity=3)
    hits = nf.Counter()
    table = nf.Map""")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("rows")
    with RunningSwitch(folder, stepped=True) as switch, ExitStack() as stack:
        made = Lab(switch, folder, stack)
        made.file.write_text(TABLES)
        made.start(vm1=(made.use,))
        yield made


def ask(lab: Lab, method: str, table: str, body: Any = None, status: int = 204) -> Any:
    path = f"/v1/functions/vm1/Guard/tables/{table}"
    answer = lab.wait(request(lab.wanted, method, path, body))
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content and status != 204 else None


@pytest.mark.parametrize(("table", "rows", "sentence"), [
    ("table", {"10.0.0.1": None}, "10.0.0.1: null is no u32; write a number from 0 to 4294967295"),
    ("table", {"10.0.0.1": "7"}, '10.0.0.1: "7" is no u32; write a number'),
    ("table", {"10.0.0.1": True}, "10.0.0.1: true is no u32"),
    ("table", {"10.0.0.1": {"n": 1}}, "10.0.0.1: a table is no u32"),
    ("table", {"10.0.0.1": 1 << 32}, "4294967296 is no u32"),
    ("table", {"10.0.0.1": 1, "10.0.0": 2}, '"10.0.0" is no ipv4; write an address, as 10.0.0.1'),
    ("table", [1], 'is given as a list, and its keys are ipv4; write {"KEY": VALUE, ...}'),
    ("pairs", [{"n": 1}], "its keys are ipv4,u16"),
    ("pairs", {"10.0.0.1": {"n": 1}}, "a key of 1 part; write 2: ipv4,u16"),
    ("pairs", {"10.0.0.1,80": 7}, '10.0.0.1,80: 7 is no record; write {"n": u8, "to": mac}'),
    ("pairs", {"10.0.0.1,80": {"m": 7}}, '10.0.0.1,80: a value has no m; write {"n": u8,'),
    ("pairs", {"10.0.0.1,80": {"to": "x"}}, '10.0.0.1,80: to: "x" is no mac; write an address'),
    ("routes", [1], "its keys are ipv4"),
    ("routes", {"10.1.0.0/8": "10.0.0.1"}, "it has bits beyond its length; write 10.0.0.0/8"),
    ("routes", {"x": "10.0.0.1"}, "'x' is no ipv4 prefix; write one as 10.0.0.0/8"),
    ("routes", {"10.0.0.0/8": None}, "10.0.0.0/8: null is no ipv4; write an address"),
    ("sums", {"4": 1}, "there is no place 4; write places from 0 to 3"),
    ("sums", {"9": 1}, "there is no place 9; write places from 0 to 3"),
    ("sums", [1, 2, 3, 4, 5], "there is no place 4; write places from 0 to 3"),
    ("sums", [1, None], "1: null is no u8; write a number from 0 to 255"),
    ("sums", {"x": 1}, '"x" is no u32; write a number'),
    ("marks", [1, 256], "1: 256 is no u8; write a number from 0 to 255"),
    ("rules", {"1": None}, "1: None is no rule; a rule is written"),
    ("rules", {"x": {}}, "x: "),
    ("members", {"1": {"weight": "x"}}, "1: weight: 'x' is no number from 1"),
    ("hits", {"hits": 1}, 'hits: a counter has no \'hits\'; its one key is "value"'),
])
def test_wrong_rows(lab: Lab, table: str, rows: Any, sentence: str) -> None:
    before = ask(lab, "GET", table, status=200)
    for method in ("PUT", "PATCH"):
        refused = ask(lab, method, table, {"rows": rows}, status=422)
        assert refused["problem"].startswith(f"vm1/Guard: {table}: ")
        assert refused["problems"] == [f"{refused['problem']}; {refused['fix']}"]
        assert sentence in refused["problems"][0]
    assert ask(lab, "GET", table, status=200) == before


def test_rows_as_lists_where_keys_are_numbers(lab: Lab) -> None:
    ask(lab, "PUT", "sums", {"rows": [1, 2]})
    ask(lab, "PUT", "marks", {"rows": [1, 2]})
    assert sorted(ask(lab, "GET", "marks", status=200), key=str) == [  # in no order of their own
        {"key": 0, "value": 1}, {"key": 1, "value": 2}] == ask(lab, "GET", "sums", status=200)
    ask(lab, "PUT", "marks", {"rows": {"0x10": 1}})
    assert ask(lab, "GET", "marks", status=200) == [{"key": 16, "value": 1}]
    assert "has no room" in ask(lab, "PUT", "marks", {"rows": [1, 2, 3]}, status=409)["problem"]


def test_rows_that_are_put_are_no_part_of_what_is_kept(lab: Lab) -> None:
    before = lab.wanted.config
    ask(lab, "PUT", "table", {"rows": {"10.0.0.7": 1}})
    assert lab.wanted.config == before
    ask(lab, "DELETE", "table")


def test_what_is_no_table(lab: Lab) -> None:
    for method, body in (("GET", None), ("PUT", {"rows": {}}), ("DELETE", None)):
        refused = ask(lab, method, "noisy", body, status=404)
        assert refused["problem"] == "vm1/Guard: noisy is an nf.Event, and no table"
        assert "its tables are: " in refused["fix"]
        refused = ask(lab, method, "tabel", body, status=404)
        assert refused["fix"] == 'did you mean "table"?'
    refused = ask(lab, "DELETE", "table?key=10.0.0.1", status=404)
    assert refused["problem"] == 'vm1/Guard: table has no entry "10.0.0.1"'
