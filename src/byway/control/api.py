# SPDX-License-Identifier: Apache-2.0
"""The REST API of a running switch: JSON over a Unix socket, described at /openapi.json.

Used by the daemon, which serves it. Uses wanted (every change goes through it), answers, metrics.

Every handler is `async` and awaits nothing but its body: it runs on the control thread, in one
piece, so that the engine needs no lock. No call pauses a worker; they take a change up
between two passes. PUT and DELETE are idempotent: the same PUT again changes nothing and says 200.
Whoever may open the socket (mode 0600) may do everything: there is no other access control.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from byway import __version__
from byway.control.answers import (
    ChangesAnswer,
    FdbAnswer,
    NetworkAnswer,
    PortAnswer,
    ProblemAnswer,
    SwitchAnswer,
    WorkerAnswer,
)
from byway.control.config import api_socket, parse_network, parse_port
from byway.control.diff import (
    Action,
    AddNetwork,
    AddPort,
    Change,
    RemoveNetwork,
    RemovePort,
)
from byway.control.metrics import metrics_text
from byway.control.model import KINDS, NetworkConfig
from byway.control.problem import ConfigError, EngineError, Problem, kind_of_value, nearest
from byway.control.wanted import Wanted

MAX_BODY = 1 << 20  # bytes; some thousands of ports
_CHANGES = ("add_networks", "add_ports", "remove_ports", "remove_networks")


class ApiError(Exception):
    """A call that is refused: HTTP status, a word for programs, problem and fix for people."""

    def __init__(self, status: int, error: str, problem: str, fix: str) -> None:
        self.status = status
        self.body = {"error": error, "problem": problem, "fix": fix}
        super().__init__(f"{problem}; {fix}")


class Api:
    """The handlers, one method a route; `make_app` joins them to their paths."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._began = time.monotonic()

    async def switch(self) -> Response:
        """The switch itself."""
        switch = self._wanted.has.switch
        return JSONResponse({
            "name": switch.name,
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._began, 3),
            "workers": switch.workers,
            "api": api_socket(switch),
            "networks": len(self._wanted.has.networks),
            "ports": len(self._wanted.has.ports),
        })

    async def ports(self) -> Response:
        """All ports with state and counters."""
        return JSONResponse(self._wanted.engine.ports())

    async def port(self, name: str) -> Response:
        """One port."""
        return JSONResponse(self._port(name))

    async def put_port(self, name: str, request: Request) -> Response:
        """Add a port, or replace it by a changed one. Pauses no worker."""
        port = parse_port(await _named_body(request, name), f'port "{name}"')
        existed = name in self._wanted.has.ports
        self._wanted.alter(Change(add_ports=[port]))
        return JSONResponse(self._port(name), 200 if existed else 201)

    async def delete_port(self, name: str) -> Response:
        """Remove a port and close its socket. Pauses no worker."""
        _require("port", name, self._wanted.has.ports)
        self._wanted.alter(Change(remove_ports=[name]))
        return Response(status_code=204)

    async def networks(self) -> Response:
        """All networks with the names of their ports."""
        return JSONResponse(self._wanted.engine.networks())

    async def network(self, name: str) -> Response:
        """One network."""
        return JSONResponse(self._network(name))

    async def put_network(self, name: str, request: Request) -> Response:
        """Add a network, or replace it and reopen its ports. Pauses no worker."""
        network = parse_network(await _named_body(request, name), f'network "{name}"')
        existed = name in self._wanted.has.networks
        self._wanted.alter(Change(add_networks=[network]))
        return JSONResponse(self._network(name), 200 if existed else 201)

    async def delete_network(self, name: str) -> Response:
        """Remove a network that has no ports. Pauses no worker."""
        _require("network", name, self._wanted.has.networks)
        self._alter(Change(remove_networks=[name]))
        return Response(status_code=204)

    async def changes(self, request: Request) -> Response:
        """Add and remove many networks and ports as one change. Pauses no worker.

        All or nothing. First the ports and networks to remove go, then the others come.
        """
        body = await _body(request)
        lists = {key: body.get(key, []) for key in _CHANGES}
        problems = [Problem(key, "there is no such key",
                            nearest(key, _CHANGES) or f"the keys are: {', '.join(_CHANGES)}")
                    for key in body if key not in _CHANGES]
        problems += [Problem(key, f"is {kind_of_value(value)}", "write a list")
                     for key, value in lists.items() if not isinstance(value, list)]
        if problems:
            raise ConfigError(problems)
        for name in lists["remove_ports"]:
            _require("port", name, self._wanted.has.ports)
        for name in lists["remove_networks"]:
            _require("network", name, self._wanted.has.networks)
        networks = _parse_all(parse_network, "network", lists["add_networks"])
        ports = _parse_all(parse_port, "port", lists["add_ports"])
        change = Change(networks, ports, lists["remove_ports"], lists["remove_networks"])
        return JSONResponse(_summary(self._alter(change)))

    async def fdb(
        self, network: Annotated[str | None, Query(description="only this network")] = None
    ) -> Response:
        """The learned addresses, of all networks or of one."""
        if network is not None:
            _require("network", network, self._wanted.has.networks)
        return JSONResponse(self._wanted.engine.fdb(network))

    async def workers(self) -> Response:
        """The workers with their counters."""
        return JSONResponse(self._wanted.engine.workers())

    async def metrics(self) -> Response:
        """All counters as Prometheus text."""
        return Response(metrics_text(self._wanted.engine), media_type=CONTENT_TYPE_LATEST)

    def _port(self, name: str) -> dict[str, Any]:
        _require("port", name, self._wanted.has.ports)
        return self._wanted.engine.port(name)

    def _network(self, name: str) -> dict[str, Any]:
        _require("network", name, self._wanted.has.networks)
        return self._wanted.engine.network(name)

    def _alter(self, change: Change) -> list[Action]:
        """Refuses to take a network from under its ports."""
        if ports := self._wanted.has.orphans(change):
            names = ", ".join(p.name for p in ports[:5]) + (" ..." if len(ports) > 5 else "")
            raise ApiError(409, "refused", f'network "{ports[0].network}" has ports: {names}',
                           "remove the ports first")
        return self._wanted.alter(change)


