# SPDX-License-Identifier: Apache-2.0
"""The worker's thread: it starts, follows plans, and stops; and what if it does not."""

import os
import threading
from collections.abc import Iterator

import pytest

from byway.worker import worker as module
from byway.worker.worker import Worker, WorkerStuckError, prepare


def nothing() -> None:
    """Nobody could make this worker wait."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    prepare()
    made = Worker()
    yield made
    made.stop(nothing)
    made.close()


def test_it_follows_plans(worker: Worker) -> None:
    worker.start()
    assert worker.running
    for k in range(1, 50):
        worker.publish()
        worker.wait(nothing)
        assert worker.statistics()["plan"] == k


def test_it_starts_again(worker: Worker) -> None:
    for _ in range(3):
        worker.start()
        worker.publish()
        worker.wait(nothing)
        worker.stop(nothing)
        worker.stop(nothing)
        assert not worker.running


def test_without_a_thread_nobody_is_waited_for(worker: Worker) -> None:
    worker.publish()
    worker.wait(nothing)
    assert worker.step() == 0
    assert worker.statistics()["plan"] == 1


def test_with_nothing_to_do_it_sleeps(worker: Worker) -> None:
    worker.start()
    while not worker.statistics()["asleep"]:
        pass
    passes = worker.statistics()["passes"]
    worker.publish()
    worker.wait(nothing)
    assert worker.statistics()["passes"] <= passes + 2
    assert worker.statistics()["frames"] == 0
    assert not worker.stalled()


def test_what_wakes_it(worker: Worker) -> None:
    """A second event fd, for a port that is in no plan: awake, and asleep again."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    worker.watch(fd, 7)
    worker.start()
    while worker.statistics()["wakes"] < 3:
        os.eventfd_write(fd, 1)
    worker.unwatch(fd)
    with pytest.raises(FileNotFoundError):
        worker.unwatch(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        worker.watch(fd, 7)


def test_a_cpu_that_may_not_be_used() -> None:
    made = Worker(cpu=4096)
    with pytest.raises(OSError, match="CPU 4096 is not usable"):
        made.start()
    made.close()
    made.close()


class Stuck(Worker):
    """A worker whose pass does not end before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def _run(self) -> None:
        self.let_go.wait()
        super()._run()


def test_a_worker_that_hangs_is_helped() -> None:
    """Whoever waits for it asks for help, until it goes on."""
    for act in ("wait", "stop"):
        worker = Stuck()
        worker.start()
        worker.stalled()
        assert worker.stalled()
        worker.publish()
        getattr(worker, act)(worker.let_go.set)
        assert worker.let_go.is_set()
        worker.stop(nothing)
        worker.close()


def test_a_worker_that_hangs_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
    worker = Stuck()
    worker.start()
    worker.publish()
    with pytest.raises(WorkerStuckError, match="did not end its pass"):
        worker.wait(nothing)
    with pytest.raises(WorkerStuckError, match="does not stop"):
        worker.stop(nothing)
    monkeypatch.undo()  # it does end now, whenever it gets the CPU
    worker.let_go.set()
    worker.stop(nothing)
    worker.close()
