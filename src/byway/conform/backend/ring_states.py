# SPDX-License-Identifier: Apache-2.0
"""Checks of what starts and stops a ring, for both formats: stop, restart, enable, disable.

Used by backend.catalogue. Source: vhost-user, "Ring states" and "Starting and stopping rings".
"""

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.rings import STATES, both
from byway.conform.backend.session import RECEIVE, Setup
from byway.conform.backend.traffic import SETTLE, Traffic
from byway.conform.outcome import Check, must, should
from byway.virtio.features import Feature

F = Feature


def get_base(bench: Bench, packed: bool, sent: int = 5) -> str:
    traffic = Traffic(bench, Setup(packed=packed, size=64))
    session = traffic.session
    for _ in range(sent):
        traffic.push()
    base = session.stop(session.tx) & 0xFFFF
    want = session.tx.position
    expect(base == want, f"base {base:#x} after {sent} chains, {want:#x} is right")
    return f"base {base:#x} after {sent} chains"


def stopped(bench: Bench, packed: bool) -> str:
    traffic = Traffic(bench, Setup(packed=packed))
    session = traffic.session
    traffic.out()
    session.stop(session.tx)
    session.tx.calls()
    frame = traffic.frame()
    session.send(frame)
    session.flush()
    session.tx.notify()
    traffic.not_heard(frame)
    expect(not session.tx.called(SETTLE) and not session.tx.poll(),
           "a chain was used after GET_VRING_BASE")
    return "nothing used after GET_VRING_BASE"


def stopped_receive(bench: Bench, packed: bool) -> str:
    traffic = Traffic(bench, Setup(packed=packed)).warm()
    session = traffic.session
    session.stop(session.rx)
    session.rx.poll()
    session.rx.calls()
    if traffic.peer is None:
        traffic.session.sent(traffic.frame())
    else:
        traffic.inject(traffic.frame(inward=True))
    expect(not session.rx.called(SETTLE) and not session.rx.poll(),
           "a buffer was used after GET_VRING_BASE")
    return "no buffer used after GET_VRING_BASE"


def restarted(bench: Bench, packed: bool, times: int = 3) -> str:
    traffic = Traffic(bench, Setup(packed=packed, size=64))
    session = traffic.session
    for _ in range(times):
        traffic.out()
        for ring in session.rings:
            session.enable(ring, False)
            session.stop(ring)
        session.rx.poll()
        for ring in session.rings:
            session.start(ring)
            session.enable(ring)
            ring.notify()
    return f"stopped and started {times} times; " + traffic.both_ways((60,))


def resized(bench: Bench, packed: bool) -> str:
    """As after a driver reload: fresh rings of another size, from the beginning."""
    traffic = Traffic(bench, Setup(packed=packed, size=64))
    session = traffic.session
    traffic.out()
    for ring in session.rings:
        session.stop(ring)
    for k, ring in enumerate(list(session.rings)):
        ring.close()
        made = type(ring)(session.memory, k, 128, session.features, receive=k == RECEIVE)
        session.rings[k] = made
        session.start(made)
    session.post(32)
    for ring in session.rings:
        session.enable(ring)
        ring.notify()
    return "64 entries, then 128; " + traffic.both_ways((60,))


def disabled_transmit(bench: Bench, packed: bool) -> str:
    bench.need(F.PROTOCOL_FEATURES)
    traffic = Traffic(bench, Setup(packed=packed))
    session = traffic.session
    traffic.out()
    session.enable(session.tx, False)
    frame = traffic.frame()
    session.sent(frame)
    traffic.not_heard(frame)
    session.enable(session.tx)
    traffic.out()
    return "used and discarded while disabled, passed when enabled again"


def disabled_quiet(bench: Bench, packed: bool) -> str:
    """Whatever becomes of the chain: its frame does not pass a disabled ring."""
    bench.need(F.PROTOCOL_FEATURES)
    traffic = Traffic(bench, Setup(packed=packed))
    session = traffic.session
    traffic.out()
    session.enable(session.tx, False)
    frame = traffic.frame()
    session.send(frame)
    session.flush()
    session.tx.notify()
    traffic.not_heard(frame)
    return "no frame passed the disabled ring"


def disabled_receive(bench: Bench, packed: bool) -> str:
    bench.need(F.PROTOCOL_FEATURES)
    traffic = Traffic(bench, Setup(packed=packed)).warm()
    session = traffic.session
    session.enable(session.rx, False)
    frame = traffic.frame(inward=True)
    traffic.inject(frame)
    traffic.arrives_not(frame)
    session.enable(session.rx)
    traffic.warm()
    return "nothing delivered while disabled, frames came when enabled again"


def kick_before_enable(bench: Bench, packed: bool) -> str:
    bench.need(F.PROTOCOL_FEATURES)
    traffic = Traffic(bench, Setup(packed=packed), run=False)
    session = traffic.session
    session.run(enable=False)
    frames = [traffic.frame() for _ in range(3)]
    for frame in frames:
        session.send(frame)
    session.flush()
    for ring in session.rings:
        ring.notify()
    for frame in frames:
        traffic.not_heard(frame)
    for ring in session.rings:
        session.enable(ring)
    late = traffic.frame()
    session.send(late)
    session.flush()
    session.tx.notify()
    session.tx.reap(4, bench.timeout)
    traffic.heard(late)
    return "nothing passed before the ring was enabled, all used after it"


CHECKS: tuple[Check[Bench], ...] = (
    *both(must, "get-base", "GET_VRING_BASE", "stop a ring, look at the answer", get_base),
    *both(must, "stopped-transmit", STATES, "make a chain available after GET_VRING_BASE",
          stopped),
    *both(must, "stopped-receive", STATES, "send to a driver whose receive ring is stopped",
          stopped_receive),
    *both(must, "restarted", STATES, "stop both rings and start them where they were", restarted),
    *both(must, "resized", STATES, "stop both rings, start others of another size", resized),
    *both(must, "disabled-transmit", STATES, "send through a disabled ring", disabled_quiet),
    *both(should, "disabled-transmit-used", STATES, "send through a disabled ring, wait for it to "
          "be discarded", disabled_transmit),
    *both(must, "disabled-receive", STATES, "send to a driver whose receive ring is disabled",
          disabled_receive),
    *both(must, "kick-before-enable", STATES, "kick rings before they are enabled",
          kick_before_enable),
)
