# SPDX-License-Identifier: Apache-2.0
"""The plan: what a worker does, as tables in memory, and the edits by which it changes.

Used by loop.py (makes the edits between two passes), deliver.py and flood.py (read the tables),
and control (says what is to change).

Theory of operation
-------------------
Each worker has a plan of its own: tables of ports, rx queues and networks by number. Nobody but
the worker writes to them. A change is a list of *edits*, each "store this word there"; the control
thread hands the list over and stores the next generation into the worker's control record. The
worker makes all edits of a change between two passes, so it never sees a half-made change, and
answers with the generation. Once every worker has answered, nobody uses what the edits took out of
the tables: a port that was taken out can be changed or freed. (Read-copy-update, with the end of a
pass as the quiescent state.)

So a change costs what it changes, for either side, and not what there is already: a port more is a
handful of edits, whether it is the tenth or the ten thousandth.

An edit without a place says "look at this rx queue again": its entry is another one than before.
What stands in the table counts, so an edit too many does no harm.

The tables have room for all the ports, queues and networks that there may ever be, and never move.
Memory is given to them page by page, when something is first stored there.

The members of a network stand in the order in which they joined, each with its *stamp*, a number
that grows by one with every port that joins a network. One that leaves is marked as gone; where
there is no more room, or most are gone, the list is made anew. So a flood that waits half done
(flood.py) needs to remember one stamp to go on after it, whatever has changed meanwhile.

Threads: the methods of Plan belong to the control thread; what they store goes to the worker by
``Worker.publish``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from byway.machine.dual import signed
from byway.machine.jit import kernel
from byway.machine.layout import CACHE_LINE, address_of, alloc, record
from byway.machine.mem import ld64, st64
from byway.packet.batch import (
    RETURNED_RX,
    RETURNED_TX,
    batch_at,
    origin_network,
    origin_port,
)
from byway.ports.record import X
from byway.switch.fdb import MAX_PORTS
from byway.switch.network import GONE, NETWORK, PORT_BITS, N
from byway.worker.backlog import Backlog

# All are addresses. ports: int64[], PORT addresses by port number (0: not there, or down). rxqs:
# int64[], RXQ addresses by number, of those that this worker serves (0: it does not). networks:
# NETWORK[] by number. groups: int64[] by port number, zero between batches (deliver). state:
# int64[] by rx queue: ABSENT, COLD, or HOT + its place among the hot queues. backlog: BACKLOG of
# frames to be flooded.
# rx_stages, tx_stages: the code of stages (staging.py), 0 as long as no port has any.
PLAN, plan_at, L = record("plan", [
    "ports", "rxqs", "networks", "groups", "state", "backlog", "rx_stages", "tx_stages"])
ABSENT, COLD, HOT = 0, 1, 2

MAX_QUEUES = 1 << 17  # rx queues of all ports
MAX_NETWORKS = 1 << 16

# An edit: where, what. Where is the address of an int64, or LOOK: then what is an rx queue.
EDIT = 16
LOOK = 0
FEW = 8  # places that a list of members begins with

_WORD = np.dtype("<i8")
_ROW = NETWORK.itemsize


@kernel
def make_edits(edits, n):
    """Store what ``n`` edits say."""
    for k in range(n):
        where = ld64(edits + EDIT * k)
        if where != LOOK:
            st64(where, ld64(edits + EDIT * k + 8))


@kernel
def enter(plan, batch, word):
    """The rows at hand belong to the network, and came from the port, that an origin word names;
    -> the NETWORK."""
    b = batch_at(batch)
    number = origin_network(word)
    network = plan_at(plan).networks + _ROW * number
    b.network = number
    b.here = network
    b.origin = origin_port(word)
    b.returned = word & (RETURNED_RX | RETURNED_TX)
    b.vni = ld64(network + N.vni)
    return network


class _Members:
    """The ports of one network as its list has them."""

    def __init__(self) -> None:
        self.list = alloc(_WORD, FEW, CACHE_LINE)
        self.used = 0
        self.joined: dict[int, tuple[int, int]] = {}  # port: stamp and place, by stamp


class Plan:
    """One worker's plan, and the edits that have not been handed over yet."""

    def __init__(self) -> None:
        self._ports = alloc(_WORD, MAX_PORTS + 1, CACHE_LINE)
        self._groups = alloc(_WORD, MAX_PORTS + 1, CACHE_LINE)
        self._rxqs = alloc(_WORD, MAX_QUEUES, CACHE_LINE)
        self._state = alloc(_WORD, MAX_QUEUES, CACHE_LINE)
        self._networks = alloc(NETWORK, MAX_NETWORKS, CACHE_LINE)
        self._members: dict[int, _Members] = {}
        self._stamp = 0
        self._edits: list[int] = []
        self._replaced: list[Any] = []  # memory that the worker may still be using
        self.record = alloc(PLAN, 1, CACHE_LINE)
        row = self.record[0]
        for name in ("ports", "groups", "rxqs", "state", "networks"):
            row[name] = address_of(getattr(self, f"_{name}"))
        self.backlog = Backlog()
        row["backlog"] = self.backlog.address
        self._tables = {name: int(row[name]) for name in ("ports", "rxqs", "networks")}
        self.address = address_of(self.record)

    # ------------------------------------------------------------ what is to change
    def set_port(self, number: int, address: int) -> None:
        """Frames for port ``number`` go to the PORT at ``address`` (0: nowhere)."""
        self._store(self._tables["ports"] + 8 * number, address)

    def set_queue(self, number: int, address: int) -> None:
        """Serve the RXQ at ``address`` as rx queue ``number`` (0: no longer)."""
        self._store(self._tables["rxqs"] + 8 * number, address)
        self.look(number)

    def set_siblings(self, addresses: Sequence[int], memory: Any) -> None:
        """These RXQs are of one port, and may share a batch; one alone does not. ``memory``: where
        they lie, which lives until it is written to."""
        self._replaced.append(memory)
        for address, following in zip(addresses, (*addresses[1:], addresses[0]), strict=True):
            self._store(address + X.sibling, following if len(addresses) > 1 else 0)

    def look(self, number: int) -> None:
        """Look at what stands there as rx queue ``number``, also if it sleeps."""
        self._store(LOOK, number)

    def set_stages(self, rx: int, tx: int) -> None:
        """The code of stages: addresses of what staging.py has compiled."""
        self._store(self.address + L.rx_stages, rx)
        self._store(self.address + L.tx_stages, tx)

    def set_network(self, number: int, fdb: int, longest: int, vni: int = 0) -> None:
        """Network ``number`` is new: its FDB record, the bytes of its longest frame, its VNI (0: it
        ends at this host)."""
        self._members[number] = members = _Members()
        self._put(number, N.number, number)
        self._put(number, N.fdb, fdb)
        self._put(number, N.max_frame, longest)
        self._put(number, N.vni, vni)
        for field in (N.flags, N.gateway, N.population):
            self._put(number, field, 0)
        self._put(number, N.nmembers, 0)
        self._put(number, N.members, address_of(members.list))

    def drop_network(self, number: int) -> None:
        """Network ``number``, which has no members, is no more: what still comes for it, out of a
        tunnel or by a router, is longer than it allows."""
        for field in (N.nmembers, N.max_frame, N.flags, N.population, N.gateway):
            self._put(number, field, 0)
        self._replaced.append(self._members.pop(number).list)

    def set_policy(self, number: int, population: int, flags: int, gateway: int) -> None:
        """How network ``number`` decides: the POPULATION in which others' addresses stand, or 0;
        flags of switch.network; its gateway's MAC (a number of 48 bits), or 0."""
        self._put(number, N.population, population)
        self._put(number, N.flags, flags)
        self._put(number, N.gateway, signed(gateway << 16))

    def join(self, network: int, port: int) -> None:
        """Port number ``port`` becomes a member of the network, the last."""
        members = self._members[network]
        if members.used == len(members.list):
            self._renew(network, members)
        self._stamp += 1
        members.joined[port] = self._stamp, members.used
        self._store(address_of(members.list) + 8 * members.used, _entry(self._stamp, port))
        members.used += 1
        self._put(network, N.nmembers, members.used)

    def leave(self, network: int, port: int) -> None:
        """The port is no member any more."""
        members = self._members[network]
        stamp, place = members.joined.pop(port)
        self._store(address_of(members.list) + 8 * place, _entry(stamp, GONE))
        if members.used > FEW + 4 * len(members.joined):
            self._renew(network, members)

    def _renew(self, network: int, members: _Members) -> None:
        """A list of those only who are there, with as much room again."""
        self._replaced.append(members.list)
        members.list = alloc(_WORD, max(FEW, 2 * len(members.joined)), CACHE_LINE)
        for place, (port, (stamp, _)) in enumerate(members.joined.items()):
            members.joined[port] = stamp, place
            members.list[place] = _entry(stamp, port)  # nobody reads it yet
        members.used = len(members.joined)
        self._put(network, N.members, address_of(members.list))
        self._put(network, N.nmembers, members.used)

    def _put(self, network: int, field: int, value: int) -> None:
        self._store(self._tables["networks"] + _ROW * network + field, value)

    def _store(self, place: int, value: int) -> None:
        self._edits += (place, value)

    # ------------------------------------------------------------ handing it over
    @property
    def changed(self) -> bool:
        """Are there edits that have not been handed over?"""
        return bool(self._edits)

    def take(self) -> tuple[Any, list[Any]]:
        """-> the edits as an array of words, and what must live until they are made."""
        edits, replaced = np.array(self._edits, _WORD), self._replaced
        self._edits, self._replaced = [], []
        return edits, replaced


def _entry(stamp: int, port: int) -> int:
    """An entry of a list of members (switch.network)."""
    return stamp << PORT_BITS | port + 1
