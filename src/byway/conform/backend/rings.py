# SPDX-License-Identifier: Apache-2.0
"""Checks of virtqueues, the same for both formats: sizes, positions, chains, stop and restart.

Used by backend.catalogue. Sources: VIRTIO 1.2, 2.7 (split) and 2.8 (packed); vhost-user, "Ring
states". `both` makes two checks of each, ``ring.split.*`` and ``ring.packed.*``.
"""

import struct
import time
from collections.abc import Callable
from typing import Any

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import TRANSMIT, Setup
from byway.conform.backend.traffic import SETTLE, Traffic
from byway.conform.outcome import Check, Failed, HungUp, must, should
from byway.vhost.messages import ProtocolFeature, Request
from byway.vhost.payloads import VringAddress, VringState
from byway.virtio.features import Feature, mask

R, P, F = Request, ProtocolFeature, Feature
WRAP = 1 << 15
INDIRECT = mask(F.INDIRECT_DESC)


def sized(bench: Bench, packed: bool, size: int) -> str:
    setup = Setup(size=size, packed=packed, posted=min(size, 32))
    return Traffic(bench, setup).both_ways((60, 1514))


def laps(bench: Bench, packed: bool, size: int) -> str:
    """Many more frames than entries, so that every position is passed several times."""
    traffic = Traffic(bench, Setup(size=size, packed=packed, posted=size))
    count = 5 * size + 3
    for k in range(count):
        traffic.push(60, cuts=(12, 30)[: min(k % 3, size - 1)])
    if traffic.far is not None:
        traffic.warm()
        for _ in range(2 * size + 1):
            traffic.into(60)
    traffic.clean("length", "readable", "beyond")
    return f"{count} chains used in a ring of {size}"


def refused_size(bench: Bench, size: int) -> str:
    bench.need(P.REPLY_ACK)
    wire = bench.negotiated()
    wire.set(R.SET_FEATURES, (bench.offered & mask(F.VERSION_1, F.PROTOCOL_FEATURES))
             .to_bytes(8, "little"))
    return wire.refuses(R.SET_VRING_NUM, VringState(0, size).pack())


def based(bench: Bench, packed: bool, base: int) -> str:
    traffic = Traffic(bench, Setup(packed=packed, size=64, start=base, posted=32))
    for _ in range(80):
        traffic.push()
    return f"80 frames from base {base:#x}; " + traffic.both_ways((60,))


def whole_ring(bench: Bench, packed: bool, size: int = 64) -> str:
    traffic = Traffic(bench, Setup(packed=packed, size=size))
    session = traffic.session
    for _ in range(size):
        session.send(traffic.frame())
    session.flush()
    session.tx.reap(size, bench.timeout)
    return f"{size} chains made available at once, all used"


def order(bench: Bench, packed: bool, count: int = 40) -> str:
    traffic = Traffic(bench, Setup(packed=packed))
    session = traffic.session
    frames = [traffic.frame() for _ in range(count)]
    for frame in frames:
        session.send(frame)
    session.flush()
    session.tx.reap(count, bench.timeout)
    if traffic.far is None:
        return f"{count} frames used"
    wanted = [frame[14:23] for frame in frames]
    got = [data[14:23] for data in traffic.collect(count) if data[14:23] in wanted]
    expect(got == wanted, "the frames of one ring came out in another order")
    return f"{count} frames came out in order"


