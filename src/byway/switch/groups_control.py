# SPDX-License-Identifier: Apache-2.0
"""Security groups as control uses them: groups, ports that have some, members, connections.

Used by control; uses groups_compile.py (policies), groups_members.py, connections.py and the record
of groups_opening.py.

    groups = SecurityGroups(hz=coarse_ticks_a_second)
    groups.set_group("web", [Rule(ingress=True, version=4, protocol=6, ports=(80, 80))])
    stages["groups"] = groups.attach(port=3, names=["web"])
    groups.join("web", address)            # who has the address, on whatever host
    groups.tick(now)                       # about once a second

Everything belongs to the control thread, and no change pauses a worker. A change of rules makes new
policies for the ports that have the group, and each port gets its own by one store: a frame sees
the old rules or the new ones. From then on no frame passes by the old ones, see groups.py: a
connection that the new rules do not allow ends with its next frame, and its entry goes with it.
What is replaced is handed to ``on_moved``'s callback, to be kept until every worker has ended a
pass.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.switch.connections import ENTRIES as TABLE_ENTRIES
from byway.switch.connections import STATE, ConnectionTable
from byway.switch.groups_compile import MAPPED, Policy, Rule
from byway.switch.groups_keys import PIECE
from byway.switch.groups_members import Members
from byway.switch.groups_opening import GROUPS
from byway.switch.groups_rules import ENTRIES as RULE_ENTRIES
from byway.switch.groups_states import BY_REMOTE, TIMEOUTS, State

CAPACITY = 1 << 18  # connections of a switch
PORT_LIMIT = 1 << 16  # of a port
RING = 1024  # openings that a port remembers


@dataclass(frozen=True)
class Connection:
    """One connection of a port, as the API shows it.

    ``guest_port`` and ``remote_port``: of ICMP the query's identifier and type, 0 where there are
    none. ``opened_by``: "guest" or "remote". ``idle``, ``left``: seconds since its last frame, and
    until it is forgotten without another one.
    """

    port: int
    protocol: int
    guest: str
    guest_port: int
    remote: str
    remote_port: int
    state: str
    opened_by: str
    idle: float
    left: float


class _Port:
    """A port's record and what it stands on."""

    def __init__(self, names: tuple[str, ...], limit: int) -> None:
        self.names = names
        self.limit = limit
        size = min(RING, 1 << (limit - 1).bit_length())
        self.ring = alloc(np.dtype("<i8"), size, 64)
        self.record = alloc(GROUPS, 1, 64)
        self.record["ring"], self.record["mask"] = address_of(self.ring), size - 1
        self.address = address_of(self.record)


