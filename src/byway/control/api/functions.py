# SPDX-License-Identifier: Apache-2.0
"""What each call of the API about network functions does: instances, chains, tables, events.

Used by app. Uses wanted (every change goes through it), bodies. A change that needs new code waits
until another process has built it; other calls go on meanwhile. No call pauses a worker.
"""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from byway.control.api.asked import while_asked
from byway.control.api.bodies import read_body
from byway.control.api.rows import read_rows
from byway.control.diff import Change
from byway.control.function_edits import alike, put, with_given, without
from byway.control.function_steps import of_network, of_port
from byway.control.model import FunctionConfig, NetworkConfig
from byway.control.parts import WORDS, Key, Kind
from byway.control.problem import (
    ConfigError,
    EngineError,
    NotThere,
    Problem,
    kind_of_value,
    nearest,
    shown,
)
from byway.control.tables import parse_function
from byway.control.wanted import Wanted

_Limit = Annotated[int, Query(ge=1, le=1_000_000, description="at most so many")]
_Event = Annotated[str | None, Query(description="only this event")]
_Direction = Literal["rx", "tx"]
_Frames = Annotated[int, Query(ge=1, le=1000, description="at most so many")]
_Seconds = Annotated[float, Query(gt=0, le=3600, description="at most so long")]
_EntryKey = Annotated[str | None, Query(alias="key", description="only this entry")]

_SHAPES = {"parameters": 'write {"parameters": {"limit": 50}}',
           "names": 'write {"names": ["vm1/RateGuard"]}',
           "rows": 'write {"rows": {"KEY": VALUE, ...}}, or a list whose places are the keys'}
_STEP: dict[type, str] = {str: "write a text", bool: "write true or false",
                          dict: "write a table of names and values"}