def shaped(bench: Bench, packed: bool, cuts: tuple[int, ...], direct: int | None = None,
           need: int = 0) -> str:
    """Frames whose header and content are cut like this, out and in."""
    setup = Setup(packed=packed, need=need)
    traffic = Traffic(bench, setup)
    session = traffic.session
    for size in (60, 1514):
        traffic.out(size, cuts=cuts, direct=direct)
    if traffic.far is None:
        return f"2 frames used, cut at {cuts}"
    traffic.warm()
    session.rx.poll()
    session.post(len(session.rx.free) // (len(cuts) + 1), cuts=cuts, direct=direct)
    session.rx.notify()
    for size in (60, 1514) * 40:  # the buffers posted before are used up on the way
        traffic.into(size)
    traffic.clean("beyond", "length", "readable")
    return f"frames out and in, cut at {cuts}" + ("" if direct is None else ", indirect")


def zero_length(bench: Bench, packed: bool) -> str:
    traffic = Traffic(bench, Setup(packed=packed))
    session, frame = traffic.session, traffic.frame()
    data = bytes(session.header) + frame
    (gpa, n), nothing = session.pieces(len(data))[0], session.memory.take(64)
    session.tx.add([(gpa, 12), (nothing, 0), (gpa + 12, n - 12)], data)
    session.flush()
    session.tx.reap(1, bench.timeout)
    traffic.out()
    return "a chain with an empty descriptor was used; the ring goes on"


def used_length_transmit(bench: Bench, packed: bool) -> str:
    traffic = Traffic(bench, Setup(packed=packed))
    for size in (60, 1514):
        traffic.push(size, cuts=(12,))
    traffic.clean("length")
    return "used length 0"


def used_length_receive(bench: Bench, packed: bool) -> str:
    traffic = Traffic(bench, Setup(packed=packed)).warm()
    for size in (60, 61, 777, 1514):
        frame = traffic.into(size)
        got = frame.used[0].length
        want = traffic.session.header + len(frame.data)
        expect(got == want and len(frame.data) >= size,
               f"used length {got} for a frame of {size} bytes behind a header of "
               f"{traffic.session.header}")
    return "header and frame, no more, no less"


def untouched(bench: Bench, packed: bool, kind: str) -> str:
    traffic = Traffic(bench, Setup(packed=packed))
    if kind == "readable":
        for size in (60, 1514):
            traffic.push(size, cuts=(12, 100))
    else:
        traffic.warm()
        for size in (60, 777, 1514):
            traffic.into(size)
    traffic.clean(kind)
    return "untouched"


def readable_descriptors(bench: Bench) -> str:
    """The device must not write into the descriptor table or the available ring of a split ring."""
    traffic = Traffic(bench, Setup())
    session, ring = traffic.session, traffic.session.tx
    session.send(traffic.frame())
    parts = ((ring.desc, 16 * ring.size), (ring.avail + 2, 4 + 2 * ring.size))
    session.flush()
    before = [session.memory.read(*part) for part in parts]
    ring.reap(1, bench.timeout)
    expect([session.memory.read(*part) for part in parts] == before,
           "the device wrote into the descriptor table or the available ring")
    return "untouched"


def misaligned(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    traffic = Traffic(bench, Setup(), run=False)
    session = traffic.session
    session.negotiate()
    session.share()
    session.wire.set(R.SET_VRING_NUM, VringState(TRANSMIT, 256).pack())
    user = session.memory.user(session.memory.take(0x10000)) + 8
    payload = VringAddress(TRANSMIT, 0, user, user + 0x8000, user + 0x4000).pack()
    wire = session.wire
    ring = b"\1" + bytes(7)
    steps: tuple[tuple[Request, bytes, list[int]], ...] = (
        (R.SET_VRING_ADDR, payload, []), (R.SET_VRING_CALL, ring, [session.tx.call]),
        (R.SET_VRING_KICK, ring, [session.tx.kick]))
    for request, what, fds in steps:
        try:
            if result := wire.ask(request, what, fds):
                return f"{request.name} was refused with result {result:#x}"
        except HungUp:
            return f"it hung up at {request.name}"
    raise Failed("a ring at an address that is no multiple of 16 was started")


def in_order(bench: Bench, packed: bool) -> str:
    setup = Setup(packed=packed, need=mask(F.IN_ORDER), size=64)
    traffic = Traffic(bench, setup)
    session = traffic.session
    for _ in range(4):
        heads = []
        for k in range(20):
            session.send(traffic.frame(), cuts=(12,) * (k % 2))
            heads.append(list(session.tx.out)[-1])
        session.flush()
        used = [u.chain.head for u in session.tx.reap(20, bench.timeout)]
        expect(used == heads, "chains were used in another order than they were made available")
    return "80 chains used in order; " + traffic.both_ways((60,))


def foreign_used_index(bench: Bench) -> str:
    """The device keeps its own used index, whatever a driver writes over the one in memory."""
    traffic = Traffic(bench, Setup())
    traffic.out()
    ring = traffic.session.tx
    want = ring.memory.read(ring.used + 2, 2)
    ring.memory.put16(ring.used + 2, 0x7777)
    traffic.session.send(traffic.frame())
    traffic.session.flush()
    end = time.monotonic() + bench.timeout
    while (index := ring.memory.get16(ring.used + 2)) == 0x7777 and time.monotonic() < end:
        time.sleep(SETTLE / 10)
    (old,) = struct.unpack("<H", want)
    expect(index == (old + 1) & 0xFFFF, f"used index {index:#x} after the driver scribbled over it")
    return "its own index goes on"


# ---------------------------------------------------------------- the list

def both(make: Callable[..., Check[Any]], name: str, section: str, done: str,
         run: Callable[..., str], **options: Any) -> tuple[Check[Any], ...]:
    """The check for split and for packed rings."""
    sections = {"split": f"VIRTIO 1.2, {section}",
                "packed": f"VIRTIO 1.2, {PACKED.get(section, '2.8')}"}
    return tuple(make(f"ring.{kind}.{name}", sections[kind] if section[0].isdigit() else section,
                      done, run, packed=kind == "packed", **options) for kind in sections)


# Where VIRTIO 1.2 says of packed rings what it says of split ones there.
PACKED = {"2.7.4": "2.8.6", "2.7.5.1": "2.8.3", "2.7.5.3": "2.8.7", "2.7.8.2": "2.8.4",
          "2.7.9": "2.8.8"}
STATES = "Ring states"
FRAMING = "2.7.4"
CHECKS: tuple[Check[Bench], ...] = (
    *(must(f"ring.split.size-{n}", "VIRTIO 1.2, 2.7", f"pass frames through rings of {n} entries",
           sized, packed=False, size=n) for n in (2, 8, 256, 1024, 32768)),
    should("ring.split.size-1", "VIRTIO 1.2, 2.7", "pass frames through rings of one entry",
           sized, packed=False, size=1),
    *(must(f"ring.packed.size-{n}", "VIRTIO 1.2, 2.8", f"pass frames through rings of {n} entries",
           sized, packed=True, size=n) for n in (2, 7, 100, 256, 1000, 32768)),
    must("ring.size-0", "SET_VRING_NUM", "set a ring of no entries", refused_size, size=0),
    must("ring.split.size-not-a-power", "VIRTIO 1.2, 2.7", "set a split ring of 100 entries",
         refused_size, size=100),
    must("ring.size-too-large", "VIRTIO 1.2, 2.7", "set a ring of 65536 entries", refused_size,
         size=65536),
    must("ring.split.laps", "VIRTIO 1.2, 2.7", "go round a ring of 16 entries five times", laps,
         packed=False, size=16),
    must("ring.packed.laps", "VIRTIO 1.2, 2.8.1", "go round a ring of 13 entries five times",
         laps, packed=True, size=13),
    must("ring.split.base", "SET_VRING_BASE", "begin at index 1000", based, packed=False,
         base=1000),
    must("ring.split.base-wraps", "SET_VRING_BASE", "begin at index 65530", based, packed=False,
         base=65530),
    must("ring.packed.base", "SET_VRING_BASE", "begin at slot 10 of the first lap", based,
         packed=True, base=10 | WRAP),
    must("ring.packed.base-second-lap", "SET_VRING_BASE", "begin at slot 60 of a second lap",
         based, packed=True, base=60),
    *both(must, "whole-ring", "2.7", "make every entry available at once", whole_ring),
    *both(should, "frames-in-order", "2.7", "send 40 frames in one go", order),
    *both(must, "header-with-frame", FRAMING, "header and frame in one descriptor", shaped,
          cuts=()),
    *both(must, "header-apart", FRAMING, "the header in a descriptor of its own", shaped,
          cuts=(12,)),
    *both(must, "header-cut", FRAMING, "the header cut into 1, 4 and 7 bytes", shaped,
          cuts=(1, 4, 7)),
    *both(must, "header-and-some", FRAMING, "the header and 5 bytes, then the rest", shaped,
          cuts=(17,)),
    *both(must, "chain", FRAMING, "a frame in 7 pieces", shaped, cuts=(12, 1, 13, 2, 30, 1)),
    *both(must, "indirect", "2.7.5.3", "all pieces in an indirect table", shaped,
          cuts=(12, 20), direct=0, need=INDIRECT),
    must("ring.split.indirect-after-direct", "VIRTIO 1.2, 2.7.5.3.2", "one direct descriptor, the "
         "others in an indirect table", shaped, packed=False, cuts=(12, 20), direct=1,
         need=INDIRECT),
    *both(must, "indirect-long", "2.7.5.3", "20 pieces in an indirect table", shaped,
          cuts=(12, *range(1, 20)), direct=0, need=INDIRECT),
    *both(should, "empty-descriptor", FRAMING, "a descriptor of no bytes in a chain", zero_length),
    *both(must, "used-length-transmit", "2.7.8.2", "look at the used length of frames "
          "sent", used_length_transmit),
    *both(must, "used-length-receive", "2.7.8.2", "look at the used length of frames "
          "received", used_length_receive),
    *both(must, "readable-untouched", "2.7.5.1", "look at what the driver sent",
          untouched, kind="readable"),
    *both(must, "beyond-untouched", "2.7.8.2", "look behind the used length",
          untouched, kind="beyond"),
    must("ring.split.tables-untouched", "VIRTIO 1.2, 2.7.5.1", "look at descriptors and available "
         "ring", readable_descriptors),
    should("ring.split.own-used-index", "VIRTIO 1.2, 2.7.8", "overwrite the used index",
           foreign_used_index),
    should("ring.split.misaligned", "VIRTIO 1.2, 2.7", "place a ring at an odd address",
           misaligned),
    *both(must, "in-order", "2.7.9", "negotiate IN_ORDER, look at the order", in_order),
)
