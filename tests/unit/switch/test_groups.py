# SPDX-License-Identifier: Apache-2.0
"""Security groups frame by frame: what passes, what does not and why, and changes while it runs."""


import pytest

from byway.packet.reason import Reason
from byway.switch.groups_compile import Rule
from byway.testing.flow_frames import (
    ACK,
    ICMP,
    ICMPV6,
    RST,
    SYN,
    TCP,
    UDP,
    Packet,
    icmp,
    tcp,
    udp,
)
from tests.filtering import OUT4, OUT6, Filtered

GUEST, REMOTE, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"
GUEST6, REMOTE6 = "fd00::1", "fd00::2"
WEB = Rule(ingress=True, version=4, protocol=TCP, ports=(80, 80))


@pytest.fixture
def lab() -> Filtered:
    """Port 1: a web server that may begin whatever it likes."""
    made = Filtered()
    made.groups.set_group("web", [WEB, OUT4, OUT6])
    made.port(1, "web")
    return made


def out(source: int = 40000, destination: int = 443, flags: int = SYN, **more: object) -> Packet:
    return Packet(GUEST, REMOTE, TCP, tcp(source, destination, flags), **more)


def back(source: int = 443, destination: int = 40000, flags: int = SYN | ACK,
         remote: str = REMOTE) -> Packet:
    return Packet(remote, GUEST, TCP, tcp(source, destination, flags))


# ---------------------------------------------------------------- rules
def test_only_what_rules_allow(lab: Filtered) -> None:
    assert lab.tx(back(40000, 80, SYN)) is None
    assert lab.tx(back(40000, 81, SYN)) is Reason.NOT_ALLOWED
    assert lab.tx(Packet(REMOTE, GUEST, UDP, udp(40000, 80))) is Reason.NOT_ALLOWED
    assert lab.tx(Packet(REMOTE6, GUEST6, TCP, tcp(40000, 80, SYN))) is Reason.NOT_ALLOWED


def test_replies_pass_in_both_directions(lab: Filtered) -> None:
    assert lab.rx(out()) is None
    assert lab.tx(back()) is None
    assert lab.tx(back(443, 40001)) is Reason.BAD_STATE
    assert lab.tx(back(443, 40000, remote=OTHER)) is Reason.BAD_STATE
    assert lab.tx(back(40000, 80, SYN)) is None
    assert lab.rx(out(80, 40000, SYN | ACK)) is None


def test_no_groups_no_frames() -> None:
    lab = Filtered()
    lab.port(1)
    assert lab.rx(out()) is Reason.NOT_ALLOWED
    assert lab.tx(back(1, 2, SYN)) is Reason.NOT_ALLOWED


def test_groups_add_up(lab: Filtered) -> None:
    lab.groups.set_group("dns", [Rule(ingress=True, version=4, protocol=UDP, ports=(53, 53))])
    lab.port(1, "web", "dns")
    assert lab.tx(Packet(REMOTE, GUEST, UDP, udp(40000, 53))) is None
    assert lab.tx(back(40000, 80, SYN)) is None


def test_each_port_is_a_zone_of_its_own(lab: Filtered) -> None:
    lab.port(2, "web")
    assert lab.rx(out(), 1) is None
    assert lab.tx(back(), 2) is Reason.BAD_STATE
    assert lab.tx(back(), 1) is None


@pytest.mark.parametrize(("protocol", "passes"), [(47, True), (50, False)])
def test_protocols_by_number(lab: Filtered, protocol: int, passes: bool) -> None:
    lab.groups.set_group("web", [Rule(ingress=True, version=4, protocol=47)])
    verdict = lab.tx(Packet(REMOTE, GUEST, protocol, bytes(20)))
    assert verdict is (None if passes else Reason.NOT_ALLOWED)
    if passes:
        assert lab.rx(Packet(GUEST, REMOTE, protocol, bytes(20))) is None
        assert lab.states() == ["other"]


def test_icmp_types_and_codes(lab: Filtered) -> None:
    lab.groups.set_group("web", [
        Rule(ingress=True, version=4, protocol=ICMP, icmp_type=8),
        Rule(ingress=True, version=4, protocol=ICMP, icmp_type=5, icmp_code=1)])
    assert lab.tx(Packet(REMOTE, GUEST, ICMP, icmp(8))) is None
    assert lab.tx(Packet(REMOTE, GUEST, ICMP, icmp(13))) is Reason.NOT_ALLOWED
    assert lab.tx(Packet(REMOTE, GUEST, ICMP, icmp(5, 1))) is None
    assert lab.tx(Packet(REMOTE, GUEST, ICMP, icmp(5, 0))) is Reason.NOT_ALLOWED


