# SPDX-License-Identifier: Apache-2.0
"""The plans of all workers: what all of them are to know, and which rx queues each is to serve.

Used by the engine. Uses worker and the assignment. Belongs to the control thread.

Each method notes edits in the plans (worker/plan.py); ``publish`` hands them over and returns once
every worker has made them. In between, any number of them becomes one change. What is taken out
may be freed only after the publication; ``known`` says whether workers may be using a port.
"""

import faulthandler
import os
import sys
from collections.abc import Sequence

from byway.control.assignment import Assignment
from byway.machine.layout import address_of
from byway.ports.port import Port
from byway.ports.record import Kind
from byway.worker import units
from byway.worker.worker import Worker, WorkerStuckError

STUCK_STATUS = 70  # sysexits.h, EX_SOFTWARE


class Plans:
    """What the workers do, all of them."""

    def __init__(self, workers: Sequence[Worker], assignment: Assignment) -> None:
        self._workers = workers
        self._assignment = assignment
        self._attached: dict[int, tuple[Port, list[int]]] = {}  # by port number; rx queues
        self._staged = False
        self._unknown: set[int] = set()  # ports that no worker has been told of yet

    # ------------------------------------------------------------ what is to change
    def set_network(self, number: int, fdb: int, longest: int, vni: int = 0) -> None:
        """A new network: its number, its FDB record, the bytes of its longest frame, its VNI."""
        for worker in self._workers:
            worker.plan.set_network(number, fdb, longest, vni)

    def set_policy(self, number: int, population: int, flags: int, gateway: int) -> None:
        """How a network decides (worker/plan.py)."""
        for worker in self._workers:
            worker.plan.set_policy(number, population, flags, gateway)

    def use_stages(self) -> None:
        """Ports may have stages from the next publication on: load their code."""
        if not self._staged:
            units.finish()
            rx, tx = units.stages()
            for worker in self._workers:
                worker.plan.set_stages(rx.address, tx.address)
            self._staged = True

    def drop_network(self, number: int) -> None:
        """A network without members is no more."""
        for worker in self._workers:
            worker.plan.drop_network(number)

    def join(self, network: int, port: int) -> None:
        """A port is flooded to from now on; while it is not attached, that is a drop."""
        for worker in self._workers:
            worker.plan.join(network, port)

    def leave(self, network: int, port: int) -> None:
        """A port is no longer flooded to."""
        for worker in self._workers:
            worker.plan.leave(network, port)

    def attach(self, port: Port) -> None:
        """The port gets frames, and the rx queues that it serves now are served; what stood there
        of it before is replaced."""
        self.detach(port)
        self._attached[port.index] = port, list(port.serving)
        self._unknown.add(port.index)
        for worker in self._workers:
            for number, address in ((port.index, port.address), *port.sub_ports):
                worker.plan.set_port(number, address)
        served: dict[int, list[int]] = {}
        for k in port.serving:
            queue, address = self._assignment.queue(port, k), address_of(port.rxqs[k:])
            self._workers[queue.worker].plan.set_queue(queue.number, address)
            served.setdefault(queue.worker, []).append(address)
        if port.kind == Kind.DEVICE:  # the others do not fill a part of a batch
            for number, addresses in served.items():
                self._workers[number].plan.set_siblings(addresses, port.rxqs)

    def look(self, port: Port) -> None:
        """Something has changed that its rx queues may have been waiting for."""
        _, serving = self._attached.get(port.index, (port, []))
        for k in serving:
            queue = self._assignment.queue(port, k)
            self._workers[queue.worker].plan.look(queue.number)

    def add_sub_port(self, port: Port, number: int, address: int) -> None:
        """Frames for ``number`` go out by the port, as long as it is attached."""
        port.sub_ports.append((number, address))
        self._set_sub_port(port, number, address)

    def remove_sub_port(self, port: Port, number: int) -> None:
        """Frames for ``number`` go nowhere."""
        port.sub_ports[:] = [pair for pair in port.sub_ports if pair[0] != number]
        self._set_sub_port(port, number, 0)

    def _set_sub_port(self, port: Port, number: int, address: int) -> None:
        for worker in self._workers if self.has(port) else ():
            worker.plan.set_port(number, address)

    def detach(self, port: Port) -> bool:
        """Neither any more; -> whether it had been attached."""
        found = self._attached.pop(port.index, None)
        if found is None:
            return False
        for worker in self._workers:
            for number, _ in ((port.index, 0), *port.sub_ports):
                worker.plan.set_port(number, 0)
        for k in found[1]:
            queue = self._assignment.queue(port, k)
            self._workers[queue.worker].plan.set_queue(queue.number, 0)
        return True

    # ------------------------------------------------------------ what there is
    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self._workers)

    @property
    def attached(self) -> list[Port]:
        """The ports that are attached, in the order in which they were."""
        return [port for port, _ in self._attached.values()]

    def has(self, port: Port) -> bool:
        """Is it attached?"""
        return port.index in self._attached

    def known(self, port: Port) -> bool:
        """Have workers been told of it?"""
        return port.index in self._attached and port.index not in self._unknown

    # ------------------------------------------------------------ handing it over
    def publish(self) -> None:
        """Have all workers make the edits, if there are any; returns once they have."""
        if any(worker.plan.changed for worker in self._workers):
            self.settle()

    def settle(self) -> None:
        """Returns when every worker has ended the pass it was in, and made the edits there were."""
        for worker in self._workers:
            worker.publish()
        self._unknown.clear()
        self.wait()

    def wait(self) -> None:
        """Until every worker has taken up what was handed over. One that does not, for many
        seconds, may touch memory that was to be unmapped: there is no safe way on, so the process
        ends."""
        try:
            for worker in self._workers:
                worker.wait(worker.interrupt)
        except WorkerStuckError as error:
            sys.stderr.write(f"byway: {error}; the switch cannot go on\n")
            faulthandler.dump_traceback()
            os._exit(STUCK_STATUS)
