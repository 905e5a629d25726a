# SPDX-License-Identifier: Apache-2.0
"""Test traffic at full speed: numbered frames, answered and checked byte for byte.

Used by byway.testing.process (a guest in a process of its own), the demo and the benchmarks.

Theory of operation
-------------------
A guest sends *requests*, at most ``window`` unanswered at a time, and answers the requests of
others. A test frame is: headers of one of several forms (traffic_frames.py), kind (1 byte), 5
unused bytes, the number (8 bytes), then a pattern that follows from the number, in 8-byte words and
a tail of bytes. With several queue pairs each asks in flows of its own, and an answer leaves by the
pair that its request came in by.
An answer has the length and the pattern of its request. The window is what keeps the exchange
honest: a receiver that is slow is waited for, so a frame that does not come back was lost, and is
counted as such after ``patience`` ticks.

Counted apart: frames whose content is wrong (bad), answers that nobody waits for (unexpected), and
frames from a station that belongs to another network (leaked), requests that a later one of their
flow has overtaken (disordered).
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    fence,
    ld8,
    ld16,
    ld64,
    ld64_acq,
    ld64be,
    mul64,
    st8,
    st16,
    st64,
    wadd64,
)
from byway.machine.system import (
    SYS_POLL,
    SYS_READ,
    SYS_SCHED_YIELD,
    pause,
    rdtsc,
    syscall0,
    syscall3,
)
from byway.packet.batch import HEAD, ROWS, R, batch_at, copy_whole, look, set_row
from byway.packet.ethernet import HEADER
from byway.switch.decide import MAC_MASK
from byway.testing.traffic_frames import (
    OTHER,
    flow_place,
    form_of,
    headers_of,
    ports_of,
    source_of,
    write_headers,
)
from byway.virtio.driver import driver_give_back, driver_rx, driver_tx
from byway.virtio.driver_notify import kick_device, refuse_calls, want_calls
from byway.virtio.ring import D

REQUEST, ANSWER = 1, 2
# Behind the headers (traffic_frames): kind and 5 unused bytes, number, pattern.
KIND, NUMBER, PATTERN = HEADER, HEADER + 6, HEADER + 14
MIN_TEST_FRAME = PATTERN
GOLDEN = -0x61C8864680B583EB
STEP = 0x0101010101010101
SPINS = 200  # fruitless rounds before a guest lets others run, or sleeps
ANSWERING_PORT, FIRST_PORT = 7, 1024
POLLFD, REVENTS = 8, 6  # bytes of a struct pollfd, and where it says what happened

# own, peer, foreign: MAC addresses << 16. rx, tx: addresses of int64[pairs], the queues. answered:
# address of int64[window], the request waiting in each place + 1, or 0. sizes: address of
# int64[sizes_mask + 1]. room: where frames are built, ROWS times room_size bytes. linear: where
# received frames that lie in pieces are put together. since: tick when the window last moved.
# check: pattern is written and compared. form: of the requests; flows: how many different ones a
# queue pair has; gso_size: see write_headers. order: address of int64[FLOW_PLACES], the last
# request of each flow that others sent + 1. fds: address of struct pollfd[pairs] of the receive
# queues' calls, then 8 bytes to read into. unsent, unsent_at, unsent_queue: frames that were built
# and not sent before the end, their place in ``selected``, and where they go. The rest: counters.
TRAFFIC, traffic_at, T = record("traffic", [
    "own", "peer", "foreign", "pairs", "rx", "tx", "rx_batch", "tx_batch", "selected", "room",
    "room_size", "linear", "sizes", "sizes_mask", "window", "waiting", "answered", "patience",
    "since", "check", "form", "flows", "gso_size", "order", "fds", "unsent", "unsent_at",
    "unsent_queue", "stop", "next", "sent", "received", "checked", "answers", "lost", "bad",
    "unexpected", "leaked", "disordered", "other", "octets"], size=512)


@kernel
def write_pattern(at, n, number):
    """Fill n bytes at ``at`` with what belongs to ``number``."""
    word = mul64(number + 1, GOLDEN)
    k = 0
    while k + 8 <= n:
        st64(at + k, word)
        word = wadd64(word, STEP)
        k += 8
    while k < n:
        st8(at + k, word >> 8 * (k & 7))
        k += 1


@kernel
def check_pattern(at, n, number):
    """Do n bytes at ``at`` hold what belongs to ``number``?"""
    word = mul64(number + 1, GOLDEN)
    k = 0
    good = True
    while k + 8 <= n:
        good = good and ld64(at + k) == word
        word = wadd64(word, STEP)
        k += 8
    while k < n:
        good = good and ld8(at + k) == (word >> 8 * (k & 7)) & 0xFF
        k += 1
    return good


@kernel
def build(traffic, k, destination, kind, number, length, form, ports):
    """Build a test frame in place k, and its row."""
    t = traffic_at(traffic)
    at = t.room + k * t.room_size
    offload = write_headers(at, length, destination, t.own, form, ports, t.gso_size)
    skip = headers_of(form)
    st64(at + skip + KIND, kind)
    st64(at + skip + NUMBER, number)
    if t.check != 0:
        write_pattern(at + skip + PATTERN, length - skip - PATTERN, number)
    row = batch_at(t.tx_batch).rows + 64 * k
    set_row(row, at, length)
    st64(row + R.offload, offload)
    copy_frame(ld64(row + R.head), at, min(length, HEAD))
    st64(t.selected + 8 * k, row)


@kernel
def send_built(traffic, queue, at, n):
    """Send n frames that were built, from place ``at`` on, waiting for buffers.

    Told to stop meanwhile, it leaves the rest for the next run.
    """
    t = traffic_at(traffic)
    done = 0
    t.unsent = 0
    while done < n:
        done += driver_tx(queue, t.tx_batch, t.selected + 8 * (at + done), n - done)
        fence()
        kick_device(queue)
        if done < n:
            if ld64(queue + D.error) != 0 or ld64_acq(traffic + T.stop) != 0:
                t.unsent = n - done
                t.unsent_at = at + done
                t.unsent_queue = queue
                break
            syscall0(SYS_SCHED_YIELD)
    t.sent += done


@kernel
def settle_answer(traffic, number):
    """An answer has come: free its place in the window."""
    t = traffic_at(traffic)
    place = t.answered + 8 * (number & (t.window - 1))
    if ld64(place) == number + 1:
        st64(place, 0)
        t.waiting -= 1
        t.answers += 1
        t.since = rdtsc()
    else:
        t.unexpected += 1


@kernel
def whole(traffic, row):
    """Where all of a received frame lies in one piece."""
    if ld64(row + R.nsegs) == 0:
        return ld64(row + R.addr)
    linear = traffic_at(traffic).linear
    copy_whole(row, linear)
    return linear


@kernel
def note_order(traffic, source, ports, number):
    """Count a request that another one of its flow has overtaken."""
    t = traffic_at(traffic)
    last = t.order + 8 * flow_place(source, ports)
    if number < ld64(last):
        t.disordered += 1
    st64(last, number + 1)


@kernel
def handle(traffic, row, built):
    """One received row; -> frames built (an answer is built in the next place)."""
    t = traffic_at(traffic)
    head = ld64(row + R.head)
    length = ld64(row + R.len)
    source = source_of(head)
    if source == t.foreign:
        t.leaked += 1
        return built
    form = form_of(head, length, MIN_TEST_FRAME - HEADER)
    if form == OTHER or length > t.room_size:
        t.other += 1
        return built
    if ld64be(head) & MAC_MASK != t.own:
        t.other += 1  # flooded before the switch had learned where it belongs
        return built
    t.received += 1
    t.octets += length
    skip = headers_of(form)
    number = ld64(head + skip + NUMBER)
    if t.check != 0:
        if check_pattern(whole(traffic, row) + skip + PATTERN, length - skip - PATTERN, number):
            t.checked += 1
        else:
            t.bad += 1
    if ld64(head + skip + KIND) & 0xFF == REQUEST:
        ports = ports_of(head, form)
        note_order(traffic, source, ports, number)
        back = (ports & 0xFFFF) << 16 | ports >> 16
        build(traffic, built, source, ANSWER, number, length, form, back)
        return built + 1
    settle_answer(traffic, number)
    return built


@kernel
def new_requests(traffic, pair, built, wanted):
    """Build requests of a queue pair's flows while window and batch have room; -> frames built."""
    t = traffic_at(traffic)
    while built < wanted and t.waiting < t.window:
        number = t.next
        place = t.answered + 8 * (number & (t.window - 1))
        if ld64(place) != 0:
            break  # the oldest is still out
        st64(place, number + 1)
        length = ld64(t.sizes + 8 * (number & t.sizes_mask))
        port = FIRST_PORT + pair + t.pairs * (number % t.flows)
        build(traffic, built, t.peer, REQUEST, number, length, t.form,
              port << 16 | ANSWERING_PORT)
        if t.waiting == 0:
            t.since = rdtsc()
        t.waiting += 1
        t.next = number + 1
        built += 1
    return built


