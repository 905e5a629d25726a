# SPDX-License-Identifier: Apache-2.0
"""The worker's loop: take up changes of its plan, serve the hot rx queues, sleep when none is left.

Used by worker.py (the thread that runs it) and by tests (one pass at a time).

Theory of operation
-------------------
An rx queue is *hot* (polled in every pass) or *cold* (its notifications are on, its event fd is in
the worker's epoll set). A hot queue that gave nothing for ``idle_ticks`` is put to sleep:
notifications on, full fence, one more look; if something arrived meanwhile it stays hot. So no
wake-up is lost. While there are hot queues the epoll set is looked at every ``look_ticks``; with
none the worker blocks in epoll_pwait. The cost of a pass grows with the hot queues only.

Event fds are watched edge-triggered and never read: every write makes an event, whatever the
counter says, and a peer cannot make the worker block in a read. Event data is the queue's number
+ 1, or 0 for the control thread's own wake-up.

A hot queue's turn is one batch, of which the other hot queues of its port have a part (serve.py);
who had a part has had its turn. A pass is the time between two looks at the control record. A port
taken out of the plan is no longer touched once the worker has answered with the change's generation
(plan.py). With a change may come one frame that the control thread sends in the name of a port (a
RARP for a guest that has just been moved here). After the queues a pass goes on with the floods
that wait, as far as its bound for them goes (flood.py); while any do, the worker does not sleep.
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence, ld32, ld64, ld64_acq, st64, st64_rel, unlikely
from byway.machine.system import SYS_EPOLL_PWAIT, pause, rdtsc, syscall6
from byway.packet.batch import ROWS
from byway.ports.dispatch import queue_near, queue_sleep, queue_wake
from byway.ports.record import X
from byway.worker.flood import AT_ONCE, PER_PASS, flood_on, may_spend
from byway.worker.plan import ABSENT, COLD, EDIT, HOT, LOOK, MAX_QUEUES, make_edits, plan_at
from byway.worker.record import (
    HOT_ENTRY,
    HOT_GAVE,
    HOT_NUMBER,
    HOT_PASS,
    C,
    W,
    worker_at,
)
from byway.worker.serve import send_one, serve

# A pass that is longer than so many looks at the epoll set is a long one (some ms).
LOOKS = 64
FULL = ROWS // 2  # as many frames from each queue make a look worth its cost
EVENTS, EVENT_SIZE, EVENT_DATA = 64, 12, 4  # struct epoll_event is packed on x86-64


@kernel
def heat(worker, plan, number, now):
    """Poll rx queue ``number`` from now on, if this worker is to serve it and does not yet."""
    w = worker_at(worker)
    p = plan_at(plan)
    if number < 0 or number >= MAX_QUEUES:
        return
    if ld64(p.state + 8 * number) == COLD:
        rxq = ld64(p.rxqs + 8 * number)
        st64(p.state + 8 * number, HOT + w.nhot)
        entry = w.hot + HOT_ENTRY * w.nhot
        st64(entry, rxq)
        st64(entry + HOT_GAVE, now)
        st64(entry + HOT_NUMBER, number)
        st64(entry + HOT_PASS, -1)
        w.nhot += 1
        queue_wake(rxq)


@kernel
def cool(worker, place, state):
    """The hot queue at ``place`` is polled no longer, but COLD or ABSENT; the last one takes its
    place."""
    w = worker_at(worker)
    states = plan_at(w.plan).state
    w.nhot -= 1
    entry = w.hot + HOT_ENTRY * place
    last = w.hot + HOT_ENTRY * w.nhot
    st64(states + 8 * ld64(last + HOT_NUMBER), HOT + place)
    st64(states + 8 * ld64(entry + HOT_NUMBER), state)
    for k in range(0, HOT_ENTRY, 8):
        st64(entry + k, ld64(last + k))


@kernel
def look_again(worker, number, now):
    """The table has another entry for rx queue ``number``: what stood there is served no longer,
    what stands there now is polled."""
    w = worker_at(worker)
    p = plan_at(w.plan)
    state = ld64(p.state + 8 * number)
    if state >= HOT:
        cool(worker, state - HOT, ABSENT)
    if ld64(p.rxqs + 8 * number) != 0:
        st64(p.state + 8 * number, COLD)
        heat(worker, w.plan, number, now)
    else:
        st64(p.state + 8 * number, ABSENT)


@kernel
def take_up(worker, generation, now):
    """Make the edits of a change, look at the queues that it touches, tell the control thread. A
    change without edits only asks whether the pass is over."""
    w = worker_at(worker)
    edits = ld64(w.control + C.edits)
    n = ld64(w.control + C.nedits)
    make_edits(edits, n)
    for k in range(n):
        if ld64(edits + EDIT * k) == LOOK:
            look_again(worker, ld64(edits + EDIT * k + 8), now)
    if ld64(w.control + C.length) > 0:
        send_one(worker, now)
    st64_rel(worker + W.seen, generation)


@kernel
def ask_for_next(worker, k):
    """While the k-th hot queue has its turn, what the next port's first one looks at can come."""
    w = worker_at(worker)
    port = ld64(ld64(w.hot + HOT_ENTRY * k) + X.port)
    for following in range(k + 1, w.nhot):
        rxq = ld64(w.hot + HOT_ENTRY * following)
        if ld64(rxq + X.port) != port:
            queue_near(rxq)
            break


