# SPDX-License-Identifier: Apache-2.0
"""A worker: the thread that runs the loop, and how the control thread steers it.

Used by control (one for each CPU given) and by tests, which may step it without a thread.
"""

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from byway.machine.clock import measure_hz, tsc
from byway.machine.cpu import usable_cpus
from byway.machine.interrupt import install as install_interrupt
from byway.machine.interrupt import interrupt
from byway.machine.jit import prepare as prepare_entries
from byway.machine.layout import address_of, alloc
from byway.machine.system import SYS_EPOLL_CTL, plain_syscall
from byway.packet.batch import ROWS, Batch
from byway.packet.segment import Finisher
from byway.switch.fdb import ENTRIES as FDB_ENTRIES
from byway.worker import units
from byway.worker.deliver import SORT_BYTES
from byway.worker.loop import EVENT_SIZE, EVENTS, worker_loop, worker_step
from byway.worker.plan import EDIT, MAX_QUEUES, Plan
from byway.worker.record import CONTROL, HOT_ENTRY, SHARE, WORKER

IDLE_SECONDS = 100e-6  # a port that gave nothing for so long goes to sleep
LATE_SECONDS = 0.02  # a pass longer than this is worth asking why
LOOK_SECONDS = 25e-6  # how often sleeping ports are looked at while others are busy
ANSWER_SECONDS = 10.0  # a worker that does not take up a change in this time is stuck
EPOLL_CTL_ADD, EPOLL_CTL_DEL = 1, 2
WAKE_UP = 0  # event data of the control thread's own event fd


class WorkerStuckError(RuntimeError):
    """A worker did not come to the end of a pass; nothing that it may use can be freed."""


def prepare(progress: Callable[[str], None] | None = None, *, stages: bool = False) -> float:
    """Compile or load everything a switch runs; with ``stages`` those are made meanwhile; ->
    seconds."""
    if stages:
        units.start(progress)
    return prepare_entries((tsc, worker_loop, *FDB_ENTRIES), progress)