@kernel
def give_up(traffic):
    """Nothing came back for ``patience``: what is out is lost."""
    t = traffic_at(traffic)
    if t.waiting > 0 and rdtsc() - t.since > t.patience:
        for k in range(t.window):
            st64(t.answered + 8 * k, 0)
        t.lost += t.waiting
        t.waiting = 0


@kernel
def serve_pair(traffic, pair, asking):
    """One round of a queue pair: receive, check, answer, ask anew; -> frames received and sent."""
    t = traffic_at(traffic)
    b = batch_at(t.rx_batch)
    rx, tx = ld64(t.rx + 8 * pair), ld64(t.tx + 8 * pair)
    n = driver_rx(rx, t.rx_batch)
    built = 0
    if n > 0:
        look(t.rx_batch)
        for k in range(n):
            row = b.rows + 64 * k
            if ld64(row + R.len) > 0:
                built = handle(traffic, row, built)
        driver_give_back(rx, t.rx_batch)
        fence()
        kick_device(rx)
    if asking:
        built = new_requests(traffic, pair, built, ROWS)
    if built > 0:
        send_built(traffic, tx, 0, built)
    return n + built


@kernel
def round_trip(traffic, asking):
    """One round of all queue pairs; -> frames received and sent."""
    t = traffic_at(traffic)
    moved = 0
    for pair in range(t.pairs):
        if t.unsent == 0:
            moved += serve_pair(traffic, pair, asking)
    if moved == 0:
        give_up(traffic)
    return moved


