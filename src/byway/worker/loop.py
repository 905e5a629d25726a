# SPDX-License-Identifier: Apache-2.0
"""The worker's loop: take up plans, serve the hot ports, sleep when none is left.

Used by worker.py (the thread that runs it) and by tests (one pass at a time).

Theory of operation
-------------------
A port is *hot* (polled in every pass) or *cold* (its notifications are on, its event fd is in the
worker's epoll set). A hot port that gave nothing for ``idle_ticks`` is put to sleep: notifications
on, full fence, one more look; if something arrived meanwhile it stays hot. So no wake-up is lost.
While there are hot ports the epoll set is looked at every ``look_ticks``; with none the worker
blocks in epoll_pwait. The cost of a pass grows with the hot ports only.

Event fds are watched edge-triggered and never read: every write makes an event, whatever the
counter says, and a peer cannot make the worker block in a read. Event data is the port's number
+ 1, or 0 for the control thread's own wake-up.

A pass is the time between two looks at the control record. A port taken out of the plan is no
longer touched once the worker has answered with the plan's generation (plan.py).
"""

from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import fence, ld32, ld64, ld64_acq, st64, st64_rel, unlikely
from byway.machine.system import SYS_EPOLL_PWAIT, pause, rdtsc, syscall6
from byway.packet.batch import batch_at, look
from byway.ports.dispatch import port_give_back, port_near, port_rx, port_sleep, port_wake
from byway.ports.record import P
from byway.switch.decide import decide
from byway.switch.fdb import CLOCK_SHIFT
from byway.worker.deliver import deliver, tell_all
from byway.worker.plan import COLD, HOT, plan_at

# Written by the control thread. plan is stored before generation.
CONTROL, control_at, C = record("control", ["generation", "plan", "stop"])
# Written by the worker; read by the control thread at any time.
# seen: generation in use. asleep: blocked in the kernel. ticks are of the time stamp counter.
WORKER, worker_at, W = record("worker", [
    "control", "epoll", "events", "batch", "sort", "hot", "idle_ticks", "look_ticks",
    "seen", "plan", "asleep", "passes", "busy_passes", "frames", "busy_ticks", "sleeps",
    "wakes", "nhot", "looked"], size=256)
# A hot port: its address, when it last gave a frame.
HOT_ENTRY = 16
EVENTS, EVENT_SIZE, EVENT_DATA = 64, 12, 4  # struct epoll_event is packed on x86-64


@kernel
def heat(worker, plan, number, now):
    """Poll port ``number`` from now on, if this worker is to serve it and does not yet."""
    w = worker_at(worker)
    p = plan_at(plan)
    if number < 0 or number >= p.nports:
        return
    if ld64(p.state + 8 * number) == COLD:
        port = ld64(p.ports + 8 * number)
        st64(p.state + 8 * number, HOT)
        st64(w.hot + HOT_ENTRY * w.nhot, port)
        st64(w.hot + HOT_ENTRY * w.nhot + 8, now)
        w.nhot += 1
        port_wake(port)


@kernel
def take_up(worker, generation, now):
    """Follow the newest plan: all its ports are looked at, then tell the control thread."""
    w = worker_at(worker)
    plan = ld64_acq(w.control + C.plan)
    w.plan = plan
    w.nhot = 0
    p = plan_at(plan)
    for k in range(p.nrx):
        number = ld64(p.rx + 8 * k)
        st64(p.state + 8 * number, COLD)
        heat(worker, plan, number, now)
    st64_rel(worker + W.seen, generation)


@kernel
def serve(worker, port, now):
    """One batch from a port to wherever it goes; -> rows."""
    w = worker_at(worker)
    batch = w.batch
    n = port_rx(port, batch)
    if n == 0:
        return 0
    b = batch_at(batch)
    b.now = now >> CLOCK_SHIFT
    look(batch)
    network = plan_at(w.plan).networks + 64 * ld64(port + P.network)
    decide(batch, network, ld64(port + P.index))
    lines = deliver(w.plan, port, batch, w.sort)
    port_give_back(port, batch)
    tell_all(w.plan, port, w.sort, lines)
    return n


@kernel
def one_pass(worker, now):
    """One batch from each hot port; ports idle for long are put to sleep; -> rows."""
    w = worker_at(worker)
    moved = 0
    k = 0
    while k < w.nhot:
        entry = w.hot + HOT_ENTRY * k
        port = ld64(entry)
        if k + 1 < w.nhot:
            port_near(ld64(entry + HOT_ENTRY))
        n = serve(worker, port, now)
        if n > 0:
            st64(entry + 8, now)
            moved += n
        elif now - ld64(entry + 8) > w.idle_ticks:
            if port_sleep(port):
                port_wake(port)
            else:
                st64(plan_at(w.plan).state + 8 * ld64(port + P.index), COLD)
                w.nhot -= 1
                last = w.hot + HOT_ENTRY * w.nhot
                st64(entry, ld64(last))
                st64(entry + 8, ld64(last + 8))
                continue
        k += 1
    return moved


@kernel
def collect(worker, milliseconds):
    """Look at the epoll set for at most ``milliseconds`` (-1: until something happens)."""
    w = worker_at(worker)
    n = syscall6(SYS_EPOLL_PWAIT, w.epoll, w.events, EVENTS, milliseconds, 0, 8)
    now = rdtsc()
    w.looked = now
    for k in range(n):
        # The low half of the data; the high half is 0.
        heat(worker, w.plan, ld32(w.events + EVENT_SIZE * k + EVENT_DATA) - 1, now)
    return n


@kernel
def sleep(worker, generation):
    """Nothing is hot: block until a port or the control thread has something."""
    w = worker_at(worker)
    st64_rel(worker + W.asleep, 1)
    fence()  # the control thread writes the generation, then the wake-up fd: one of us sees it
    if ld64_acq(w.control + C.stop) == 0 and ld64_acq(w.control + C.generation) == generation:
        w.sleeps += 1
        if collect(worker, -1) > 0:
            w.wakes += 1
    st64_rel(worker + W.asleep, 0)


@kernel(entry=True)
def worker_loop(worker):
    """Run passes until told to stop; -> 0."""
    w = worker_at(worker)
    generation = ld64(worker + W.seen)
    now = rdtsc()
    while ld64_acq(w.control + C.stop) == 0:
        wanted = ld64_acq(w.control + C.generation)
        if unlikely(wanted != generation):
            take_up(worker, wanted, now)
            generation = wanted
        moved = one_pass(worker, now)
        st64_rel(worker + W.passes, w.passes + 1)
        if moved > 0:
            w.busy_passes += 1
            w.frames += moved
            end = rdtsc()  # of this pass, and the beginning of the next
            w.busy_ticks += end - now
            now = end
        else:
            pause()
            now = rdtsc()
        if unlikely(w.nhot == 0):
            sleep(worker, generation)
            now = rdtsc()
        elif unlikely(now - w.looked > w.look_ticks):
            collect(worker, 0)
            now = rdtsc()
    return 0


@kernel(entry=True)
def worker_step(worker, now):
    """Take up a plan if there is one and run one pass at time ``now``; -> rows. For tests."""
    w = worker_at(worker)
    wanted = ld64_acq(w.control + C.generation)
    if wanted != ld64(worker + W.seen):
        take_up(worker, wanted, now)
    collect(worker, 0)  # a step may come long after the one before: ports have gone to sleep
    moved = one_pass(worker, now)
    w.passes += 1
    w.frames += moved
    return moved
