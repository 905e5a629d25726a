# SPDX-License-Identifier: Apache-2.0
"""What the plugin knows, in one SQLite file: networks, endpoints, left-overs, and all addresses.

Used by the drivers and reconcile. Uses byway.ipam, whose file it shares, so that an endpoint and
its addresses come and go in one transaction.

Theory of operation
-------------------
Docker tells the plugin each thing once and never again, so every change is on the disk before it
is answered. What must go from the switch is written down in the same transaction as the end of
what needed it (*left-overs*), and crossed out when the switch has confirmed: a plugin, or a
switch, that is killed between the two forgets nothing.

The file belongs to one thread; every call here is carried out by that thread, one after the other,
and each is one transaction. `exclusive` keeps a second plugin out.
"""

import fcntl
import ipaddress
import json
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any, TypeVar

from byway.ipam import IpamError, Pools
from byway_docker.model import Endpoint, Network, Published, Refused, Subnet

T = TypeVar("T")

_TABLES = (
    """CREATE TABLE IF NOT EXISTS docker_networks (
        id TEXT NOT NULL PRIMARY KEY,
        port TEXT NOT NULL UNIQUE,   -- of its gateway: no two ids begin alike
        spec TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS docker_endpoints (
        id TEXT NOT NULL PRIMARY KEY,
        port TEXT NOT NULL UNIQUE,
        network TEXT NOT NULL REFERENCES docker_networks(id),
        mac TEXT NOT NULL,
        address TEXT NOT NULL,       -- without prefix length, as is address6; '': none
        address6 TEXT NOT NULL,
        published INTEGER NOT NULL,  -- how many ports
        spec TEXT NOT NULL,
        UNIQUE (network, mac)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS docker_addresses ON docker_endpoints(address)",
    "CREATE INDEX IF NOT EXISTS docker_addresses6 ON docker_endpoints(address6)",
    "CREATE INDEX IF NOT EXISTS docker_published ON docker_endpoints(published)",
    # What is to be removed from the switch: a port with the interface that it may leave behind,
    # or (interface NULL) a network.
    """CREATE TABLE IF NOT EXISTS docker_left_overs (
        name TEXT NOT NULL,
        interface TEXT,
        UNIQUE (name, interface)
    )""",
)


class State:
    """The open file `path`. Refused where it cannot be used, or another plugin uses it.

    `thread` carries all calls out, one after the other; by default one of its own."""

    def __init__(self, path: str, thread: Executor | None = None) -> None:
        self._lock = _exclusive(path)
        self._thread = thread or ThreadPoolExecutor(1, "byway-docker-state")
        try:
            self._pools = self._thread.submit(self._open, path).result()
        except IpamError as error:
            self.close()
            raise Refused(error.problem, error.fix) from None
        except BaseException:
            self.close()
            raise

    def _open(self, path: str) -> Pools:
        pools = Pools(path)
        with pools.transaction():
            for statement in _TABLES:
                pools.store.run(statement)
        return pools

    def change(self, work: Callable[[Pools], T]) -> T:
        """What `work` does to the pools and tables, as one transaction; IpamError as Refused."""
        def run() -> T:
            with self._pools.transaction():
                return work(self._pools)

        try:
            return self._thread.submit(run).result()
        except IpamError as error:
            raise Refused(error.problem, error.fix) from None

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_pools"):
            self._thread.submit(self._pools.close).result()
        self._thread.shutdown()
        os.close(self._lock)

    # ------------------------------------------------------------ networks
    def networks(self) -> list[Network]:
        """All networks."""
        rows = self._rows("SELECT spec FROM docker_networks ORDER BY id")
        return [_network(spec) for (spec,) in rows]

    def network(self, identity: str) -> Network | None:
        """One network, None where there is none."""
        rows = self._rows("SELECT spec FROM docker_networks WHERE id = ?", identity)
        return _network(rows[0][0]) if rows else None

    def add_network(self, network: Network) -> None:
        """Keep a network. Again is no error; another one of that id, or with its pools, is."""
        def work(pools: Pools) -> None:
            for (spec,) in pools.store.rows("SELECT spec FROM docker_networks"):
                other = _network(spec)
                if other == network:
                    return
                _refuse_beside(network, other)
            pools.store.run("INSERT INTO docker_networks VALUES (?, ?, ?)",
                            (network.id, network.gateway_port, json.dumps(asdict(network))))
            pools.store.run("DELETE FROM docker_left_overs WHERE name IN (?, ?)",
                            (network.name if network.own else "", network.gateway_port))

        self.change(work)

    def remove_network(self, identity: str) -> bool:
        """Forget a network and its endpoints; what is at the switch becomes a left-over.

        -> was there one? Its pools are Docker's to release."""
        def work(pools: Pools) -> bool:
            rows = pools.store.rows("SELECT spec FROM docker_networks WHERE id = ?", (identity,))
            if not rows:
                return False
            network = _network(rows[0][0])
            for endpoint in _endpoints(pools, "WHERE network = ?", identity):
                _forget(pools, endpoint)
            if network.gateway == "host":
                _leave(pools, network.gateway_port, network.gateway_interface)
            if network.own:
                _leave(pools, network.name, None)
            pools.store.run("DELETE FROM docker_networks WHERE id = ?", (identity,))
            return True

        return self.change(work)

    # ------------------------------------------------------------ endpoints
    def endpoints(self, network: str | None = None) -> list[Endpoint]:
        """The endpoints of a network, or all."""
        if network is None:
            return self.change(lambda pools: _endpoints(pools, ""))
        return self.change(lambda pools: _endpoints(pools, "WHERE network = ?", network))

    def endpoint(self, identity: str) -> Endpoint | None:
        """One endpoint, None where there is none."""
        found = self.change(lambda pools: _endpoints(pools, "WHERE id = ?", identity))
        return found[0] if found else None

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Keep an endpoint whose network is known, and its addresses with it."""
        def work(pools: Pools) -> None:
            rows = pools.store.rows(
                "SELECT spec FROM docker_networks WHERE id = ?", (endpoint.network,))
            if not rows:
                raise no_network(endpoint.network)
            _refuse_twins(pools, endpoint)
            _claim(pools, _network(rows[0][0]), endpoint)
            pools.store.run(
                "INSERT INTO docker_endpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (endpoint.id, endpoint.port, endpoint.network, endpoint.mac,
                 _bare(endpoint.address), _bare(endpoint.address6), len(endpoint.published),
                 _spec(endpoint)))
            pools.store.run("DELETE FROM docker_left_overs WHERE name = ?", (endpoint.port,))

        self.change(work)

    def set_endpoint(self, endpoint: Endpoint) -> None:
        """Keep what has changed about an endpoint; nothing where it has gone."""
        self.change(lambda pools: _set(pools, endpoint))

    def with_address(self, address: str) -> list[Endpoint]:
        """The endpoints, of whatever network, that have an address (without prefix length)."""
        return self.change(lambda pools: _endpoints(
            pools, "WHERE address = ? UNION SELECT spec FROM docker_endpoints WHERE address6 = ?",
            address, address))

    def publish(self, identity: str, ports: tuple[Published, ...]) -> Endpoint:
        """Keep an endpoint's published ports, refused where the host's port is another's;
        -> the endpoint."""
        def work(pools: Pools) -> Endpoint:
            found = _endpoints(pools, "WHERE id = ?", identity)
            if not found:
                raise no_endpoint(identity)
            for other in _endpoints(pools, "WHERE published > 0") if ports else ():
                if other.id != identity:
                    _refuse_taken(ports, other)
            changed = replace(found[0], published=ports)
            _set(pools, changed)
            return changed

        return self.change(work)

    def remove_endpoint(self, identity: str, release: bool = False) -> bool:
        """Forget an endpoint; its port becomes a left-over. -> was there one?

        `release`: its addresses as well, because nobody else will."""
        def work(pools: Pools) -> bool:
            found = _endpoints(pools, "WHERE id = ?", identity)
            for endpoint in found:
                if release:
                    _release(pools, endpoint)
                _forget(pools, endpoint)
            return bool(found)

        return self.change(work)

    # ------------------------------------------------------------ left-overs
    def left_overs(self) -> list[tuple[str, str | None]]:
        """What must go from the switch: (port, its interface), or (network, None), in order."""
        return [(name, interface) for name, interface in self._rows(
            "SELECT name, interface FROM docker_left_overs ORDER BY interface IS NULL, rowid")]

    def gone(self, name: str, interface: str | None) -> None:
        """A left-over is there no more."""
        self.change(lambda pools: pools.store.run(
            "DELETE FROM docker_left_overs WHERE name = ? AND interface IS ?", (name, interface)))

    def _rows(self, query: str, *values: str) -> list[Any]:
        return self.change(lambda pools: pools.store.rows(query, values))


def no_network(identity: str) -> Refused:
    """The answer to a request about a network that nobody created."""
    return Refused(f"there is no network {identity}",
                   "create it first; after a lost state file, remove it and create it anew")


def no_endpoint(identity: str) -> Refused:
    """The answer to a request about an endpoint that nobody created."""
    return Refused(f"there is no endpoint {identity}",
                   "create it first: restart or reconnect the container")


def _refuse_beside(new: Network, other: Network) -> None:
    """A network that cannot be beside another one."""
    if other.id == new.id:
        raise Refused(f"the network {new.id} is there already, and is another one",
                      "remove it first")
    if other.gateway_port == new.gateway_port:
        raise Refused(f"the ids {new.id} and {other.id} begin alike", "try again")
    for mine in new.subnets:
        for theirs in other.subnets:
            if mine.space == theirs.space and _overlap(mine.pool, theirs.pool):
                raise Refused(f"{mine.pool} overlaps with {theirs.pool} of the network"
                              f" {other.id[:12]}", "choose another subnet")


def _overlap(a: str, b: str) -> bool:
    one, two = ipaddress.ip_network(a), ipaddress.ip_network(b)
    return one.version == two.version and one.overlaps(two)


def _refuse_twins(pools: Pools, new: Endpoint) -> None:
    """Another endpoint of the network with the same address, of whatever kind."""
    query = "SELECT spec FROM docker_endpoints WHERE network = ? AND "
    for column, value, option in (("mac", new.mac, "--mac-address"),
                                  ("address", _bare(new.address), "--ip"),
                                  ("address6", _bare(new.address6), "--ip6")):
        rows = pools.store.rows(f"{query}{column} = ?", (new.network, value)) if value else []
        if rows:
            raise Refused(f"{value} is the address of another container of this network"
                          f" (endpoint {_endpoint(rows[0][0]).id[:12]})",
                          f"choose another {option}")


def _refuse_taken(ports: tuple[Published, ...], other: Endpoint) -> None:
    for mine in ports:
        for theirs in other.published:
            if mine.overlaps(theirs):
                raise Refused(f"port {mine.host_port}/{mine.protocol} of the host leads to another"
                              f" container (endpoint {other.id[:12]})", "publish another port")


def _claim(pools: Pools, network: Network, endpoint: Endpoint) -> None:
    """See that the endpoint's addresses are given to it, where they come from pools of ours."""
    for address, subnets in ((endpoint.address, network.ipv4), (endpoint.address6, network.ipv6)):
        known = {(subnet.space, subnet.pool) for subnet in subnets if address}
        for space, prefix in known:
            for pool in pools.pools(space):
                if pool.prefix == prefix:
                    _claim_one(pools, pool.id, _bare(address), endpoint.mac)


def _claim_one(pools: Pools, pool: str, address: str, mac: str) -> None:
    try:
        pools.request_address(pool, address, mac)
    except IpamError:
        # Docker may have asked in nobody's name.
        if ("", address) not in {(h.owner, _bare(h.address)) for h in pools.addresses(pool)}:
            raise


def _release(pools: Pools, endpoint: Endpoint) -> None:
    rows = pools.store.rows("SELECT spec FROM docker_networks WHERE id = ?", (endpoint.network,))
    for subnet in _network(rows[0][0]).subnets:
        for pool in pools.pools(subnet.space):
            if pool.prefix == subnet.pool:
                for address in endpoint.addresses:
                    if (":" in address) == (pool.version == 6):
                        pools.release_address(pool.id, address)


def _forget(pools: Pools, endpoint: Endpoint) -> None:
    pools.store.run("DELETE FROM docker_endpoints WHERE id = ?", (endpoint.id,))
    _leave(pools, endpoint.port, endpoint.interface)


def _leave(pools: Pools, name: str, interface: str | None) -> None:
    pools.store.run("INSERT OR IGNORE INTO docker_left_overs VALUES (?, ?)", (name, interface))


def _endpoints(pools: Pools, where: str, *values: str) -> list[Endpoint]:
    rows = pools.store.rows(f"SELECT spec FROM docker_endpoints {where}", values)
    return [_endpoint(spec) for (spec,) in rows]


def _set(pools: Pools, endpoint: Endpoint) -> None:
    pools.store.run("UPDATE docker_endpoints SET spec = ?, published = ? WHERE id = ?",
                    (_spec(endpoint), len(endpoint.published), endpoint.id))


def _bare(address: str) -> str:
    """An address without its prefix length."""
    return address.partition("/")[0]


def _spec(endpoint: Endpoint) -> str:
    return json.dumps(asdict(endpoint))


def _endpoint(spec: str) -> Endpoint:
    found = json.loads(spec)
    ports = tuple(Published(**port) for port in found.pop("published"))
    return Endpoint(**found, published=ports)


def _network(spec: str) -> Network:
    found = json.loads(spec)
    ipv4 = tuple(Subnet(**subnet) for subnet in found.pop("ipv4"))
    ipv6 = tuple(Subnet(**subnet) for subnet in found.pop("ipv6"))
    return Network(**found, ipv4=ipv4, ipv6=ipv6)


def _exclusive(path: str) -> int:
    """A lock that ends with this process, on a file beside the state's."""
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(f"{path} cannot be used: {error.strerror}",
                      "choose another path with --state, or make it writable") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise Refused(f"{path} is in use by another docker-plugin",
                      "end that one, or choose another file with --state") from None
    return file
