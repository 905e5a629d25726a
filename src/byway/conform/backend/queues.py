# SPDX-License-Identifier: Apache-2.0
"""Checks of several queue pairs, and of the IOTLB.

Used by backend.catalogue. Sources: vhost-user, "Multiple queue support" and "IOMMU support".
"""

import socket
import time

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import Setup
from byway.conform.backend.traffic import SETTLE, Traffic
from byway.conform.outcome import Check, Failed, HungUp, NotApplicable, must, should
from byway.conform.wire import Wire
from byway.vhost.messages import NEED_REPLY, VERSION, ProtocolFeature, Request
from byway.vhost.payloads import Iotlb, VringState
from byway.virtio.features import Feature, mask

R, P, F = Request, ProtocolFeature, Feature
BOTH_MQ = {"need": mask(F.MQ), "protocol_need": 1 << P.MQ}


def queue_num(bench: Bench) -> str:
    bench.need(P.MQ)
    wire = bench.negotiated(1 << P.MQ | 1 << P.REPLY_ACK)
    number = wire.get_u64(R.GET_QUEUE_NUM)
    expect(1 <= number <= 256, f"GET_QUEUE_NUM answered {number}")
    return f"{number} queues"


def several(bench: Bench, pairs: int) -> Traffic:
    """A running session of so many pairs; NotApplicable where there are fewer."""
    bench.need(F.MQ, P.MQ)
    wire = bench.negotiated(1 << P.MQ)
    most = wire.get_u64(R.GET_QUEUE_NUM)
    wire.close()
    if most < pairs:
        raise NotApplicable(f"has {most} queue pairs")
    return Traffic(bench, Setup(need=mask(F.MQ), protocol_need=1 << P.MQ, pairs=pairs, size=64))


def each_pair(bench: Bench) -> str:
    traffic = several(bench, 2)
    session = traffic.session
    for ring in session.rings[1::2]:
        frame = traffic.frame()
        session.send(frame, ring=ring)
        session.flush(ring)
        ring.reap(1, bench.timeout)
        traffic.heard(frame)
    return "a frame sent on each of 2 pairs"


def pair_disabled(bench: Bench) -> str:
    """Frames come in by rings that are enabled only."""
    traffic = several(bench, 2)
    session = traffic.session
    for ring in session.rings[2:]:
        session.enable(ring, False)
    traffic.warm()
    session.rings[2].poll()
    for size in range(60, 100):
        traffic.into(size)
    expect(not session.rings[2].poll(), "a frame came in by a disabled ring")
    return "40 frames, none by the disabled pair"


def pair_switched(bench: Bench) -> str:
    traffic = several(bench, 2)
    session = traffic.session
    for on in (False, True) * 5:
        for ring in session.rings[2:]:
            session.enable(ring, on)
        traffic.out()
    ring, frame = session.rings[3], traffic.frame()
    session.send(frame, ring=ring)
    session.flush(ring)
    ring.reap(1, bench.timeout)
    traffic.heard(frame)
    return "switched 10 times; the pair passes frames"


