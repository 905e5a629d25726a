# SPDX-License-Identifier: Apache-2.0
"""What each call of the API does.

Used by app. Uses wanted (every change goes through it), bodies, metrics.

Every handler is `async` and awaits nothing but its body, and the code of network functions that a
change needs: what it does to the engine it does on the control thread, in one piece, so that the
engine needs no lock. No call pauses a worker; they take a change up
between two passes. PUT and DELETE are idempotent: the same PUT again changes nothing and says 200.
Whoever may open the socket (mode 0600) may do everything: there is no other access control.
"""

import os
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from byway import __version__
from byway.control.actions import Action
from byway.control.api.bodies import FIELDS, PLURALS, named_body, parse_change, read_body
from byway.control.api.refusals import ApiError
from byway.control.diff import Change
from byway.control.metrics import metrics_text
from byway.control.model import entry_name
from byway.control.outcome import outcome
from byway.control.parts import WORDS, Key, Kind
from byway.control.problem import nearest
from byway.control.tables import PARSERS
from byway.control.thishost import api_socket
from byway.control.wanted import Wanted

_WORDS = {kind: plural.replace("_", " ") for kind, plural in PLURALS.items()}
_OnlyNetwork = Annotated[str | None, Query(description="only this network")]
_OnlyPort = Annotated[str | None, Query(description="only this port")]
_Limit = Annotated[int, Query(ge=1, le=100_000, description="at most so many")]


