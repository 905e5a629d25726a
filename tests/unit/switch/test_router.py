# SPDX-License-Identifier: Apache-2.0
"""The router among offloads, tunnels and limits. By the standards: tests/spec/test_router.py."""

import struct
from dataclasses import replace

import pytest

from byway.packet.offload import GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM
from byway.packet.reason import Reason
from byway.switch.fdb import FIRST_TUNNEL
from byway.switch.routing import REQUESTS_AT_ONCE, Gateway, Router
from byway.testing.frame_batch import Unfinished
from byway.testing.frames import Arp, Echo, checksum
from byway.testing.offload_frames import TCP, Shape
from byway.testing.routed import SECOND, Outcome, Routed
from byway.testing.router_kernels import route_rows
from tests.oracles.routed_frames import GUEST, MAC, icmpv6, number, summed

PORT, TUNNEL = 7, FIRST_TUNNEL + 5
BROADCAST = b"\xff" * 6
GATE, HERE, THERE = number(MAC), number(GUEST), GUEST + 1


@pytest.fixture
def routed() -> Routed:
    made = Routed([Gateway(1, 41, MAC, ("10.0.0.1/24", "fd01::1/64")),
                   Gateway(2, 42, MAC, ("10.0.1.1/24", "fd00::1/64"), 1400)],
                  [Router((1, 2), (("0.0.0.0/0", "10.0.1.2"), ("::/0", "fd00::2")))])
    for address in ("10.0.1.2", "fd00::2"):
        made.know(2, address, THERE)
    return made


def udp(to: bytes, ttl: int = 64, source: bytes = bytes([10, 0, 0, 2])) -> bytes:
    """A frame to the gateway."""
    header = struct.pack(">BBHHHBBH", 0x45, 0, 28, 0, 0, ttl, 17, 0) + source + to
    return GATE + HERE + b"\x08\0" + summed(header) + bytes(8)


# ---------------------------------------------------------------- what is left to do
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("size", "fits"), [(1360, True), (1361, False)])
def test_large_frames_go_on_uncut_where_their_segments_fit(
        routed: Routed, version: int, size: int, fits: bool) -> None:
    """What counts is a segment: 20 or 40 bytes of IP, 20 of TCP and the payload, in 1400."""
    size -= 20 if version == 6 else 0
    shape = Shape(version, TCP, payload=bytes(30000), macs=GATE + HERE,
                  destination=bytes([10, 9, 9, 9]))
    gso = GSO_TCPV4 if version == 4 else GSO_TCPV6
    todo = Unfinished(NEEDS_CSUM, gso, size, shape.l4, 16)
    found, = routed.send([(todo, shape.build())], 1, PORT)
    if not fits:
        assert found.answer
        assert routed.counted == {"over_mtu": 1}
        assert found.offload == 0
        return
    assert (found.network, found.port, found.offload) == (2, 42, todo.word)
    passed = replace(shape, macs=number(THERE) + GATE).build()
    at = 14 + (8 if version == 4 else 7)
    assert found.frame[:at] + found.frame[at + 1 : 24] == passed[:at] + passed[at + 1 : 24]
    assert found.frame[at] == passed[at] - 1
    assert found.frame[26:] == passed[26:]


def test_the_length_in_a_large_frame_is_not_looked_at(routed: Routed) -> None:
    """Some senders leave 0 there; it is made with the segments."""
    shape = Shape(payload=bytes(30000), macs=GATE + HERE, destination=bytes([10, 9, 9, 9]))
    frame = shape.build()
    frame = frame[:16] + bytes(2) + frame[18:]
    todo = Unfinished(NEEDS_CSUM, GSO_TCPV4, 1000, shape.l4, 16)
    assert routed.send([(todo, frame)], 1, PORT)[0].network == 2
    assert routed.send([frame], 1, PORT)[0].drop == Reason.BAD_IP


def test_an_echo_request_whose_checksum_is_not_made(routed: Routed) -> None:
    """It is completed when the reply goes out: over the reply's type."""
    frame = Echo(8, "10.0.0.2", "10.0.0.1", 1, 2, bytes(40)).frame(GATE, HERE)
    frame = frame[:36] + bytes(2) + frame[38:]
    todo = Unfinished(NEEDS_CSUM, 0, 0, 34, 2)
    found, = routed.send([(todo, frame)], 1, PORT)
    assert found.answer
    assert found.offload == todo.word
    made = found.frame[34:36] + struct.pack(">H", checksum(found.frame[34:])) + found.frame[38:]
    assert Echo.parse(found.frame[:34] + made) == Echo(0, "10.0.0.1", "10.0.0.2", 1, 2, bytes(40))


