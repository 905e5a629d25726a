# SPDX-License-Identifier: Apache-2.0
"""Checks of notifications: calls that must come and must not, kicks, and their file descriptors.

Used by backend.catalogue. Sources: VIRTIO 1.2, 2.7.7, 2.7.10, 2.8.10; vhost-user.
"""

import os
import time
from typing import Any

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import Setup, event_fd
from byway.conform.backend.traffic import SETTLE, Traffic
from byway.conform.outcome import Check, Unable, must, should
from byway.vhost.messages import Request
from byway.virtio.features import Feature, mask

R, F = Request, Feature
EVENT = mask(F.EVENT_IDX)
IDLE = 0.3  # seconds after which a back end that sleeps at all sleeps


def called_transmit(bench: Bench, packed: bool, need: int = 0) -> str:
    traffic = Traffic(bench, Setup(packed=packed, need=need))
    session = traffic.session
    for _ in range(5):
        session.tx.allow_calls()
        session.tx.calls()
        traffic.push()
        expect(session.tx.called(bench.timeout), "a chain was used without a call")
    return "called each time"


def called_receive(bench: Bench, packed: bool, need: int = 0) -> str:
    traffic = Traffic(bench, Setup(packed=packed, need=need)).warm()
    session = traffic.session
    for _ in range(5):
        session.rx.allow_calls()
        session.rx.calls()
        traffic.into()
        expect(session.rx.called(bench.timeout), "a frame was delivered without a call")
    return "called each time"


def _quiet(traffic: Traffic, sends: int) -> int:
    session = traffic.session
    traffic.push()
    session.tx.refuse_calls()
    session.tx.called(SETTLE)
    for _ in range(sends):
        traffic.push()
        session.tx.refuse_calls()
    time.sleep(SETTLE)
    return session.tx.calls()


def suppressed(bench: Bench, packed: bool, need: int = 0) -> str:
    calls = _quiet(Traffic(bench, Setup(packed=packed, need=need)), 20)
    expect(calls == 0, f"{calls} calls for 20 chains that wanted none")
    return "no call for 20 chains"


def batched(bench: Bench, packed: bool) -> str:
    """With EVENT_IDX: no call before the chain that the driver named, one after it."""
    traffic = Traffic(bench, Setup(packed=packed, need=EVENT))
    session = traffic.session
    traffic.push()
    session.tx.called(SETTLE)
    session.tx.allow_calls(after=4)
    for _ in range(4):
        traffic.push()
    early = session.tx.called(SETTLE)
    traffic.push()
    expect(session.tx.called(bench.timeout), "no call for the chain that was named")
    expect(not early, "called before the chain that was named")
    return "called for the fifth chain, not before"


def event_after_wrap(bench: Bench, packed: bool) -> str:
    """The same across the end of the ring (packed), or of the 16-bit index (split)."""
    start = 6 | 1 << 15 if packed else 65534
    traffic = Traffic(bench, Setup(packed=packed, need=EVENT, size=8, start=start, posted=8))
    session = traffic.session
    traffic.push()
    session.tx.called(SETTLE)
    for _ in range(4):
        session.tx.allow_calls(after=2)
        for _ in range(3):
            traffic.push()
        expect(session.tx.called(bench.timeout), "no call for the chain that was named")
    return "called for every third chain, across the end"


def call_changed(bench: Bench) -> str:
    traffic = Traffic(bench, Setup())
    session = traffic.session
    traffic.out()
    old = session.tx.new_call()
    try:
        session.file(R.SET_VRING_CALL, session.tx, session.tx.call)
        session.sync()
        session.tx.calls()
        _drain(old)
        traffic.push()
        expect(session.tx.called(bench.timeout), "the new call fd was not written")
        expect(not _drain(old), "the old call fd was written after the change")
    finally:
        os.close(old)
    return "the new one is called, the old one is not"