class Api:
    """The handlers, one method a route; `make_app` joins them to their paths."""

    def __init__(self, wanted: Wanted, in_cluster: bool) -> None:
        self._wanted = wanted
        self._in_cluster = in_cluster
        self._began = time.monotonic()

    async def switch(self) -> Response:
        """The switch itself."""
        has = self._wanted.has
        return JSONResponse({
            "name": has.switch.name,
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._began, 3),
            "workers": has.switch.workers,
            "api": api_socket(has.switch),
            "networks": len(has.networks),
            "ports": len(has.ports),
            "underlay": has.underlay and has.underlay.model_dump(mode="json"),
            "cluster": self._in_cluster,
        })

    # ------------------------------------------------------------ ports
    async def ports(self) -> Response:
        """All ports with state and counters."""
        return JSONResponse(self._wanted.engine.ports())

    async def port(self, name: str) -> Response:
        """One port."""
        return JSONResponse(self._one("port", name))

    async def put_port(self, name: str, request: Request) -> Response:
        """Add a port, or change it; where needed it is closed and opened anew.

        Pauses no worker."""
        return await self._put("port", name, await named_body(request, {"name": name}))

    async def delete_port(self, name: str) -> Response:
        """Remove a port and close its socket. Pauses no worker."""
        return await self._delete("port", name)

    # ------------------------------------------------------------ networks
    async def networks(self) -> Response:
        """All networks with the names of their ports."""
        return JSONResponse(self._wanted.engine.networks())

    async def network(self, name: str) -> Response:
        """One network."""
        return JSONResponse(self._one("network", name))

    async def put_network(self, name: str, request: Request) -> Response:
        """Add a network, or change it; with another vni, mtu or fdb_limit its ports open anew.

        Pauses no worker."""
        return await self._put("network", name, await named_body(request, {"name": name}))

    async def delete_network(self, name: str) -> Response:
        """Remove a network that nothing speaks of any more. Pauses no worker."""
        return await self._delete("network", name)

    # ------------------------------------------------------------ hosts
    async def hosts(self) -> Response:
        """All other hosts with the counters of their tunnels."""
        return JSONResponse(self._wanted.engine.hosts())

    async def host(self, name: str) -> Response:
        """One other host, of the configuration or the cluster."""
        return JSONResponse(_named(self._wanted.engine.hosts(), name))

    async def put_host(self, name: str, request: Request) -> Response:
        """Add another host, or change it. Pauses no worker."""
        return await self._put("host", name, await named_body(request, {"name": name}))

    async def delete_host(self, name: str) -> Response:
        """Remove a host that no entry speaks of any more. Pauses no worker."""
        return await self._delete("host", name)

    async def underlay(self) -> Response:
        """What carries the tunnels: its state, its counters, what it dropped."""
        found = self._wanted.engine.underlay()
        if found is None:
            raise ApiError(404, "not-found", "the switch has no underlay",
                           "add [underlay] to its configuration")
        return JSONResponse(found)

    # ------------------------------------------------------------ entries
    async def entries(self) -> Response:
        """All static entries, those of the configuration and of this API."""
        return JSONResponse(self._all("entry"))

    async def entry(self, network: str, mac: str) -> Response:
        """One static entry."""
        return JSONResponse(self._one("entry", entry_name(network, mac.lower())))

    async def put_entry(self, network: str, mac: str, request: Request) -> Response:
        """Say what is behind another host, or say it otherwise. Pauses no worker."""
        body = await named_body(request, {"network": network, "mac": mac})
        return await self._put("entry", entry_name(network, mac.lower()), body)

    async def delete_entry(self, network: str, mac: str) -> Response:
        """Say it no longer. Pauses no worker."""
        return await self._delete("entry", entry_name(network, mac.lower()))

    # ------------------------------------------------------------ security groups
    async def groups(self) -> Response:
        """All security groups with their rules and the names of their ports."""
        return JSONResponse(self._all("group"))

    async def group(self, name: str) -> Response:
        """One security group."""
        return JSONResponse(self._one("group", name))

    async def put_group(self, name: str, request: Request) -> Response:
        """Add a security group, or give it other rules; its ports go on. Pauses no worker."""
        return await self._put("group", name, await named_body(request, {"name": name}))

    async def delete_group(self, name: str) -> Response:
        """Remove a security group that no port and no rule speaks of. Pauses no worker."""
        return await self._delete("group", name)

    # ------------------------------------------------------------ routers
    async def routers(self) -> Response:
        """All routers."""
        return JSONResponse(self._all("router"))

    async def router(self, name: str) -> Response:
        """One router."""
        return JSONResponse(self._one("router", name))

    async def put_router(self, name: str, request: Request) -> Response:
        """Add a router, or change it. Pauses no worker."""
        return await self._put("router", name, await named_body(request, {"name": name}))

    async def delete_router(self, name: str) -> Response:
        """Remove a router. Pauses no worker."""
        return await self._delete("router", name)

    # ------------------------------------------------------------ services
    async def services(self) -> Response:
        """All services with the states of their appliances."""
        return JSONResponse(self._wanted.engine.services())

    async def service(self, name: str) -> Response:
        """One service."""
        return JSONResponse(self._one("service", name))

    async def put_service(self, name: str, request: Request) -> Response:
        """Add a service, or change it; the ports that have it go on. Pauses no worker."""
        return await self._put("service", name, await named_body(request, {"name": name}))

    async def delete_service(self, name: str) -> Response:
        """Remove a service that no port has. Pauses no worker."""
        return await self._delete("service", name)

    # ------------------------------------------------------------ network functions
    async def put_function(self, name: str, request: Request) -> Response:
        """Add a network function with a name, or change it; chains that it is in go on.

        Pauses no worker."""
        return await self._put("function", name, await named_body(request, {"name": name}))

    # ------------------------------------------------------------ more
    async def changes(self, request: Request) -> Response:
        """Add and remove many things as one change. Pauses no worker.

        All or nothing. First what is to be removed goes, then the others come.
        """
        change = parse_change(await read_body(request))
        for key, part in change.after().items():
            if part is None:
                _require(key.kind, key.name, self._wanted.has.parts.all(key.kind))
        return JSONResponse(_summary(await self._alter(change)))

    async def fdb(self, network: _OnlyNetwork = None) -> Response:
        """The learned addresses, of all networks or of one."""
        self._require_network(network)
        return JSONResponse(self._wanted.engine.fdb(network))

    async def population(self, network: _OnlyNetwork = None) -> Response:
        """Who is known to be where: local guests and those behind other hosts."""
        self._require_network(network)
        return JSONResponse(self._wanted.engine.population(network))

    async def connections(self, port: _OnlyPort = None, limit: _Limit = 10_000) -> Response:
        """The connections that security groups keep track of."""
        if port is not None:
            _require("port", port, self._wanted.has.ports)
        return JSONResponse(self._wanted.engine.connections(port, limit))

    async def workers(self) -> Response:
        """The workers with their counters."""
        return JSONResponse(self._wanted.engine.workers())

    async def metrics(self) -> Response:
        """All counters as Prometheus text."""
        return Response(metrics_text(self._wanted.engine), media_type=CONTENT_TYPE_LATEST)

    # ------------------------------------------------------------ in common
    def _all(self, kind: Kind) -> list[dict[str, Any]]:
        return [self._described(kind, name) for name in self._wanted.has.parts.all(kind)]

    def _one(self, kind: Kind, name: str) -> dict[str, Any]:
        _require(kind, name, self._wanted.has.parts.all(kind))
        return self._described(kind, name)

    def _described(self, kind: Kind, name: str) -> dict[str, Any]:
        """One that is there: with what the engine knows of it, or as it is wanted."""
        match kind:
            case "port":
                return self._wanted.engine.port(name)
            case "network":
                return self._wanted.engine.network(name)
            case "host":
                return _named(self._wanted.engine.hosts(), name)
            case "function":
                return self._wanted.engine.functions.show(name)
            case "service":
                return _named(self._wanted.engine.services(), name)
        parts = self._wanted.has.parts
        found: dict[str, Any] = parts.all(kind)[name].model_dump(mode="json")
        if kind == "group":
            found["ports"] = [user.name for user in parts.users(Key("group", name))
                              if user.kind == "port"]
        return found

    async def _put(self, kind: Kind, name: str, body: dict[str, Any]) -> Response:
        key = Key(kind, name)
        part = PARSERS[kind](body, str(key))
        existed = self._wanted.has.parts.get(key) is not None
        adding: dict[str, Any] = {f"add_{FIELDS[kind]}": [part]}
        await self._wanted.alter_built(Change(**adding))
        return JSONResponse(self._described(kind, name), 200 if existed else 201)

    async def _delete(self, kind: Kind, name: str) -> Response:
        _require(kind, name, self._wanted.has.parts.all(kind))
        removing: dict[str, Any] = {f"remove_{FIELDS[kind]}": [name]}
        await self._alter(Change(**removing))
        return Response(status_code=204)

    def _require_network(self, name: str | None) -> None:
        if name is not None:
            _require("network", name, self._wanted.has.networks)

    async def _alter(self, change: Change) -> list[Action]:
        """Refuses to take something from under what needs it."""
        for gone, users in self._wanted.has.orphans(change).items():
            of = [user.name for user in users if user.kind == users[0].kind]
            names = ", ".join(of[:5]) + (" ..." if len(of) > 5 else "")
            words = _WORDS[users[0].kind]
            raise ApiError(409, "refused", f"{gone} has {words}: {names}",
                           f"remove the {words} first" if gone.kind == "network" else
                           f"change or remove the {words} first")
        return await self._wanted.alter_built(change)


def _named(rows: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    found = {row["name"]: row for row in rows}
    _require("host", name, found)
    return found[name]


def _require(kind: Kind, name: str, known: Mapping[str, object]) -> None:
    if name in known:
        return
    listed = ", ".join(islice(known, 8)) + (" ..." if len(known) > 8 else "")
    fix = nearest(name, known) or f"the {_WORDS[kind]} are: {listed or 'none'}"
    raise ApiError(404, "not-found", f'there is no {WORDS[kind]} "{name}"', fix)


def _summary(actions: list[Action]) -> dict[str, list[str]]:
    """What was done to what; "changed" things went on while they changed."""
    found: dict[str, list[str]] = {
        "added_networks": [], "removed_networks": [], "added_ports": [], "removed_ports": []}
    for action in actions:
        verb = {"Add": "added", "Rem": "removed", "Cha": "changed"}.get(type(action).__name__[:3])
        for key in outcome([action]) if verb else ():
            found.setdefault(f"{verb}_{PLURALS[key.kind]}", []).append(key.name)
    return found
