# SPDX-License-Identifier: Apache-2.0
"""The port object: what all kinds share; and what a port needs of whoever runs it.

Used by control (which owns the ports) and by the kinds beside this file.

A port belongs to the control thread. Workers see only its PORT record, and only while the port is
part of their plan: ``host.attach`` puts it there, ``host.detach`` takes it out and returns when
no worker can touch it any more. Whatever a port changes in its queues or their memory it changes
in between.

A port has ``queues`` pairs at most. Which of its rx queues are to be served is listed in
``serving`` before ``bring_up``; how many of its tx queues take frames stands in its record.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.packet.counters import COUNTERS, drops_by_name
from byway.ports.namespaces import Namespaces
from byway.ports.record import PORT, RXQ, TXQ, Kind, P
from byway.virtio.ring import RingError

State = Literal["up", "waiting", "down"]


class PortError(Exception):
    """A port cannot be made or opened: which key of its configuration, what is wrong, the fix."""

    def __init__(self, key: str, problem: str, fix: str) -> None:
        super().__init__(f"{key}: {problem}; {fix}" if fix else f"{key}: {problem}")
        self.key = key
        self.problem = problem
        self.fix = fix


class PortConfig(Protocol):
    """What every port's configuration has (control.model has the whole of it)."""

    @property
    def name(self) -> str: ...
    @property
    def network(self) -> str: ...


class Host(Protocol):
    """Who runs ports: the engine, or a test."""

    loop: asyncio.AbstractEventLoop
    alarm: int
    namespaces: Namespaces

    def attach(self, port: "Port") -> None:
        """From the next pass on, workers serve the port."""

    def detach(self, port: "Port") -> None:
        """Returns when no worker touches the port's queues. Idempotent."""

    def settle(self) -> None:
        """Returns when every worker has ended the pass it was in."""

    def look(self, port: "Port") -> None:
        """``settle``; and those who serve the port look at its queues anew, asleep or not."""

    def close_files(self, files: Sequence[int]) -> None:
        """Close files that take the Linux kernel long; those of one change together."""

    def inject(self, port: "Port", frame: bytes) -> None:
        """Send a frame in the name of a port that is up, as if it had come in there."""


class Port:
    """Common part: identity, counters, state. Kinds implement open, close and details."""

    kind: Kind = Kind.NULL

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        self.config = config
        self.name: str = config.name
        self.index = index
        self.host = host
        self.mtu = mtu
        self.state: State = "down"
        self.reason = "not opened yet"
        self.last_trouble: str | None = None  # why it last went down; outlives the next connection
        self.queues: int = getattr(config, "queues", 1)
        # The rx queues that workers serve; and the event fd that wakes a worker for each (-1: it
        # never sleeps, or nothing ever comes).
        self.serving: list[int] = [0]
        self.wake_fds = [-1] * self.queues
        # Further port numbers that workers know as long as this port is attached, with the address
        # of a PORT of each (the sub-ports of a trunk).
        self.sub_ports: list[tuple[int, int]] = []
        self.record = alloc(PORT, 1, CACHE_LINE)
        self.rxqs = alloc(RXQ, self.queues, CACHE_LINE)
        self.txqs = alloc(TXQ, self.queues, CACHE_LINE)
        self.rx = alloc(COUNTERS, self.queues, CACHE_LINE)
        self.tx = alloc(COUNTERS, self.queues, CACHE_LINE)
        self.one = alloc(np.dtype("<i8"), 1, CACHE_LINE)
        self.one[0] = 1  # the 8 bytes that are written to event fds
        self.address = address_of(self.record)
        for k in range(self.queues):
            rxq, txq = self.rxqs[k], self.txqs[k]
            rxq["kind"] = txq["kind"] = int(self.kind)
            rxq["port"] = self.address
            rxq["counters"], txq["counters"] = address_of(self.rx[k:]), address_of(self.tx[k:])
        row = self.record[0]
        row["index"], row["txqs"], row["ntx"] = index, address_of(self.txqs), 1
        row["alarm"], row["one"] = host.alarm, address_of(self.one)

    @property
    def fault_flag(self) -> int:
        """Address of the int64 that the SIGBUS guard sets."""
        return self.address + int(P.fault)

    def open(self) -> None:
        """Make the port ready for its peer. PortError names the key that is to be changed."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the plan, give everything back. Idempotent."""
        raise NotImplementedError

    def remove(self) -> None:
        """As close; and what would outlive the switch goes as well."""
        self.close()

    def details(self) -> dict[str, Any]:
        """What only this kind has to tell (merged into status)."""
        return {}

    def bring_up(self) -> None:
        """The queues are ready: let workers serve them."""
        self.record["first"] = address_of(self.rxqs[self.serving[0]:])
        self.host.attach(self)
        self.state, self.reason = "up", ""

    def take_down(self, reason: str, state: State = "down") -> None:
        """Leave the plan and the peer, whatever was wrong with it; afterwards the queues and their
        memory are ours to change."""
        self.host.detach(self)
        self.record["fault"] = self.record["error"] = 0
        self.state, self.reason = state, reason
        if state == "down" and reason:
            self.last_trouble = reason

    def trouble(self) -> str:
        """What a worker or the SIGBUS guard found wrong with the port ("": nothing)."""
        if int(self.record["fault"][0]):
            return "the peer truncated the memory that it shares"
        if error := int(self.record["error"][0]):
            return f"the peer's virtqueue is broken: {RingError(error).sentence}"
        return ""

    def on_trouble(self) -> None:
        """The alarm rang for this port; kinds that have a peer drop it."""
        self.take_down(self.trouble())

    def status(self) -> dict[str, Any]:
        """The port as the API shows it."""
        return {
            "name": self.name,
            "network": self.config.network,
            "kind": self.config.kind,
            "state": self.state,
            "reason": self.reason,
            "last_trouble": self.last_trouble,
            "index": self.index,
            "mac": getattr(self.config, "mac", None),
            "queues": self.queues,
            "mtu": self.mtu,
            "features": {"offered": [], "acked": [], "off": {}},
            "rx_frames": int(self.rx["frames"].sum()),
            "rx_bytes": int(self.rx["bytes"].sum()),
            "tx_frames": int(self.tx["frames"].sum()),
            "tx_bytes": int(self.tx["bytes"].sum()),
            "drops": drops_by_name(*self.rx, *self.tx),
            **self.details(),
        }
