# SPDX-License-Identifier: Apache-2.0
"""Checks of feature negotiation, virtio's and the protocol's, and of resets.

Used by backend.catalogue. Sources: vhost-user headings; VIRTIO 1.2, 2.2, 5.1.3.1 and 6.
"""

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    FEATURES_OK,
    Setup,
)
from byway.conform.backend.traffic import Traffic
from byway.conform.outcome import Check, Failed, NotApplicable, must, should
from byway.conform.wire import u64
from byway.vhost.messages import ProtocolFeature, Request
from byway.virtio.features import Feature, has, mask, names

R, P, F = Request, ProtocolFeature, Feature
# VIRTIO 1.2, 5.1.3.1 Feature bit requirements: a feature and those of which it needs one.
NEEDS: tuple[tuple[Feature, tuple[Feature, ...]], ...] = (
    (F.GUEST_TSO4, (F.GUEST_CSUM,)), (F.GUEST_TSO6, (F.GUEST_CSUM,)),
    (F.GUEST_ECN, (F.GUEST_TSO4, F.GUEST_TSO6)), (F.GUEST_UFO, (F.GUEST_CSUM,)),
    (F.GUEST_USO4, (F.GUEST_CSUM,)), (F.GUEST_USO6, (F.GUEST_CSUM,)),
    (F.HOST_TSO4, (F.CSUM,)), (F.HOST_TSO6, (F.CSUM,)),
    (F.HOST_ECN, (F.HOST_TSO4, F.HOST_TSO6)), (F.HOST_UFO, (F.CSUM,)), (F.HOST_USO, (F.CSUM,)),
    (F.CTRL_RX, (F.CTRL_VQ,)), (F.CTRL_VLAN, (F.CTRL_VQ,)),
    (F.CTRL_MAC_ADDR, (F.CTRL_VQ,)), (F.RING_PACKED, (F.VERSION_1,)),
    (F.ACCESS_PLATFORM, (F.VERSION_1,)))
PROTOCOL_NEEDS = (
    (P.INBAND_NOTIFICATIONS, (P.REPLY_ACK, P.BACKEND_REQ)),
    (P.HOST_NOTIFIER, (P.BACKEND_REQ,)), (P.BACKEND_SEND_FD, (P.BACKEND_REQ,)))
DISABLED_BY_US = mask(F.LOG_ALL, F.ACCESS_PLATFORM, F.RING_PACKED, F.IN_ORDER,
                      F.NOTIFICATION_DATA, F.CTRL_VQ, F.HASH_REPORT)


def stable(bench: Bench, protocol: bool = False) -> str:
    request = R.GET_PROTOCOL_FEATURES if protocol else R.GET_FEATURES
    if protocol:
        bench.need(F.PROTOCOL_FEATURES)
    seen = set()
    for _ in range(3):
        wire = bench.connect()
        seen.add(wire.get_u64(request))
        wire.close()
    expect(len(seen) == 1, f"different over connections: {', '.join(map(hex, sorted(seen)))}")
    return f"{seen.pop():#x} over 3 connections"


def offers(bench: Bench, feature: Feature) -> str:
    bench.learn()
    expect(has(bench.offered, feature), f"offered: {' '.join(names(bench.offered))}")
    return "offered"


