# SPDX-License-Identifier: Apache-2.0
"""Brings the switch to what is kept, and forgets what has gone: whoever was killed, and when.

Used by service, which calls `tick` once a second. Uses the network driver and what it uses.

Theory of operation
-------------------
A tick asks the switch for its process id and age (in a container the id is always the same). One
that was not seen before is another one: it has only what its file says, so networks, gateways and
ports are asked for again (*restore*). The same is done at the plugin's own start.

The tap of a container that runs lies in the container's namespace, where Docker has renamed it. It
outlived the switch, and nobody holds it. It is found by its MAC address, and the switch is told
where it is. A tap that somebody holds is served: nothing is touched. A new tap that a switch with
a memory of its own has made meanwhile, under the name that the first one had, is removed.

What is found gone is forgotten only when it was gone GRACE seconds before too:

* an endpoint whose sandbox is no namespace any more: dockerd removes that file after it has asked
  for Leave and DeleteEndpoint, so these were not heard. (Just after Join it is not there yet:
  until it was seen it has START seconds.)

and what was useless SWEEP seconds before too:

* an endpoint without sandbox: it was never joined, or left and not deleted;
* an address of a network's pool without an endpoint: dockerd was killed in between;
* a pool without addresses that no network has.
"""

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

from byway.ipam import Pools
from byway_docker.model import Endpoint, Network, Refused
from byway_docker.network_driver import NetworkDriver

GRACE = 15.0  # seconds
START = 90.0
SWEEP = 120.0
LOOK_EVERY = 5.0  # sandboxes
SWEEP_EVERY = 10.0
JITTER = 1.0  # seconds that the switch's start may seem to move
LOG = logging.getLogger("byway.docker")

Thing: TypeAlias = tuple[str, ...]


