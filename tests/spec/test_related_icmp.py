# SPDX-License-Identifier: Apache-2.0
"""ICMP about connections: queries (RFC 5508, 3; RFC 792; RFC 4443, 4) and errors (RFC 5508, 4; RFC
4443, 2.4 and 3)."""

from dataclasses import replace

import pytest

from byway.packet.reason import Reason
from byway.switch.groups_compile import Rule
from byway.testing.flow_frames import ICMP, ICMPV6, SYN, TCP, UDP, Packet, icmp, tcp, udp
from tests.filtering import OUT4, OUT6, Filtered

ENDS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
ROUTER = {4: "192.0.2.1", 6: "2001:db8::1"}
# Kinds that are about another packet: RFC 792; RFC 4443, 2.1.
ERRORS = [(4, 3), (4, 11), (4, 12), (6, 1), (6, 2), (6, 3), (6, 4)]


@pytest.fixture
def lab() -> Filtered:
    """A guest that may begin anything, and a web server."""
    made = Filtered()
    made.groups.set_group("out", [OUT4, OUT6] + [
        Rule(ingress=True, version=version, protocol=TCP, ports=(80, 80)) for version in (4, 6)])
    made.port(1, "out")
    return made


def asks(version: int, protocol: int = UDP, turned: bool = False, ports: tuple[int, int] = (1, 2),
         ) -> Packet:
    """The guest's first packet, or (turned) the remote's."""
    ends = ENDS[version][::-1] if turned else ENDS[version]
    return Packet(*ends, protocol, udp(*ports) if protocol == UDP else tcp(*ports, SYN))


# ---------------------------------------------------------------- queries
@pytest.mark.parametrize(("version", "question", "answer"), [
    (4, 8, 0), (4, 13, 14), (4, 15, 16), (4, 17, 18), (6, 128, 129)])
def test_an_answer_to_each_question(
        lab: Filtered, version: int, question: int, answer: int) -> None:
    guest, remote = ENDS[version]
    protocol = ICMP if version == 4 else ICMPV6
    reply = Packet(remote, guest, protocol, icmp(answer, number=7))
    assert lab.tx(reply) is Reason.BAD_STATE
    assert lab.rx(Packet(guest, remote, protocol, icmp(question, number=7))) is None
    assert lab.tx(reply) is None
    assert lab.tx(replace(reply, body=icmp(answer, number=8))) is Reason.BAD_STATE
    assert lab.tx(replace(reply, body=icmp(question, number=7))) is Reason.NOT_ALLOWED, \
        "a question is no answer"
    lab.wait(60.1)
    assert lab.tx(reply) is Reason.BAD_STATE


def test_an_answer_is_of_its_own_kind(lab: Filtered) -> None:
    guest, remote = ENDS[4]
    lab.rx(Packet(guest, remote, ICMP, icmp(8, number=7)))
    assert lab.tx(Packet(remote, guest, ICMP, icmp(14, number=7))) is Reason.BAD_STATE


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(("version", "kind"), ERRORS)
def test_an_error_about_what_the_guest_sent(
        lab: Filtered, version: int, kind: int, protocol: int) -> None:
    """From whomever on the way: RFC 5508, 4."""
    packet = asks(version, protocol)
    for source in (ROUTER[version], ENDS[version][1]):
        assert lab.tx(packet.error(source, kind)) is Reason.BAD_STATE, "about nothing"
    assert lab.rx(packet) is None
    for source in (ROUTER[version], ENDS[version][1]):
        assert lab.tx(packet.error(source, kind)) is None
    other = asks(version, protocol, ports=(1, 3))
    assert lab.tx(other.error(ROUTER[version], kind)) is Reason.BAD_STATE