class Worker:
    """One worker. All methods belong to the control thread.

    ``cpu``: where it stays. ``gather``: seconds for which it may let frames gather (0: never).
    """

    def __init__(self, cpu: int | None = None, gather: float = 0.0) -> None:
        self.cpu = cpu
        self.batch = Batch()
        self._finisher, self._cutter = Finisher(), Finisher()
        self.batch.record["finisher"] = self._finisher.address
        self.batch.record["cutter"] = self._cutter.address
        self.record = alloc(WORKER, 1)
        self.control = alloc(CONTROL, 1)
        self._events = alloc(np.dtype("u1"), EVENTS * EVENT_SIZE)
        self._sort = alloc(np.dtype("u1"), SORT_BYTES)
        self._hot = alloc(np.dtype("u1"), HOT_ENTRY * MAX_QUEUES)
        self._shares = alloc(np.dtype("u1"), SHARE * ROWS)  # each has a row at least
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._control_epoll(EPOLL_CTL_ADD, self._wake_fd, WAKE_UP)
        self._thread: threading.Thread | None = None
        self._passes_seen = -1
        self.plan = Plan()
        self._edits, self._kept = self.plan.take()
        hz = measure_hz()
        row = self.record[0]
        row["control"], row["epoll"] = address_of(self.control), self._epoll.fileno()
        row["events"], row["sort"] = address_of(self._events), address_of(self._sort)
        row["hot"], row["batch"] = address_of(self._hot), self.batch.address
        row["shares"] = address_of(self._shares)
        # One look that finds nothing, after frames were let gather, is not idleness.
        row["idle_ticks"] = int(max(IDLE_SECONDS, 4 * gather) * hz)
        row["look_ticks"] = int(LOOK_SECONDS * hz)
        row["gather_ticks"], row["plan"] = int(gather * hz), self.plan.address
        self.address = address_of(self.record)

    # ------------------------------------------------------------ what wakes it
    def _control_epoll(self, operation: int, fd: int, data: int) -> None:
        # select.epoll has no say in an event's data; the kernel's call does.
        event = ctypes.create_string_buffer(
            struct.pack("=IQ", select.EPOLLIN | select.EPOLLET, data), EVENT_SIZE)
        failed = plain_syscall(SYS_EPOLL_CTL, self._epoll.fileno(), operation, fd,
                               ctypes.addressof(event))
        if failed:
            raise OSError(-failed, os.strerror(-failed))

    def watch(self, fd: int, number: int) -> None:
        """An event on ``fd`` wakes rx queue ``number``. Before the change that names it."""
        self._control_epoll(EPOLL_CTL_ADD, fd, number + 1)

    def unwatch(self, fd: int) -> None:
        """Before ``fd`` is closed: its file may live on elsewhere, and would go on waking us."""
        self._control_epoll(EPOLL_CTL_DEL, fd, 0)

    # ------------------------------------------------------------ plans
    def publish(self) -> None:
        """Hand over what is to change in the plan; it is in use once ``wait`` has returned."""
        edits, kept = self.plan.take()
        row = self.control[0]
        if int(self.record[0]["seen"]) == int(row["generation"]):
            self._edits, self._kept = edits, kept
        else:  # no thread has taken the last ones up: they gather
            self._edits, self._kept = np.concatenate([self._edits, edits]), self._kept + kept
        row["edits"], row["nedits"] = address_of(self._edits), len(self._edits) * 8 // EDIT
        row["generation"] += 1  # x86-64 keeps the order of stores
        os.eventfd_write(self._wake_fd, 1)

    def give(self, rxq: int, frame: bytes, out: int = -1) -> None:
        """With the next change goes a frame, sent as if it had come in on the rx queue at address
        ``rxq``; to port number ``out``, where that is not -1."""
        self._given = np.frombuffer(frame, np.uint8)  # lives until the next one
        row = self.control[0]
        row["origin"], row["frame"], row["out"] = rxq, address_of(self._given), out + 1
        row["length"] = len(frame)

    def wait(self, late: Callable[[], None]) -> None:
        """Until the worker has taken up the last change (some microseconds: the rest of a pass).

        ``late`` is called now and then when it takes longer than LATE_SECONDS, and
        WorkerStuckError raised when it takes ANSWER_SECONDS. Without a thread there is nobody to
        wait for: the next step takes the change up first.
        """
        wanted = int(self.control[0]["generation"])
        began = ask = time.monotonic()
        while self.running and int(self.record[0]["seen"]) != wanted:
            now = time.monotonic()
            if now > began + ANSWER_SECONDS:
                raise WorkerStuckError(f"the worker on CPU {self.cpu} did not end its pass")
            if now > ask + LATE_SECONDS:
                late()
                ask = now
            time.sleep(10e-6)

    # ------------------------------------------------------------ its thread
    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Run the loop in a thread, pinned where a CPU was given (OSError: not allowed there)."""
        if self.cpu is not None and self.cpu not in usable_cpus():
            raise OSError(f"CPU {self.cpu} is not usable by this process")
        install_interrupt()
        self.control[0]["stop"] = 0
        self._thread = threading.Thread(target=self._run, name=f"worker-{self.cpu}", daemon=True)
        self._thread.start()
        if self.cpu is not None:
            os.sched_setaffinity(self._thread.native_id or 0, {self.cpu})

    def _run(self) -> None:
        worker_loop(self.address)

    def interrupt(self) -> None:
        """End a system call that a peer made the worker wait in: the peer's port then breaks."""
        if self._thread is not None:
            interrupt(self._thread)

    def step(self, now: int | None = None) -> int:
        """One pass in the calling thread (no thread may be running); -> rows moved."""
        return int(worker_step(self.address, int(tsc()) if now is None else now))

    def stalled(self) -> bool:
        """Is it awake, and has ended no pass since this was asked before?"""
        before, self._passes_seen = self._passes_seen, int(self.record[0]["passes"])
        return self.running and not self.record[0]["asleep"] and before == self._passes_seen

    def stop(self, late: Callable[[], None]) -> None:
        """End the thread after its pass; ``late`` as in ``wait``. Idempotent."""
        if self._thread is not None:
            self.control[0]["stop"] = 1
            os.eventfd_write(self._wake_fd, 1)
            end = time.monotonic() + ANSWER_SECONDS
            self._thread.join(LATE_SECONDS)
            while self._thread.is_alive():
                if time.monotonic() > end:
                    raise WorkerStuckError(f"the worker on CPU {self.cpu} does not stop")
                late()
                self._thread.join(LATE_SECONDS)
            self._thread = None

    def close(self) -> None:
        """Give everything back; no thread may be running."""
        if self._wake_fd >= 0:
            self._epoll.close()
            os.close(self._wake_fd)
            self._wake_fd = -1

    def statistics(self) -> dict[str, Any]:
        """Counters since the start; ticks are of the time stamp counter."""
        row = self.record[0]
        frames, ticks = int(row["frames"]), int(row["busy_ticks"])
        return {
            "cpu": self.cpu,
            "passes": int(row["passes"]),
            "busy_passes": int(row["busy_passes"]),
            "frames": frames,
            "busy_cycles": ticks,
            "cycles_per_frame": round(ticks / frames, 1) if frames else 0.0,
            "sleeps": int(row["sleeps"]),
            "wakes": int(row["wakes"]),
            "asleep": bool(row["asleep"]),
            "hot_ports": int(row["nhot"]),
            "plan": int(row["seen"]),
            "flood_backlog": self.plan.backlog.waiting,
        }
