# SPDX-License-Identifier: Apache-2.0
"""The plan: what a worker is to do, as records that do not change once they are published.

Used by loop.py (takes a plan up between two passes) and control (makes one for each change).

Theory of operation
-------------------
A change never edits what a worker may be reading. It makes a new Plan, stores its address and then
its generation into the worker's control record; the worker takes it up between two passes and
answers with the generation. Once every worker has answered, nobody uses the old plan, nor what
only the old plan named: a port that was left out can be changed or freed. (Read-copy-update, with
the end of a pass as the quiescent state.)

All plans of one change share the tables of ports, rx queues and networks; each worker has its own
list of rx queues to serve, and its own room for sorting a batch by destination.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from byway.machine.layout import address_of, alloc, record
from byway.switch.network import NETWORK

# ports: address of int64[nports], PORT addresses by port number (0: not there, or down).
# rxqs: address of int64[nrxqs], RXQ addresses by number (0: not there). rx: address of int64[nrx],
# numbers of the rx queues to serve. networks: NETWORK[] by number, 64 bytes each. groups: address
# of int64[nports], zero between batches (deliver). state: address of int64[nrxqs]: ABSENT, COLD or
# HOT for this worker.
PLAN, plan_at, L = record("plan", [
    "nports", "ports", "nrxqs", "rxqs", "nrx", "rx", "networks", "groups", "state"], size=128)
ABSENT, COLD, HOT = 0, 1, 2


@dataclass(frozen=True)
class NetworkRow:
    """What a plan says of one network."""

    fdb: int  # address of its FDB record
    members: Sequence[int]  # port numbers
    max_frame: int  # bytes


class Tables:
    """The part of a plan that all workers share: ports, rx queues and networks by number."""

    def __init__(self, ports: Mapping[int, int], networks: Mapping[int, NetworkRow],
                 rxqs: Mapping[int, int], keep: Any = ()) -> None:
        nports = 1 + max([-1, *ports, *(m for n in networks.values() for m in n.members)])
        self.nports = nports
        self.ports = np.zeros(max(nports, 1), np.int64)
        for number, address in ports.items():
            self.ports[number] = address
        self.rxqs = np.zeros(max(rxqs, default=0) + 1, np.int64)
        for number, address in rxqs.items():
            self.rxqs[number] = address
        self.networks = alloc(NETWORK, max(networks, default=0) + 1, align=64)
        self._members = {}
        for number, network in networks.items():
            members = np.array(sorted(network.members), np.int64)
            self._members[number] = members
            row = self.networks[number]
            row["fdb"], row["max_frame"] = network.fdb, network.max_frame
            row["members"], row["nmembers"] = address_of(members), len(members)
            row["nports"] = nports
        self._keep = keep  # whatever must live as long as the plan


class Plan:
    """One worker's plan; immutable once published, but for its scratch (groups, state)."""

    def __init__(self, tables: Tables, rx: Sequence[int]) -> None:
        self.tables = tables
        self.rx = tuple(rx)
        self._rx = np.array(self.rx or (0,), np.int64)
        self._groups = np.zeros(max(tables.nports, 1), np.int64)
        self._state = np.zeros(len(tables.rxqs), np.int64)
        self.record = alloc(PLAN, 1, align=64)
        row = self.record[0]
        row["nports"], row["ports"] = tables.nports, address_of(tables.ports)
        row["nrxqs"], row["rxqs"] = len(tables.rxqs), address_of(tables.rxqs)
        row["nrx"], row["rx"] = len(self.rx), address_of(self._rx)
        row["networks"] = address_of(tables.networks)
        row["groups"], row["state"] = address_of(self._groups), address_of(self._state)
        self.address = address_of(self.record)


def empty_plan() -> Plan:
    """A plan with nothing to do."""
    return Plan(Tables({}, {}, {}), ())