@pytest.mark.parametrize(("version", "kind"), ERRORS)
def test_an_error_about_what_the_guest_got(lab: Filtered, version: int, kind: int) -> None:
    lab.groups.set_group("out", [
        Rule(ingress=True, version=version, protocol=TCP, ports=(80, 80))])
    packet = asks(version, TCP, turned=True, ports=(40000, 80))
    error = packet.error(ENDS[version][0], kind)
    assert lab.rx(error) is Reason.BAD_STATE
    assert lab.tx(packet) is None
    assert lab.rx(error) is None


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_about_a_query(lab: Filtered, version: int) -> None:
    """RFC 5508, 4.2: Echo that did not arrive; and an answer that did not."""
    guest, remote = ENDS[version]
    protocol, question, answer, kind = (ICMP, 8, 0, 3) if version == 4 else (ICMPV6, 128, 129, 1)
    asked = Packet(guest, remote, protocol, icmp(question, number=7))
    answered = Packet(remote, guest, protocol, icmp(answer, number=7))
    assert lab.tx(asked.error(ROUTER[version], kind)) is Reason.BAD_STATE
    assert lab.rx(asked) is None
    assert lab.tx(asked.error(ROUTER[version], kind)) is None
    assert lab.tx(answered) is None
    lab.groups.set_group("out", [Rule(ingress=False, version=version, protocol=protocol,
                                      icmp_type=question)])
    assert lab.rx(answered.error(guest, kind)) is None


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_goes_to_who_sent_the_packet(lab: Filtered, version: int) -> None:
    """An error that speaks of a known connection, and is for somebody else, or was sent by the
    wrong side."""
    lab.groups.set_group("out", [Rule(ingress=False, version=version, protocol=UDP)])
    guest, remote = ENDS[version]
    packet, kind = asks(version), 3 if version == 4 else 1
    lab.rx(packet)
    error = packet.error(ROUTER[version], kind)
    assert lab.tx(error) is None
    assert lab.tx(replace(error, destination=ROUTER[version])) is Reason.BAD_STATE
    turned = replace(packet, source=remote, destination=guest, body=udp(2, 1))
    assert lab.tx(turned.error(ROUTER[version], kind)) is Reason.BAD_STATE
    assert lab.rx(packet.error(guest, kind)) is Reason.BAD_STATE


def test_an_error_does_not_keep_a_connection(lab: Filtered) -> None:
    lab.rx(asks(4))
    lab.wait(40)
    assert lab.tx(asks(4).error(ROUTER[4], 3)) is None
    lab.wait(40)
    assert lab.tx(asks(4).error(ROUTER[4], 3)) is Reason.BAD_STATE


def test_an_error_obeys_new_rules(lab: Filtered) -> None:
    lab.rx(asks(4))
    lab.groups.set_group("out", [])
    assert lab.tx(asks(4).error(ROUTER[4], 3)) is Reason.BAD_STATE
    assert lab.states() == []


def test_rules_may_allow_errors_about_nothing(lab: Filtered) -> None:
    lab.groups.set_group("out", [
        Rule(ingress=True, version=4, protocol=ICMP, icmp_type=3, icmp_code=4)])
    assert lab.tx(asks(4).error(ROUTER[4], 3, 4)) is None
    assert lab.tx(asks(4).error(ROUTER[4], 3, 3)) is Reason.BAD_STATE


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_that_is_cut_short(lab: Filtered, version: int) -> None:
    """Less than the IP header and 8 bytes (RFC 792) says nothing."""
    packet = asks(version)
    lab.rx(packet)
    whole = (20 if version == 4 else 40) + 8
    kind = 3 if version == 4 else 1
    assert lab.tx(packet.error(ROUTER[version], kind, octets=whole)) is None
    for octets in range(whole):
        frame = packet.error(ROUTER[version], kind, octets=octets).frame()
        bare = frame[: 14 + (20 if version == 4 else 40) + 8 + octets]
        assert lab.tx_frames([bare]) == [], octets


def test_errors_in_pieces_and_about_pieces(lab: Filtered) -> None:
    packet = replace(asks(4), body=udp(1, 2, bytes(100)))
    first, later = packet.pieces(5, [48])
    assert (lab.rx(first), lab.rx(later)) == (None, None)
    assert lab.tx(first.error(ROUTER[4], 3)) is None
    assert lab.tx(later.error(ROUTER[4], 3)) is Reason.BAD_STATE
    error = packet.error(ROUTER[4], 3).pieces(6, [40])
    assert lab.tx(error[0]) is Reason.NOT_ALLOWED


def test_other_versions_inside(lab: Filtered) -> None:
    lab.rx(asks(4)), lab.rx(asks(6))
    inside = asks(6).packet()[:48]
    assert lab.tx(Packet(ROUTER[4], ENDS[4][0], ICMP, icmp(3, data=inside))) is Reason.BAD_STATE
    inside = asks(4).packet()[:28]
    assert lab.tx(Packet(ROUTER[6], ENDS[6][0], ICMPV6, icmp(1, data=inside))) is Reason.BAD_STATE