def unoffered_bit(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    (bit, *_) = [k for k in (58, 48, 47, 44, 61, 4) if not bench.offered >> k & 1]
    wire = bench.negotiated()
    return f"bit {bit}: " + wire.refuses(R.SET_FEATURES, u64(
        bench.offered & mask(F.VERSION_1, F.PROTOCOL_FEATURES) | 1 << bit))


def known_unoffered_bit(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    known = (F.RING_PACKED, F.HASH_REPORT, F.RSS, F.STANDBY, F.CTRL_VQ, F.HOST_UFO)
    feature = next((f for f in known if not has(bench.offered, f)), None)
    if feature is None:
        raise NotApplicable("offers all features that were to be tried")
    wire = bench.negotiated()
    return f"{feature.name}: " + wire.refuses(R.SET_FEATURES, u64(
        bench.offered & mask(F.VERSION_1, F.PROTOCOL_FEATURES) | mask(feature)))


def unoffered_protocol_bit(bench: Bench) -> str:
    bench.need(F.PROTOCOL_FEATURES, P.REPLY_ACK)
    wire = bench.negotiated()
    return "bit 57: " + wire.refuses(R.SET_PROTOCOL_FEATURES,
                                     u64(1 << P.REPLY_ACK | 1 << 57))


def protocol_first(bench: Bench) -> str:
    bench.need(F.PROTOCOL_FEATURES)
    wire = bench.connect()
    offered = wire.get_u64(R.GET_PROTOCOL_FEATURES)
    wire.send(R.SET_PROTOCOL_FEATURES, u64(offered & 1 << P.REPLY_ACK))
    wire.get_u64(R.GET_FEATURES)
    return "GET_ and SET_PROTOCOL_FEATURES were served before SET_FEATURES"


def closure(bench: Bench) -> str:
    bench.learn()
    for feature, needed in NEEDS:
        if has(bench.offered, feature):
            expect(any(has(bench.offered, n) for n in needed),
                   f"{feature.name} is offered without {' or '.join(n.name for n in needed)}")
    return f"{len(NEEDS)} dependencies hold"


def protocol_closure(bench: Bench) -> str:
    bench.need(F.PROTOCOL_FEATURES)
    offered = bench.protocol_offered
    for feature, needed in PROTOCOL_NEEDS:
        if offered >> feature & 1:
            missing = [n.name for n in needed if not offered >> n & 1]
            expect(not missing, f"{feature.name} is offered without {', '.join(missing)}")
    return f"{len(PROTOCOL_NEEDS)} dependencies hold"


def log_with_memory(bench: Bench) -> str:
    bench.learn()
    both = (has(bench.offered, F.LOG_ALL), bool(bench.protocol_offered >> P.LOG_SHMFD & 1))
    if not any(both):
        raise NotApplicable("did not offer LOG_ALL")
    expect(all(both), f"LOG_ALL {both[0]}, LOG_SHMFD {both[1]}: one without the other is no use")
    return "LOG_ALL and LOG_SHMFD are offered"


def platform_with_channel(bench: Bench) -> str:
    bench.need(F.ACCESS_PLATFORM)
    missing = [p.name for p in (P.BACKEND_REQ, P.REPLY_ACK) if not bench.protocol_offered >> p & 1]
    expect(not missing, f"ACCESS_PLATFORM is offered without {', '.join(missing)}")
    return "BACKEND_REQ and REPLY_ACK are offered too"


def acked(bench: Bench, wanted: int, what: str) -> str:
    bench.need(P.REPLY_ACK)
    wire = bench.negotiated()
    result = wire.ask(R.SET_FEATURES, u64(bench.offered & wanted))
    expect(result == 0, f"SET_FEATURES with {what} was refused (result {result})")
    return "acknowledged"


def everything(bench: Bench) -> str:
    bench.learn()
    return acked(bench, bench.offered & ~mask(F.LOG_ALL), "all that is offered")


def one_less(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    optional = mask(F.MRG_RXBUF, F.INDIRECT_DESC, F.EVENT_IDX, F.MQ, F.RING_PACKED, F.IN_ORDER,
                    F.MTU, F.GUEST_ANNOUNCE)
    tried = [Feature(k) for k in range(64) if bench.offered & optional & 1 << k]
    for feature in tried:
        wire = bench.negotiated()
        result = wire.ask(R.SET_FEATURES, u64(
            bench.offered & ~mask(F.LOG_ALL, F.ACCESS_PLATFORM, feature)))
        expect(result == 0, f"refused where only {feature.name} was left out (result {result})")
        wire.close()
    return f"each of {len(tried)} features may be left out"


def repeated(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    traffic = Traffic(bench, Setup())
    traffic.out()
    session = traffic.session
    session.wire.set(R.SET_FEATURES, u64(session.features))
    session.wire.set(R.SET_PROTOCOL_FEATURES, u64(session.protocol))
    traffic.out()
    return "set again while the rings run; frames still pass"


def get_after_set(bench: Bench) -> str:
    wire = bench.negotiated()
    wire.set(R.SET_FEATURES, u64(bench.offered & mask(F.VERSION_1, F.PROTOCOL_FEATURES)))
    offered = wire.get_u64(R.GET_FEATURES)
    expect(offered == bench.offered, f"{offered:#x} after SET_FEATURES, {bench.offered:#x} before")
    return "what is offered does not depend on what was taken"


def without_protocol_features(bench: Bench) -> str:
    traffic = Traffic(bench, Setup(features=mask(F.VERSION_1), protocol=0))
    return "rings are enabled at once; " + traffic.both_ways((60, 1514))


def enable_kept(bench: Bench) -> str:
    bench.need(F.PROTOCOL_FEATURES)
    traffic = Traffic(bench, Setup(), run=False)
    session = traffic.session
    session.wire.send(R.SET_PROTOCOL_FEATURES, u64(session.protocol))
    session.wire.protocol_features = session.protocol
    session.wire.set(R.SET_OWNER)
    for ring in session.rings:  # as QEMU does: before features, memory and rings
        session.enable(ring)
    session.wire.set(R.SET_FEATURES, u64(session.features))
    session.share()
    for ring in session.rings:
        session.start(ring)
    session.post(32)
    session.rx.notify()
    return "enabled before SET_FEATURES; " + traffic.both_ways((60,))


def reset_owner(bench: Bench) -> str:
    wire = bench.negotiated()
    wire.send(R.RESET_OWNER)
    wire.get_u64(R.GET_FEATURES)
    return "ignored, or done; the conversation goes on"


def reset_device(bench: Bench) -> str:
    bench.need(P.RESET_DEVICE)
    traffic = Traffic(bench, Setup(protocol_need=1 << P.RESET_DEVICE))
    traffic.out()
    session = traffic.session
    session.wire.set(R.RESET_DEVICE)
    session.sync()
    frame = traffic.frame()
    session.send(frame)
    session.flush()
    session.tx.notify()
    traffic.not_heard(frame)
    expect(not session.tx.poll(), "a ring is still served after RESET_DEVICE")
    return "the rings stopped"


def status_handshake(bench: Bench) -> str:
    bench.need(P.STATUS)
    traffic = Traffic(bench, Setup(protocol_need=1 << P.STATUS))
    got = traffic.session.wire.get_u64(R.GET_STATUS)
    want = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
    expect(got == want, f"GET_STATUS says {got:#x} after {want:#x} was set")
    return f"status {got:#x}; " + traffic.both_ways((60,))


def before_driver_ok(bench: Bench) -> str:
    bench.need(P.STATUS)
    traffic = Traffic(bench, Setup(protocol_need=1 << P.STATUS), run=False)
    session = traffic.session
    session.negotiate()
    session.share()
    for ring in session.rings:
        session.start(ring)
        session.enable(ring)
    frame = traffic.frame()
    session.send(frame)
    session.flush()
    session.tx.notify()
    traffic.not_heard(frame)
    expect(not session.tx.poll(), "a chain was used before DRIVER_OK")
    session.status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    session.tx.notify()
    session.tx.reap(1, bench.timeout)
    return "nothing used before DRIVER_OK, the chain used after it"


def status_reset(bench: Bench) -> str:
    bench.need(P.STATUS)
    traffic = Traffic(bench, Setup(protocol_need=1 << P.STATUS))
    traffic.session.status(0)
    got = traffic.session.wire.get_u64(R.GET_STATUS)
    expect(got == 0, f"GET_STATUS says {got:#x} after a reset")
    return "status 0 after a reset"


def status_too_large(bench: Bench) -> str:
    bench.need(P.STATUS, P.REPLY_ACK)
    wire = bench.negotiated(1 << P.STATUS | 1 << P.REPLY_ACK)
    return wire.refuses(R.SET_STATUS, u64(0x100))


def gated(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    bench.need(P.MQ)
    wire = bench.negotiated()
    wire.send(R.GET_QUEUE_NUM)
    try:
        message = wire.receive()
    except Failed:
        return "GET_QUEUE_NUM without MQ: it hung up"
    if message is None:
        return "GET_QUEUE_NUM without MQ: no answer"
    return f"GET_QUEUE_NUM without MQ was answered with {len(message.payload)} bytes"


BITS, NET, PROTOCOL = "VIRTIO 1.2, 2.2", "VIRTIO 1.2, 5.1.3.1", "Protocol features"
TYPES, STATES = "Front-end message types", "Ring states"
CHECKS: tuple[Check[Bench], ...] = (
    must("features.stable", BITS, "ask for features over several connections", stable),
    must("features.protocol-stable", PROTOCOL, "ask for protocol features over several "
         "connections", stable, protocol=True),
    should("features.version-1", "VIRTIO 1.2, 6.1", "look for VERSION_1", offers,
           feature=F.VERSION_1),
    should("features.protocol-features", TYPES, "look for PROTOCOL_FEATURES", offers,
           feature=F.PROTOCOL_FEATURES),
    must("features.unknown-bit", BITS, "take a feature that does not exist", unoffered_bit),
    must("features.unoffered-bit", BITS, "take a known feature that was not offered",
         known_unoffered_bit),
    must("features.protocol-unknown-bit", PROTOCOL, "take a protocol feature that does not exist",
         unoffered_protocol_bit),
    must("features.protocol-before-features", TYPES, "negotiate protocol features before "
         "SET_FEATURES", protocol_first),
    must("features.closure", NET, "look for features offered without those they need", closure),
    must("features.protocol-closure", PROTOCOL, "look for protocol features offered without those "
         "they need", protocol_closure),
    should("features.log-closure", "Migration", "look for LOG_ALL and LOG_SHMFD",
           log_with_memory),
    must("features.platform-closure", "IOMMU support", "look for what ACCESS_PLATFORM needs",
         platform_with_channel),
    must("features.minimal", BITS, "take VERSION_1 and PROTOCOL_FEATURES only", acked,
         wanted=mask(F.VERSION_1, F.PROTOCOL_FEATURES), what="the least"),
    should("features.none", BITS, "take no feature at all", acked, wanted=0, what="nothing"),
    must("features.all", BITS, "take everything that is offered", everything),
    must("features.one-less", BITS, "leave out one optional feature at a time", one_less),
    must("features.repeated", TYPES, "set the same features again while the rings run",
         repeated),
    must("features.get-after-set", TYPES, "ask for features after SET_FEATURES", get_after_set),
    must("features.enabled-at-once", STATES, "leave PROTOCOL_FEATURES out, enable no ring",
         without_protocol_features),
    must("features.enable-kept", STATES, "enable rings before SET_FEATURES", enable_kept),
    should("features.reset-owner", TYPES, "send RESET_OWNER", reset_owner),
    must("features.reset-device", TYPES, "send RESET_DEVICE while the rings run", reset_device),
    should("features.not-negotiated", PROTOCOL, "send GET_QUEUE_NUM without MQ", gated),
    must("status.handshake", "VIRTIO 1.2, 3.1.1", "set each status bit, read the status",
         status_handshake),
    must("status.before-driver-ok", "VIRTIO 1.2, 3.1", "make a chain available before DRIVER_OK",
         before_driver_ok),
    must("status.reset", "VIRTIO 1.2, 2.1.2", "set status 0, read the status", status_reset),
    should("status.too-large", TYPES, "set a status of more than 8 bits", status_too_large),
)
