# SPDX-License-Identifier: Apache-2.0
"""What comes in with a call: read, bounded, parsed; and its schema for the OpenAPI description.

Used by app and handlers. Uses tables (the same parsers as for files), the model and problem.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from byway.control.api.refusals import ApiError
from byway.control.diff import Change
from byway.control.model import (
    KINDS,
    EntryConfig,
    FunctionConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    RouterConfig,
    ServiceConfig,
)
from byway.control.parts import Kind
from byway.control.problem import (
    ConfigError,
    Problem,
    half_character,
    kind_of_value,
    nearest,
    shown,
)
from byway.control.tables import PARSERS

MAX_BODY = 1 << 20  # bytes; some thousands of ports
_HALVES = b"\\u", b"\xed", b"\0"  # one is in all that may have half a character: escapes, UTF-16
# What a body may add and remove, in the words of paths: /v1/security-groups, add_security_groups.
PLURALS: dict[Kind, str] = {
    "network": "networks", "port": "ports", "host": "hosts", "entry": "entries",
    "group": "security_groups", "function": "functions", "service": "services",
    "router": "routers"}
FIELDS: dict[Kind, str] = {**PLURALS, "group": "groups"}  # of Change
CHANGES = tuple(f"{verb}_{plural}" for verb in ("add", "remove") for plural in PLURALS.values())
_MODELS: dict[Kind, type[BaseModel]] = {
    "network": NetworkConfig, "host": HostConfig, "entry": EntryConfig, "group": GroupConfig,
    "function": FunctionConfig, "service": ServiceConfig, "router": RouterConfig}


_CHAIN = {"type": "array", "items": {"type": "string"}}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["boolean", "number", "string"]}}
_ROWS = {"type": "object", "required": ["rows"], "additionalProperties": False,
         "properties": {"rows": {"type": ["object", "array"]}}}
_FUNCTION_BODIES: dict[str, dict[str, Any]] = {
    "trace_functions": {
        "type": "object", "required": ["port", "frame"], "additionalProperties": False,
        "properties": {"port": {"type": "string"}, "frame": {"type": "string"},
                       "direction": {"enum": ["rx", "tx"]}}},
    "reload_functions": {"type": "object", "additionalProperties": False,
                         "properties": {"names": _CHAIN}},
    "patch_function": {
        "type": "object", "required": ["parameters"], "additionalProperties": False,
        "properties": {"parameters": _PARAMETERS}},
    "put_function_table": _ROWS, "patch_function_table": _ROWS,
    **{f"post_{kind}_chain": {
        "type": "object", "required": ["function"], "additionalProperties": False,
        "properties": {"function": {"type": "string"}, "first": {"type": "boolean"},
                       "name": {"type": "string"}, "parameters": _PARAMETERS,
                       **({"tx": {"type": "boolean"}} if kind == "port" else {})}}
       for kind in ("port", "network")},
    "put_port_chain": {"type": "object", "additionalProperties": False,
                       "properties": {"chain": _CHAIN, "chain_tx": _CHAIN}},
    "put_network_chain": {"type": "object", "additionalProperties": False,
                          "properties": {"chain": _CHAIN}}}


async def read_body(request: Request) -> dict[str, Any]:
    """The JSON object of a request, at most MAX_BODY bytes of it."""
    return parse_body(await read_bytes(request, MAX_BODY))


async def read_bytes(request: Request, most: int) -> bytearray:
    """The body of a request. ApiError: it has more bytes."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise too_large(f"the body has more than {most} bytes")
    return data


def too_large(problem: str) -> ApiError:
    """A body that is not read."""
    return ApiError(413, "too-large", problem, "send fewer entries at once")