class SecurityGroups:
    """All security groups of a switch, and the connections of its ports."""

    def __init__(self, hz: float, capacity: int = CAPACITY, seed: int | None = None) -> None:
        """``hz``: coarse ticks a second. ``capacity``: connections; ``seed``: for tests."""
        self._hz = hz
        self.table = ConnectionTable(capacity, TIMEOUTS, hz, seed)
        self._rules: dict[str, tuple[Rule, ...]] = {}
        self._policies: dict[tuple[str, ...], Policy] = {}
        self._ports: dict[int, _Port] = {}
        self._numbers = 0
        self._keep: Callable[[Any], None] = [].append
        self.members = Members(self._born, lambda memory: self._keep(memory))

    def on_moved(self, callback: Callable[[Any], None]) -> None:
        """``callback`` is given what no worker will find any more, to be kept until each has ended
        a pass. Without one it is kept for ever."""
        self._keep = callback

    # ------------------------------------------------------------ groups
    def set_group(self, name: str, rules: Iterable[Rule]) -> None:
        """A group with these rules is there, or has these from now on."""
        self._rules[name] = tuple(rules)
        self._changed(name)

    def remove_group(self, name: str) -> None:
        """The group allows nothing any more. Ports may still have it."""
        if self._rules.pop(name, None) is not None:
            self._changed(name)

    def _changed(self, name: str) -> None:
        for names in [names for names in self._policies if name in names]:
            replaced = self._policies.pop(names)
            policy = self._policy(names)
            for port in self._ports.values():
                if port.names == names:
                    port.record["policy"] = policy.address
            self._keep(replaced)  # now that nobody will find it any more

    def _policy(self, names: tuple[str, ...]) -> Policy:
        """The policy of ports with these groups, in order and each once."""
        if names not in self._policies:
            self._numbers += 1
            rules = {rule for name in names for rule in self._rules.get(name, ())}
            policy = Policy(self._numbers, rules)
            for number, groups in self.members.combinations:
                policy.note(number, groups)
            self._policies[names] = policy
        return self._policies[names]

    def _born(self, number: int, groups: frozenset[str]) -> None:
        for policy in self._policies.values():
            for memory in policy.note(number, groups):
                self._keep(memory)

    # ------------------------------------------------------------ ports
    def attach(self, port: int, names: Sequence[str], limit: int = PORT_LIMIT) -> int:
        """A port has these groups (a group may come later) and at most ``limit`` connections; ->
        the address of its stage record, which stays the same when groups or limit change."""
        known = self._ports.get(port)
        groups = tuple(sorted(set(names)))
        limit = max(1, min(limit, self.table.capacity))
        policy = self._policy(groups)
        if known is None:
            known = self._ports[port] = _Port(groups, limit)
            row = known.record
            row["table"], row["members"] = self.table.address, self.members.address
            row["zone"] = port
            self.table.share(self._ports)
        before, known.names = known.names, groups
        known.record["limit"] = known.limit = limit
        known.record["policy"] = policy.address
        self._forget_policy(before)
        return known.address

    def detach(self, port: int) -> int:
        """A port has left every worker's plan; -> how many connections it had."""
        known = self._ports.pop(port, None)
        if known is None:
            return 0
        self._keep(known)
        self._forget_policy(known.names)
        self.table.share(self._ports)
        return self.table.forget(port)

    def _forget_policy(self, names: tuple[str, ...]) -> None:
        if all(port.names != names for port in self._ports.values()):
            self._keep(self._policies.pop(names, None))

    # ------------------------------------------------------------ members
    def join(self, group: str, address: bytes) -> None:
        """An IP address (16 bytes, IPv4 as ::ffff:a.b.c.d) belongs to a port that has the group, on
        whatever host. Each call counts; ``leave`` takes one back."""
        self.members.join(group, int.from_bytes(address, "big"))

    def leave(self, group: str, address: bytes) -> bool:
        """Takes one ``join`` back; -> False where there was none."""
        return self.members.leave(group, int.from_bytes(address, "big"))

    # ------------------------------------------------------------ connections
    def tick(self, now: int) -> int:
        """Forget connections that have aged out at coarse time ``now``, and have those asked about
        again that members were allowed who have left since; -> how many aged out. About once a
        second."""
        self.members.departures()
        self.table.share(self._ports)
        return self.table.expire(now)

    def connections(self, now: int, ports: Iterable[int], most: int = 1000) -> list[Connection]:
        """At most ``most`` connections of these ports, those that were seen last."""
        found = self.table.used()
        found = found[(found["flow"] & PIECE) == 0]
        found = found[np.isin(found["flow"] >> 32 & 0xFFFF, list(ports))]
        newest = np.argsort(-found["seen"], kind="stable")[:most]
        return [self._shown(row, now) for row in found[newest]]

    def _shown(self, row: Any, now: int) -> Connection:
        flow, state = int(row["flow"]), int(row["state"])
        named, idle = State(state & STATE), max(0, now - int(row["seen"])) / self._hz
        return Connection(
            port=flow >> 32 & 0xFFFF, protocol=flow >> 48 & 0xFF,
            guest=_text(row["guest_high"], row["guest_low"]), guest_port=flow & 0xFFFF,
            remote=_text(row["remote_high"], row["remote_low"]),
            remote_port=flow >> 16 & (0xFF if named is State.ICMP else 0xFFFF),
            state=named.name.lower(),
            opened_by="remote" if state & BY_REMOTE else "guest",
            idle=idle, left=max(0.0, named.seconds - idle))

    def statistics(self, port: int) -> dict[str, int]:
        """Of one port: connections it has, may have, opened, and gave up for new ones."""
        row = self._ports[port].record[0]
        return {"connections": int(self.table.counts[port]), "limit": int(row["limit"]),
                "opened": int(row["opened"]), "evicted": int(row["evicted"])}


def _text(high: int, low: int) -> str:
    number = (int(high) & (1 << 64) - 1) << 64 | int(low) & (1 << 64) - 1
    if number >> 32 == MAPPED >> 32:
        return str(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(number))


ENTRIES: tuple[Any, ...] = (*TABLE_ENTRIES, *RULE_ENTRIES)