def _drain(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def call_changed_often(bench: Bench) -> str:
    """QEMU changes it whenever a guest masks its interrupt."""
    traffic = Traffic(bench, Setup())
    session = traffic.session
    for _ in range(50):
        os.close(session.tx.new_call())
        session.file(R.SET_VRING_CALL, session.tx, session.tx.call)
        session.send(traffic.frame())
        session.flush()
    session.tx.reap(50, bench.timeout)
    return "50 changes with traffic"


def no_call_fd(bench: Bench) -> str:
    traffic = Traffic(bench, Setup(silent=True))
    return "a driver that polls; " + traffic.both_ways((60,))


def no_kick_fd(bench: Bench) -> str:
    traffic = Traffic(bench, Setup(polled=True))
    return "a back end that polls; " + traffic.both_ways((60,))


def kick_wanted(bench: Bench, packed: bool, need: int = 0) -> str:
    """Kicked only where the device asked for it, also after it had time to fall asleep."""
    traffic = Traffic(bench, Setup(packed=packed, need=need))
    traffic.out()
    for _ in range(3):
        time.sleep(IDLE)
        traffic.out()
    return "used, kicked only where the device asked for it"


def kick_waiting(bench: Bench) -> str:
    """The kick fd is readable already when it is handed over."""
    traffic = Traffic(bench, Setup(), run=False)
    session = traffic.session
    session.negotiate()
    session.share()
    session.send(traffic.frame())
    session.tx.publish()
    session.tx.notify()
    for ring in session.rings:
        session.start(ring)
        session.enable(ring)
    session.tx.reap(1, bench.timeout)
    return "the chain was used"


def call_fd_full(bench: Bench) -> str:
    """A call fd whose counter is full must not hold the device up."""
    traffic = Traffic(bench, Setup())
    session = traffic.session
    traffic.out()
    session.tx.called(SETTLE)
    os.eventfd_write(session.tx.call, (1 << 64) - 2)
    for _ in range(20):
        traffic.push()
    return "20 chains used with a full call fd"


def call_fd_is_pipe(bench: Bench) -> str:
    """A call fd that nobody reads and that takes no more: refused, or no harm."""
    traffic = Traffic(bench, Setup())
    session = traffic.session
    traffic.out()
    ours, theirs = os.pipe()
    try:
        os.set_blocking(theirs, False)
        while True:
            try:
                os.write(theirs, bytes(4096))
            except BlockingIOError:
                break
        session.wire.send(R.SET_VRING_CALL, b"\1" + bytes(7), [theirs])
        if session.wire.hung_up(SETTLE):
            return "refused: it hung up"
        for _ in range(5):
            traffic.push()
    finally:
        os.close(ours)
        os.close(theirs)
    return "5 chains used with a full pipe as call fd"


def error_fd(bench: Bench) -> str:
    traffic = Traffic(bench, Setup())
    fd = event_fd()
    try:
        traffic.session.file(R.SET_VRING_ERR, traffic.session.tx, fd)
        traffic.session.sync()
        traffic.out()
        expect(not _drain(fd), "the error fd was written though nothing was wrong")
    finally:
        os.close(fd)
    return "taken, not written"


def kicks_in_vain(bench: Bench) -> str:
    traffic = Traffic(bench, Setup())
    for _ in range(1000):
        traffic.session.tx.notify()
    return "1000 kicks with nothing available; " + traffic.both_ways((60,))


def replaced_kick(bench: Bench) -> str:
    traffic = Traffic(bench, Setup())
    session = traffic.session
    traffic.out()
    if session.setup.polled:
        raise Unable("no kick fd")
    old, session.tx.kick = session.tx.kick, event_fd()
    os.close(old)
    session.file(R.SET_VRING_KICK, session.tx, session.tx.kick)
    session.sync()
    time.sleep(IDLE)
    traffic.out()
    return "kicked through the new fd"


def _both(name: str, number: str, done: str, run: Any, level: Any = must,
          **options: Any) -> tuple[Check[Bench], ...]:
    return tuple(level(f"notify.{kind}.{name}", f"VIRTIO 1.2, {section}", done, run,
                       packed=kind == "packed", **options)
                 for kind, section in (("split", number), ("packed", "2.8.10")))


CHECKS: tuple[Check[Bench], ...] = (
    *_both("call-transmit", "2.7.7", "send frames, wait for calls", called_transmit),
    *_both("call-receive", "2.7.7", "receive frames, wait for calls", called_receive),
    *_both("suppressed", "2.7.7", "refuse calls, send frames", suppressed, should),
    *_both("kick-wanted", "2.7.10", "kick only when asked to, with pauses", kick_wanted),
    *_both("event-call-transmit", "2.7.7", "EVENT_IDX: send frames, wait for calls",
           called_transmit, need=EVENT),
    *_both("event-call-receive", "2.7.7", "EVENT_IDX: receive frames, wait for calls",
           called_receive, need=EVENT),
    *_both("event-suppressed", "2.7.7", "EVENT_IDX: an event that is never reached", suppressed,
           should, need=EVENT),
    *_both("event-batched", "2.7.7", "EVENT_IDX: ask for a call after the fifth chain", batched),
    *_both("event-wraps", "2.7.7", "EVENT_IDX: ask for calls across the end", event_after_wrap),
    *_both("event-kick-wanted", "2.7.10", "EVENT_IDX: kick only when asked to, with pauses",
           kick_wanted, need=EVENT),
    must("notify.call-changed", "SET_VRING_CALL", "change the call fd while the rings run",
         call_changed),
    must("notify.call-changed-often", "SET_VRING_CALL", "change the call fd 50 times with traffic",
         call_changed_often),
    must("notify.no-call-fd", "SET_VRING_CALL", "hand over no call fd (bit 8)", no_call_fd),
    must("notify.no-kick-fd", "SET_VRING_KICK", "hand over no kick fd (bit 8)", no_kick_fd),
    must("notify.kick-waiting", "Starting and stopping rings", "kick before the fd is handed over",
         kick_waiting),
    must("notify.kick-changed", "SET_VRING_KICK", "change the kick fd while the rings run",
         replaced_kick),
    must("notify.kicks-in-vain", "VIRTIO 1.2, 2.7.10", "kick 1000 times for nothing",
         kicks_in_vain),
    must("notify.call-fd-full", "SET_VRING_CALL", "fill the call fd's counter", call_fd_full),
    should("notify.call-fd-pipe", "SET_VRING_CALL", "hand over a full pipe as call fd",
           call_fd_is_pipe),
    must("notify.error-fd", "SET_VRING_ERR", "hand over an error fd", error_fd),
)