class FunctionsApi:
    """The handlers, one method a route; `make_app` joins them to their paths."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._functions = wanted.engine.functions

    async def functions(self) -> Response:
        """All instances of network functions, with parameters and counters."""
        return JSONResponse(self._functions.shown())

    async def function(self, name: str) -> Response:
        """One instance, with what its code declares and what is in its state."""
        return JSONResponse(self._functions.show(name))

    async def patch_function(self, name: str, request: Request) -> Response:
        """Change parameters of an instance, from the next frame on. Pauses no worker."""
        given = _section(await read_body(request), "parameters", dict)
        self._functions.show(name)
        await self._wanted.alter_built(self._about(
            name, lambda: with_given(self._wanted.has.parts, name, given)))
        return JSONResponse(self._functions.show(name))

    async def delete_function(self, name: str) -> Response:
        """Remove an instance from all chains; one with a name of its own as well.

        Pauses no worker."""
        self._functions.show(name)
        await self._wanted.alter_built(self._about(
            name, lambda: without(self._wanted.has.parts, name)), removing=[name])
        return Response(status_code=204)

    def _about(self, name: str, change: Callable[[], Change]) -> Callable[[], Change]:
        """A change of the instance that has this name now. EngineError: by the time that it is
        carried out, the name may be another one's."""
        before = alike(self._wanted.has.parts, name)

        def made() -> Change:
            found = change()
            if alike(self._wanted.has.parts, name) != before:
                raise EngineError(f'the chain that "{name}" stands in was changed meanwhile',
                                  "see `byway nf list`, and try again")
            return found

        return made

    async def reload_functions(self, request: Request) -> Response:
        """Read the files of functions again (of these names, or all), and swap what is another now.

        Pauses no worker."""
        names = _section({"names": [], **await read_body(request)}, "names", list)
        if not all(isinstance(name, str) for name in names):
            raise ConfigError([Problem("names", f"is {shown(names)}", _SHAPES["names"])])
        return JSONResponse({"changed": await self._functions.reload(names)})

    async def trace_functions(self, request: Request) -> Response:
        """What each function of a port says of a frame, as hexadecimal digits.

        Nothing in the switch sees it. Pauses no worker."""
        body = await read_body(request)
        port, direction = body.pop("port", None), body.pop("direction", "rx")
        try:
            frame = bytes.fromhex(body.pop("frame", ""))
        except (ValueError, TypeError):
            frame = b""
        if body or not isinstance(port, str) or direction not in ("rx", "tx") or not frame:
            raise ConfigError([Problem("the body", "names no port, or no frame",
                                       'write {"port": "vm1", "frame": "ffff...", '
                                       '"direction": "rx" or "tx"}')])
        config = self._part("port", port)
        network = self._part("network", config.network)
        return JSONResponse(await self._functions.trace(port, frame, direction, {
            "port": self._wanted.engine.port(port)["index"], "network": 1,
            "vni": network.vni or 0}))

    async def watch_functions(self, name: str, request: Request, direction: _Direction = "rx",
                              frames: _Frames = 5, seconds: _Seconds = 10.0) -> Response:
        """What each function of a port makes of its next frames, while they go on their way."""
        self._part("port", name)
        return JSONResponse(await while_asked(
            request, self._functions.watch(name, direction, frames, seconds)))

    # ------------------------------------------------------------ chains
    async def port_chain(self, name: str) -> Response:
        """The network functions in a port's chain and chain_tx, as written."""
        return JSONResponse(_chains(self._part("port", name)))

    async def put_port_chain(self, name: str, request: Request) -> Response:
        """Give a port another chain, or chain_tx; the port goes on. Pauses no worker."""
        return await self._put_chain("port", name, await read_body(request))

    async def post_port_chain(self, name: str, request: Request) -> Response:
        """Put a function into a port's chain, the last or the first. Pauses no worker."""
        return await self._add_step("port", name, await read_body(request))

    async def network_chain(self, name: str) -> Response:
        """The network functions in a network's chain, as written."""
        return JSONResponse(_chains(self._part("network", name)))

    async def put_network_chain(self, name: str, request: Request) -> Response:
        """Give a network another chain; its ports go on. Pauses no worker."""
        return await self._put_chain("network", name, await read_body(request))

    async def post_network_chain(self, name: str, request: Request) -> Response:
        """Put a function into a network's chain, the last or the first. Pauses no worker."""
        return await self._add_step("network", name, await read_body(request))

    async def _put_chain(self, kind: Kind, name: str, body: dict[str, Any]) -> Response:
        part = self._part(kind, name)
        known = tuple(_chains(part))
        if problems := [Problem(key, "there is no such key", f"the keys are: {', '.join(known)}")
                        for key in body if key not in known]:
            raise ConfigError(problems)
        await self._wanted.alter_built(lambda: put(self._part(kind, name), **body))
        return JSONResponse(_chains(self._part(kind, name)))

    async def _add_step(self, kind: Kind, name: str, body: dict[str, Any]) -> Response:
        self._part(kind, name)
        _check_step(body, kind)
        where, step = "chain_tx" if body.get("tx") else "chain", body["function"]
        named: tuple[FunctionConfig, ...] = ()
        if "name" in body:
            table = {"name": body["name"], "use": step, "parameters": body.get("parameters", {})}
            named, step = (parse_function(table, f'function "{body["name"]}"'),), body["name"]

        def made() -> Change:
            part = self._part(kind, name)
            chain = getattr(part, where)
            change = put(part, **{where: [step, *chain] if body.get("first") else [*chain, step]})
            return replace(change, add_functions=named)

        await self._wanted.alter_built(made)
        part = self._part(kind, name)
        return JSONResponse({"name": _name_of(part, where, bool(body.get("first"))),
                             **_chains(part)})

    def _part(self, kind: Kind, name: str) -> Any:
        part = self._wanted.has.parts.get(Key(kind, name))
        if part is None:
            there = self._wanted.has.parts.all(kind)
            raise NotThere(f'there is no {WORDS[kind]} "{name}"',
                           nearest(name, there) or f"see `byway {kind} list`")
        return part

    # ------------------------------------------------------------ tables
    async def function_table(self, name: str, table: str, limit: _Limit = 10_000) -> Response:
        """Entries of a table of an instance, each with key and value."""
        return StreamingResponse(_array(self._functions.rows(name, table, limit)),
                                 media_type="application/json")

    async def put_function_table(self, name: str, table: str, request: Request) -> Response:
        """Have a table hold these rows and no others. Pauses no worker."""
        return await self._put_rows(name, table, request, whole=True)

    async def patch_function_table(self, name: str, table: str, request: Request) -> Response:
        """Have a table hold these rows as well. Pauses no worker."""
        return await self._put_rows(name, table, request, whole=False)

    async def _put_rows(self, name: str, table: str, request: Request, *, whole: bool) -> Response:
        rows = _section(await read_rows(request), "rows", dict | list)
        await self._functions.put(name, table, rows, whole=whole)
        return Response(status_code=204)

    async def delete_function_table(self, name: str, table: str, key: _EntryKey = None) -> Response:
        """Remove one entry of a table, or all of them. Pauses no worker."""
        if not await self._functions.remove(name, table, key):
            raise NotThere(f"{name}: {table} has no entry {shown(key)}",
                           f"see `byway nf table {name} {table}`")
        return Response(status_code=204)

    # ------------------------------------------------------------ events
    async def function_events(self, name: str, event: _Event = None) -> Response:
        """What an instance emits from now on, a line of JSON each; ends with it."""
        found = self._functions.events(name, event)
        return StreamingResponse(_lines(found), media_type="application/jsonl")