# ---------------------------------------------------------------- what is none of its business
@pytest.mark.parametrize("network", [0, 3, 4, 500])
def test_networks_without_a_gateway(routed: Routed, network: int) -> None:
    frames = [udp(bytes([10, 0, 1, 2])), HERE + GATE + bytes(46), bytes(3)]
    assert routed.send(frames, network, PORT) == [Outcome(f, network, PORT) for f in frames]


@pytest.mark.parametrize("frame", [
    HERE + number(THERE) + b"\x08\0" + bytes(60), GATE[:5], GATE + HERE + b"\x08",
    GATE + b"\x03" + bytes(7), GATE + bytes(40), BROADCAST + HERE + b"\x88\xb5" + bytes(40),
    BROADCAST + HERE + b"\x08\x06" + bytes(20),
    Arp(1, HERE, "10.0.0.2", bytes(6), "10.0.0.9").frame(BROADCAST)])
def test_what_it_leaves_to_others(routed: Routed, frame: bytes) -> None:
    assert routed.send([frame], 1, PORT) == [Outcome(frame, 1, PORT)]


@pytest.mark.parametrize("frame", [
    GATE + HERE + b"\x88\xb5" + bytes(46), GATE + HERE + b"\x81\0\0\5\x08\0" + bytes(46),
    GATE + HERE + b"\x08\x06" + bytes(46),
    Arp(1, HERE, "10.0.0.2", bytes(6), "10.0.0.9").frame(GATE),
    Arp(2, HERE, "10.0.0.2", GATE, "10.0.0.1").frame(GATE)])
def test_what_ends_at_the_gateway(routed: Routed, frame: bytes) -> None:
    assert routed.send([frame], 1, PORT)[0].drop == Reason.TO_GATEWAY


def test_the_gateways_mac_as_a_source(routed: Routed) -> None:
    """A guest that pretends to be the gateway is not heard, whomever it speaks to."""
    for to in (BROADCAST, GATE, number(THERE)):
        frame = to + GATE + b"\x08\0" + bytes(60)
        assert routed.send([frame], 1, PORT)[0].drop == Reason.SPOOFED_MAC


def test_reasons(routed: Routed) -> None:
    """One of each that nothing is sent about."""
    routed.now += 1
    cases = {
        Reason.MARTIAN: udp(bytes([10, 0, 1, 255])), Reason.BAD_IP: udp(bytes(4))[:30],
        Reason.TTL_EXPIRED: udp(bytes([10, 9, 9, 9]), ttl=1, source=bytes([10, 0, 0, 2]))}
    for reason, frame in cases.items():
        if reason == Reason.TTL_EXPIRED:  # an ICMP error
            frame = frame[:14] + summed(frame[14:23] + b"\1" + frame[24:34]) + b"\x0b" + bytes(7)
        assert routed.send([frame], 1, PORT)[0].drop == reason
    lonely = Routed([Gateway(1, 41, MAC, ("10.0.0.1/24",))])
    unreachable = GATE + HERE + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, 0, 59, 9) \
        + b"\xfd" + bytes(14) + b"\2\xfd" + bytes(14) + b"\3"
    assert lonely.send([unreachable], 1, PORT)[0].drop == Reason.NO_ROUTE  # it has no address


# ---------------------------------------------------------------- tunnels
def test_frames_from_tunnels_have_been_routed(routed: Routed) -> None:
    """To the gateway's MAC: dropped. From it, and questions: as if it were not here."""
    assert routed.send([udp(bytes([10, 0, 1, 2]))], 1, TUNNEL, 100)[0].drop == Reason.TO_GATEWAY
    for frame in (number(THERE) + GATE + b"\x08\0" + bytes(60),
                  Arp(1, GATE, "10.0.0.1", bytes(6), "10.0.0.2").frame(BROADCAST),
                  Arp(1, HERE, "10.0.0.3", bytes(6), "10.0.0.1").frame(BROADCAST)):
        assert routed.send([frame], 1, TUNNEL, 100) == [Outcome(frame, 1, TUNNEL)]
    claim = Arp(1, HERE, "10.0.0.1", bytes(6), "10.0.0.2").frame(BROADCAST)
    assert routed.send([claim], 1, TUNNEL, 100)[0].drop == Reason.SPOOFED_ARP


def test_a_gateway_for_hosts_that_have_none() -> None:
    routed = Routed([Gateway(1, 41, MAC, ("10.0.0.1/24", "10.0.1.1/24"), tunnels=True)])
    routed.know(1, "10.0.1.2", THERE)
    assert routed.send([udp(bytes([10, 0, 1, 2]))], 1, TUNNEL, 100)[0].port == 41
    asked = Arp(1, HERE, "10.0.0.3", bytes(6), "10.0.0.1").frame(BROADCAST)
    assert routed.send([asked], 1, TUNNEL, 100)[0].answer


