# SPDX-License-Identifier: Apache-2.0
"""The application: which path is which handler's, and what OpenAPI is told about it.

Used by the daemon and the tests. Uses handlers, bodies, refusals and answers.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Response

from byway import __version__
from byway.control.answers import (
    ChainAnswer,
    ChangesAnswer,
    ClusterAnswer,
    ConnectionAnswer,
    EntryAnswer,
    FdbAnswer,
    FunctionAnswer,
    GroupAnswer,
    HostAnswer,
    NetworkAnswer,
    PopulationAnswer,
    PortAnswer,
    ProblemAnswer,
    ReloadAnswer,
    RouterAnswer,
    RowAnswer,
    ServiceAnswer,
    SwitchAnswer,
    TableAnswer,
    TraceAnswer,
    UnderlayAnswer,
    WatchedAnswer,
    WorkerAnswer,
)
from byway.control.api.bodies import request_bodies
from byway.control.api.cluster import ClusterApi
from byway.control.api.functions import FunctionsApi
from byway.control.api.handlers import Api
from byway.control.api.refusals import add_error_handlers
from byway.control.membership import Membership
from byway.control.wanted import Wanted

Route = tuple[str, str, Callable[..., Awaitable[Response]], Any, dict[int, str]]
# Paths of things that can be put and deleted, by the handlers' word, with their answer.
_RESOURCES: tuple[tuple[str, str, Any, Any], ...] = (
    ("port", "/v1/ports", PortAnswer, list[PortAnswer]),
    ("network", "/v1/networks", NetworkAnswer, list[NetworkAnswer]),
    ("host", "/v1/hosts", HostAnswer, list[HostAnswer]),
    ("group", "/v1/security-groups", GroupAnswer, list[GroupAnswer]),
    ("router", "/v1/routers", RouterAnswer, list[RouterAnswer]),
    ("service", "/v1/services", ServiceAnswer, list[ServiceAnswer]))


def _routes(api: Api) -> list[Route]:
    """Method, path, handler, the answer's shape, and the statuses beside 200 with their reason."""
    absent = {404: "there is none of that name"}
    change = {400: "no JSON object", 409: "the engine refuses it", 413: "body too large",
              422: "invalid values"}
    put, delete = {201: "added"} | change, {204: "removed", 409: "still in use"} | absent
    routes: list[Route] = [("GET", "/v1/switch", api.switch, SwitchAnswer, {})]
    for word, path, shape, shapes in _RESOURCES:
        routes += [
            ("GET", path, getattr(api, f"{word}s"), shapes, {}),
            ("GET", f"{path}/{{name}}", getattr(api, word), shape, absent),
            ("PUT", f"{path}/{{name}}", getattr(api, f"put_{word}"), shape, put),
            ("DELETE", f"{path}/{{name}}", getattr(api, f"delete_{word}"), None, delete)]
    return [
        *routes,
        ("GET", "/v1/underlay", api.underlay, UnderlayAnswer, {404: "there is none"}),
        ("GET", "/v1/entries", api.entries, list[EntryAnswer], {}),
        ("GET", "/v1/entries/{network}/{mac}", api.entry, EntryAnswer, absent),
        ("PUT", "/v1/entries/{network}/{mac}", api.put_entry, EntryAnswer, put),
        ("DELETE", "/v1/entries/{network}/{mac}", api.delete_entry, None, delete),
        ("POST", "/v1/changes", api.changes, ChangesAnswer, absent | change),
        ("GET", "/v1/fdb", api.fdb, list[FdbAnswer], absent),
        ("GET", "/v1/population", api.population, list[PopulationAnswer], absent),
        ("GET", "/v1/connections", api.connections, list[ConnectionAnswer],
         absent | {422: "no such limit"}),
        ("GET", "/v1/workers", api.workers, list[WorkerAnswer], {}),
        ("GET", "/metrics", api.metrics, None, {}),
    ]


def _function_routes(api: Api, functions: FunctionsApi) -> list[Route]:
    absent = {404: "there is none of that name"}
    change = absent | {400: "no JSON object", 409: "the engine refuses it", 413: "body too large",
                       422: "invalid values, or code that cannot be built"}
    gone = absent | {204: "done"} | change
    # An instance's name may have a slash in it: "vm1/RateGuard".
    one, table = "/v1/functions/{name:path}", "/v1/functions/{name:path}/tables/{table}"
    return [
        ("GET", "/v1/functions", functions.functions, list[FunctionAnswer], {}),
        ("GET", table, functions.function_table, list[RowAnswer], absent | change),
        ("PUT", table, functions.put_function_table, None, gone),
        ("PATCH", table, functions.patch_function_table, None, gone),
        ("DELETE", table, functions.delete_function_table, None, gone),
        ("GET", f"{one}/events", functions.function_events, None, absent | change),
        ("POST", "/v1/functions/reload", functions.reload_functions, ReloadAnswer, change),
        ("POST", "/v1/functions/trace", functions.trace_functions, TraceAnswer, change),
        ("GET", one, functions.function, FunctionAnswer, absent),
        ("PUT", one, api.put_function, FunctionAnswer, change | {201: "added"}),
        ("PATCH", one, functions.patch_function, FunctionAnswer, change),
        ("DELETE", one, functions.delete_function, None, change | {204: "removed"}),
        ("GET", "/v1/ports/{name}/chain/frames", functions.watch_functions,
         list[WatchedAnswer], absent | change),
        ("GET", "/v1/ports/{name}/chain", functions.port_chain, ChainAnswer, absent),
        ("PUT", "/v1/ports/{name}/chain", functions.put_port_chain, ChainAnswer, change),
        ("POST", "/v1/ports/{name}/chain", functions.post_port_chain, ChainAnswer, change),
        ("GET", "/v1/networks/{name}/chain", functions.network_chain, ChainAnswer, absent),
        ("PUT", "/v1/networks/{name}/chain", functions.put_network_chain, ChainAnswer, change),
        ("POST", "/v1/networks/{name}/chain", functions.post_network_chain, ChainAnswer, change)]


def _cluster_routes(api: ClusterApi) -> list[Route]:
    none = {404: "the switch is in no cluster"}
    put = none | {400: "no JSON object", 409: "the cluster refuses it", 413: "body too large",
                  422: "invalid values"}
    delete = none | {204: "removed", 409: "the cluster refuses it"}
    network, port = "/v1/cluster/networks/{name}", "/v1/cluster/hosts/{host}/ports/{name}"
    return [
        ("GET", "/v1/cluster", api.cluster, ClusterAnswer, none),
        ("PUT", network, api.put_cluster_network, TableAnswer, put),
        ("DELETE", network, api.delete_cluster_network, None, delete),
        ("PUT", port, api.put_cluster_port, TableAnswer, put),
        ("DELETE", port, api.delete_cluster_port, None, delete)]


def make_app(wanted: Wanted, membership: Membership | None = None) -> FastAPI:
    """The application over one switch; its handlers must run on the engine's thread.

    ``membership``: of the cluster that it is in; None: it is in none."""
    app = FastAPI(title="Byway", version=__version__, docs_url=None, redoc_url=None,
                  description="The API of a running switch. No call pauses a worker.")
    api = Api(wanted, membership is not None)
    routes = [*_routes(api), *_function_routes(api, FunctionsApi(wanted)),
              *_cluster_routes(ClusterApi(membership))]
    bodies = request_bodies()
    for method, path, handler, shape, others in routes:
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
            status_code=200 if shape is not None or 204 not in others else 204,
            openapi_extra=bodies.get(handler.__name__),
        )
    add_error_handlers(app)
    return app
