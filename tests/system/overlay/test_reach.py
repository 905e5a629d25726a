# SPDX-License-Identifier: Apache-2.0
"""Four hosts that know each other, from files or from etcd: who reaches whom, and how quietly.

The stations are containers and virtual machines on two networks with the same subnets.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.system.conftest import short_folder
from tests.system.engines.station import INTERFACE
from tests.system.overlay import capture
from tests.system.overlay.bed import Bed, Source
from tests.system.overlay.capture import Kind
from tests.system.overlay.stations import Member
from tests.system.peers.kernel import checksum_errors

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ASKING = (Kind.ARP_REQUEST, Kind.SOLICITATION)
STEADY = 5.0  # seconds


@pytest.fixture(scope="module", params=list(Source), ids=lambda source: source.value)
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with short_folder() as folder, Bed(folder, request.param) as made:
        made.wait_agreed()
        yield made


def test_everybody_of_a_network_is_reached(bed: Bed) -> None:
    assert bed.missing() == {}


def test_networks_never_meet(bed: Bed) -> None:
    assert bed.leaks() == {}


def test_addresses_are_resolved_at_home(bed: Bed) -> None:
    """Every station asks for every other, and no question is ever seen on the underlay."""
    bed.forget_neighbours()
    with ExitStack() as stack:
        seen = stack.enter_context(capture.of(bed.underlay))
        at_home = {
            member.name: stack.enter_context(capture.at(member.namespace.name, INTERFACE))
            for member in bed.members.values()
        }
        assert bed.missing() == {}
    assert seen.missed == 0
    assert seen.inner_groups() == [], seen.inner_kinds()
    for member in bed.members.values():
        known = member.neighbours()
        others = bed.neighbours(member)
        wanted = {ip: other.seat.mac for other in others for ip in other.seat.ips}
        assert {ip: known.get(ip) for ip in wanted} == wanted
        asked, answered = questions(at_home[member.name], member)
        assert asked == answered
        assert {ip for ip, _ in asked} >= set(wanted)


def questions(seen: capture.Seen, member: Member) -> tuple[set[tuple[str, str]], ...]:
    """Who was asked for at a station's interface by itself, and who answered: {(IP, kind)}.

    By the kind of the question; a group's questions only: who is known already is asked himself."""
    own = bytes.fromhex(member.seat.mac.replace(":", ""))
    asked, answered = set(), set()
    for _, frame in seen.frames:
        kind, target = capture.kind_of(frame), capture.target_of(frame)
        if kind in ASKING and frame[6:12] == own and capture.to_group(frame):
            if not capture.is_probe(frame):
                asked.add((target, kind.value))
        elif kind is Kind.ARP_REPLY and frame[:6] == own:
            answered.add((target, Kind.ARP_REQUEST.value))
        elif kind is Kind.ADVERTISEMENT and frame[:6] == own:
            answered.add((target, Kind.SOLICITATION.value))
    return asked, answered & asked


def test_nothing_is_flooded_in_steady_state(bed: Bed) -> None:
    """All talk to all, again and again: the underlay carries frames from one host to one host."""
    drops = bed.drops()
    with capture.of(bed.underlay) as seen:
        end = time.monotonic() + STEADY
        while time.monotonic() < end:
            assert bed.missing() == {}
    assert bed.drops() == drops
    assert seen.missed == 0
    carried = Counter(one.vni for one in seen.tunnelled())
    assert carried.keys() == {net.vni for net in bed.nets}
    assert seen.inner_groups() == [], seen.inner_kinds()
    assert seen.outer_groups() == [], seen.kinds()


@pytest.mark.parametrize(("near", "far"), [("blue1", "blue7"), ("blue1", "blue8"),
                                           ("blue2", "blue5"), ("blue2", "blue8"),
                                           ("red21", "red24")])
def test_tcp_between_hosts(bed: Bed, near: str, far: str) -> None:
    """iperf3 both ways, by IPv4 and IPv6."""
    one, two = bed.members[near], bed.members[far]
    two.listen(bed.folder)
    before = sum_of(checksum_errors(one.run(COUNTERS)), checksum_errors(two.run(COUNTERS)))
    for address in two.seat.ips:
        for options in ("", "--reverse"):
            assert one.transfer(two, address, options) > 1 << 17
    after = sum_of(checksum_errors(one.run(COUNTERS)), checksum_errors(two.run(COUNTERS)))
    assert after == before


COUNTERS = "cat /proc/net/snmp /proc/net/netstat /proc/net/snmp6"


def sum_of(*found: dict[str, int]) -> Counter[str]:
    """Counters of several stations together."""
    total: Counter[str] = Counter()
    for one in found:
        total.update(one)
    return total


def test_the_longest_frame_is_carried_whole(bed: Bed) -> None:
    """A station's MTU is what the underlay leaves, so nothing is cut there."""
    one, two = bed.members["blue1"], bed.members["blue7"]
    assert f"mtu {bed.mtu}" in one.run(f"ip link show dev {INTERFACE}")
    with capture.of(bed.underlay) as seen:
        assert one.ping(two.seat.ipv4, 3, f"-s {bed.mtu - 28}") == 3
        assert one.ping(two.seat.ipv6, 3, f"-s {bed.mtu - 48}") == 3
    sizes = [len(one.frame) for one in seen.inner(Kind.IPV4, Kind.IPV6)
             if capture.is_echo(one.frame)]
    assert sizes == [bed.mtu + 14] * 12


def test_frames_went_where_their_receivers_are(bed: Bed) -> None:
    """Who talks within a host is not heard outside."""
    one, two = bed.members["blue1"], bed.members["blue2"]
    with capture.of(bed.underlay) as seen:
        assert one.ping(two.seat.ipv4, 5) == two.ping(one.seat.ipv6, 5) == 5
    assert seen.tunnelled() == []