@kernel
def broken(traffic):
    """Has the device broken a receive queue?"""
    t = traffic_at(traffic)
    error = 0
    for pair in range(t.pairs):
        error |= ld64(ld64(t.rx + 8 * pair) + D.error)
    return error != 0


@kernel
def nap(traffic):
    """Sleep until a frame comes, a millisecond at the most."""
    t = traffic_at(traffic)
    found = False
    for pair in range(t.pairs):
        if want_calls(ld64(t.rx + 8 * pair)):
            found = True
    if not found and syscall3(SYS_POLL, t.fds, t.pairs, 1) > 0:
        for pair in range(t.pairs):
            at = t.fds + POLLFD * pair
            if ld16(at + REVENTS) != 0:
                syscall3(SYS_READ, ld64(at) & 0xFFFFFFFF, t.fds + POLLFD * t.pairs, 8)
                st16(at + REVENTS, 0)
    for pair in range(t.pairs):
        refuse_calls(ld64(t.rx + 8 * pair))


@kernel
def begin(traffic):
    """Poll all queues, send what was left; patience counts from now on."""
    t = traffic_at(traffic)
    for pair in range(t.pairs):
        refuse_calls(ld64(t.rx + 8 * pair))
        refuse_calls(ld64(t.tx + 8 * pair))
    if t.unsent > 0:
        send_built(traffic, t.unsent_queue, t.unsent_at, t.unsent)
    t.since = rdtsc()


@kernel(entry=True)
def traffic_run(traffic, until, asking):
    """Exchange until tick ``until`` or told to stop; sleeps when there is nothing to do; -> 0."""
    begin(traffic)
    idle = 0
    while rdtsc() < until and ld64_acq(traffic + T.stop) == 0 and not broken(traffic):
        if round_trip(traffic, asking != 0) > 0:
            idle = 0
        else:
            idle += 1
            pause()
            if idle > SPINS:
                nap(traffic)
                idle = 0
    return 0


@kernel(entry=True)
def traffic_pair(one, other, until):
    """Two guests in one thread that never sleep, both asking and answering; -> 0."""
    begin(one)
    begin(other)
    while rdtsc() < until:
        if round_trip(one, True) + round_trip(other, True) == 0:
            pause()
    return 0
