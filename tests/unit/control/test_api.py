# SPDX-License-Identifier: Apache-2.0
"""The REST API: every route, idempotence, refusals, limits, and its own description."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from byway.control.answers import (
    ChangesAnswer,
    FdbAnswer,
    NetworkAnswer,
    PortAnswer,
    ProblemAnswer,
    SwitchAnswer,
    WorkerAnswer,
)
from byway.control.api import make_app
from byway.control.api.bodies import MAX_BODY
from byway.control.model import KINDS
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine
from tests.unit.control.fake_switch import LAB

NULL = {"network": "blue", "kind": "null"}
Call = Callable[..., httpx.Response]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(LAB.switch)


@pytest.fixture
def app(engine: FakeEngine) -> FastAPI:
    wanted = Wanted(engine, LAB.switch)
    wanted.change(LAB)
    return make_app(wanted)


@pytest.fixture
def call(app: FastAPI) -> Call:
    def one(method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://byway") as client:
                return await client.request(method, path, json=body, **more)

        return asyncio.run(go())

    return one


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/switch", SwitchAnswer),
        ("/v1/ports", list[PortAnswer]),
        ("/v1/ports/vm1", PortAnswer),
        ("/v1/networks", list[NetworkAnswer]),
        ("/v1/networks/blue", NetworkAnswer),
        ("/v1/fdb", list[FdbAnswer]),
        ("/v1/workers", list[WorkerAnswer]),
    ],
)
def test_answers_have_the_shape_that_is_described(
    call: Call, engine: FakeEngine, path: str, shape: Any
) -> None:
    engine.learned = [
        {"network": "blue", "mac": "02:00:00:00:00:01", "port": "vm1", "age": 1.5}]
    answer = call("GET", path)
    assert answer.status_code == 200
    TypeAdapter(shape).validate_json(answer.content, strict=True)


def test_features_and_rings_have_the_shape_that_is_described(
    call: Call, engine: FakeEngine
) -> None:
    ring = {"index": 0, "way": "tx", "format": "packed", "size": 256, "enabled": True}
    engine.counters["vm1"] = {
        "queues_enabled": 1, "rings": [ring, {**ring, "frames": 1, "bytes": 60, "calls": 1}],
        "features": {"offered": ["csum"], "acked": [], "off": {"csum": "features.off"}}}
    answer = call("GET", "/v1/ports/vm1")
    port = TypeAdapter(PortAnswer).validate_json(answer.content, strict=True)
    assert port.features.off == {"csum": "features.off"}
    assert [r.frames for r in port.rings] == [None, 1]
    schemas = call("GET", "/openapi.json").json()["components"]["schemas"]
    assert set(schemas["RingAnswer"]["properties"]) == {
        "index", "way", "format", "size", "enabled", "frames", "bytes", "calls"}


def test_the_description_of_a_port_has_every_kind_and_key(call: Call) -> None:
    document = call("GET", "/openapi.json").json()
    body = document["paths"]["/v1/ports/{name}"]["put"]["requestBody"]
    (content,) = body["content"].values()
    kinds = {one["properties"]["kind"]["const"]: one for one in content["schema"]["oneOf"]}
    assert set(kinds) == set(KINDS)
    for kind, described in kinds.items():
        assert set(described["properties"]) == set(KINDS[kind].model_fields)
        assert "name" not in described["required"]
        assert {"kind", "network"} <= set(described["required"])
    features = kinds["vhost-user"]["properties"]["features"]
    assert features["properties"]["off"]["items"] == {"type": "string"}


def test_the_switch_tells_its_size(call: Call) -> None:
    answer = call("GET", "/v1/switch").json()
    assert (answer["name"], answer["networks"], answer["ports"]) == ("lab", 1, 2)


def test_putting_a_port_adds_it_once(call: Call, engine: FakeEngine) -> None:
    first, again = call("PUT", "/v1/ports/a", NULL), call("PUT", "/v1/ports/a", NULL)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["name"] == "a"
    assert len(engine.applied) == 2


def test_putting_a_changed_port_replaces_it(call: Call, engine: FakeEngine) -> None:
    call("PUT", "/v1/ports/a", NULL)
    answer = call("PUT", "/v1/ports/a", {**NULL, "mac": "02:00:00:00:00:01"})
    assert answer.status_code == 200
    assert answer.json()["mac"] == "02:00:00:00:00:01"
    assert len(engine.applied[-1]) == 2


def test_a_port_goes_once(call: Call) -> None:
    assert call("DELETE", "/v1/ports/vm1").status_code == 204
    again = call("DELETE", "/v1/ports/vm1")
    assert again.status_code == 404
    assert again.json() == {
        "error": "not-found", "problem": 'there is no port "vm1"', "fix": 'did you mean "vm2"?'}


def test_networks_come_change_and_go(call: Call) -> None:
    assert call("PUT", "/v1/networks/red", {"vni": 5}).status_code == 201
    assert call("PUT", "/v1/networks/red", {"vni": 5}).status_code == 200
    assert call("PUT", "/v1/networks/red", {"vni": 6}).json()["vni"] == 6
    assert call("DELETE", "/v1/networks/red").status_code == 204
    assert call("DELETE", "/v1/networks/red").status_code == 404


def test_a_network_with_ports_stays(call: Call) -> None:
    answer = call("DELETE", "/v1/networks/blue")
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "refused", "problem": 'network "blue" has ports: vm1, vm2',
        "fix": "remove the ports first"}


def test_many_changes_are_one(call: Call, engine: FakeEngine) -> None:
    answer = call("POST", "/v1/changes", {
        "remove_ports": ["vm1"],
        "add_networks": [{"name": "red"}],
        "add_ports": [{"name": f"p{k}", "network": "red", "kind": "null"} for k in range(50)],
    })
    assert answer.status_code == 200
    ChangesAnswer.model_validate(answer.json())
    assert answer.json()["removed_ports"] == ["vm1"]
    assert len(answer.json()["added_ports"]) == 50
    assert len(engine.applied) == 2


def test_a_whole_network_goes_in_one_change(call: Call) -> None:
    answer = call("POST", "/v1/changes", {
        "remove_ports": ["vm1", "vm2"], "remove_networks": ["blue"]})
    assert answer.status_code == 200
    assert call("GET", "/v1/networks").json() == []


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        ({"add_port": []}, 422, "add_port: there is no such key"),
        ({"add_ports": {}}, 422, "add_ports: is a table"),
        ({"add_ports": [3]}, 422, "add_ports[1]: is a whole number, not a table"),
        ({"add_ports": [{"name": "a", **NULL}] * 2}, 422,
         'add_ports "a": is given more than once'),
        ({"remove_ports": ["x"]}, 404, 'there is no port "x"'),
        ({"remove_ports": [[]]}, 422, "remove_ports[1]: is a list"),
        ({"remove_networks": ["blue"]}, 409, 'network "blue" has ports: vm1, vm2'),
    ],
)
def test_a_wrong_change_changes_nothing(
    call: Call, engine: FakeEngine, body: dict[str, Any], status: int, problem: str
) -> None:
    answer = call("POST", "/v1/changes", body)
    assert (answer.status_code, answer.json()["problem"]) == (status, problem)
    assert len(engine.applied) == 1


def test_every_problem_of_a_port_is_told(call: Call) -> None:
    answer = call("PUT", "/v1/ports/a", {"network": "blue", "kind": "vhost-user", "soket": "x"})
    assert answer.status_code == 422
    assert answer.json() == {
        "error": "invalid",
        "problem": 'port "a": socket: is missing',
        "fix": 'add the path of a Unix socket, such as socket = "/tmp/vm1.sock"',
        "problems": [
            'port "a": socket: is missing; add the path of a Unix socket,'
            ' such as socket = "/tmp/vm1.sock"',
            'port "a": soket: a vhost-user port has no such key; did you mean "socket"?'],
    }


def test_the_name_in_the_body_is_that_of_the_path(call: Call) -> None:
    assert call("PUT", "/v1/ports/a", {"name": "a", **NULL}).status_code == 201
    answer = call("PUT", "/v1/ports/a", {"name": "b", **NULL})
    assert answer.status_code == 422
    assert answer.json()["problem"] == "name: is 'b', in the path it is 'a'"


def test_what_the_engine_refuses_is_a_conflict(call: Call, engine: FakeEngine) -> None:
    engine.refuse.add("a")
    answer = call("PUT", "/v1/ports/a", NULL)
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "refused", "problem": 'port "a": cannot be opened', "fix": "try another"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the body is not JSON: "),
        (b"{", "the body is not JSON: "),
        (b"\xff", "the body is not JSON: "),
        (b"[" * 100_000, "the body is not JSON: "),
        (b"[]", "the body is a list"),
        (b"null", "the body is null"),
        (b'{"mac": "\\ud800"}', 'the body says "\\ud800": half of a surrogate pair is no char'),
        (b'{"x": {"y": [{"\\udfffz": 1}]}}', 'the body says "\\udfffz": half'),
        (b'{"name": "\xed\xa0\x80"}', 'the body says "\\ud800": half'),
    ],
)
def test_a_body_that_is_no_object(call: Call, content: bytes, problem: str) -> None:
    answer = call("PUT", "/v1/ports/a", content=content)
    assert answer.status_code == 400
    assert answer.json()["problem"].startswith(problem)


def test_no_list_of_changes_says_half_a_character(call: Call) -> None:
    answer = call("POST", "/v1/changes", content=b'{"remove_hosts": ["\\ud800"]}')
    assert answer.status_code == 400


def test_a_body_has_a_limit(call: Call) -> None:
    just = json.dumps({**NULL, "x": ""})
    allowed = json.dumps({**NULL, "x": "y" * (MAX_BODY - len(just))})
    assert call("PUT", "/v1/ports/a", content=allowed.encode()).status_code == 422
    too_large = call("PUT", "/v1/ports/a", content=allowed.encode() + b" ")
    assert too_large.status_code == 413
    assert too_large.json()["error"] == "too-large"


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("POST", "/v1/ports", 405, "method"),
        ("GET", "/v1/ports/none", 404, "not-found"),
        ("GET", "/v1/networks/none", 404, "not-found"),
        ("GET", "/v1/fdb?network=none", 404, "not-found"),
        ("PUT", "/v1/ports/a%20b", 422, "invalid"),
    ],
)
def test_every_refusal_has_one_shape(
    call: Call, method: str, path: str, status: int, error: str
) -> None:
    answer = call(method, path, NULL)
    assert answer.status_code == status
    assert ProblemAnswer.model_validate(answer.json()).error == error


def test_a_fault_of_the_engine_is_told(
    call: Call, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[dict[str, Any]]:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(engine, "ports", broken)
    answer = call("GET", "/v1/ports")
    assert answer.status_code == 500
    assert answer.json()["problem"] == "a fault in the switch: ZeroDivisionError('a fault')"


def test_the_fdb_of_one_network(call: Call, engine: FakeEngine) -> None:
    entry = {"network": "blue", "mac": "02:00:00:00:00:01", "port": "vm1", "age": 0.0}
    engine.learned = [entry, {**entry, "network": "red"}]
    assert call("GET", "/v1/fdb?network=blue").json() == [entry]
    assert len(call("GET", "/v1/fdb").json()) == 2


def test_metrics_are_prometheus_text(call: Call, engine: FakeEngine) -> None:
    engine.counters["vm1"] = {"state": "up", "rx_frames": 7, "drops": {"over_mtu": 3}}
    engine.moved = 4
    answer = call("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    for line in (
        'byway_port_up{network="blue",port="vm1"} 1.0',
        'byway_port_rx_frames_total{network="blue",port="vm1"} 7.0',
        'byway_port_drops_total{network="blue",port="vm1",reason="over_mtu"} 3.0',
        'byway_network_fdb_entries{network="blue"} 0.0',
        'byway_worker_busy_cycles_total{worker="0"} 400.0',
        'byway_worker_asleep{worker="0"} 0.0',
    ):
        assert line in lines


def test_the_description_is_complete(call: Call, app: FastAPI) -> None:
    document = call("GET", "/openapi.json").json()
    operations = [
        operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == 60
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path in document["paths"].values():
        for method, operation in path.items():
            assert operation["description"]
            if method in ("put", "post"):
                (content,) = operation["requestBody"]["content"].values()
                assert "$ref" not in json.dumps(content)
            if method != "get":
                assert "Pauses no worker." in operation["description"]
