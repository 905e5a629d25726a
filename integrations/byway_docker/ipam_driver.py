# SPDX-License-Identifier: Apache-2.0
"""The methods IpamDriver.*: pools and addresses for Docker's networks, of any network driver.

Used by service. Uses state (byway.ipam's pools in it) and request. Source: libnetwork's
docs/ipam.md.

Theory of operation
-------------------
Docker repeats a request whose answer it did not hear, because the plugin was killed. It must then
get the same address, not another one. That takes a name for who asks: the MAC address of the
container, which Docker sends because the driver says that it needs it. Gateways have their pool
for a name. But a MAC address may be given to two containers by mistake, and these must not get one
address: only within REPEATS seconds of the plugin's start, and once, is a second request of one
name taken for a repeated one.

An address that Docker releases while its container runs, attached by an endpoint that the plugin
has, is not given to anybody else: Docker releases what a refused twin of it was given.

What was given and never used (dockerd was killed in between) is found by `reconcile`.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

from byway.ipam import Pools
from byway_docker import request
from byway_docker.model import Endpoint, Refused, Subnet
from byway_docker.state import State

REPEATS = 60.0  # seconds; Docker's longest is 30
_GATEWAY = "com.docker.network.gateway"
_TYPE = "RequestAddressType"
LOCAL, GLOBAL = "byway-local", "byway-global"

Answer = dict[str, Any]


class Users(Protocol):
    """Who uses the addresses: the network driver."""

    def runs(self, endpoint: Endpoint) -> bool:
        """Does the endpoint's container run, as far as can be seen?"""

    def drop_network(self, identity: str) -> None:
        """Docker has no such network any more."""

    def drop_endpoint(self, identity: str) -> None:
        """Docker has no such endpoint any more."""


class IpamDriver:
    """The methods over one state."""

    def __init__(self, state: State, users: Users,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._users = users
        self._clock = clock
        self._began = clock()
        self._answered: set[tuple[str, str]] = set()  # the state's thread only
        self.methods: dict[str, Callable[[request.Body], Answer]] = {
            "GetCapabilities": self.capabilities,
            "GetDefaultAddressSpaces": self.address_spaces,
            "RequestPool": self.request_pool,
            "ReleasePool": self.release_pool,
            "RequestAddress": self.request_address,
            "ReleaseAddress": self.release_address,
        }

    def capabilities(self, body: request.Body) -> Answer:
        """Docker chooses the MAC address, and says it: it is the name of who asks."""
        return {"RequiresMACAddress": True, "RequiresRequestReplay": False}

    def address_spaces(self, body: request.Body) -> Answer:
        """The two address spaces."""
        return {"LocalDefaultAddressSpace": LOCAL, "GlobalDefaultAddressSpace": GLOBAL}

    def request_pool(self, body: request.Body) -> Answer:
        """A pool: the one that is named, or one that overlaps with no other."""
        space = request.text(body, "AddressSpace")
        wanted, part = request.text(body, "Pool"), request.text(body, "SubPool")
        v6 = bool(body.get("V6"))

        def work(pools: Pools) -> tuple[str, str]:
            if wanted and self._is_repeated(("pool", f"{space}/{wanted}/{part}")):
                for pool in pools.pools(space):
                    if (pool.prefix, pool.sub_pool) == (wanted, part) \
                            and not pools.addresses(pool.id):
                        return pool.id, pool.prefix
            return pools.request_pool(space, wanted or None, part or None, v6)

        identity, prefix = self._state.change(work)
        return {"PoolID": identity, "Pool": prefix, "Data": {}}

    def release_pool(self, body: request.Body) -> Answer:
        """The pool goes, and with it a network that still has it: Docker has forgotten that."""
        identity = request.text(body, "PoolID")
        for network in self._state.networks():
            if any(_is_pool(identity, subnet) for subnet in network.subnets):
                self._users.drop_network(network.id)
        self._state.change(lambda pools: pools.release_pool(identity))
        return {}

    def request_address(self, body: request.Body) -> Answer:
        """An address of a pool: the one that is named, the gateway's, or the next."""
        identity = request.text(body, "PoolID")
        options = request.table(body, "Options")
        wanted = request.text(body, "Address") or None
        if request.text(options, _TYPE) == _GATEWAY:
            given = self._state.change(lambda pools: self._gateway(pools, identity, wanted))
            return {"Address": given, "Data": {}}
        mac = request.mac(options, request.MAC_LABEL)

        def work(pools: Pools) -> str:
            if mac:
                self._refuse_second(pools, identity, mac)
            return pools.request_address(identity, wanted, mac)

        return {"Address": self._state.change(work), "Data": {}}

    def _gateway(self, pools: Pools, identity: str, wanted: str | None) -> str:
        """The gateway's address of a pool that has none yet, or that of a repeated request."""
        if not self._is_repeated((identity, "gateway")) and (found := pools.gateway(identity)):
            raise Refused(f"the pool {identity} has its gateway already, {found}",
                          "ask for an address instead")
        return pools.request_gateway(identity, wanted)

    def _refuse_second(self, pools: Pools, identity: str, mac: str) -> None:
        """No second address for one MAC address, but the same for a repeated request."""
        again = self._is_repeated((identity, mac))
        holds = [held for held in pools.addresses(identity) if held.owner == mac]
        if holds and not again:
            raise Refused(f"another container with the MAC address {mac} has"
                          f" {holds[0].address}", "choose another --mac-address")

    def _is_repeated(self, key: tuple[str, str]) -> bool:
        """May a plugin that was killed have answered this request? True only once a key.

        Called on the state's thread only."""
        if self._clock() - self._began >= REPEATS:
            self._answered.clear()
            return False
        first = key not in self._answered
        self._answered.add(key)
        return first

    def release_address(self, body: request.Body) -> Answer:
        """The address may be given to somebody else."""
        identity = request.text(body, "PoolID")
        address = request.host({"Address": request.text(body, "Address").partition("/")[0]},
                               "Address")
        if not address:
            raise Refused("Address is missing", "send the address to release")
        for endpoint in self._state.with_address(address):
            if self._is_of(endpoint, identity):
                if self._users.runs(endpoint):
                    return {}
                self._users.drop_endpoint(endpoint.id)
        self._state.change(lambda pools: pools.release_address(identity, address))
        return {}

    def _is_of(self, endpoint: Endpoint, pool: str) -> bool:
        network = self._state.network(endpoint.network)
        return network is not None and any(_is_pool(pool, s) for s in network.subnets)


def _is_pool(identity: str, subnet: Subnet) -> bool:
    """Is this the id of a network's pool, or of a range of it?"""
    whole = f"{subnet.space}/{subnet.pool}"
    return identity == whole or identity.startswith(f"{whole}/")