def _require(kind: str, name: object, known: Mapping[str, object]) -> None:
    if isinstance(name, str) and name in known:
        return
    listed = ", ".join(islice(known, 8)) + (" ..." if len(known) > 8 else "")
    fix = nearest(str(name), known) or f"the {kind}s are: {listed or 'none'}"
    raise ApiError(404, "not-found", f'there is no {kind} "{name}"', fix)


def _parse_all(parser: Callable[[object, str], Any], kind: str, tables: list[object]) -> list[Any]:
    """Every table as a model; raises one ConfigError with all problems, also names given twice."""
    made: list[Any] = []
    problems: list[Problem] = []
    for number, table in enumerate(tables, 1):
        label = f"add_{kind}s[{number}]"
        try:
            made.append(parser(table, label))
        except ConfigError as error:
            problems += error.problems
    times = Counter(entry.name for entry in made)
    problems += [Problem(f'add_{kind}s "{name}"', "is given more than once", "give it once")
                 for name, n in times.items() if n > 1]
    if problems:
        raise ConfigError(problems)
    return made


def _summary(actions: list[Action]) -> dict[str, list[str]]:
    return {
        "added_networks": [a.network.name for a in actions if isinstance(a, AddNetwork)],
        "removed_networks": [a.name for a in actions if isinstance(a, RemoveNetwork)],
        "added_ports": [a.port.name for a in actions if isinstance(a, AddPort)],
        "removed_ports": [a.name for a in actions if isinstance(a, RemovePort)],
    }


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request, at most MAX_BODY bytes of it."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise ApiError(413, "too-large", f"the body has more than {MAX_BODY} bytes",
                           "send fewer entries at once")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "bad-request", f"the body is not JSON: {error}",
                       "send a JSON object") from None
    if not isinstance(body, dict):
        raise ApiError(400, "bad-request", f"the body is {kind_of_value(body)}",
                       "send a JSON object")
    return body


async def _named_body(request: Request, name: str) -> dict[str, Any]:
    """The body of a PUT: its name may be left out, but may not be another than the path's."""
    body = await _body(request)
    if body.get("name", name) != name:
        raise ConfigError([Problem("name", f"is {body['name']!r}, in the path it is {name!r}",
                                   "use one name")])
    return {**body, "name": name}


Route = tuple[str, str, Callable[..., Awaitable[Response]], Any, dict[int, str]]


