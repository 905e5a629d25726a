# SPDX-License-Identifier: Apache-2.0
"""What is behind which host: claims of several sources, and the one of them that counts.

Used by the cluster, by static hosts and entries, and by whatever hears of local addresses. Uses
claim_table. Pure: no clock, no thread, no engine; the `Overlay` that it tells is a protocol.

Theory of operation
-------------------
A *source* (the cluster's etcd, the configuration file) says that a host has an address and takes
part in networks, and that a MAC address with IP addresses is behind a host. Each such saying has a
*version*, which grows within a source. Sayings may come late, twice, in another order, or never:

- what is not newer than the last saying about the same thing is passed over. Versions are kept only
  above the *floor*, below which everything is known to have come (`reached`, a sync's own version):
  so a removal is remembered as long as something older may still come, and no longer;
- a *sync* tells everything as of one version: `begin`, the puts, `end`. Only `end` sweeps what was
  not told, so that a source which is lost in the middle takes nothing away. `begin(forget=True)`
  is for a source whose versions began anew.

Of several claims to one MAC address the best counts: local before remote; then static before
others; then the higher *generation*, the number of moves of that address, which whoever has it now
chooses one above all that it knows; then the host's name, so that every host decides alike. A
claim of a host without a tunnel does not count. A learned local claim yields to a remote one of a
higher generation (the address has moved away); one of a configured port never does.

What the overlay is told is made before it is broken: the tunnel before its entries, the new place
of an address instead of the old one, the tunnel's end last. A network that the switch does not
have is not spoken of; its claims wait.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from byway.control.claim_table import Claim, ClaimTable, Peer, Shown, shown
from byway.control.told import Announcement, Overlay

__all__ = ["HERE", "Announcement", "Overlay", "Population"]

HERE = "here"  # the source of local claims


@dataclass
class _Source:
    """What was said by whom, and up to which version everything has come."""

    rank: int
    peers: dict[str, Peer] = field(default_factory=dict)
    floor: int = -1
    recent: dict[tuple[object, ...], int] = field(default_factory=dict)  # versions above the floor
    sync: int | None = None  # the version of the sync that is under way
    mark: int = 0  # what was said since the last sync began carries it


def _nobody_listens() -> None:
    """A switch that is in no cluster tells nobody."""


class Population:
    """All claims, and what of them the overlay has. Belongs to one thread. `on_announcement` is
    called when there is something to take."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._sources: dict[str, _Source] = {}
        self._table = ClaimTable()
        self._here = Peer(HERE, None, rank=1 << 30)
        self._tunnels: dict[str, str] = {}  # the address of each host that has a tunnel
        self._holders: dict[str, str] = {}  # the host of each such address
        self._floods: dict[str, set[str]] = {}  # networks by host, as told
        self._networks: set[str] = set()
        self._announced: dict[tuple[str, int], Announcement] = {}
        self._online = False
        self.on_announcement: Callable[[], None] = _nobody_listens

    # ------------------------------------------------------------ the switch's own
    def add_network(self, name: str) -> None:
        """The switch has this network now: tell what is known of it."""
        self._networks.add(name)
        for host, networks in self._floods.items():
            if name in networks:
                self._overlay.flood(name, host, True)
        for mac, claims in self._table.of(name).items():
            self._tell(name, mac, None, shown(claims, self._tunnels))

    def remove_network(self, name: str) -> None:
        """The switch has it no more, and the overlay nothing of it; what is claimed is kept."""
        for claims in self._table.of(name).values():
            if name in self._networks and (told := shown(claims, self._tunnels)):
                self._tell_members(told, None)
        self._networks.discard(name)

    def put_local(self, network: str, mac: int, ips: Iterable[bytes] = (), *,
                  firm: bool = False, groups: tuple[str, ...] = (),
                  evidence: bool = True) -> None:
        """A local port has this address: by its configuration (`firm`), or it was heard there.
        `groups`: the security groups of the port.

        Said again, it is evidence: where another host claims the address, it has come back; but not
        where only something else of it has changed (``evidence`` False)."""
        ips = tuple(ips)
        mine = self._table.find(network, mac, self._here)
        generation = mine.generation if mine else 0
        highest = self._highest(network, mac)
        if (evidence or not mine) and (not self._online or generation <= highest):
            generation = highest + 1 if self._online else 0
        new = Claim(self._here, ips, generation, int(firm), groups)
        if mine and mine.same(new) and mine.mark == new.mark:
            return
        self._put(network, mac, new)
        self._announce(network, mac, ips, generation, groups)

    def drop_local(self, network: str, mac: int) -> None:
        """No local port has it any more."""
        if (mine := self._table.find(network, mac, self._here)) is not None:
            self._remove(network, mac, self._here)
            self._announce(network, mac, None, mine.generation)

    def local(self) -> list[Announcement]:
        """Every local address, as the others should know it."""
        return [Announcement(network, mac, claim.addresses(), claim.generation, claim.groups)
                for network, mac, claim in self._table.by(self._here)]

    def set_online(self, on: bool) -> None:
        """Whether what the others claim is known up to now. Generations of what was heard
        meanwhile are chosen when it is."""
        self._online = on
        if on:
            for network, mac, claim in list(self._table.by(self._here)):
                if not claim.generation:
                    claim.generation = self._highest(network, mac) + 1
                    self._announce(network, mac, claim.addresses(), claim.generation,
                                   claim.groups)

    def take_announcements(self) -> list[Announcement]:
        """What changed locally since the last call, each address once."""
        taken, self._announced = list(self._announced.values()), {}
        return taken

    def _announce(self, network: str, mac: int, ips: tuple[bytes, ...] | None,
                  generation: int, groups: tuple[str, ...] = ()) -> None:
        if ips is None or generation:
            self._announced[network, mac] = Announcement(network, mac, ips, generation, groups)
            self.on_announcement()

    def _highest(self, network: str, mac: int) -> int:
        return max((claim.generation for claim in self._table.claims(network, mac)
                    if claim.peer is not self._here), default=0)

    # ------------------------------------------------------------ what sources say
    def add_source(self, source: str, rank: int = 0) -> None:
        """A source may speak from now on; of two claims the one with the higher rank counts."""
        self._sources[source] = _Source(rank)

    def begin(self, source: str, version: int, *, forget: bool = False) -> None:
        """A sync starts: the puts with this version are all there was then. `forget`: versions
        began anew, older ones mean nothing."""
        state = self._sources[source]
        if forget:
            state.recent.clear()
        state.floor = version
        state.sync = version
        state.mark += 1

    def end(self, source: str) -> int:
        """The sync is complete: what it did not tell is gone. -> how many claims and hosts."""
        state = self._sources[source]
        version = state.floor if state.sync is None else state.sync
        state.sync = None
        stale = [(network, mac, claim.peer) for network, mac, claim in self._table.all()
                 if claim.peer.source == source and claim.mark != state.mark
                 and not self._newer(state, (network, claim.peer.host, mac), version)]
        for network, mac, peer in stale:
            self._remove(network, mac, peer)
        hosts = [host for host, peer in state.peers.items()
                 if peer.address is not None and peer.mark != state.mark
                 and not self._newer(state, (host,), version)]
        for host in hosts:
            self._set_host(state, source, host, None, frozenset())
        self.reached(source, version)
        return len(stale) + len(hosts)

    def reached(self, source: str, version: int) -> None:
        """Everything up to this version has come; what comes of it later is passed over."""
        state = self._sources[source]
        state.floor = max(state.floor, version)
        state.recent = {key: at for key, at in state.recent.items() if at > state.floor}

    def put_host(self, source: str, version: int, host: str, address: str,
                 networks: Iterable[str]) -> bool:
        """The host is there. -> False: the saying came too late."""
        state = self._sources[source]
        if self._fresh(state, (host,), version):
            self._set_host(state, source, host, address, frozenset(networks))
            return True
        return False

    def drop_host(self, source: str, version: int, host: str) -> bool:
        """The host is gone; claims of it do not count, until it is there again."""
        state = self._sources[source]
        if self._fresh(state, (host,), version):
            if host in state.peers:
                self._set_host(state, source, host, None, frozenset())
            return True
        return False

    def put_entry(self, source: str, version: int, network: str, host: str, mac: int,
                  ips: Iterable[bytes], generation: int, groups: tuple[str, ...] = ()) -> bool:
        """The address is behind the host, at a port in these security groups."""
        state = self._sources[source]
        if not self._fresh(state, (network, host, mac), version):
            return False
        peer = self._peer(state, source, host)
        self._put(network, mac, Claim(peer, tuple(ips), generation, state.mark, groups))
        mine = self._table.find(network, mac, self._here)
        if mine and not mine.mark and mine.generation and generation > mine.generation:
            self.drop_local(network, mac)
        return True

    def drop_entry(self, source: str, version: int, network: str, host: str, mac: int) -> bool:
        """The address is no more behind that host."""
        state = self._sources[source]
        if not self._fresh(state, (network, host, mac), version):
            return False
        if (peer := state.peers.get(host)) is not None:
            self._remove(network, mac, peer)
        return True

    def _fresh(self, state: _Source, key: tuple[object, ...], version: int) -> bool:
        if version == state.sync:  # part of the sync: only what was said of later times is newer
            return not self._newer(state, key, version)
        if version <= state.recent.get(key, state.floor):
            return False
        state.recent[key] = version
        return True

    @staticmethod
    def _newer(state: _Source, key: tuple[object, ...], version: int) -> bool:
        return state.recent.get(key, -1) > version

    def keep_host(self, source: str, host: str) -> None:
        """In a sync: what is said of the host is not understood, so what was said of it stays."""
        if (peer := self._sources[source].peers.get(host)) is not None:
            peer.mark = self._sources[source].mark

    def keep_entry(self, source: str, network: str, host: str, mac: int) -> None:
        """The same of an address behind a host."""
        state = self._sources[source]
        claim = self._table.find(network, mac, state.peers[host]) if host in state.peers else None
        if claim is not None:
            claim.mark = state.mark

    # ------------------------------------------------------------ hosts
    def _peer(self, state: _Source, source: str, host: str) -> Peer:
        peer = state.peers.get(host)
        if peer is None:
            peer = state.peers[host] = Peer(source, host, state.rank)
        return peer

    def _set_host(self, state: _Source, source: str, host: str, address: str | None,
                  networks: frozenset[str]) -> None:
        peer = self._peer(state, source, host)
        peer.address, peer.networks, peer.mark = address, networks, state.mark
        before = self._tunnels.get(host)
        self._settle(host)
        if before and before != self._tunnels.get(host):  # somebody may have waited for it
            for other in [p.host for p in self._speakers() if p.address == before]:
                self._settle(other or "")
        if address is None and not peer.claims:
            state.peers.pop(host, None)

    def _speakers(self) -> Iterator[Peer]:
        return (peer for state in self._sources.values() for peer in state.peers.values())

    def _settle(self, host: str) -> None:
        """Have the tunnel of a host, and what goes through it, as its sources say."""
        said = [state.peers[host] for state in self._sources.values() if host in state.peers]
        said = [peer for peer in said if peer.address is not None]
        address = max(said, key=lambda peer: peer.rank).address if said else None
        if address is not None and self._holders.get(address, host) != host:
            address = None  # another host is there: this one waits until it is not
        before = self._tunnels.get(host)
        if address is None:
            if before is not None:
                self._end_tunnel(host, before)
            return
        if before != address:
            self._overlay.set_tunnel(host, address)
            if before is not None:
                del self._holders[before]
            self._holders[address] = host
            self._tunnels[host] = address
            if before is None:
                self._tell_entries(host, was_up=False)
        self._set_floods(host, frozenset().union(*(peer.networks for peer in said)))

    def _end_tunnel(self, host: str, address: str) -> None:
        self._set_floods(host, frozenset())
        del self._tunnels[host], self._holders[address]
        self._tell_entries(host, was_up=True)
        self._overlay.drop_tunnel(host)

    def _set_floods(self, host: str, networks: frozenset[str]) -> None:
        before = self._floods.pop(host, set())
        if networks:
            self._floods[host] = set(networks)
        for network in sorted(networks ^ before):
            if network in self._networks:
                self._overlay.flood(network, host, network in networks)

    def _tell_entries(self, host: str, *, was_up: bool) -> None:
        """The host's tunnel has come or is to go: tell the entries which that changes."""
        peers = [state.peers[host] for state in self._sources.values() if host in state.peers]
        if not any(peer.claims for peer in peers):
            return
        without = {name: at for name, at in self._tunnels.items() if name != host}
        with_it = {**without, host: ""}
        before, after = (with_it, without) if was_up else (without, with_it)
        for network, mac, claim in list(self._table.all()):
            if claim.peer in peers:
                claims = self._table.of(network)[mac]
                self._tell(network, mac, shown(claims, before), shown(claims, after))

    # ------------------------------------------------------------ entries
    def _put(self, network: str, mac: int, claim: Claim) -> None:
        before = shown(self._table.of(network).get(mac), self._tunnels)
        self._table.put(network, mac, claim)
        self._tell(network, mac, before, shown(self._table.of(network)[mac], self._tunnels))

    def _remove(self, network: str, mac: int, peer: Peer) -> None:
        before = shown(self._table.of(network).get(mac), self._tunnels)
        self._table.remove(network, mac, peer)
        self._tell(network, mac, before, shown(self._table.of(network).get(mac), self._tunnels))
        if peer.address is None and not peer.claims and peer.source in self._sources:
            self._sources[peer.source].peers.pop(peer.host or "", None)

    def _tell(self, network: str, mac: int, before: Shown | None, after: Shown | None) -> None:
        if network not in self._networks or before == after:
            return
        had = before.ips if before else ()
        self._tell_members(before, after)
        if before and after and before[:2] == after[:2]:
            return
        if after is None:
            self._overlay.drop_entry(network, mac, had)
        else:
            gone = tuple(ip for ip in had if ip not in after.ips)
            self._overlay.set_entry(network, mac, after.ips, after.host, gone)

    def _tell_members(self, before: Shown | None, after: Shown | None) -> None:
        left, joined = (before.members() if before else set(), after.members() if after else set())
        for group, ip in sorted(left ^ joined):
            self._overlay.member(group, ip, (group, ip) in joined)

    # ------------------------------------------------------------ what there is
    def counts(self) -> dict[str, int]:
        """How much there is: claims, hosts with a tunnel, hosts that wait for an address."""
        waiting = sum(1 for peer in self._speakers()
                      if peer.address is not None and peer.host not in self._tunnels)
        return {"entries": self._table.count, "hosts": len(self._tunnels), "waiting": waiting}

    def hosts(self, source: str) -> list[tuple[str, str, frozenset[str]]]:
        """(name, address, networks) of each host that a source says is there."""
        return [(name, peer.address, peer.networks)
                for name, peer in self._sources[source].peers.items() if peer.address is not None]

    def waiting(self) -> list[tuple[str, str, str]]:
        """(host, its address, who has that address), for each host that cannot have its tunnel."""
        return [(peer.host or "", peer.address, self._holders.get(peer.address, ""))
                for peer in self._speakers()
                if peer.address is not None and peer.host not in self._tunnels]

    def entries(self, network: str | None = None) -> Iterator[tuple[str, int, Shown]]:
        """(network, MAC, what counts) for each address of one network or of all that somebody
        reachable has."""
        for name, mac, told in self._table.winners(self._tunnels):
            if network is None or name == network:
                yield name, mac, told