def advertisement(target: bytes, source: bytes) -> bytes:
    """A solicited advertisement to the gateway."""
    to = bytes.fromhex("fd01 0000000000000000000000000001")
    message = icmpv6(bytes([136, 0, 0, 0, 0x60, 0, 0, 0]) + target + b"\2\1" + HERE, source, to)
    return GATE + HERE + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(message), 58, 255) \
        + source + to + message


@pytest.mark.parametrize("version", [4, 6])
def test_answers_that_another_host_waits_for(routed: Routed, version: int) -> None:
    """Where this one has not asked, all hosts of the network get the answer; unless the network
    ends here."""
    target = bytes.fromhex("fd01 00000000000000000000000000aa")
    question = udp(bytes([10, 0, 0, 9]))
    answer = Arp(2, HERE, "10.0.0.9", GATE, "10.0.0.1").frame(GATE)
    if version == 6:
        question = GATE + HERE + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, 0, 59, 9) \
            + bytes.fromhex("fd00") + bytes(13) + b"\2" + target
        answer = advertisement(target, target)
    found, = routed.send([answer], 1, PORT, 100)
    assert found.flood
    assert found.frame == answer
    assert routed.send([answer], 1, PORT)[0].drop == Reason.TO_GATEWAY
    assert routed.send([answer], 1, TUNNEL, 100)[0].drop == Reason.TO_GATEWAY
    asked, = routed.send([question], 2, PORT + 1)
    assert (asked.network, asked.frame[0] & 1) == (1, 1)
    assert routed.send([answer], 1, PORT, 100)[0].drop == Reason.TO_GATEWAY
    routed.now += 3 * SECOND
    assert routed.send([answer], 1, PORT, 100)[0].flood


def test_a_false_advertisement_is_passed_on_to_nobody(routed: Routed) -> None:
    target = bytes.fromhex("fd01 00000000000000000000000000aa")
    frame = advertisement(target, target)
    spoiled = frame[:-1] + bytes([frame[-1] ^ 1])
    assert routed.send([spoiled], 1, PORT, 100)[0].drop == Reason.TO_GATEWAY


def test_a_long_answer_is_passed_on_to_nobody(routed: Routed) -> None:
    """What is flooded is not held against the MTU any more; an answer needs no more than a head."""
    answer = Arp(2, HERE, "10.0.0.9", GATE, "10.0.0.1").frame(GATE)
    assert routed.send([answer.ljust(128, b"x")], 1, PORT, 100)[0].flood
    for length in (129, 9000):
        long = Arp(2, HERE, "10.0.0.8", GATE, "10.0.0.1").frame(GATE).ljust(length, b"x")
        assert routed.send([long], 1, PORT, 100)[0].drop == Reason.TO_GATEWAY


# ---------------------------------------------------------------- limits
def test_who_scans_uses_up_its_own_requests(routed: Routed) -> None:
    def requests(port: int, first: int) -> int:
        frames = [udp(bytes([10, 0, 1, k])) for k in range(first, first + 60)]
        made = routed.send(frames, 1, port)
        assert all(m.drop == Reason.NO_NEIGHBOUR for m in made if m.drop is not None)
        return sum(m.network == 2 for m in made)

    # Addresses that share a word of ``asked`` wait for each other: now and then one of them does.
    assert requests(PORT, 10) in range(REQUESTS_AT_ONCE - 4, REQUESTS_AT_ONCE + 1)
    assert requests(PORT, 80) in range(5)
    assert requests(PORT + 1, 150) in range(REQUESTS_AT_ONCE - 4, REQUESTS_AT_ONCE + 1)
    routed.now += 10 * SECOND
    assert requests(PORT, 10) in range(REQUESTS_AT_ONCE - 4, REQUESTS_AT_ONCE + 1)


def test_answers_are_not_a_way_around_the_limit_of_broadcasts(routed: Routed) -> None:
    """Nobody asked for these answers, and each would go to all hosts."""
    frames = [Arp(2, HERE, f"10.0.0.{k}", GATE, "10.0.0.1").frame(GATE) for k in range(10, 74)]
    made = routed.send(frames, 1, PORT, 100)
    assert sum(m.flood for m in made) == REQUESTS_AT_ONCE
    assert {m.drop for m in made} == {None, Reason.TO_GATEWAY}


def test_rows_that_are_decided_stay_as_they_are(routed: Routed) -> None:
    """A stage before may have answered or dropped."""
    frame = udp(bytes([10, 0, 1, 2]))
    routed.send([frame], 1, PORT)
    row = routed.frames.batch.rows[0]
    before = bytes(routed.frames.content(1)[0][1])
    row["out"] = -1 - int(Reason.RATE)
    route_rows(routed.routing.address, routed.frames.address)
    assert int(row["out"]) == -1 - int(Reason.RATE)
    assert before == frame