def _routes(api: Api) -> list[Route]:
    """Method, path, handler, the answer's shape, and the statuses beside 200 with their reason."""
    absent = {404: "there is none of that name"}
    change = {400: "no JSON object", 409: "the engine refuses it", 413: "body too large",
              422: "invalid values"}
    put, delete = {201: "added"} | change, {204: "removed", 409: "still in use"} | absent
    return [
        ("GET", "/v1/switch", api.switch, SwitchAnswer, {}),
        ("GET", "/v1/ports", api.ports, list[PortAnswer], {}),
        ("GET", "/v1/ports/{name}", api.port, PortAnswer, absent),
        ("PUT", "/v1/ports/{name}", api.put_port, PortAnswer, put),
        ("DELETE", "/v1/ports/{name}", api.delete_port, None, delete),
        ("GET", "/v1/networks", api.networks, list[NetworkAnswer], {}),
        ("GET", "/v1/networks/{name}", api.network, NetworkAnswer, absent),
        ("PUT", "/v1/networks/{name}", api.put_network, NetworkAnswer, put),
        ("DELETE", "/v1/networks/{name}", api.delete_network, None, delete),
        ("POST", "/v1/changes", api.changes, ChangesAnswer, absent | change),
        ("GET", "/v1/fdb", api.fdb, list[FdbAnswer], absent),
        ("GET", "/v1/workers", api.workers, list[WorkerAnswer], {}),
        ("GET", "/metrics", api.metrics, None, {}),
    ]


def make_app(wanted: Wanted) -> FastAPI:
    """The application over one switch; its handlers must run on the engine's thread."""
    app = FastAPI(title="Byway", version=__version__, docs_url=None, redoc_url=None,
                  description="The API of a running switch. No call pauses a worker.")
    api = Api(wanted)
    bodies = _request_bodies()
    for method, path, handler, shape, others in _routes(api):
        responses: dict[int | str, dict[str, Any]] = {
            status: {"description": text, **({"model": ProblemAnswer} if status >= 400 else
                                             {"model": shape} if status == 201 else {})}
            for status, text in others.items()
        }
        if shape is not None:
            responses[200] = {"model": shape, "description": "done"}
        app.add_api_route(
            path, handler, methods=[method], operation_id=handler.__name__,
            response_model=None, responses=responses,
            status_code=204 if method == "DELETE" else 200,
            openapi_extra=bodies.get(handler.__name__),
        )
    _add_error_handlers(app)
    return app


def _request_bodies() -> dict[str, dict[str, Any]]:
    """The schemas of the bodies, for the OpenAPI description, by the name of the handler."""
    port = {"oneOf": [_schema(model) for model in KINDS.values()]}
    network = _schema(NetworkConfig)
    names = {"type": "array", "items": {"type": "string"}}
    changes = {
        "type": "object", "additionalProperties": False,
        "properties": {
            "add_networks": {"type": "array", "items": network},
            "add_ports": {"type": "array", "items": port},
            "remove_ports": names, "remove_networks": names,
        },
    }
    schemas = {"put_port": port, "put_network": network, "changes": changes}
    return {
        name: {"requestBody": {"required": True, "content": {"application/json": {
            "schema": schema}}}}
        for name, schema in schemas.items()
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """A schema without references, which would point into another document; name optional."""
    schema = model.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    schema["properties"] = _filled_in(schema["properties"], schema.pop("$defs", {}))
    return schema


def _filled_in(part: Any, parts: Mapping[str, Any]) -> Any:
    """A part of a schema with what it refers to in place of the references."""
    if isinstance(part, list):
        return [_filled_in(one, parts) for one in part]
    if not isinstance(part, dict):
        return part
    if reference := part.get("$ref", ""):
        return _filled_in(parts[reference.rsplit("/", 1)[-1]], parts)
    return {key: _filled_in(value, parts) for key, value in part.items()}


def _add_error_handlers(app: FastAPI) -> None:
    """Every refusal is JSON with error, problem and fix."""

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return JSONResponse(error.body, error.status)
        if isinstance(error, ConfigError):
            first = error.problems[0]
            return JSONResponse({
                "error": "invalid",
                "problem": f"{first.key}: {first.problem}" if first.key else first.problem,
                "fix": first.fix,
                "problems": [str(problem) for problem in error.problems],
            }, 422)
        if isinstance(error, EngineError):
            return JSONResponse(
                {"error": "refused", "problem": error.problem, "fix": error.fix}, 409)
        if isinstance(error, HTTPException):
            word = {404: "not-found", 405: "method"}.get(error.status_code, "bad-request")
            return JSONResponse(
                {"error": word, "problem": f"{request.method} {request.url.path}: {error.detail}",
                 "fix": "see /openapi.json"}, error.status_code, error.headers)
        return JSONResponse(
            {"error": "fault", "problem": f"a fault in the switch: {error!r}",
             "fix": "see the switch's messages and report it"}, 500)

    for kind in (ApiError, ConfigError, EngineError, HTTPException, Exception):
        app.add_exception_handler(kind, refused)
