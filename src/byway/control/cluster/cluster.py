# SPDX-License-Identifier: Apache-2.0
"""The cluster that a switch is in: the one object that the daemon and the API have of it.

Used by the daemon and, through membership.Membership, the API. Uses feed and intake (what others
say), presence (what this host says), registry (what exists once), desk.

Theory of operation
-------------------
Four threads that may block stand between etcd and the control thread: a feed of who is where, a
feed of the ports that this host is to have (once it has its name), the presence, and whoever
carries out a request of the API. The control thread gives and takes batches and never waits for any
of them; all methods here belong to it. Nothing here is in the way of a frame: with etcd gone, the
switch goes on with what it knows, and says that it does.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from byway.control.cluster.etcd import Access, after
from byway.control.cluster.feed import Feed
from byway.control.cluster.intake import SOURCE, Desk, Intake
from byway.control.cluster.layout import Layout, entry_value
from byway.control.cluster.presence import Presence
from byway.control.cluster.registry import Registry
from byway.control.model import ClusterConfig
from byway.control.population import Population
from byway.control.problem import EngineError

MOST_PROBLEMS = 100  # that a status shows


class OwnDesk(Desk, Protocol):
    """A desk that also knows what there is."""

    def networks(self) -> tuple[str, ...]:
        """The networks that this switch has ports in, in order."""

    def address(self) -> str | None:
        """The switch's own in the underlay; None: it has no underlay."""


