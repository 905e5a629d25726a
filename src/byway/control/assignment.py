# SPDX-License-Identifier: Apache-2.0
"""Which worker serves which rx queue, and what wakes it for it.

Used by the engine; uses worker and ports.

A queue is given to the worker that has the fewest when it is first asked for, so the queues of one
port are spread; and it is kept: two workers that are not equally far with their changes must never
both take a queue.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from byway.control.numbers import Numbers
from byway.ports.port import Port
from byway.worker.plan import MAX_QUEUES
from byway.worker.worker import Worker


@dataclass
class Queue:
    """An rx queue: its number in plans, its worker, its event fd in that worker's epoll set (-1:
    none)."""

    number: int
    worker: int
    watched: int = -1


class Assignment:
    """The rx queues of all ports, by port number and number within the port."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._queues: dict[tuple[int, int], Queue] = {}
        self._numbers = Numbers(MAX_QUEUES)
        self._load = [0] * len(workers)
        self.room = MAX_QUEUES  # rx queues that ports may still bring

    def admit(self, port: Port) -> None:
        """The port will ask for numbers for its rx queues; ``room`` says whether there are any."""
        self.room -= port.queues

    def queue(self, port: Port, k: int) -> Queue:
        """The port's k-th rx queue, known from now on."""
        key = port.index, k
        if key not in self._queues:
            worker = self._load.index(min(self._load))
            self._load[worker] += 1
            self._queues[key] = Queue(self._numbers.take(), worker)
            port.rxqs["number"][k] = self._queues[key].number
        return self._queues[key]

    def watch(self, port: Port) -> None:
        """The event fds of the queues that the port serves now wake their workers."""
        self.unwatch(port)
        for k in port.serving:
            queue = self.queue(port, k)
            if (fd := port.wake_fds[k]) >= 0:
                self._workers[queue.worker].watch(fd, queue.number)
                queue.watched = fd

    def unwatch(self, port: Port) -> None:
        """None of the port's event fds wakes a worker any more."""
        for queue in self._of(port):
            if queue.watched >= 0:
                watched, queue.watched = queue.watched, -1  # also where that fails
                self._workers[queue.worker].unwatch(watched)

    def forget(self, port: Port) -> None:
        """The port is gone for good; its numbers may be given again."""
        self.room += port.queues
        for k in range(port.queues):
            if queue := self._queues.pop((port.index, k), None):
                self._numbers.give_back(queue.number)
                self._load[queue.worker] -= 1

    def workers_of(self, port: Port) -> set[int]:
        """The workers that serve queues of the port."""
        return {q.worker for q in self._of(port)}

    def _of(self, port: Port) -> Iterator[Queue]:
        for k in range(port.queues):
            if queue := self._queues.get((port.index, k)):
                yield queue