# ---------------------------------------------------------------- what always passes, and never
def test_arp_passes_and_what_is_not_ip_does_not(lab: Filtered) -> None:
    macs = bytes(range(12))
    for kind, passes in ((0x0806, True), (0x8035, True), (0x88CC, False), (0x8864, False),
                         (0x8847, False), (46, False)):
        frame = macs + kind.to_bytes(2) + b"\x45" + bytes(60)
        assert lab.rx_frames([frame]) == [None if passes else Reason.NOT_ALLOWED], hex(kind)
        assert lab.tx_frames([frame]) == ([0] if passes else [])


def test_what_byway_answers_itself_passes(lab: Filtered) -> None:
    answer = Packet("10.0.0.254", GUEST, ICMP, icmp(0)).frame()
    assert lab.tx_frames([answer, answer], origin=1) == [0, 1]
    assert lab.tx_frames([answer], origin=2) == []


@pytest.mark.parametrize(("guest", "server", "ports", "remote"), [
    ("0.0.0.0", "255.255.255.255", (68, 67), REMOTE),
    (GUEST6, "ff02::1:2", (546, 547), REMOTE6)])
def test_dhcp_of_a_client(guest: str, server: str, ports: tuple[int, int], remote: str) -> None:
    lab = Filtered()
    lab.port(1)
    assert lab.rx(Packet(guest, server, UDP, udp(*ports))) is None
    assert lab.tx(Packet(remote, guest, UDP, udp(*ports[::-1]))) is None
    assert lab.rx(Packet(guest, remote, UDP, udp(*ports[::-1]))) is Reason.NOT_ALLOWED, "no server"
    assert lab.tx(Packet(remote, guest, UDP, udp(*ports))) is Reason.NOT_ALLOWED


def test_neighbour_discovery() -> None:
    lab = Filtered()
    lab.port(1)
    passing = {  # hop limit: from the guest, to it
        255: ((133, 135, 136), (134, 135, 136)), 1: ((131, 132, 143), (130, 131, 132, 143)),
        64: ((), ()), 254: ((), ())}
    for hops, (sent, came) in passing.items():
        for kind in range(256):
            out = lab.rx(Packet(GUEST6, REMOTE6, ICMPV6, icmp(kind), hops=hops))
            back = lab.tx(Packet(REMOTE6, GUEST6, ICMPV6, icmp(kind), hops=hops))
            assert ((out is None), (back is None)) == (kind in sent, kind in came), (kind, hops)


def test_addresses_that_mean_ipv4_are_not_ipv6(lab: Filtered) -> None:
    for ends in ((GUEST6, "::ffff:10.0.0.2"), ("::ffff:10.0.0.1", REMOTE6)):
        assert lab.rx(Packet(*ends, UDP, udp(1, 2))) is Reason.NOT_ALLOWED


def test_tagged_frames_are_looked_into(lab: Filtered) -> None:
    assert lab.rx(out(tags=(5,))) is None
    assert lab.rx(out(tags=(5, 6))) is None
    assert lab.rx(out(tags=(5, 6, 7))) is Reason.NOT_ALLOWED, "what is in there cannot be seen"


def test_headers_that_are_not_there(lab: Filtered) -> None:
    whole = out().frame()
    for n in range(14, 54):
        assert lab.rx_frames([whole[:n]]) == [Reason.NOT_ALLOWED], n
    assert lab.rx_frames([whole[:54]]) == [None]
    assert lab.rx_frames([whole[:14] + b"\x44" + whole[15:]]) == [Reason.NOT_ALLOWED]


def test_a_transport_header_out_of_sight(lab: Filtered) -> None:
    """IPv6 options that reach beyond what is looked at: rules for all protocols only, each frame by
    itself."""
    options = (0, bytes([15]) + bytes(126))
    hidden = Packet(GUEST6, REMOTE6, TCP, tcp(1, 2, SYN), headers=(options,))
    assert lab.rx(hidden) is None
    turned = Packet(REMOTE6, GUEST6, TCP, tcp(2, 1, SYN), headers=(options,))
    assert lab.tx(turned) is Reason.NOT_ALLOWED, "it is an answer to nothing"
    lab.groups.set_group("web", [Rule(ingress=False, version=6, protocol=TCP)])
    assert lab.rx(hidden) is Reason.NOT_ALLOWED


# ---------------------------------------------------------------- in the middle
def test_picked_up_where_the_rules_allow(lab: Filtered) -> None:
    assert lab.tx(back(40000, 22, ACK)) is Reason.BAD_STATE
    assert lab.tx(back(40000, 80, ACK)) is None
    assert lab.states() == ["picked_up"]
    assert lab.rx(out(80, 40000, ACK)) is None
    assert lab.states() == ["established"]
    assert lab.tx(back(40001, 80, RST)) is Reason.BAD_STATE, "a RST begins nothing"
    assert lab.tx(back(40001, 80, SYN | ACK)) is Reason.BAD_STATE


