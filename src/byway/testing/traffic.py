# SPDX-License-Identifier: Apache-2.0
"""Test traffic at full speed: numbered frames, answered and checked byte for byte.

Used by byway.testing.process (a guest in a process of its own), the demo and the benchmarks.

Theory of operation
-------------------
A guest sends *requests*, at most ``window`` unanswered at a time, and answers the requests of
others. A test frame is: destination, source, ethertype 0x88B5, kind (1 byte), 5 unused bytes, the
number (8 bytes), then a pattern that follows from the number, in 8-byte words and a tail of bytes.
An answer has the length and the pattern of its request. The window is what keeps the exchange
honest: a receiver that is slow is waited for, so a frame that does not come back was lost, and is
counted as such after ``patience`` ticks.

Counted apart: frames whose content is wrong (bad), answers that nobody waits for (unexpected), and
frames from a station that belongs to another network (leaked).
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import (
    fence,
    ld8,
    ld16be,
    ld64,
    ld64_acq,
    ld64be,
    mul64,
    st8,
    st16be,
    st64,
    st64be,
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
from byway.packet.batch import HEAD, ROWS, R, batch_at, look, set_row
from byway.packet.ethernet import HEADER
from byway.switch.decide import MAC_MASK
from byway.testing.frames import TEST_ETHERTYPE
from byway.virtio.driver import driver_give_back, driver_rx, driver_tx
from byway.virtio.driver_notify import kick_device, refuse_calls, want_calls
from byway.virtio.ring import D

REQUEST, ANSWER = 1, 2
KIND, NUMBER, PATTERN = HEADER, HEADER + 6, HEADER + 14
MIN_TEST_FRAME = PATTERN
GOLDEN = -0x61C8864680B583EB
STEP = 0x0101010101010101
SPINS = 200  # fruitless rounds before a guest lets others run, or sleeps

# own, peer, foreign: MAC addresses << 16. answered: address of int64[window], the request waiting
# in each place + 1, or 0. sizes: address of int64[sizes_mask + 1]. room: where frames are built,
# ROWS times room_size bytes. since: tick when the window last moved. check: pattern is written and
# compared. fd: address of a struct pollfd of the receive queue's call, then 8 bytes to read into.
# The rest are counters.
TRAFFIC, traffic_at, T = record("traffic", [
    "own", "peer", "foreign", "rx", "tx", "rx_batch", "tx_batch", "selected", "room", "room_size",
    "sizes", "sizes_mask", "window", "waiting", "answered", "patience", "since", "check", "fd",
    "stop", "next", "sent", "received", "checked", "answers", "lost", "bad", "unexpected", "leaked",
    "other", "octets"], size=256)


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
def build(traffic, k, destination, kind, number, length):
    """Build a test frame in place k, and its row."""
    t = traffic_at(traffic)
    at = t.room + k * t.room_size
    st64be(at, destination)
    st64be(at + 6, t.own)
    st16be(at + 12, TEST_ETHERTYPE)
    st64(at + KIND, kind)
    st64(at + NUMBER, number)
    if t.check != 0:
        write_pattern(at + PATTERN, length - PATTERN, number)
    row = batch_at(t.tx_batch).rows + 64 * k
    set_row(row, at, length)
    copy_frame(ld64(row + R.head), at, min(length, HEAD))
    st64(t.selected + 8 * k, row)


@kernel
def send_built(traffic, n):
    """Send the first n frames built, waiting for buffers."""
    t = traffic_at(traffic)
    done = 0
    while done < n:
        done += driver_tx(t.tx, t.tx_batch, t.selected + 8 * done, n - done)
        fence()
        kick_device(t.tx)
        if done < n:
            if ld64(t.tx + D.error) != 0 or ld64_acq(traffic + T.stop) != 0:
                return
            syscall0(SYS_SCHED_YIELD)
    t.sent += n


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
def handle(traffic, row, built):
    """One received row; -> frames built (an answer is built in the next place)."""
    t = traffic_at(traffic)
    head = ld64(row + R.head)
    length = ld64(row + R.len)
    source = ld64be(head + 6) & MAC_MASK
    if source == t.foreign:
        t.leaked += 1
        return built
    if ld16be(head + 12) != TEST_ETHERTYPE or length < MIN_TEST_FRAME:
        t.other += 1
        return built
    if ld64be(head) & MAC_MASK != t.own:
        t.other += 1  # flooded before the switch had learned where it belongs
        return built
    t.received += 1
    t.octets += length
    number = ld64(head + NUMBER)
    if t.check != 0:
        if check_pattern(ld64(row + R.addr) + PATTERN, length - PATTERN, number):
            t.checked += 1
        else:
            t.bad += 1
    if ld64(head + KIND) & 0xFF == REQUEST:
        build(traffic, built, source, ANSWER, number, length)
        return built + 1
    settle_answer(traffic, number)
    return built


@kernel
def new_requests(traffic, built, wanted):
    """Build requests while window and batch have room; -> frames built."""
    t = traffic_at(traffic)
    while built < wanted and t.waiting < t.window:
        place = t.answered + 8 * (t.next & (t.window - 1))
        if ld64(place) != 0:
            break  # the oldest is still out
        st64(place, t.next + 1)
        length = ld64(t.sizes + 8 * (t.next & t.sizes_mask))
        build(traffic, built, t.peer, REQUEST, t.next, length)
        if t.waiting == 0:
            t.since = rdtsc()
        t.waiting += 1
        t.next += 1
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
def round_trip(traffic, asking):
    """One round: receive, check, answer, ask anew; -> frames received and sent."""
    t = traffic_at(traffic)
    b = batch_at(t.rx_batch)
    n = driver_rx(t.rx, t.rx_batch)
    built = 0
    if n > 0:
        look(t.rx_batch)
        for k in range(n):
            row = b.rows + 64 * k
            if ld64(row + R.len) > 0:
                built = handle(traffic, row, built)
        driver_give_back(t.rx, t.rx_batch)
        fence()
        kick_device(t.rx)
    if asking:
        built = new_requests(traffic, built, ROWS)
    if built > 0:
        send_built(traffic, built)
    elif n == 0:
        give_up(traffic)
    return n + built


@kernel
def nap(traffic):
    """Sleep until a frame comes, a millisecond at the most."""
    t = traffic_at(traffic)
    if not want_calls(t.rx):
        if syscall3(SYS_POLL, t.fd, 1, 1) > 0:
            syscall3(SYS_READ, ld64(t.fd) & 0xFFFFFFFF, t.fd + 8, 8)
    refuse_calls(t.rx)


@kernel
def begin(traffic):
    """Poll both queues; patience counts from now on."""
    t = traffic_at(traffic)
    refuse_calls(t.rx)
    refuse_calls(t.tx)
    t.since = rdtsc()


@kernel(entry=True)
def traffic_run(traffic, until, asking):
    """Exchange until tick ``until`` or told to stop; sleeps when there is nothing to do; -> 0."""
    t = traffic_at(traffic)
    begin(traffic)
    idle = 0
    while rdtsc() < until and ld64_acq(traffic + T.stop) == 0 and ld64(t.rx + D.error) == 0:
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
