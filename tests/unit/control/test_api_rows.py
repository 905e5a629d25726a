# SPDX-License-Identifier: Apache-2.0
"""Many rows of a table in one call: more than other bodies may have, parsed while others go on."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from byway.control.api import make_app, rows
from byway.control.api.bodies import MAX_BODY
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine
from tests.unit.control.fake_switch import LAB

PATH = "/v1/functions/limits/tables/table"
MANY = {f"10.{k >> 16}.{k >> 8 & 255}.{k & 255}": k for k in range(70_000)}
SPACE = " " * MAX_BODY


class Caller:
    """A switch with a function "limits" that has a table, and its API."""

    def __init__(self) -> None:
        self.engine = FakeEngine(LAB.switch)
        wanted = Wanted(self.engine, LAB.switch)
        wanted.change(LAB)
        self.app = make_app(wanted)
        asyncio.run(self.call("/v1/functions/limits", b'{"use": "byway.acl"}'))

    async def call(self, path: str, body: bytes) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://byway") as client:
            return await client.put(path, content=body)

    def put(self, text: str) -> httpx.Response:
        return asyncio.run(self.call(PATH, text.encode()))

    @property
    def table(self) -> dict[Any, Any]:
        return self.engine.functions.tables["limits", "table"]


@pytest.fixture
def caller() -> Caller:
    return Caller()


def test_a_table_is_given_back_however_many_rows_it_has(caller: Caller) -> None:
    text = json.dumps({"rows": MANY})
    assert len(text) > MAX_BODY

    async def go() -> int:
        looks = 0
        task = asyncio.create_task(caller.call(PATH, text.encode()))
        while not task.done():
            await asyncio.sleep(0)
            looks += 1
        assert (await task).status_code == 204
        return looks

    assert asyncio.run(go()) > len(MANY) // rows.STEP
    assert caller.table == MANY


@pytest.mark.parametrize("given", [
    {}, [], [7], {"a": {"x": [1, "}"], "y": None}}, {"ä\n\"": "é\\"}, [[1], {"b": 2}, "c"]])
@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_parsed_in_portions_is_the_same(caller: Caller, given: Any,
                                               indent: int | None) -> None:
    for text in (json.dumps({"rows": given}, indent=indent),
                 json.dumps({"rows": given}, indent=indent, ensure_ascii=False)):
        assert caller.put(SPACE + text + "\n").status_code == 204
        assert caller.table == (given if isinstance(given, dict) else dict(enumerate(given)))


@pytest.mark.parametrize(("text", "problem"), [
    ('{"rows": {"a": 1,}}', "the body is not JSON"),
    ('{"rows": {"a" 1}}', "the body is not JSON: there is none of : at character"),
    ('{"rows": {"a": 1]}', "the body is not JSON"),
    ('{"rows": {1: 1}}', "the body is not JSON: a key is no text"),
    ('{"rows": [1', "the body is not JSON"),
    ('{"rows": [', "the body is not JSON"),
    ('{"rows": [1]', "the body is not JSON"),
    ('{"rows": [1]}}', "the body is not JSON"),
    ('{"rows": {}, "more": 1}', "the body is not JSON: rows are all that may be"),
    ('{"rows": [' + "[" * 100_000 + "]}", "the body is not JSON"),
    ('{"rows": {"a": "\\ud800"}}', "the body says"),
    ('{"rows": {"\\ud800": 1}}', "the body says")])
def test_what_is_refused_of_many(caller: Caller, text: str, problem: str) -> None:
    answer = caller.put(SPACE + text)
    assert answer.status_code == 400, answer.text
    assert answer.json()["problem"].startswith(problem)


def test_the_limits_of_many(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caller.put(SPACE + '{"more": 1}').status_code == 413
    monkeypatch.setattr(rows, "MAX_ROWS", MAX_BODY + 10)
    assert caller.put(SPACE + '{"rows":[]').status_code == 400
    assert caller.put(SPACE + '{"rows":[]}').status_code == 413
    monkeypatch.setattr(rows, "memory_left", lambda: 1 << 20)
    answer = caller.put(SPACE + '{}')
    assert (answer.status_code, answer.json()["problem"]) == (
        413, f"the machine has no memory for a body of {MAX_BODY + 2} bytes")