def test_a_batch_in_order(lab: Filtered) -> None:
    """What the first frame begins, the second one of the same batch belongs to."""
    frames = [out(flags=ACK | 4).frame(), out().frame(), out(flags=ACK).frame(),
              Packet(GUEST, REMOTE, UDP, udp(1, 2)).frame()]
    assert lab.rx_frames(frames) == [Reason.BAD_STATE, None, Reason.BAD_STATE, None]
    frames = [back(1, 81, SYN).frame(), back().frame(), back(1, 80, SYN).frame()]
    assert lab.tx_frames(frames) == [1, 2]


def test_a_full_batch(lab: Filtered) -> None:
    frames = [out(1000 + k).frame() for k in range(64)]
    assert lab.rx_frames(frames) == [None] * 64
    assert lab.tx_frames([back(443, 1000 + k).frame() for k in range(64)]) == list(range(64))
    assert len(lab.groups.table) == 64


def test_ageing(lab: Filtered) -> None:
    lab.rx(Packet(GUEST, REMOTE, UDP, udp(1, 2)))
    lab.wait(59)
    assert lab.tx(Packet(REMOTE, GUEST, UDP, udp(2, 1))) is None
    lab.wait(179)
    assert lab.groups.tick(lab.now) == 0
    assert lab.tx(Packet(REMOTE, GUEST, UDP, udp(2, 1))) is None
    lab.wait(181)
    assert lab.tx(Packet(REMOTE, GUEST, UDP, udp(2, 1))) is Reason.NOT_ALLOWED
    assert len(lab.groups.table) == 0, "who finds an old one removes it"


# ---------------------------------------------------------------- changes while it runs
def test_new_rules_end_connections_that_they_do_not_allow(lab: Filtered) -> None:
    lab.rx(out()), lab.tx(back()), lab.rx(out(flags=ACK))
    lab.tx(back(5000, 80, SYN)), lab.rx(out(80, 5000, SYN | ACK)), lab.tx(back(5000, 80, ACK))
    lab.groups.set_group("web", [OUT4])
    assert lab.tx(back(443, 40000, ACK)) is None, "still allowed"
    assert lab.tx(back(5000, 80, ACK)) is Reason.BAD_STATE
    assert lab.rx(out(80, 5000, ACK)) is None, "picked up as one of the guest's own"
    assert len(lab.states()) == 2
    lab.groups.remove_group("web")
    assert lab.tx(back(443, 40000, ACK)) is Reason.BAD_STATE
    assert lab.rx(out(80, 5000, ACK)) is Reason.BAD_STATE
    assert lab.states() == []


def test_a_port_may_change_its_groups(lab: Filtered) -> None:
    before = lab.stages[1]
    lab.rx(out())
    lab.port(1, "none yet")
    assert lab.stages[1] == before
    assert lab.tx(back()) is Reason.BAD_STATE
    lab.groups.set_group("none yet", [OUT4])
    assert lab.rx(out()) is None


def test_connections_as_the_api_shows_them(lab: Filtered) -> None:
    lab.rx(out())
    lab.wait(2)
    lab.tx(Packet(REMOTE6, GUEST6, ICMPV6, icmp(135), hops=255))
    lab.rx(Packet(GUEST6, REMOTE6, ICMPV6, icmp(128, number=77)))
    lab.tx(back(6000, 80, SYN))
    ping, web, first = sorted(lab.groups.connections(lab.now, [1]), key=lambda c: -c.protocol)
    assert (ping.guest, ping.remote, ping.guest_port, ping.remote_port, ping.state) == (
        GUEST6, REMOTE6, 77, 128, "icmp")
    lab.wait(1)
    lab.groups.set_group("web", [WEB, OUT4, OUT6, Rule(True, 6, ICMPV6)])
    lab.tx(Packet(REMOTE6, GUEST6, ICMPV6, icmp(128, number=78)))
    came = lab.groups.connections(lab.now, [1], most=1)[0]
    assert (came.guest_port, came.remote_port, came.opened_by) == (78, 128, "remote")
    lab.groups.table.forget(1)
    first, web = sorted((web, first), key=lambda c: c.opened_by)
    assert (first.guest_port, first.remote, first.remote_port, first.idle) == (
        40000, REMOTE, 443, 2.0)
    assert (web.guest_port, web.remote_port, web.opened_by, web.idle) == (80, 6000, "remote", 0)
    assert (first.left, web.left) == (58.0, 60.0)
    assert lab.groups.connections(lab.now, [2]) == []
    assert lab.groups.statistics(1) == {
        "connections": 0, "limit": 1000, "opened": 4, "evicted": 0}


def test_a_port_that_goes_takes_its_connections(lab: Filtered) -> None:
    lab.port(2, "web")
    lab.rx(out(), 1), lab.rx(out(), 2)
    assert lab.groups.detach(1) == 1
    assert lab.groups.detach(1) == 0
    assert lab.tx(back(), 2) is None
    lab.port(1, "web")
    assert lab.tx(back(), 1) is Reason.BAD_STATE