def parse_body(data: bytes | bytearray) -> dict[str, Any]:
    """The JSON object that a body is. ApiError: it is none."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise no_json(error) from None
    if not isinstance(body, dict):
        raise ApiError(400, "bad-request", f"the body is {kind_of_value(body)}",
                       "send a JSON object")
    if may_have_halves(data):
        refuse_halves(body)
    return body


def no_json(error: Exception) -> ApiError:
    """A body that is no JSON."""
    return ApiError(400, "bad-request", f"the body is not JSON: {error}", "send a JSON object")


def may_have_halves(data: bytes | bytearray) -> bool:
    """May half a surrogate pair stand in a text of this JSON?"""
    return any(sign in data for sign in _HALVES)


def refuse_halves(value: Any) -> None:
    """ApiError: half a surrogate pair stands in it."""
    if half := half_character(value):
        raise ApiError(400, "bad-request", f"the body says {shown(half)}: half of a surrogate pair"
                       " is no character", "write texts in whole characters")


async def named_body(request: Request, path: Mapping[str, str]) -> dict[str, Any]:
    """The body of a PUT: what the path says may be left out, but may not be said otherwise."""
    body = await read_body(request)
    problems = [
        Problem(key, f"is {body[key]!r}, in the path it is {value!r}", "write it the same way")
        for key, value in path.items() if body.get(key, value) != value]
    if problems:
        raise ConfigError(problems)
    return {**body, **path}


def parse_change(body: Mapping[str, Any]) -> Change:
    """The body of many changes; raises one ConfigError with all problems."""
    lists = {key: body.get(key, []) for key in CHANGES}
    problems = [Problem(key, "there is no such key",
                        nearest(key, CHANGES) or f"the keys are: {', '.join(CHANGES)}")
                for key in body if key not in CHANGES]
    problems += [Problem(key, f"is {kind_of_value(value)}", "write a list")
                 for key, value in lists.items() if not isinstance(value, list)]
    problems += [Problem(f"{key}[{number}]", f"is {kind_of_value(name)}", "write a name")
                 for key, value in lists.items() if key.startswith("remove_")
                 and isinstance(value, list)
                 for number, name in enumerate(value, 1) if not isinstance(name, str)]
    if problems:
        raise ConfigError(problems)
    found: dict[str, Any] = {}
    for kind, plural in PLURALS.items():
        found[f"add_{FIELDS[kind]}"] = _parse_all(kind, f"add_{plural}", lists[f"add_{plural}"],
                                                   problems)
        found[f"remove_{FIELDS[kind]}"] = lists[f"remove_{plural}"]
    if problems:
        raise ConfigError(problems)
    return Change(**found)


def _parse_all(kind: Kind, key: str, tables: list[object], problems: list[Problem]) -> list[Any]:
    """Every table as a model; with what is wrong with them, also names given twice."""
    made: list[Any] = []
    for number, table in enumerate(tables, 1):
        try:
            made.append(PARSERS[kind](table, f"{key}[{number}]"))
        except ConfigError as error:
            problems += error.problems
    times = Counter(part.name for part in made)
    problems += [Problem(f'{key} "{name}"', "is given more than once", "give it once")
                 for name, n in times.items() if n > 1]
    return made


def request_bodies() -> dict[str, dict[str, Any]]:
    """The schemas of the bodies, for the OpenAPI description, by the name of the handler."""
    schemas: dict[str, Any] = {kind: _schema(model) for kind, model in _MODELS.items()}
    schemas["port"] = {"oneOf": [_schema(model) for model in KINDS.values()]}
    names = {"type": "array", "items": {"type": "string"}}
    changes = {
        "type": "object", "additionalProperties": False,
        "properties": {
            **{f"add_{plural}": {"type": "array", "items": schemas[kind]}
               for kind, plural in PLURALS.items()},
            **{f"remove_{plural}": names for plural in PLURALS.values()}},
    }
    bodies = {
        **{f"put_{kind}": schema for kind, schema in schemas.items()}, "changes": changes,
        **_FUNCTION_BODIES,
        "put_cluster_network": _auto_or(schemas["network"], "vni"),
        "put_cluster_port": {"oneOf": [
            _auto_or(schema, "ips") for schema in schemas["port"]["oneOf"]]}}
    return {
        name: {"requestBody": {"required": True, "content": {"application/json": {
            "schema": schema}}}}
        for name, schema in bodies.items()
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """A schema without references, which would point into another document; what the path says is
    optional."""
    schema = model.model_json_schema()
    in_path = ("network", "mac") if model is EntryConfig else ("name",)
    schema["required"] = [key for key in schema["required"] if key not in in_path]
    schema["properties"] = _filled_in(schema["properties"], schema.pop("$defs", {}))
    return schema


def _auto_or(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """The schema of a table of which one value may also be "auto"."""
    properties = schema["properties"]
    return {**schema, "properties": {
        **properties, key: {"anyOf": [{"const": "auto"}, properties[key]]}}}


def _filled_in(part: Any, parts: Mapping[str, Any]) -> Any:
    """A part of a schema with what it refers to in place of the references."""
    if isinstance(part, list):
        return [_filled_in(one, parts) for one in part]
    if not isinstance(part, dict):
        return part
    if reference := part.get("$ref", ""):
        return _filled_in(parts[reference.rsplit("/", 1)[-1]], parts)
    return {key: _filled_in(value, parts) for key, value in part.items()}