class Gone:
    """Since when things have been found gone, without a break."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since: dict[Thing, float] = {}

    def long(self, found: Iterable[Thing]) -> set[Thing]:
        """Those of `found` that have been found long enough; the others begin or go on."""
        now = self._clock()
        self._since = {thing: self._since.get(thing, now) for thing in found}
        return {thing for thing, since in self._since.items() if now - since >= self._seconds}


class Reconciler:
    """One thread calls `tick`."""

    def __init__(self, driver: NetworkDriver, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = driver
        self._state = driver.state
        self._switch = driver.switch
        self._clock = clock
        self._seen: tuple[int, float] | None = None  # process id, and when it began
        self._wanted = True  # to restore
        self._told = ""
        self._present = {endpoint.id for endpoint in driver.state.endpoints()}
        self._vanished = Gone(GRACE, clock)
        self._never_came = Gone(START, clock)
        self._looked = self._swept = -SWEEP_EVERY
        self._useless = Gone(SWEEP, clock)
        driver.outside_is_stale = True

    def tick(self) -> None:
        """Look, and do what is needed; what fails is tried again at the next tick."""
        try:
            self._follow_switch()
            self._follow_outside()
            self._forget_gone()
            self._sweep()
            self._told = ""
        except (Refused, OSError) as error:
            if str(error) != self._told:  # once, not every second
                self._told = str(error)
                LOG.warning("%s", error)

    def _follow_switch(self) -> None:
        seen = self._switch.look()
        if seen is None:
            if self._seen is not None:
                LOG.warning("the switch has gone")
            self._seen = None
            return
        pid, began = seen[0], self._clock() - seen[1]
        if self._seen is None or pid != self._seen[0] or began > self._seen[1] + JITTER:
            self._wanted = True
        self._seen = pid, began
        if self._wanted:
            self.restore()
            self._wanted = False
        else:
            self._driver.clean()

    def restore(self) -> None:
        """Have the switch serve every network and every container that runs.

        Refused where some of it failed; the rest is done then."""
        self._driver.clean()
        troubles: list[Refused | OSError] = []
        networks = self._state.networks()
        for network in networks:
            try:
                self._restore_network(network)
            except (Refused, OSError) as error:
                troubles.append(error)
                continue
            for endpoint in self._state.endpoints(network.id):
                try:
                    self._restore_endpoint(network, endpoint.id)
                except (Refused, OSError) as error:
                    troubles.append(error)
        LOG.info("networks at the switch: %d", len(networks))
        if troubles:
            raise troubles[0]

    def _restore_network(self, network: Network) -> None:
        with self._driver.locks.held(network.id):
            if self._state.network(network.id) is None:  # removed meanwhile
                return
            if not network.own:
                self._switch.check_network(network)
            self._switch.add_network(network)
            self._driver.open(network)  # the gateway's interface may be a new one

    def _restore_endpoint(self, network: Network, identity: str) -> None:
        with self._driver.locks.held(identity):
            endpoint = self._state.endpoint(identity)
            if endpoint is None or not endpoint.sandbox:
                return
            interface = self._driver.inside(endpoint)
            if interface is None:
                # Docker has not moved it yet.
                if self._driver.namespaces.has(self._switch.netns, endpoint.interface):
                    self._switch.add_endpoint(network, endpoint)
                return
            self._driver.take_up(network, endpoint, interface)

    def _follow_outside(self) -> None:
        if not self._driver.outside_is_stale:
            return
        with self._driver.outside_lock:  # what is read here may not change before it is there
            networks = self._state.networks()
            self._driver.outside.restore(networks, self._state.endpoints())
            self._driver.outside_is_stale = False
        for network in networks:
            with self._driver.locks.held(network.id):
                if self._state.network(network.id) == network:
                    self._driver.open(network)

    # ------------------------------------------------------------ what has gone
    def _forget_gone(self) -> None:
        if self._clock() - self._looked < LOOK_EVERY:
            return
        self._looked = self._clock()
        joined = [endpoint for endpoint in self._state.endpoints() if endpoint.sandbox]
        there = {endpoint.id for endpoint in joined if self._driver.runs(endpoint)}
        gone: list[Thing] = [(e.id, e.sandbox) for e in joined if e.id not in there]
        self._present = {e.id for e in joined if e.id in self._present} | there
        long = self._vanished.long(thing for thing in gone if thing[0] in self._present)
        long |= self._never_came.long(thing for thing in gone if thing[0] not in self._present)
        for identity, sandbox in long:
            LOG.info("endpoint %s has gone with %s", identity[:12], sandbox)
            self._driver.forget_endpoint(identity, sandbox)

    def _sweep(self) -> None:
        """Take back what was asked for and never used."""
        if self._clock() - self._swept < SWEEP_EVERY:
            return
        self._swept = self._clock()
        endpoints = self._state.endpoints()
        networks = self._state.networks()
        useless: list[Thing] = [("endpoint", e.id) for e in endpoints if not e.sandbox]
        useless += self._state.change(lambda pools: _unused(pools, networks, endpoints))
        for thing in self._useless.long(useless):
            LOG.info("taken back: %s", " ".join(thing))
            match thing:
                case ("endpoint", identity):
                    self._driver.forget_endpoint(identity, "")
                case _:
                    self._state.change(partial(_take_back, thing=thing))


def _take_back(pools: Pools, thing: Thing) -> None:
    match thing:
        case ("address", pool, address):
            pools.release_address(pool, address)
        case ("pool", pool):
            pools.release_pool(pool)


def _unused(pools: Pools, networks: list[Network], endpoints: list[Endpoint]) -> list[Thing]:
    """("pool", id) and ("address", pool, address) that nobody uses."""
    ours = {(subnet.space, subnet.pool): network.id
            for network in networks for subnet in network.subnets}
    used = {(endpoint.network, address) for endpoint in endpoints
            for address in endpoint.addresses}
    unused: list[Thing] = []
    for pool in pools.pools():
        held = pools.addresses(pool.id)
        network = ours.get((pool.space, pool.prefix))
        if network is None:
            unused += [] if held else [("pool", pool.id)]
            continue
        # Those without an owner are gateways and what the user keeps for others.
        unused += [("address", pool.id, one.address) for one in held if one.owner
                   and (network, one.address.partition("/")[0]) not in used]
    return unused
