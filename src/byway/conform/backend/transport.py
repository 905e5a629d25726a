# SPDX-License-Identifier: Apache-2.0
"""Checks of framing, replies and file descriptors: what holds for every message.

Used by backend.catalogue. Source: QEMU, docs/interop/vhost-user.rst; sections are its headings.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import Setup
from byway.conform.backend.traffic import Traffic
from byway.conform.outcome import Check, Failed, HungUp, must, should
from byway.conform.wire import QUIET, Leash, Wire, u64
from byway.vhost.messages import HEADER, NEED_REPLY, REPLY, VERSION, ProtocolFeature, Request
from byway.vhost.payloads import MemoryRegion, VringState, pack_memory_table

R, P = Request, ProtocolFeature
UNKNOWN = 0x7FFF  # a request that no version of the protocol has


@contextmanager
def leashes(count: int) -> Iterator[list[Leash]]:
    """So many fds to give away."""
    made = [Leash() for _ in range(count)]
    try:
        yield made
    finally:
        for leash in made:
            leash.close()


def serves(wire: Wire) -> None:
    """The connection goes on."""
    wire.get_u64(R.GET_FEATURES)


def reply_header(bench: Bench) -> str:
    wire = bench.connect()
    wire.send(R.GET_FEATURES)
    message = wire.reply(R.GET_FEATURES)
    return f"flags {message.flags:#x}, {len(message.payload)} bytes"


def fragmented_header(bench: Bench) -> str:
    wire = bench.connect()
    for byte in HEADER.pack(R.GET_FEATURES, VERSION, 0):
        wire.raw(bytes([byte]))
        wire.taken(wire.timeout)  # else the pieces join
    wire.reply(R.GET_FEATURES)
    return "answered after 12 writes of a byte"


def fragmented_payload(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    wire = bench.negotiated()
    data = HEADER.pack(R.SET_VRING_NUM, VERSION | NEED_REPLY, 8) + VringState(0, 256).pack()
    for part in (data[:12], data[12:15], data[15:]):
        wire.raw(part)
        wire.taken(wire.timeout)  # else the pieces join
    result = int.from_bytes(wire.reply(R.SET_VRING_NUM).payload, "little")
    expect(result == 0, f"SET_VRING_NUM in three pieces was refused (result {result})")
    return "done"


def pipelined(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    wire = bench.negotiated()
    order = [R.GET_FEATURES, R.GET_PROTOCOL_FEATURES, R.GET_FEATURES, R.SET_VRING_NUM,
             R.GET_PROTOCOL_FEATURES]
    data = b""
    for request in order:
        payload = VringState(0, 256).pack() if request == R.SET_VRING_NUM else b""
        flags = VERSION | (NEED_REPLY if payload else 0)
        data += HEADER.pack(request, flags, len(payload)) + payload
    wire.raw(data)
    for request in order:
        wire.reply(request)
    wire.quiet()
    return f"{len(order)} messages in one write, answered in order"


def burst(bench: Bench, count: int = 64) -> str:
    wire = bench.connect()
    wire.raw(HEADER.pack(R.GET_FEATURES, VERSION, 0) * count)
    for _ in range(count):
        wire.reply(R.GET_FEATURES)
    wire.quiet()
    return f"{count} requests before a reply was read, {count} replies"


def survives(bench: Bench, data: bytes, what: str) -> str:
    """After these bytes the connection goes on or ends, and a new one is served."""
    wire = bench.connect()
    try:
        wire.raw(data)
        ended = wire.hung_up(2 * QUIET)
    except Failed:
        ended = False
    wire.close()
    bench.probe()
    return f"{what}: {'it hung up' if ended else 'it went on'}; a new connection is served"


def not_served(bench: Bench, flags: int, what: str) -> str:
    wire = bench.connect()
    try:
        wire.send(R.GET_PROTOCOL_FEATURES, flags=flags)
        wire.send(R.GET_FEATURES)  # is answered later than that, however late the peer is
        message = wire.receive()
    except HungUp:
        return "it hung up"
    if message is not None and message.request == R.GET_PROTOCOL_FEATURES:
        raise Failed(f"{what} was answered")
    return "no answer"


def unknown_request(bench: Bench) -> str:
    wire = bench.negotiated()
    wire.send(UNKNOWN)
    try:
        wire.quiet()
        serves(wire)
    except HungUp:
        return "it hung up"
    return "ignored"


def unknown_with_ack(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    return bench.negotiated().refuses(UNKNOWN)


def goes_on_after_refusal(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    wire = bench.negotiated()
    result = wire.ask(UNKNOWN)
    serves(wire)
    return f"refused with result {result:#x}, and it went on"


def wrong_size(bench: Bench, size: int) -> str:
    bench.need(P.REPLY_ACK)
    return bench.negotiated().refuses(R.SET_VRING_NUM, VringState(0, 256).pack().ljust(size, b"\0")
                                      [:size])


def stray_fd(bench: Bench) -> str:
    wire = bench.negotiated()
    with leashes(1) as (leash,):
        wire.send(R.SET_VRING_NUM, VringState(0, 256).pack(), [leash.fd])
        expect(leash.closed(bench.timeout), "an fd attached to SET_VRING_NUM is still open in the "
               "back end")
    return "the fd was closed"


def stray_fds_of_table(bench: Bench) -> str:
    wire = bench.negotiated()
    with leashes(8) as given:
        table = pack_memory_table([MemoryRegion(0x1000, 0x1000, 0x7000_0000_0000, 0)])
        wire.send(R.SET_MEM_TABLE, table, [leash.fd for leash in given])
        left = sum(not leash.closed(bench.timeout) for leash in given)
    expect(left == 0, f"{left} of 8 fds are still open in the back end")
    return "all fds were closed"


def many_fds(bench: Bench) -> str:
    wire = bench.negotiated()
    with leashes(100) as given:
        try:
            wire.send(R.SET_MEM_TABLE, pack_memory_table([]), [leash.fd for leash in given])
        except HungUp:
            return "it hung up"
        left = sum(not leash.closed(bench.timeout if k == 0 else QUIET)
                   for k, leash in enumerate(given))
    expect(left == 0, f"{left} of 100 fds are still open in the back end")
    bench.probe()
    return "all fds were closed"


def fds_after_hang_up(bench: Bench) -> str:
    wire = bench.negotiated()
    with leashes(1) as (leash,):
        wire.send(R.SET_VRING_ERR, u64(0), [leash.fd])
        if wire.acked:
            wire.hung_up(QUIET)
        wire.close()
        expect(leash.closed(bench.timeout), "an error fd is still open in the back end after the "
               "connection ended")
    return "closed with the connection"


def ack_once(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    wire = bench.negotiated()
    for index in (0, 1):
        expect(wire.ask(R.SET_VRING_NUM, VringState(index, 256).pack()) == 0,
               "SET_VRING_NUM was refused")
        wire.quiet()
    return "one acknowledgement each"


def get_with_need_reply(bench: Bench) -> str:
    bench.need(P.REPLY_ACK)
    wire = bench.negotiated()
    wire.send(R.GET_FEATURES, flags=VERSION | NEED_REPLY)
    wire.reply(R.GET_FEATURES)
    wire.quiet()
    return "its reply, and no acknowledgement beside it"


def no_ack_unnegotiated(bench: Bench) -> str:
    wire = bench.negotiated(protocol=0)
    wire.send(R.SET_VRING_NUM, VringState(0, 256).pack(), flags=VERSION | NEED_REPLY)
    wire.quiet()
    serves(wire)
    return "no acknowledgement"


def no_ack_unasked(bench: Bench) -> str:
    wire = bench.negotiated()
    wire.send(R.SET_VRING_NUM, VringState(0, 256).pack())
    wire.quiet()
    serves(wire)
    return "no acknowledgement"


def reconnects(bench: Bench, times: int = 10) -> str:
    before = bench.rebuffs
    for _ in range(times):
        bench.connect().close()
    turned = bench.rebuffs - before
    return f"{times} connections" + (f"; {turned} turned away at first" if turned else "")


def not_turned_away(bench: Bench, times: int = 10) -> str:
    before = bench.rebuffs
    reconnects(bench, times)
    turned = bench.rebuffs - before
    expect(turned == 0, f"{turned} connections were closed unanswered right after another ended")
    return f"{times} connections, none turned away"


def hang_up_in_message(bench: Bench) -> str:
    wire = bench.connect()
    wire.raw(HEADER.pack(R.SET_FEATURES, VERSION, 8) + b"\0\0\0")
    wire.close()
    bench.probe()
    return "a new connection is served"


def second_connection(bench: Bench) -> str:
    bench.need()
    traffic = Traffic(bench, Setup())
    traffic.out()
    try:
        sock = bench.intrude()
    except OSError as error:
        return f"a second one is refused ({error.strerror})"
    with sock:
        traffic.out()
        serves(traffic.session.wire)
    return "the first conversation goes on"


MESSAGES, HEADINGS = "Message Specification", "Header"
ACKS, TALK = "REPLY_ACK", "Communication"
CHECKS: tuple[Check[Bench], ...] = (
    must("transport.reply-header", HEADINGS, "ask GET_FEATURES, look at the reply's header",
         reply_header),
    must("transport.fragmented-header", HEADINGS, "send a header byte by byte", fragmented_header),
    must("transport.fragmented-payload", HEADINGS, "send a payload in pieces",
         fragmented_payload),
    must("transport.pipelined", TALK, "send several requests in one write", pipelined),
    must("transport.burst", TALK, "send 64 requests before reading a reply", burst),
    must("transport.bad-version", HEADINGS, "send GET_FEATURES with version 2", survives,
         data=HEADER.pack(R.GET_FEATURES, 2, 0), what="version 2"),
    should("transport.reply-flag", HEADINGS, "send a request marked as a reply", not_served,
           flags=VERSION | REPLY, what="a request marked as a reply"),
    should("transport.reserved-flags", HEADINGS, "send a request with reserved flags", survives,
           data=HEADER.pack(R.GET_FEATURES, VERSION | 0xFFFFFFF0, 0), what="flags 0xfffffff1"),
    must("transport.huge-size", HEADINGS, "announce a payload of 4 GiB", survives,
         data=HEADER.pack(R.SET_FEATURES, VERSION, 0xFFFFFFFF) + bytes(64), what="4 GiB"),
    must("transport.short-payload", MESSAGES, "send SET_VRING_NUM with 4 bytes", wrong_size,
         size=4),
    should("transport.long-payload", MESSAGES, "send SET_VRING_NUM with 24 bytes", wrong_size,
           size=24),
    must("transport.unknown-request", MESSAGES, "send an unknown request", unknown_request),
    must("transport.unknown-request-ack", ACKS, "send an unknown request with NEED_REPLY",
         unknown_with_ack),
    should("transport.goes-on-after-refusal", ACKS, "go on after a refused request",
           goes_on_after_refusal),
    should("transport.stray-fd", TALK, "attach an fd to a message that takes none", stray_fd),
    should("transport.stray-fds", TALK, "attach 8 fds to a table of one region",
           stray_fds_of_table),
    should("transport.many-fds", TALK, "attach 100 fds to a message", many_fds),
    should("transport.fds-of-the-dead", TALK, "hang up after handing over an fd",
           fds_after_hang_up),
    must("transport.ack-once", ACKS, "send SET_VRING_NUM with NEED_REPLY, count the answers",
         ack_once),
    must("transport.get-with-need-reply", ACKS, "send GET_FEATURES with NEED_REPLY, count the "
         "answers", get_with_need_reply),
    must("transport.no-ack-unnegotiated", ACKS, "set NEED_REPLY without REPLY_ACK negotiated",
         no_ack_unnegotiated),
    must("transport.no-ack-unasked", ACKS, "send SET_VRING_NUM without NEED_REPLY",
         no_ack_unasked),
    must("transport.reconnect", TALK, "connect 10 times, one after the other", reconnects),
    should("transport.reconnect-at-once", TALK, "connect again the moment a connection ended",
           not_turned_away),
    must("transport.hang-up-in-message", TALK, "hang up in the middle of a message",
         hang_up_in_message),
    should("transport.second-connection", TALK, "connect while a conversation is running",
           second_connection),
)