@kernel
def one_pass(worker, now):
    """A turn for each hot rx queue; those idle for long are put to sleep; -> rows.

    Where the control thread waits for its end, a long pass ends after the batch in hand, and the
    next one goes on with the queues that are left.
    """
    w = worker_at(worker)
    may_spend(w.plan, AT_ONCE)
    moved = 0
    k = w.turn if w.turn < w.nhot else 0
    w.turn = 0
    w.gave = 0
    while k < w.nhot:
        if unlikely(ld64_acq(w.control + C.generation) != w.seen
                    and rdtsc() - now > LOOKS * w.look_ticks):
            w.turn = k
            break
        entry = w.hot + HOT_ENTRY * k
        if ld64(entry + HOT_PASS) != w.passes:  # else it had its turn with a sibling
            ask_for_next(worker, k)
            moved += serve(worker, entry, now)
        if unlikely(now - ld64(entry + HOT_GAVE) > w.idle_ticks):
            rxq = ld64(entry)
            if queue_sleep(rxq):
                queue_wake(rxq)
                st64(entry + HOT_GAVE, now)
            else:
                cool(worker, k, COLD)
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


@kernel
def gather(worker, moved, began, now):
    """After a pass that moved few frames, again: let more of them come; -> the tick then.

    A look at a queue costs the same whatever it finds, and takes from the guest the lines that it
    is just writing. A worker that is faster than its guests would look again and again for a few
    frames each time, and slow them down. It does not wait where that would only add delay: after
    single frames, after the first pass that found something, after full or long ones.
    """
    w = worker_at(worker)
    w.streak += 1
    if w.streak > 1 and 2 * w.gave <= moved and moved < FULL * w.nhot:
        end = began + (min(w.nhot, 4) * w.gather_ticks >> 2)
        while now < end:
            pause()
            now = rdtsc()
    return now


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
        flooding = flood_on(w.plan, w.batch, PER_PASS)
        st64_rel(worker + W.passes, w.passes + 1)
        if moved > 0 or flooding:
            w.busy_passes += 1
            w.frames += moved
            end = rdtsc()  # of this pass, and the beginning of the next
            w.busy_ticks += end - now
            now = gather(worker, moved, now, end) if moved > 0 else end
        else:
            w.streak = 0
            pause()
            now = rdtsc()
        if unlikely(w.nhot == 0) and not flooding:
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
    flood_on(w.plan, w.batch, PER_PASS)
    w.passes += 1
    w.frames += moved
    return moved
