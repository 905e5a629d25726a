# SPDX-License-Identifier: Apache-2.0
"""Checks of the network device: virtio header, receive buffers, frame sizes, offloads, MTU, RARP.

Used by backend.catalogue. Sources: VIRTIO 1.2, 5.1.6; vhost-user, NET_SET_MTU and SEND_RARP.
"""

import struct
import time

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import Frame, Setup
from byway.conform.backend.traffic import OURS, SETTLE, THEIRS, Traffic, payload
from byway.conform.outcome import Check, Failed, NotApplicable, must, should
from byway.conform.plain_back_end import rarp
from byway.conform.wire import u64
from byway.vhost.messages import ProtocolFeature, Request
from byway.virtio.features import Feature, has, mask

R, P, F = Request, ProtocolFeature, Feature
NEEDS_CSUM, DATA_VALID = 1, 2
TCPV4 = 1
BASE = mask(F.VERSION_1, F.PROTOCOL_FEATURES)
MERGE = mask(F.MRG_RXBUF)


def header_zero(bench: Bench) -> str:
    """No offload was taken: nothing but num_buffers may be set (5.1.6.4.1)."""
    traffic = Traffic(bench, Setup()).warm()
    for size in (60, 1514):
        header = traffic.into(size).header
        expect(header[:10] == bytes(10), f"header {header.hex()} without any offload negotiated")
    return "all zero"


def one_buffer(bench: Bench) -> str:
    traffic = Traffic(bench, Setup()).warm()
    for size in (60, 1514):
        (buffers,) = struct.unpack_from("<H", traffic.into(size).header, 10)
        expect(buffers == 1, f"num_buffers is {buffers} without MRG_RXBUF")
    return "num_buffers is 1"