class Cluster:
    """`address`: this host's in the underlay, to begin with. `say` is told sentences for the
    log; `together` encloses changes that workers are to hear of at once."""

    def __init__(self, config: ClusterConfig, host: str, address: str, population: Population,
                 desk: OwnDesk, say: Callable[[str], None], *,
                 together: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
                 grace: float | None = None) -> None:
        self.config = config
        self.host = config.host or host
        self.population = population
        self._say = say
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._layout = layout = Layout(config.prefix)
        access = Access(config.etcd, config.username, config.password_file, config.ca,
                        config.cert, config.key)
        self._intake = Intake(self.host, population, desk, self._loop, say, self._on_intake,
                              self._on_loss, config.ttl if grace is None else grace, together)
        put = self._intake.handover.put
        mine = layout.ports(self.host)
        self._feeds = (
            Feed("hosts", access, layout, (layout.networks, layout.hosts, layout.entries),
                 (layout.entries, after(layout.networks)), put),
            Feed("ports", access, layout, (mine,), (mine, after(mine)), put),
        )
        self._presence = Presence(access, layout, self.host, address, config.ttl,
                                  self._say_from_thread, self._joined_from_thread)
        self._registry = Registry(access, layout)
        self._publishing = False
        self._lag: float | None = None  # seconds, from writing to hearing of it
        self._measured = 0  # the own change that it was measured with
        self._closed = self._has_joined = False
        population.add_source(SOURCE)
        population.set_online(False)
        population.on_announcement = self._plan_publishing

    # ------------------------------------------------------------ life
    async def start(self) -> None:
        """Begin to follow the cluster; returns also while it does not answer."""
        self._presence.start()
        self._feeds[0].start()

    async def close(self) -> None:
        """Leave it: the others forget this host at once, where etcd answers. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._intake.close()
        self._registry.close()
        await asyncio.gather(*(asyncio.to_thread(part.stop)
                               for part in (*self._feeds, self._presence)))

    def _joined_from_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._joined)

    def _joined(self) -> None:
        """This host has its name: what is kept for that name is for us."""
        if not (self._has_joined or self._closed):
            self._has_joined = True
            self._feeds[1].start()

    def _say_from_thread(self, sentence: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._say, f"cluster: {sentence}")

    # ------------------------------------------------------------ what this host has
    def publish(self) -> None:
        """Tell the others what has changed here. Called by the owner where ports or networks come
        or go, or the underlay has another address: what the cluster wants and the switch refused
        may be possible now."""
        if address := self._desk.address():
            self._presence.set_address(address)
        self._intake.try_again()
        self._announce()

    def _announce(self) -> None:
        self._publishing = False
        changes: dict[str, bytes | None] = {}
        for one in self.population.take_announcements():
            key = self._layout.entry(one.network, self.host, one.mac)
            changes[key] = None if one.ips is None else entry_value(
                one.ips, one.generation, one.groups)
        if changes:
            self._presence.set_entries(changes)
        self._presence.set_networks(self._desk.networks())

    def _plan_publishing(self) -> None:
        if not self._publishing:
            self._publishing = True
            self._loop.call_soon(self._announce)

    def _on_intake(self) -> None:
        hosts = self._intake.feeds.get("hosts")
        if hosts is not None and hosts.synced:
            self._presence.allow()
        revision, wrote = self._presence.state.wrote
        if hosts is not None and revision and hosts.revision >= revision and (
                self._measured != revision):
            self._measured = revision
            self._lag = time.monotonic() - wrote
        self._announce()

    def _on_loss(self, heard: set[tuple[str, int]]) -> None:
        self._announce()
        self._presence.say_again(
            self._layout.entry(network, self.host, mac) for network, mac in heard)

    # ------------------------------------------------------------ how it is
    def status(self) -> dict[str, Any]:
        """Members, the lease, revisions, lag, counts and problems; see docs/reference/cli.md."""
        state, now = self._presence.state, time.monotonic()
        feeds = self._intake.feeds
        hosts = feeds.get("hosts")
        heard_of = [feeds.get(feed.name) for feed in self._feeds[: 1 + self._has_joined]]
        following = all(heard is not None and heard.following for heard in heard_of)
        synced = self._has_joined and all(heard is not None and heard.synced for heard in heard_of)
        left = state.kept + self.config.ttl - now if state.lease else 0.0
        sentences = [heard.sentence for heard in feeds.values() if heard.sentence]
        if state.sentence and state.kind != "waiting":
            sentences.append(state.sentence)
        return {
            "etcd": list(self.config.etcd), "host": self.host,
            "connected": following and state.kind in ("joined", "refused"),
            "synced": synced,
            "member": self._feeds[0].member, "presence": state.kind,
            "lease": {"ttl": self.config.ttl, "left": round(max(left, 0.0), 1)},
            "revision": hosts.revision if hosts else 0,
            "lag": None if self._lag is None else round(self._lag, 4),
            "changes": self._intake.changes,
            "counts": {**self.population.counts(), "networks": sum(
                1 for kind, _ in self._intake.tables if kind == "network")},
            "members": self.members(),
            "problems": [*dict.fromkeys(sentences), *self._problems()],
        }

    def members(self) -> list[dict[str, Any]]:
        """Every other host that is there, with its address and networks."""
        return [{"host": name, "address": address, "networks": sorted(networks)}
                for name, address, networks in self.population.hosts(SOURCE)]

    def _problems(self) -> list[str]:
        found = [f"{key}: {sentence}" for key, sentence in self._intake.problems.items()]
        for feed in self._feeds:
            found += [f"{key} is ignored: {why}" for key, why in dict(feed.bad).items()]
        found += [f'host "{host}" waits: its address {address} is that of "{holder}"'
                  for host, address, holder in self.population.waiting()]
        more = len(found) - MOST_PROBLEMS
        return found[:MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])

    # ------------------------------------------------------------ what exists once
    async def put_network(self, table: dict[str, Any]) -> dict[str, Any]:
        """Keep a network for all hosts; its `vni` may be "auto". -> it, with its VNI."""
        return await asyncio.to_thread(self._registry.put_network, table)

    async def delete_network(self, name: str) -> None:
        """Keep it no longer. EngineError: a port needs it."""
        await asyncio.to_thread(self._registry.delete_network, name)

    async def put_port(self, host: str, table: dict[str, Any]) -> dict[str, Any]:
        """Keep a port for one host, which opens it; its `ips` may be "auto". -> it, with them."""
        return await asyncio.to_thread(self._registry.put_port, host, table)

    async def delete_port(self, host: str, name: str) -> None:
        """Keep it no longer; its addresses are free."""
        await asyncio.to_thread(self._registry.delete_port, host, name)

    async def forget_host(self, host: str) -> list[str]:
        """Keep no port of a host that does not come back; -> their names. EngineError: it is
        there."""
        if host == self.host or any(one["host"] == host for one in self.members()):
            raise EngineError(f'host "{host}" takes part in the cluster', "end its switch first")
        return await asyncio.to_thread(self._registry.forget_host, host)