def _check_step(body: dict[str, Any], kind: Kind) -> None:
    """ConfigError: the body says nothing that can be put into a chain."""
    kinds = {"function": str, "first": bool, "name": str, "parameters": dict,
             **({"tx": bool} if kind == "port" else {})}
    problems = [Problem(key, "there is no such key", f"the keys are: {', '.join(kinds)}")
                for key in body if key not in kinds]
    problems += [Problem(key, f"is {shown(body[key])}", _STEP[of])
                 for key, of in kinds.items() if key in body and not isinstance(body[key], of)]
    if "function" not in body:
        problems.append(Problem("function", "is missing", 'write {"function": "..."}'))
    if "parameters" in body and "name" not in body:
        problems.append(Problem("parameters", "go with a name", 'write them behind the function,'
                                ' as in "guard.py:RateGuard(limit=50)"'))
    if problems:
        raise ConfigError(problems)


def _chains(part: Any) -> dict[str, list[str]]:
    return {key: list(getattr(part, key)) for key in ("chain", "chain_tx") if hasattr(part, key)}


def _name_of(part: Any, where: str, first: bool) -> str:
    """What the first or last instance of a chain is called."""
    chain, chain_tx = ((of_network(part, str), []) if isinstance(part, NetworkConfig) else
                       of_port(part, str))
    return (chain_tx if where == "chain_tx" else chain)[0 if first else -1].name


async def _array(portions: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """Rows as one array of JSON, which nobody has as a whole."""
    before = b"["
    async for rows in portions:
        yield before + json.dumps(rows, separators=(",", ":"))[1:-1].encode()
        before = b","
    yield b"[]" if before == b"[" else b"]"


async def _lines(rows: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    yield b"\n"  # so that whoever asked knows that it listens
    async for row in rows:
        yield json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _section(body: dict[str, Any], key: str, kind: Any) -> Any:
    """The one key that a body has. ConfigError: it has not, or others."""
    problems = [Problem(other, "there is no such key", f"the key is: {key}")
                for other in body if other != key]
    if not problems and not isinstance(body.get(key), kind):
        problems = [Problem(key, f"is {kind_of_value(body.get(key))}" if key in body else
                            "is missing", _SHAPES[key])]
    if problems:
        raise ConfigError(problems)
    return body[key]