def storm(bench: Bench, times: int = 300) -> str:
    """Enable and disable as fast as can be, with traffic."""
    bench.need(F.PROTOCOL_FEATURES)
    traffic = Traffic(bench, Setup())
    session = traffic.session
    for k in range(times):
        session.wire.send(R.SET_VRING_ENABLE, VringState(k % 4 // 2, k % 2).pack())
        if k % 10 == 0:
            session.send(traffic.frame())
            session.flush()
    for ring in session.rings:
        session.enable(ring)
        ring.notify()
    session.tx.reap(times // 10, bench.timeout)
    return f"{times} changes; " + traffic.both_ways((60,))


def outside(bench: Bench, request: Request, index: int) -> str:
    bench.need(P.REPLY_ACK)
    return bench.negotiated().refuses(request, VringState(index, 1).pack())


def base_outside(bench: Bench) -> str:
    wire = bench.negotiated()
    wire.send(R.GET_VRING_BASE, VringState(5000, 0).pack())
    try:
        message = wire.receive()
    except HungUp:
        return "it hung up"
    expect(message is not None, "no answer, and the connection stays")
    wire.close()
    bench.probe()
    return "answered; a new connection is served"


def half_pair(bench: Bench) -> str:
    """Only the transmit ring is started: it works without its partner, or waits for it."""
    traffic = Traffic(bench, Setup(), run=False)
    session = traffic.session
    session.negotiate()
    session.share()
    session.start(session.tx)
    session.enable(session.tx)
    session.send(traffic.frame())
    session.flush()
    session.tx.notify()
    early = session.tx.called(SETTLE)
    session.start(session.rx)
    session.post(32)
    session.enable(session.rx)
    for ring in session.rings:
        ring.notify()
    session.tx.reap(1, bench.timeout)
    return f"served {'alone' if early else 'with its partner'}; " + traffic.both_ways((60,))


# ---------------------------------------------------------------- IOTLB

MISS, UPDATE, INVALIDATE = 1, 2, 3
READ_WRITE = 3


class Translated:
    """A session behind an IOMMU, and the back channel on which the back end asks."""

    def __init__(self, bench: Bench) -> None:
        setup = Setup(need=mask(F.ACCESS_PLATFORM, F.VERSION_1),
                      protocol_need=1 << P.BACKEND_REQ | 1 << P.REPLY_ACK)
        self.traffic = Traffic(bench, setup, run=False)
        self.session = self.traffic.session
        ours, theirs = socket.socketpair()
        self.channel = Wire(ours, bench.timeout)
        bench.keep(self.channel)
        negotiate = self.session.negotiate
        def with_channel() -> None:
            negotiate()
            self.session.wire.set(R.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
            theirs.close()
        self.session.negotiate = with_channel  # type: ignore[method-assign]

    def tell(self, kind: int, gpa: int, size: int) -> None:
        """An IOTLB message; it must be acknowledged."""
        user = self.session.memory.user(gpa) if kind == UPDATE else 0
        payload = Iotlb(gpa, size, user, READ_WRITE if kind == UPDATE else 0, kind).pack()
        wire = self.session.wire
        wire.send(R.IOTLB_MSG, payload, flags=VERSION | NEED_REPLY)
        result = int.from_bytes(wire.reply(R.IOTLB_MSG).payload, "little")
        expect(result == 0, f"IOTLB_MSG was refused (result {result})")

    def answer(self, seconds: float) -> int:
        """Answer misses for so long; -> how many there were."""
        end, count = time.monotonic() + seconds, 0
        while (left := end - time.monotonic()) > 0:
            message = self.channel.receive(min(left, SETTLE))
            if message is None:
                continue
            miss = Iotlb.unpack(message.payload)
            expect(miss.kind == MISS, f"a message of type {miss.kind} on the back channel")
            count += 1
            area = self.session.memory.areas[0]
            expect(area.gpa <= miss.iova < area.gpa + area.size, f"a miss at {miss.iova:#x}, where "
                   "nothing was")
            page = miss.iova & ~0xFFFF
            self.tell(UPDATE, page, 0x10000)
        return count


def translated(bench: Bench) -> str:
    made = Translated(bench)
    area = made.session.memory.areas[0]
    share = made.session.share
    def with_translations() -> None:
        share()
        made.tell(UPDATE, area.gpa, area.size)
    made.session.share = with_translations  # type: ignore[method-assign]
    made.session.run()
    return "everything translated beforehand; " + made.traffic.both_ways((60, 1514))


def missed(bench: Bench) -> str:
    made = Translated(bench)
    made.session.run()
    count, end = 0, time.monotonic() + bench.timeout
    while not count and time.monotonic() < end:
        count = made.answer(SETTLE)
    expect(count > 0, "nothing was translated, and no miss was reported")
    made.session.send(made.traffic.frame())
    made.session.flush()
    made.session.tx.notify()
    end = time.monotonic() + bench.timeout
    while not made.session.tx.poll():
        count += made.answer(SETTLE)
        if time.monotonic() > end:
            raise Failed(f"{count} misses were answered, and the chain was not used")
    return f"{count} misses answered, the chain was used"


def invalidated(bench: Bench) -> str:
    made = Translated(bench)
    area = made.session.memory.areas[0]
    share = made.session.share
    def with_translations() -> None:
        share()
        made.tell(UPDATE, area.gpa, area.size)
    made.session.share = with_translations  # type: ignore[method-assign]
    made.session.run()
    made.traffic.out()
    made.tell(INVALIDATE, area.gpa, area.size)
    made.session.send(made.traffic.frame())
    made.session.flush()
    made.session.tx.notify()
    time.sleep(SETTLE)
    expect(not made.session.tx.poll(), "a chain was used after all translations were "
           "invalidated")
    end = time.monotonic() + bench.timeout
    while not made.session.tx.poll():
        made.answer(SETTLE)
        if time.monotonic() > end:
            raise Failed("translations were given again, and the chain was not used")
    return "nothing used without translations, all of it with new ones"


QUEUES, IOMMU = "Multiple queue support", "IOMMU support"
CHECKS: tuple[Check[Bench], ...] = (
    must("mq.queue-num", QUEUES, "ask for the number of queues", queue_num),
    must("mq.each-pair", QUEUES, "send on each of 2 pairs", each_pair),
    must("mq.pair-disabled", QUEUES, "receive with the second pair disabled", pair_disabled),
    must("mq.pair-switched", QUEUES, "enable and disable the second pair while frames pass",
         pair_switched),
    must("mq.enable-storm", "Ring states", "enable and disable rings 300 times", storm),
    must("mq.index-num", "SET_VRING_NUM", "set the size of ring 5000", outside,
         request=R.SET_VRING_NUM, index=5000),
    must("mq.index-enable", "SET_VRING_ENABLE", "enable ring 4294967295", outside,
         request=R.SET_VRING_ENABLE, index=0xFFFFFFFF),
    must("mq.index-base", "GET_VRING_BASE", "stop ring 5000", base_outside),
    should("mq.half-pair", "Ring states", "start the transmit ring, and the receive ring later",
           half_pair),
    must("iotlb.updates", IOMMU, "translate everything beforehand, pass frames", translated),
    must("iotlb.misses", IOMMU, "translate nothing, answer misses", missed),
    must("iotlb.invalidated", IOMMU, "invalidate everything, look what is still used",
         invalidated),
)
