# SPDX-License-Identifier: Apache-2.0
"""The API of network functions: chains, parameters, tables, events; changes that wait for code."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from byway.control.answers import ChainAnswer, FunctionAnswer, RowAnswer, TraceAnswer
from byway.control.api import make_app
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine
from tests.unit.control.fake_switch import LAB

GUARD = "/etc/guard.py:Guard"
Call = Callable[..., httpx.Response]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(LAB.switch)


@pytest.fixture
def wanted(engine: FakeEngine) -> Wanted:
    wanted = Wanted(engine, LAB.switch)
    wanted.change(LAB)
    return wanted


async def request(wanted: Wanted, method: str, path: str, body: Any = None) -> httpx.Response:
    transport = httpx.ASGITransport(app=make_app(wanted), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://byway") as client:
        return await client.request(method, path, json=body)


@pytest.fixture
def call(wanted: Wanted) -> Call:
    def one(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = asyncio.run(request(wanted, method, path, body))
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content and status != 204 else None

    return one


def test_a_chain_by_itself(call: Call, wanted: Wanted) -> None:
    assert call("GET", "/v1/ports/vm1/chain") == {"chain": [], "chain_tx": []}
    assert call("PUT", "/v1/ports/vm1/chain", {"chain": [GUARD]}) == {
        "chain": [GUARD], "chain_tx": []}
    call("POST", "/v1/ports/vm1/chain", {"function": "byway.nat44", "first": True})
    call("POST", "/v1/ports/vm1/chain", {"function": "byway.acl", "tx": True})
    answer = call("GET", "/v1/ports/vm1/chain")
    assert answer == {"chain": ["byway.nat44", GUARD], "chain_tx": ["byway.acl"]}
    TypeAdapter(ChainAnswer).validate_python(answer)
    call("POST", "/v1/networks/blue/chain", {"function": "byway.tap"})
    assert call("GET", "/v1/networks/blue/chain") == {"chain": ["byway.tap"]}
    assert wanted.has.networks["blue"].chain == ("byway.tap",)
    assert [one["name"] for one in call("GET", "/v1/functions")] == [
        "vm1/nat44", "vm1/Guard", "net:blue/tap", "vm1/acl"]


def test_the_name_of_what_comes_into_a_chain(call: Call) -> None:
    path = "/v1/ports/vm1/chain"
    assert call("POST", path, {"function": GUARD})["name"] == "vm1/Guard"
    assert call("POST", path, {"function": GUARD})["name"] == "vm1/Guard.2"
    step = {"function": f"{GUARD}(limit=9)", "tx": True}
    assert call("POST", path, step)["name"] == "vm1/Guard.3"
    answer = call("POST", path, {"function": f"{GUARD}(limit=1)", "first": True})
    TypeAdapter(ChainAnswer).validate_python(answer)
    assert answer["name"] == "vm1/Guard"
    assert call("GET", "/v1/functions/vm1/Guard")["parameters"]["limit"] == 1
    path = "/v1/networks/blue/chain"
    assert call("POST", path, {"function": GUARD, "name": "limits"})["name"] == "limits"
    assert call("POST", path, {"function": GUARD, "first": True})["name"] == "net:blue/Guard"


def test_one_with_a_name_comes_with_its_place_or_not_at_all(call: Call, wanted: Wanted) -> None:
    step = {"function": GUARD, "name": "limits", "parameters": {"limit": 3}}
    call("POST", "/v1/ports/none/chain", step, status=404)
    call("POST", "/v1/ports/vm1/chain", {**step, "parameters": {"limit": "x"}}, status=422)
    assert call("GET", "/v1/functions") == []
    assert call("POST", "/v1/ports/vm1/chain", step)["chain"] == ["limits"]
    assert call("GET", "/v1/functions/limits")["parameters"]["limit"] == 3
    call("POST", "/v1/ports/vm1/chain", step, status=422)  # it stands there already
    assert wanted.has.ports["vm1"].chain == ("limits",)


def test_an_instance(call: Call, wanted: Wanted) -> None:
    call("PUT", "/v1/ports/vm1/chain", {"chain": [GUARD]})
    (listed,) = call("GET", "/v1/functions")
    TypeAdapter(FunctionAnswer).validate_python(listed)
    assert call("GET", "/v1/functions/vm1/Guard")["ports"] == ["vm1"]
    assert call("GET", "/v1/functions/vm1%2FGuard")["use"] == GUARD
    changed = call("PATCH", "/v1/functions/vm1/Guard", {"parameters": {"limit": 7}})
    assert changed["parameters"]["limit"] == 7
    assert wanted.has.ports["vm1"].chain == (f"{GUARD}(limit=7)",)
    refused = call("PATCH", "/v1/functions/vm1/Guard", {"parameters": {"limit": "x"}}, status=422)
    assert refused["problem"] == "port \"vm1\": chain[1]: limit is 'x'"
    call("DELETE", "/v1/functions/vm1/Guard", status=204)
    assert wanted.has.ports["vm1"].chain == ()
    call("GET", "/v1/functions/vm1/Guard", status=404)


def test_one_with_a_name(call: Call, engine: FakeEngine) -> None:
    table = {"use": GUARD, "parameters": {"limit": 3}}
    call("PUT", "/v1/functions/limits", table, status=201)
    applied = len(engine.applied)
    call("PUT", "/v1/functions/limits", table)
    assert len(engine.applied) == applied  # nothing was to be done
    call("PUT", "/v1/ports/vm1/chain", {"chain": ["limits"]})
    assert call("GET", "/v1/functions/limits")["ports"] == ["vm1"]
    done = call("POST", "/v1/changes", {"add_functions": [{"name": "more", "use": GUARD}]})
    assert done["added_functions"] == ["more"]
    refused = call("POST", "/v1/changes", {"remove_functions": ["limits"]}, status=409)
    assert refused["problem"] == 'network function "limits" has ports: vm1'
    call("DELETE", "/v1/functions/limits", status=204)  # out of chains as well
    assert call("GET", "/v1/ports/vm1/chain")["chain"] == []


@pytest.mark.parametrize(("method", "path", "body", "status"), [
    ("PUT", "/v1/ports/none/chain", {"chain": []}, 404),
    ("PUT", "/v1/ports/vm1/chain", {"chains": []}, 422),
    ("PUT", "/v1/ports/vm1/chain", {"chain": ["guard.py:Guard"]}, 422),
    ("PUT", "/v1/ports/vm1/chain", {"chain": ["none"]}, 422),
    ("PUT", "/v1/networks/blue/chain", {"chain_tx": []}, 422),
    ("POST", "/v1/ports/vm1/chain", {}, 422),
    ("POST", "/v1/networks/blue/chain", {"function": GUARD, "tx": True}, 422),
    ("GET", "/v1/functions/none", None, 404),
    ("PATCH", "/v1/functions/none", {"parameters": {}}, 404),
    ("PATCH", "/v1/functions/limits", {"limit": 3}, 422),
    ("PATCH", "/v1/functions/limits", {}, 422),
    ("DELETE", "/v1/functions/none", None, 404),
    ("PUT", "/v1/functions/vm1/Guard", {"use": GUARD}, 422),
    ("POST", "/v1/functions/reload", {"names": ["none"]}, 404),
    ("POST", "/v1/functions/reload", {"files": []}, 422),
    ("POST", "/v1/functions/reload", {"names": [7]}, 422),
    ("POST", "/v1/ports/vm1/chain", {"function": GUARD, "first": "no"}, 422),
    ("POST", "/v1/ports/vm1/chain", {"function": GUARD, "tx": 0}, 422),
    ("POST", "/v1/ports/vm1/chain", {"function": GUARD, "parameters": {"limit": 1}}, 422),
    ("POST", "/v1/ports/vm1/chain", {"function": GUARD, "name": "x.py"}, 422),
    ("GET", "/v1/functions/limits/tables/none", None, 404),
    ("PUT", "/v1/functions/limits/tables/table", {"rows": 7}, 422),
    ("DELETE", "/v1/functions/limits/tables/table?key=7", None, 404),
])
def test_what_is_refused(call: Call, method: str, path: str, body: Any, status: int) -> None:
    call("PUT", "/v1/functions/limits", {"use": GUARD}, status=201)
    refused = call(method, path, body, status=status)
    assert refused["problem"]
    assert refused["fix"]


def test_what_cannot_be_built_is_refused(call: Call, engine: FakeEngine, wanted: Wanted) -> None:
    engine.functions.broken.add(GUARD)
    refused = call("PUT", "/v1/ports/vm1/chain", {"chain": [GUARD]}, status=422)
    assert refused["problem"] == f"{GUARD}:7: a list cannot be"
    assert wanted.has.ports["vm1"].chain == ()
    call("PUT", "/v1/functions/limits", {"use": GUARD}, status=422)
    # What cannot be for another reason is not built first.
    engine.functions.built.clear()
    call("PUT", "/v1/ports/new", {"network": "none", "kind": "null", "chain": [GUARD]}, status=422)
    assert engine.functions.built == []


def test_others_do_not_wait_for_what_is_built(engine: FakeEngine, wanted: Wanted) -> None:
    async def go() -> None:
        engine.functions.gate = asyncio.Event()
        engine.functions.changing = asyncio.Lock()
        slow = asyncio.create_task(
            request(wanted, "PUT", "/v1/ports/vm1/chain", {"chain": [GUARD]}))
        while not engine.functions.built:
            await asyncio.sleep(0)
        second = asyncio.create_task(
            request(wanted, "POST", "/v1/ports/vm2/chain", {"function": "byway.acl"}))
        table = {"network": "blue", "kind": "null"}
        assert (await request(wanted, "PUT", "/v1/ports/new", table)).status_code == 201
        assert not slow.done()
        assert wanted.has.ports["vm1"].chain == ()
        assert len(engine.functions.built) == 1  # one after the other
        engine.functions.gate.set()
        assert [(await one).status_code for one in (slow, second)] == [200, 200]

    asyncio.run(go())
    assert wanted.has.ports["vm1"].chain == (GUARD,)
    assert wanted.has.ports["vm2"].chain == ("byway.acl",)


def test_a_change_sees_what_came_while_it_waited(engine: FakeEngine, wanted: Wanted) -> None:
    async def go() -> None:
        engine.functions.gate = asyncio.Event()
        engine.functions.changing = asyncio.Lock()
        engine.functions.known.add("byway.tap")
        slow = asyncio.create_task(
            request(wanted, "PUT", "/v1/ports/vm1/chain", {"chain": [GUARD]}))
        while not engine.functions.built:
            await asyncio.sleep(0)
        engine.functions.known.discard("byway.tap")
        wanted.change(wanted.config.model_copy(update={"networks": (
            wanted.has.networks["blue"].model_copy(update={"chain": ("byway.tap",)}),)}))
        engine.functions.gate.set()
        assert (await slow).status_code == 200

    asyncio.run(go())
    assert engine.functions.built[1] == {GUARD, "byway.tap"}


def test_tables(call: Call) -> None:
    call("PUT", "/v1/functions/limits", {"use": GUARD}, status=201)
    path = "/v1/functions/limits/tables/table"
    call("PUT", path, {"rows": {"10.0.0.1": 1, "10.0.0.2": 2}}, status=204)
    call("PATCH", path, {"rows": {"10.0.0.3": 3}}, status=204)
    rows = call("GET", path)
    TypeAdapter(list[RowAnswer]).validate_python(rows)
    assert rows[2] == {"key": "10.0.0.3", "value": 3}
    assert len(call("GET", f"{path}?limit=1")) == 1
    call("DELETE", f"{path}?key=10.0.0.1", status=204)
    assert [row["key"] for row in call("GET", path)] == ["10.0.0.2", "10.0.0.3"]
    call("DELETE", path, status=204)
    assert call("GET", path) == []


def test_events_are_lines(call: Call, wanted: Wanted, engine: FakeEngine) -> None:
    call("PUT", "/v1/functions/limits", {"use": GUARD}, status=201)
    engine.functions.emitted["limits"] = [{"count": 1}, {"count": 2}]
    answer = asyncio.run(request(wanted, "GET", "/v1/functions/limits/events?event=noisy"))
    assert [json.loads(line) for line in answer.text.split("\n") if line] == [
        {"event": "noisy", "count": 1}, {"event": "noisy", "count": 2}]


def test_a_trace(call: Call) -> None:
    call("PUT", "/v1/ports/vm1/chain", {"chain": [GUARD]})
    found = call("POST", "/v1/functions/trace", {"port": "vm1", "frame": "ff" * 60})
    TypeAdapter(TraceAnswer).validate_python(found)
    assert (found["steps"][0]["name"], found["frame"]) == ("vm1/Guard", "ff" * 60)
    for body in ({}, {"port": "vm1"}, {"port": "vm1", "frame": "x"}, {"port": 1, "frame": "ff"},
                 {"port": "vm1", "frame": "ff", "direction": "up"},
                 {"port": "vm1", "frame": "ff", "more": 1}):
        call("POST", "/v1/functions/trace", body, status=422)
    call("POST", "/v1/functions/trace", {"port": "none", "frame": "ff"}, status=404)


def test_nobody_watches_for_a_client_that_has_gone(
    engine: FakeEngine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    async def watch(*asked: Any) -> list[Any]:
        said.append("begun")
        try:
            await asyncio.Event().wait()  # for ever
        finally:
            said.append("ended")
        return []

    async def go() -> None:
        events = iter(("http.request", "http.disconnect"))

        async def receive() -> Any:
            while not said:
                await asyncio.sleep(0)
            return {"type": next(events)}

        async def send(message: Any) -> None:
            pass

        path = "/v1/ports/vm1/chain/frames"
        scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http",
                 "path": path, "raw_path": path.encode(), "query_string": b"seconds=60",
                 "headers": [], "root_path": "", "client": None, "server": None}
        await asyncio.wait_for(make_app(wanted)(scope, receive, send), 10)

    monkeypatch.setattr(engine.functions, "watch", watch)
    asyncio.run(go())
    assert said == ["begun", "ended"]


def test_metrics(call: Call, wanted: Wanted) -> None:
    call("PUT", "/v1/ports/vm1/chain", {"chain": [GUARD]})
    text = asyncio.run(request(wanted, "GET", "/metrics")).text
    assert 'byway_function_frames_total{instance="vm1/Guard"} 7.0' in text
    assert 'byway_function_drops_total{instance="vm1/Guard",reason="over limit"} 2.0' in text


def test_reload(call: Call, engine: FakeEngine) -> None:
    call("PUT", "/v1/functions/limits", {"use": GUARD}, status=201)
    assert call("POST", "/v1/functions/reload", {}) == {"changed": [GUARD]}
    assert call("POST", "/v1/functions/reload", {"names": ["limits"]}) == {"changed": [GUARD]}
    engine.functions.broken.add(GUARD)
    call("POST", "/v1/functions/reload", {}, status=422)
