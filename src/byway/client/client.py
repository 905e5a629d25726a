# SPDX-License-Identifier: Apache-2.0
"""One class over the REST API of a switch: a method a call, plain dictionaries in and out.

Used through byway.client. Uses httpx, imported with the first call.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import httpx

Row = dict[str, Any]

# A connection that nothing was asked on for so long is not used again. The switch ends it after 5
# seconds: it may not do that while something new is on its way.
_IDLE_SECONDS = 1.0
_BUILD_SECONDS = 240.0  # code of network functions is there by then, or refused

class ClientError(Exception):
    """A call that failed: `problem` says why, `fix` what to do, `status` is HTTP's (0: no answer).

    `problems` lists every problem where a change had several.
    """

    def __init__(
        self, problem: str, fix: str, status: int = 0, problems: Iterable[str] = ()
    ) -> None:
        self.problem = problem
        self.fix = fix
        self.status = status
        self.problems = tuple(problems) or (f"{problem}; {fix}",)
        super().__init__("\n".join(self.problems))


class NotReachable(ClientError):
    """No switch answers at the socket."""


class SeveralSwitches(ClientError):
    """More than one switch is running and none was named."""


class Client:
    """Calls to the switch whose API socket is `path`; close it, or use it in a `with`.

    Every method raises ClientError where the switch refuses the call, and NotReachable where
    there is no switch. `timeout` in seconds. Nothing here pauses a worker.
    """

    def __init__(self, path: str, timeout: float = 30.0) -> None:
        self.path = path
        self._timeout = timeout
        self._http: httpx.Client | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def switch(self) -> Row:
        """The switch: name, version, pid, uptime (seconds), workers, number of ports."""
        return self._object("GET", "/v1/switch")

    def ports(self) -> list[Row]:
        """All ports with state and counters."""
        return self._rows("/v1/ports")

    def port(self, name: str) -> Row:
        """One port."""
        return self._object("GET", f"/v1/ports/{_escaped(name)}")

    def add_port(self, port: Mapping[str, Any]) -> Row:
        """Add a port, or replace the one of that name; keys as in the configuration file."""
        return self._object("PUT", f"/v1/ports/{_escaped(port['name'])}", port)

    def remove_port(self, name: str) -> None:
        """Remove a port."""
        self._call("DELETE", f"/v1/ports/{_escaped(name)}")

    def networks(self) -> list[Row]:
        """All networks with the names of their ports."""
        return self._rows("/v1/networks")

    def network(self, name: str) -> Row:
        """One network."""
        return self._object("GET", f"/v1/networks/{_escaped(name)}")

    def add_network(self, network: Mapping[str, Any]) -> Row:
        """Add a network, or replace the one of that name (its ports are opened again)."""
        return self._object("PUT", f"/v1/networks/{_escaped(network['name'])}", network)

    def remove_network(self, name: str) -> None:
        """Remove a network that has no ports."""
        self._call("DELETE", f"/v1/networks/{_escaped(name)}")

    def underlay(self) -> Row:
        """What carries the tunnels: its state, its counters, what it dropped."""
        return self._object("GET", "/v1/underlay")

    def hosts(self) -> list[Row]:
        """The other hosts with the counters of their tunnels."""
        return self._rows("/v1/hosts")

    def add_host(self, host: Mapping[str, Any]) -> Row:
        """Add another host, or change it; keys as in the configuration file."""
        return self._object("PUT", f"/v1/hosts/{_escaped(host['name'])}", host)

    def remove_host(self, name: str) -> None:
        """Remove a host that no entry speaks of."""
        self._call("DELETE", f"/v1/hosts/{_escaped(name)}")

    def entries(self) -> list[Row]:
        """The static entries: what was said to be behind other hosts."""
        return self._rows("/v1/entries")

    def add_entry(self, entry: Mapping[str, Any]) -> Row:
        """Say what is behind another host; keys as in the configuration file."""
        return self._object("PUT", _entry_path(entry["network"], entry["mac"]), entry)

    def remove_entry(self, network: str, mac: str) -> None:
        """Say it no longer."""
        self._call("DELETE", _entry_path(network, mac))

    def security_groups(self) -> list[Row]:
        """The security groups with their rules and the names of their ports."""
        return self._rows("/v1/security-groups")

    def security_group(self, name: str) -> Row:
        """One security group."""
        return self._object("GET", f"/v1/security-groups/{_escaped(name)}")

    def add_security_group(self, group: Mapping[str, Any]) -> Row:
        """Add a security group, or give it other rules; its ports go on."""
        return self._object("PUT", f"/v1/security-groups/{_escaped(group['name'])}", group)

    def remove_security_group(self, name: str) -> None:
        """Remove a security group that nothing speaks of."""
        self._call("DELETE", f"/v1/security-groups/{_escaped(name)}")

    def functions(self) -> list[Row]:
        """The instances of network functions, with parameters and counters."""
        return self._rows("/v1/functions")

    def function(self, name: str) -> Row:
        """One instance, with what its code declares and what is in its state."""
        return self._object("GET", _function_path(name))

    def add_function(self, function: Mapping[str, Any]) -> Row:
        """Add a network function with a name, or change it; keys as in the configuration file."""
        return self._object("PUT", _function_path(function["name"]), function)

    def set_function(self, name: str, parameters: Mapping[str, Any]) -> Row:
        """Change parameters of an instance, from the next frame on."""
        return self._object("PATCH", _function_path(name), {"parameters": dict(parameters)})

    def remove_function(self, name: str) -> None:
        """Remove an instance from all chains, and what has that name."""
        self._call("DELETE", _function_path(name))

    def reload_functions(self, names: Iterable[str] = ()) -> list[str]:
        """Read the files of these instances again, or of all; -> what is another one now."""
        answer = self._object("POST", "/v1/functions/reload", {"names": [*names]})
        changed: list[str] = answer["changed"]
        return changed

    def chain(self, kind: str, name: str) -> Row:
        """The functions in the ``chain`` (and ``chain_tx``) of a "port" or "network"."""
        return self._object("GET", f"/v1/{kind}s/{_escaped(name)}/chain")

    def trace(self, port: str, frame: bytes, direction: str = "rx") -> Row:
        """What each function of a port says of a frame; nothing in the switch sees it."""
        return self._object("POST", "/v1/functions/trace", {
            "port": port, "frame": frame.hex(), "direction": direction})

    def watch(self, port: str, direction: str = "rx", frames: int = 5,
              seconds: float = 10.0) -> list[Row]:
        """What each function of a port makes of its next frames, at most so many or so long."""
        path = f"/v1/ports/{_escaped(port)}/chain/frames"
        query = f"?direction={direction}&frames={frames}&seconds={seconds}"
        rows: list[Row] = self._call("GET", path + query, timeout=seconds + self._timeout).json()
        return rows

    def set_chain(self, kind: str, name: str, **chains: Iterable[str]) -> Row:
        """Give a "port" or "network" another ``chain`` (a port: or ``chain_tx``); it goes on."""
        return self._object("PUT", f"/v1/{kind}s/{_escaped(name)}/chain",
                            {key: [*chain] for key, chain in chains.items()})

    def add_step(self, kind: str, name: str, function: str, /, **how: Any) -> Row:
        """Put a function into the chain of a "port" or "network"; ``first``: before the others,
        ``tx``: for frames that go out of the port; ``name``: it gets a name of its own, and these
        ``parameters``."""
        return self._object("POST", f"/v1/{kind}s/{_escaped(name)}/chain",
                            {"function": function, **how})

    def function_table(self, name: str, table: str, limit: int = 10_000) -> list[Row]:
        """Entries of a table of an instance, each with ``key`` and ``value``."""
        return self._rows(f"{_function_path(name)}/tables/{_escaped(table)}?limit={limit}")

    def put_function_table(self, name: str, table: str, rows: Any, *, whole: bool = False) -> None:
        """Put entries into a table ({key: value}, or a list); ``whole``: and have no others."""
        self._call("PUT" if whole else "PATCH",
                   f"{_function_path(name)}/tables/{_escaped(table)}", {"rows": rows})

    def remove_function_entry(self, name: str, table: str, key: str | None = None) -> None:
        """Remove an entry of a table, or all."""
        query = "" if key is None else f"?key={_escaped(key)}"
        self._call("DELETE", f"{_function_path(name)}/tables/{_escaped(table)}{query}")

    def function_events(self, name: str, event: str | None = None) -> Iterator[Row]:
        """What an instance emits from now on, until it is gone."""
        query = "" if event is None else f"?event={_escaped(event)}"
        with self._connection().stream("GET", f"{_function_path(name)}/events{query}",
                                       timeout=None) as answer:
            if answer.is_error:
                answer.read()
                raise _refusal(answer)
            for line in answer.iter_lines():
                if line:
                    yield json.loads(line)

    def routers(self) -> list[Row]:
        """The routers."""
        return self._rows("/v1/routers")

    def add_router(self, router: Mapping[str, Any]) -> Row:
        """Add a router, or change it; keys as in the configuration file."""
        return self._object("PUT", f"/v1/routers/{_escaped(router['name'])}", router)

    def remove_router(self, name: str) -> None:
        """Remove a router."""
        self._call("DELETE", f"/v1/routers/{_escaped(name)}")

    def services(self) -> list[Row]:
        """The services with the states of their appliances."""
        return self._rows("/v1/services")

    def service(self, name: str) -> Row:
        """One service."""
        return self._object("GET", f"/v1/services/{_escaped(name)}")

    def add_service(self, service: Mapping[str, Any]) -> Row:
        """Add a service, or change it; keys as in the configuration file."""
        return self._object("PUT", f"/v1/services/{_escaped(service['name'])}", service)

    def remove_service(self, name: str) -> None:
        """Remove a service that no port has."""
        self._call("DELETE", f"/v1/services/{_escaped(name)}")

    def change(self, **lists: Iterable[Any]) -> dict[str, list[str]]:
        """Many changes as one, all or nothing; -> the names that changed.

        ``add_networks``, ``add_ports``, ``add_hosts``, ``add_entries``, ``add_security_groups``,
        ``add_routers``, ``add_services``: tables as in the configuration file; ``remove_...`` of
        the same: names (of an entry, "network/mac"). Removals come first."""
        return self._object("POST", "/v1/changes", {
            key: [one if isinstance(one, str) else dict(one) for one in some]
            for key, some in lists.items()})

    def population(self, network: str | None = None) -> list[Row]:
        """Who is known to be where, in one network, or in all."""
        query = f"?network={_escaped(network)}" if network else ""
        return self._rows(f"/v1/population{query}")

    def connections(self, port: str | None = None, limit: int = 10_000) -> list[Row]:
        """The connections that security groups keep track of, of one port or of all."""
        query = f"&port={_escaped(port)}" if port else ""
        return self._rows(f"/v1/connections?limit={limit}{query}")

    def cluster(self) -> Row:
        """How the cluster is."""
        return self._object("GET", "/v1/cluster")

    def add_cluster_network(self, network: Mapping[str, Any]) -> Row:
        """Add a network to all hosts; its vni may be "auto". -> it, as the cluster keeps it."""
        return self._object("PUT", f"/v1/cluster/networks/{_escaped(network['name'])}", network)

    def remove_cluster_network(self, name: str) -> None:
        """Remove a network from all hosts."""
        self._call("DELETE", f"/v1/cluster/networks/{_escaped(name)}")

    def add_cluster_port(self, host: str, port: Mapping[str, Any]) -> Row:
        """Add a port to a host; its ips may be "auto". -> it, as the cluster keeps it."""
        return self._object("PUT", _cluster_port(host, port["name"]), port)

    def remove_cluster_port(self, host: str, name: str) -> None:
        """Remove a port from a host."""
        self._call("DELETE", _cluster_port(host, name))

    def fdb(self, network: str | None = None) -> list[Row]:
        """The learned addresses of one network, or of all; ages in seconds."""
        return self._rows(f"/v1/fdb?network={_escaped(network)}" if network else "/v1/fdb")

    def workers(self) -> list[Row]:
        """The workers with their counters."""
        return self._rows("/v1/workers")

    def metrics(self) -> str:
        """All counters as Prometheus text."""
        return self._call("GET", "/metrics").text

    def _connection(self) -> "httpx.Client":
        import httpx

        if self._http is None:
            # No proxy of the environment has a say over a Unix socket.
            kept = httpx.Limits(keepalive_expiry=_IDLE_SECONDS)
            self._http = httpx.Client(
                transport=httpx.HTTPTransport(uds=self.path, limits=kept), base_url="http://byway",
                timeout=self._timeout, trust_env=False,
            )
        return self._http

    def _rows(self, path: str) -> list[Row]:
        rows: list[Row] = self._call("GET", path).json()
        return rows

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Row:
        found: Row = self._call(method, path, body).json()
        return found

    def _patience(self, method: str, path: str, body: Mapping[str, Any] | None) -> float:
        """Seconds that an answer may take: a change of network functions waits for their code."""
        builds = "/v1/functions" in path or path.endswith("/chain") or any(
            key in (body or {}) for key in ("chain", "chain_tx", "functions"))
        return max(self._timeout, _BUILD_SECONDS) if builds and method != "GET" else self._timeout

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> "httpx.Response":
        import httpx

        try:
            answer = self._connection().request(
                method, path, json=None if body is None else dict(body),
                timeout=timeout or self._patience(method, path, body))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotReachable(
                f"no switch answers at {self.path} ({error})",
                "start one with: byway run FILE",
            ) from None
        except httpx.HTTPError as error:
            raise ClientError(
                f"the switch at {self.path} did not answer: {error or type(error).__name__}",
                "see whether it is still running",
            ) from None
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _refusal(answer: "httpx.Response") -> ClientError:
    try:
        body = answer.json()
        return ClientError(
            body["problem"], body["fix"], answer.status_code, body.get("problems", ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ClientError(f"an answer that is none of Byway's: HTTP {answer.status_code}",
                           "check the path of the socket", answer.status_code)


def _escaped(name: str) -> str:
    return quote(str(name), safe="")


def _function_path(name: str) -> str:
    return f"/v1/functions/{_escaped(name)}"


def _entry_path(network: str, mac: str) -> str:
    return f"/v1/entries/{_escaped(network)}/{_escaped(mac)}"


def _cluster_port(host: str, name: str) -> str:
    return f"/v1/cluster/hosts/{_escaped(host)}/ports/{_escaped(name)}"
