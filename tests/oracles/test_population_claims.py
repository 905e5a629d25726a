# SPDX-License-Identifier: Apache-2.0
"""The population against a model that knows everything, while what it hears comes late, twice, in
another order or not at all."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from byway.control.population import Population
from tests.unit.control.fake_overlay import FakeOverlay

HOSTS = ("a", "b")
NETWORKS = ("blue", "red")
MACS = (1, 2)
IPS = (b"\1" * 16, b"\2" * 16)

hosts = st.sampled_from(HOSTS)
networks = st.sampled_from(NETWORKS)
macs = st.sampled_from(MACS)
some_ips = st.sets(st.sampled_from(IPS)).map(lambda ips: tuple(sorted(ips)))

Entry = tuple[tuple[bytes, ...], int]  # IP addresses and generation


@dataclass
class Truth:
    """What the source has: hosts with networks, entries by network, host and MAC."""

    hosts: dict[str, frozenset[str]] = field(default_factory=dict)
    entries: dict[tuple[str, str, int], Entry] = field(default_factory=dict)

    def pages(self) -> list[tuple[object, ...]]:
        """What a sync tells of it."""
        pages: list[tuple[object, ...]] = [
            ("put_host", host, "192.0.2." + host, there) for host, there in self.hosts.items()]
        return pages + [("put_entry", network, host, mac, *entry)
                        for (network, host, mac), entry in self.entries.items()]


class Source(RuleBasedStateMachine):
    """etcd, and the way from it to the population."""

    def __init__(self) -> None:
        super().__init__()
        self.overlay = FakeOverlay()
        self.population = Population(self.overlay)
        self.population.add_source("cluster")
        self.truth = Truth()
        self.version = 10
        self.events: list[tuple[int, tuple[object, ...]]] = []  # everything since the beginning
        self.snapshots: dict[int, list[tuple[object, ...]]] = {10: []}  # by version
        self.delivered: set[int] = set()
        self.reached = 0  # everything up to here has come, by events or by a complete sync
        self.pages: list[tuple[object, ...]] = []  # of a sync, still to come
        self.syncing: int | None = None
        self.known: set[str] = set()

    @initialize(online=st.booleans())
    def start(self, online: bool) -> None:
        self.population.set_online(online)
        self.add_network("blue")
        self.begin(self.version)
        self.sync_ends()

    # ------------------------------------------------------------ what happens out there
    def happens(self, *event: object) -> None:
        self.version += 1
        self.events.append((self.version, event))
        self.snapshots[self.version] = self.truth.pages()

    @rule(host=hosts, there=st.sets(networks))
    def host_comes(self, host: str, there: set[str]) -> None:
        self.truth.hosts[host] = frozenset(there)
        self.happens("put_host", host, "192.0.2." + host, frozenset(there))

    @rule(host=hosts)
    def host_dies(self, host: str) -> None:
        if self.truth.hosts.pop(host, None) is not None:
            self.happens("drop_host", host)

    @rule(network=networks, host=hosts, mac=macs, ips=some_ips, generation=st.integers(1, 4))
    def entry_comes(self, network: str, host: str, mac: int, ips: tuple[bytes, ...],
                    generation: int) -> None:
        self.truth.entries[network, host, mac] = (ips, generation)
        self.happens("put_entry", network, host, mac, ips, generation)

    @rule(network=networks, host=hosts, mac=macs)
    def entry_goes(self, network: str, host: str, mac: int) -> None:
        if self.truth.entries.pop((network, host, mac), None) is not None:
            self.happens("drop_entry", network, host, mac)

    @rule(back=st.integers(1, 8), really=st.integers(0, 7))
    def roll_back(self, back: int, really: int) -> None:
        """The source is empty, and counts its versions anew from below."""
        if really:
            return
        self.truth = Truth()
        self.version = max(1, self.version - back)
        self.events, self.delivered, self.reached = [], set(), 0
        self.snapshots = {self.version: []}
        self.begin(self.version, forget=True)

    # ------------------------------------------------------------ what is heard of it
    def tell(self, version: int, event: tuple[object, ...]) -> None:
        name, *values = event
        getattr(self.population, str(name))("cluster", version, *values)

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def one_event_arrives(self, data: st.DataObject) -> None:
        """Any one, however late or often."""
        version, event = data.draw(st.sampled_from(self.events))
        self.tell(version, event)
        self.delivered.add(version)

    @rule(order=st.randoms(use_true_random=False), so_they_say=st.booleans())
    def all_events_arrive(self, order, so_they_say: bool) -> None:  # type: ignore[no-untyped-def]
        """In any order, those again that have come before; the source may say that these were
        all."""
        every = list(self.events)
        order.shuffle(every)
        for version, event in every:
            self.tell(version, event)
            self.delivered.add(version)
        if so_they_say and self.syncing is None and self.complete():
            self.reached = self.version
            self.population.reached("cluster", self.version)

    @rule(back=st.integers(0, 3))
    def sync_begins(self, back: int) -> None:
        """As of some moments ago; also in the middle of another one, which is thereby given up."""
        self.begin(max(self.version - back, self.reached, self.syncing or 0, min(self.snapshots)))

    def begin(self, version: int, forget: bool = False) -> None:
        # What the floor passes over from now on was not delivered: only the sync's end makes
        # up for it.
        self.reached = 0 if self.syncing is not None else self.reached
        self.syncing, self.pages = version, list(self.snapshots[version])
        self.population.begin("cluster", version, forget=forget)

    @precondition(lambda self: self.pages)
    @rule(data=st.data())
    def a_page_comes(self, data: st.DataObject) -> None:
        page = self.pages.pop(data.draw(st.integers(0, len(self.pages) - 1)))
        self.tell(self.syncing or 0, page)

    @precondition(lambda self: self.syncing is not None and not self.pages)
    @rule()
    def sync_ends(self) -> None:
        self.population.end("cluster")
        self.reached, self.syncing = self.syncing or 0, None

    # ------------------------------------------------------------ the switch itself
    @rule(network=networks, mac=macs, ips=some_ips, firm=st.booleans())
    def local_heard(self, network: str, mac: int, ips: tuple[bytes, ...], firm: bool) -> None:
        self.population.put_local(network, mac, ips, firm=firm)
        assert network not in self.known or self.overlay.entries[network, mac] == (ips, None)

    @rule(network=networks, mac=macs)
    def local_leaves(self, network: str, mac: int) -> None:
        self.population.drop_local(network, mac)

    @rule(online=st.booleans())
    def connection(self, online: bool) -> None:
        self.population.set_online(online)

    @rule(network=networks)
    def network_comes_or_goes(self, network: str) -> None:
        if network in self.known:
            self.known.discard(network)
            self.overlay.forget_network(network)
            self.population.remove_network(network)
        else:
            self.add_network(network)

    def add_network(self, network: str) -> None:
        self.known.add(network)
        self.population.add_network(network)

    # ------------------------------------------------------------ what must hold
    def expected(self) -> dict[tuple[str, int], tuple[tuple[bytes, ...], str | None]]:
        best: dict[tuple[str, int], tuple[int, str, tuple[bytes, ...]]] = {}
        for (network, host, mac), (ips, generation) in self.truth.entries.items():
            if host in self.truth.hosts and network in self.known:
                claim = (generation, host, ips)
                best[network, mac] = max(best.get((network, mac), claim), claim)
        made: dict[tuple[str, int], tuple[tuple[bytes, ...], str | None]] = {
            at: (ips, host) for at, (_, host, ips) in best.items()}
        made.update(((local.network, local.mac), (local.ips or (), None))
                    for local in self.population.local() if local.network in self.known)
        return made

    def complete(self) -> bool:
        return all(at <= self.reached or at in self.delivered for at, _ in self.events)

    @invariant()
    def what_is_known_is_true(self) -> None:
        """Once a sync is complete and everything after it has come, in whatever order."""
        if self.syncing is not None or not self.reached or not self.complete():
            return
        assert self.overlay.entries == self.expected()
        assert set(self.overlay.tunnels) == set(self.truth.hosts)
        assert self.overlay.floods == {(network, host) for host, there in self.truth.hosts.items()
                                       for network in there & self.known}
        claims = len(self.truth.entries) + len(self.population.local())
        assert self.population.counts()["entries"] == claims

    @invariant()
    def what_is_claimed_locally_is_here(self) -> None:
        for local in self.population.local():
            if local.network in self.known:
                assert self.overlay.entries[local.network, local.mac] == (local.ips, None)

    def teardown(self) -> None:
        """Whatever was lost: one complete sync puts it right."""
        self.begin(self.version)
        while self.pages:
            self.tell(self.syncing or 0, self.pages.pop())
        self.sync_ends()
        self.delivered |= {at for at, _ in self.events}
        self.what_is_known_is_true()


TestPopulation = Source.TestCase
TestPopulation.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