def merged(bench: Bench, packed: bool = False, cuts: tuple[int, ...] = (), buffer: int = 256,
           size: int = 1514) -> str:
    """A frame over several buffers: filled one after the other, counted, published together."""
    setup = Setup(packed=packed, need=MERGE, posted=0)
    traffic = Traffic(bench, setup, run=False)
    session = traffic.session
    session.run()
    session.post(200 // (len(cuts) + 1), buffer, cuts)
    session.rx.notify()
    traffic.warm()
    got: list[Frame] = [traffic.into(size) for _ in range(3)]
    traffic.clean("merge", "buffers", "header", "beyond", "length")
    wanted = -(-(len(got[0].data) + session.header) // buffer)
    for frame in got:
        expect(len(frame.used) == wanted, f"{len(frame.used)} buffers of {buffer} bytes for a "
               f"frame of {len(frame.data)}; {wanted} hold it")
    return f"{wanted} buffers of {buffer} bytes for a frame of {size}"


def too_small(bench: Bench) -> str:
    """Without MRG_RXBUF a frame that does not fit its buffer is dropped, and nothing breaks."""
    traffic = Traffic(bench, Setup(posted=0), run=False)
    session = traffic.session
    session.run()
    session.post(100, 200)
    session.rx.notify()
    traffic.warm()
    for _ in range(3):
        frame = traffic.frame(1000, inward=True)
        traffic.inject(frame)
        got = session.await_frame(frame[14:23], SETTLE)
        expect(got is None, "a frame of 1000 bytes was delivered into a buffer of 200")
    traffic.clean("beyond", "length")
    traffic.into(60)
    return "dropped; a frame that fits came after it"


def no_buffers(bench: Bench) -> str:
    traffic = Traffic(bench, Setup(posted=4)).warm()
    session = traffic.session
    for _ in range(40):
        traffic.inject(traffic.frame(inward=True))
    time.sleep(SETTLE)
    got = session.frames()
    expect(len(got) <= 4, f"{len(got)} frames in 4 buffers")
    session.post(32)
    session.rx.notify()
    traffic.warm()
    traffic.into()
    traffic.clean("beyond", "length", "header")
    return "frames were dropped or waited; with new buffers it goes on"


def sizes(bench: Bench) -> str:
    """Every size at which copies change their way."""
    traffic = Traffic(bench, Setup())
    wanted = (60, 61, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025,
              1500, 1513, 1514)
    for size in wanted:
        traffic.out(size)
    if traffic.far is not None:
        traffic.warm()
        for size in wanted:
            traffic.into(size)
    traffic.clean("beyond", "length", "readable")
    return f"{len(wanted)} sizes from 60 to 1514"


def legacy(bench: Bench, features: int) -> str:
    setup = Setup(features=features | mask(F.PROTOCOL_FEATURES))
    traffic = Traffic(bench, setup)
    header = traffic.session.header
    seen = traffic.both_ways((60, 1514))
    traffic.clean("length", "beyond", "header")
    return f"a header of {header} bytes; {seen}"


def legacy_merged(bench: Bench) -> str:
    bench.need(F.MRG_RXBUF)
    return legacy(bench, MERGE)


def odd_chain(bench: Bench, size: int) -> str:
    """A chain of ``size`` bytes in all: no frame, but used, and the ring goes on."""
    traffic = Traffic(bench, Setup())
    session = traffic.session
    session.tx.add(session.pieces(size), bytes(size))
    session.flush()
    session.tx.reap(1, bench.timeout)
    traffic.out()
    return "used; a frame after it passes"


def data_valid(bench: Bench) -> str:
    """The device must ignore what it does not know in the header's flags (5.1.6.2.2)."""
    traffic = Traffic(bench, Setup())
    frame = traffic.frame(100)
    traffic.session.sent(frame, header=bytes([DATA_VALID]) + bytes(11))
    traffic.heard(frame)
    return "the frame passed"


# ---------------------------------------------------------------- offloads


def checksum(data: bytes) -> int:
    """The Internet checksum's sum, not inverted (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = int(sum(struct.unpack(f">{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def tcp(tag: int, n: int, inward: bool = False) -> bytes:
    """A TCP segment over IPv4 with ``n`` bytes of content, its checksum left to the device."""
    to, source = (OURS, THEIRS) if inward else (THEIRS, OURS)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40 + n, 1, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    ip = ip[:10] + struct.pack(">H", ~checksum(ip) & 0xFFFF) + ip[12:]
    pseudo = checksum(ip[12:20] + struct.pack(">HH", 6, 20 + n))
    head = struct.pack(">HHIIBBHHH", 1000, 2000, 1, 1, 0x50, 0x18, 1000, pseudo, 0)
    return to + source + b"\x08\0" + ip + head + payload(tag, n)


def tcp_header(gso: int = 0, size: int = 0) -> bytes:
    """The virtio header of ``tcp`` (5.1.6.2)."""
    return struct.pack("<BBHHHHH", NEEDS_CSUM, gso, 54 if gso else 0, size, 34, 16, 0)


def tcp_right(frame: bytes) -> bool:
    """Whether the TCP checksum of an IPv4 frame is right."""
    (total,) = struct.unpack_from(">H", frame, 16)
    segment = frame[34 : 14 + total]
    return checksum(frame[26:34] + struct.pack(">HH", 6, len(segment)) + segment) == 0xFFFF


def unfinished(traffic: Traffic, frame: bytes, header: bytes) -> tuple[Frame, bytes]:
    """Send it; -> as it came out, and the content that was sent."""
    traffic.session.sent(frame, header=header)
    if traffic.far is None:
        raise NotApplicable("used; without --peer or --loopback nobody sees the frame")
    got = traffic.far.await_frame(frame[54:63], traffic.bench.timeout)
    if got is None:
        raise Failed("the frame was used, but never came out at the other side")
    return got, frame[54:]


def needs_csum(bench: Bench) -> str:
    traffic = Traffic(bench, Setup(need=mask(F.CSUM)))
    got, content = unfinished(traffic, tcp(traffic.tag(), 300), tcp_header())
    expect(got.data[54:354] == content, "the content was changed")
    if got.header[0] & NEEDS_CSUM:
        return "passed on unfinished, with its header"
    expect(tcp_right(got.data), "the frame came out without a header that says so, and its "
           "checksum is wrong")
    return "the checksum was completed"


def segmented(bench: Bench) -> str:
    """A TCP frame of 3 segments for a driver that takes no large frames: cut, each one right."""
    traffic = Traffic(bench, Setup(need=mask(F.CSUM, F.HOST_TSO4)))
    if traffic.peer is None:
        raise NotApplicable("needs --peer: what comes back to ourselves may be large")
    frame = tcp(traffic.tag(), 2500)
    traffic.session.sent(frame, header=tcp_header(TCPV4, 1000))
    content, end = b"", time.monotonic() + bench.timeout
    while len(content) < 2500 and time.monotonic() < end:
        for piece in traffic.peer.frames():
            if piece.data[12:14] != b"\x08\0" or piece.data[34:38] != frame[34:38]:
                continue
            expect(piece.header[1] == 0, "a large frame reached a driver that takes none")
            expect(tcp_right(piece.data), "a segment has a wrong checksum")
            (total,) = struct.unpack_from(">H", piece.data, 16)
            content += piece.data[54 : 14 + total]
    expect(content == frame[54:], f"{len(content)} of 2500 bytes came out, or in another order")
    return "cut into segments, each with a right checksum"


def large_merged(bench: Bench) -> str:
    """The same for a driver that takes large frames."""
    need = mask(F.CSUM, F.HOST_TSO4, F.GUEST_CSUM, F.GUEST_TSO4, F.MRG_RXBUF)
    traffic = Traffic(bench, Setup(need=need, posted=120))
    if not bench.loopback:
        raise NotApplicable("needs --loopback: the peer takes no large frames")
    traffic.warm()
    got, content = unfinished(traffic, tcp(traffic.tag(), 20000), tcp_header(TCPV4, 1400))
    expect(got.data[54:] == content, "the content was changed")
    traffic.clean("merge", "buffers")
    return f"came whole, in {len(got.used)} buffers"


def bad_offload(bench: Bench, header: bytes) -> str:
    """A header that cannot be: the frame may be dropped, but is used, and nothing breaks."""
    traffic = Traffic(bench, Setup(need=mask(F.CSUM)))
    traffic.session.sent(tcp(traffic.tag(), 200), header=header)
    traffic.out()
    return "used; a frame after it passes"


# ---------------------------------------------------------------- vhost-user's messages


def mtu(bench: Bench, value: int) -> str:
    bench.need(P.NET_MTU, P.REPLY_ACK)
    wire = bench.negotiated(1 << P.NET_MTU | 1 << P.REPLY_ACK)
    result = wire.ask(R.NET_SET_MTU, u64(value))
    expect(result == 0, f"an MTU of {value} was refused (result {result})")
    return "acknowledged"


def mtu_refused(bench: Bench, value: int) -> str:
    bench.need(P.NET_MTU, P.REPLY_ACK)
    wire = bench.negotiated(1 << P.NET_MTU | 1 << P.REPLY_ACK)
    return wire.refuses(R.NET_SET_MTU, u64(value))


def announced(bench: Bench) -> str:
    """SEND_RARP: a broadcast that says where the guest is now."""
    traffic = Traffic(bench, Setup(protocol_need=1 << P.RARP))
    mac = b"\x02\0\0\0\xaa" + bytes([traffic.tag() & 0xFF])
    if traffic.peer is None:
        traffic.session.wire.set(R.SEND_RARP, mac + bytes(2))
        return "acknowledged"
    traffic.peer.frames()
    traffic.session.wire.set(R.SEND_RARP, mac + bytes(2))
    traffic.session.sent(traffic.frame())  # some send it with the next turn
    got = traffic.peer.await_frame(mac, bench.timeout)
    if got is None:
        raise Failed("no RARP frame came out at the other side")
    want = rarp(mac)
    expect(got.data[:42] == want[:42], f"the frame is {got.data[:42].hex()}, not "
           f"{want[:42].hex()}")
    return "a RARP request came out at the other side"


def all_offloads_taken(bench: Bench) -> str:
    """Taking offloads must not change what plain frames look like."""
    wanted = mask(F.CSUM, F.GUEST_CSUM, F.GUEST_TSO4, F.GUEST_TSO6, F.HOST_TSO4, F.HOST_TSO6)
    bench.learn()
    if not has(bench.offered, F.CSUM):
        raise NotApplicable("did not offer CSUM")
    return Traffic(bench, Setup(features=BASE | wanted | MERGE)).both_ways()


RECEIVING, HEADER, SENDING = "VIRTIO 1.2, 5.1.6.3", "VIRTIO 1.2, 5.1.6.4.1", "VIRTIO 1.2, 5.1.6.2"
CHECKS: tuple[Check[Bench], ...] = (
    must("net.header-zero", HEADER, "receive without offloads, look at the header", header_zero),
    must("net.one-buffer", HEADER, "receive without MRG_RXBUF, look at num_buffers", one_buffer),
    must("net.split.merged", HEADER, "receive 1514 bytes in buffers of 256", merged),
    must("net.packed.merged", HEADER, "receive 1514 bytes in buffers of 256", merged, packed=True),
    must("net.split.merged-chains", HEADER, "receive 1514 bytes in buffers that are chains",
         merged, cuts=(12, 100), buffer=300),
    must("net.packed.merged-chains", HEADER, "receive 1514 bytes in buffers that are chains",
         merged, packed=True, cuts=(12, 100), buffer=300),
    must("net.merged-one", HEADER, "receive 60 bytes in buffers of 256", merged, size=60),
    must("net.too-small", RECEIVING, "receive a frame that does not fit its buffer", too_small),
    must("net.no-buffers", RECEIVING, "send to a driver that has few buffers", no_buffers),
    must("net.sizes", SENDING, "frames of 60 to 1514 bytes, each compared", sizes),
    must("net.legacy-header", "VIRTIO 1.2, 5.1.6.1", "pass frames without VERSION_1", legacy,
         features=0),
    must("net.legacy-merged", "VIRTIO 1.2, 5.1.6.1", "pass frames with MRG_RXBUF, without "
         "VERSION_1", legacy_merged),
    must("net.header-only", SENDING, "send a chain that holds a header only", odd_chain, size=12),
    must("net.runt", SENDING, "send a frame of 4 bytes", odd_chain, size=16),
    should("net.no-header", SENDING, "send a chain of 4 bytes", odd_chain, size=4),
    must("net.data-valid", "VIRTIO 1.2, 5.1.6.2.2", "send a frame with DATA_VALID", data_valid),
    must("net.needs-csum", SENDING, "send a frame whose checksum is not complete", needs_csum),
    must("net.tso", SENDING, "send a large TCP frame to a driver that takes none", segmented),
    must("net.tso-large", SENDING, "send a large TCP frame to a driver that takes them",
         large_merged),
    must("net.offloads-and-plain", "VIRTIO 1.2, 5.1.3", "take offloads, pass plain frames",
         all_offloads_taken),
    must("net.csum-outside", SENDING, "send a checksum position behind the frame's end",
         bad_offload, header=struct.pack("<BBHHHHH", 1, 0, 0, 0, 60000, 16, 0)),
    must("net.gso-zero", SENDING, "send a large frame with a segment size of 0", bad_offload,
         header=struct.pack("<BBHHHHH", 1, 1, 54, 0, 34, 16, 0)),
    must("net.gso-unknown", SENDING, "send an unknown gso_type", bad_offload,
         header=struct.pack("<BBHHHHH", 1, 0x5A, 54, 1000, 34, 16, 0)),
    must("net.mtu", "NET_SET_MTU", "set an MTU of 1500", mtu, value=1500),
    must("net.mtu-too-small", "NET_SET_MTU", "set an MTU of 10", mtu_refused, value=10),
    must("net.mtu-too-large", "NET_SET_MTU", "set an MTU of 1000000", mtu_refused, value=1000000),
    must("net.rarp", "SEND_RARP", "send SEND_RARP, look for the frame", announced),
)
