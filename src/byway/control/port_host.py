# SPDX-License-Identifier: Apache-2.0
"""What the engine is to ports and tunnels: numbers, attaching, detaching, sending, closing files.

The base of the engine (engine.py), and what tests of its parts need. Uses worker, plans and the
assignment of rx queues. Belongs to the control thread.

Whatever changes in the plans is *published*: handed to all workers, and waited for. Inside
``together`` that happens once, at the end, for all changes of the body.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from byway.control.assignment import Assignment
from byway.control.closing import Closing
from byway.control.networks import Networks
from byway.control.numbers import Numbers
from byway.control.plans import Plans
from byway.control.problem import EngineError
from byway.machine.clock import measure_hz
from byway.machine.layout import address_of
from byway.ports.namespaces import Namespaces
from byway.ports.port import Port
from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.population import Population
from byway.worker.events import Events
from byway.worker.worker import Worker


class PortHost:
    """Ports call these (ports.port.Host); so does whoever changes plans."""

    def __init__(self, cpus: Sequence[int | None], loop: asyncio.AbstractEventLoop,
                 gather: float) -> None:
        self.loop = loop
        self.alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.namespaces = Namespaces(loop)
        self._hz = measure_hz()
        self._workers = [Worker(cpu, gather) for cpu in cpus]
        self._events = [Events() for _ in self._workers]
        for worker, events in zip(self._workers, self._events, strict=True):
            worker.batch.record["events"] = events.address
        self._assignment = Assignment(self._workers)
        self._plans = Plans(self._workers, self._assignment)
        self._entries = Population()
        self._networks = Networks(self._plans, self._hz, self._entries.address)
        self._port_numbers = Numbers(FIRST_TUNNEL)
        self._closing = Closing()
        self._gathering = 0
        self.retired: list[Any] = []  # memory that workers know until the next publication

    def attach(self, port: Port) -> None:
        """Serve the port from the next pass on. Pauses no worker."""
        self._assignment.watch(port)
        port.record["shared"] = len(self._workers) > 1
        self._plans.attach(port)
        self.publish()
        self.placed(port, True)

    def detach(self, port: Port) -> None:
        """Returns when no worker touches the port. Pauses no worker."""
        known = self._plans.known(port)
        if not self._plans.detach(port):
            return
        if known:
            self._plans.publish()
        else:  # it was attached in a change that is not published yet
            self.publish()
        self._forget(port)
        self.placed(port, False)

    def placed(self, port: Port, there: bool) -> None:
        """For whoever wants to know: a port was attached (``there``), or detached."""

    def _detach_all(self, ports: list[Port]) -> None:
        """Take many ports out at once; each then finds itself detached."""
        attached = [port for port in ports if self._plans.detach(port)]
        self._plans.publish()
        for port in attached:
            self._forget(port)

    def settle(self) -> None:
        """Returns when every worker has ended the pass it was in. Pauses no worker."""
        self._plans.settle()

    def look(self, port: Port) -> None:
        """``settle``; and those who serve the port, if it is attached, look at its queues anew."""
        self._plans.look(port)
        self._plans.settle()

    def _forget(self, port: Port) -> None:
        self._assignment.unwatch(port)
        for name in getattr(port.config, "networks", ()):
            for number, _ in ((port.index, 0), *port.sub_ports):
                self._networks.forget(name, number)

    def take_number(self) -> int:
        """A number for a port, or for one of its VLAN tags (EngineError: there is none left)."""
        if not self._port_numbers.left:
            raise EngineError(f"the switch has {FIRST_TUNNEL} ports already", "remove some first")
        return self._port_numbers.take()

    def number_back(self, number: int) -> None:
        """No worker knows it any more."""
        self._port_numbers.give_back(number)

    def close_files(self, files: Sequence[int]) -> None:
        """Close files of a port; during a change, all of it together. Pauses no worker."""
        self._closing.add(files)
        if not self._gathering:
            self._closing.finish()

    def inject(self, port: Port, frame: bytes) -> None:
        """Send a frame in the name of a port that is attached, as if it had come in there. Pauses
        no worker."""
        self._send(port, frame, -1)

    def emit(self, port: Port, frame: bytes) -> None:
        """Send a frame out of a port that is attached. Pauses no worker."""
        self._send(port, frame, port.index)

    def _send(self, port: Port, frame: bytes, out: int) -> None:
        if not self._plans.known(port):
            raise ValueError(f"port {port.name} is not part of the plan")
        k = port.serving[0]
        worker = self._workers[self._assignment.queue(port, k).worker]
        worker.give(address_of(port.rxqs[k:]), frame, out)
        worker.publish()
        self._plans.wait()

    def publish(self) -> None:
        """Hand over what has changed, and wait until all workers follow; inside ``together``, at
        its end."""
        if not self._gathering:
            self._plans.publish()
            self.retired.clear()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is changed in the body is one exchange with the workers."""
        self._gathering += 1
        try:
            yield
        finally:
            self._gathering -= 1
            if not self._gathering:
                self._closing.finish()
                self.publish()
