# SPDX-License-Identifier: Apache-2.0
"""What the uplink asks for and when; which next hop a host has; what is forgotten."""

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from byway.control.uplink import ASK_AGAIN, MAX_HOPS, PROBES, REACHABLE, mac_for
from tests.unit.switch.uplink_bed import HOST, OTHER, OWN, OWN_MAC, Bed

MAC = OWN_MAC.hex(":")
PEER = "02:00:00:00:00:09"
PEER_NUMBER = 0x020000000009
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def says(bed: Bed, mac: int = PEER_NUMBER, heard: int = 1) -> None:
    """The only next hop was heard of."""
    (hop,) = bed.uplink._hops.values()
    bed.uplink._records[hop.number] = mac, heard


def asked(frames: list[bytes]) -> str | None:
    """To whom the only question goes, None: there is none."""
    assert len(frames) <= 1
    return Ether(frames[0]).dst if frames else None


def test_an_arp_request() -> None:
    bed = Bed()
    bed.way()
    (frame,) = bed.uplink.tick(0)
    packet = Ether(frame)
    assert (packet.src, packet.dst, len(frame)) == (MAC, "ff:ff:ff:ff:ff:ff", 60)
    assert (packet[ARP].op, packet[ARP].hwsrc, packet[ARP].psrc, packet[ARP].pdst,
            packet[ARP].hwdst) == (1, MAC, "192.0.2.1", "192.0.2.9", "00:00:00:00:00:00")


def test_a_solicitation() -> None:
    bed = Bed(6)
    bed.way()
    (frame,) = bed.uplink.tick(0)
    packet = Ether(frame)
    assert (packet.src, packet.dst) == (MAC, "33:33:ff:00:00:09")
    assert (packet[IPv6].src, packet[IPv6].dst, packet[IPv6].hlim) == (
        "2001:db8::1", "ff02::1:ff00:9", 255)
    assert packet[ICMPv6ND_NS].tgt == "2001:db8::9"
    assert packet[ICMPv6NDOptSrcLLAddr].lladdr == MAC
    del packet[ICMPv6ND_NS].cksum
    assert bytes(packet) == frame, "scapy makes the same checksum"


@VERSIONS
def test_its_own_questions_are_understood(version: int) -> None:
    """The other host's uplink answers, and the answer teaches."""
    bed = Bed(version)
    bed.way()
    far = Bed(version, ip=HOST[version], mac=bytes.fromhex("020000000009"))
    (question,) = bed.uplink.tick(0)
    (answer,) = far.rx([question])
    bed.rx([answer.frame])
    assert bed.uplink.neighbours() == {HOST[version]: bytes.fromhex("020000000009")}


@VERSIONS
def test_the_life_of_a_next_hop(version: int) -> None:
    """Asked once a second until known; asked quietly when old; then loudly; then forgotten."""
    bed = Bed(version)
    bed.way()
    everybody = "ff:ff:ff:ff:ff:ff" if version == 4 else "33:33:ff:00:00:09"
    assert asked(bed.uplink.tick(0)) == everybody
    assert asked(bed.uplink.tick(ASK_AGAIN / 2)) is None
    assert asked(bed.uplink.tick(ASK_AGAIN)) == everybody
    says(bed)
    assert asked(bed.uplink.tick(3)) is None
    assert asked(bed.uplink.tick(3 + REACHABLE - 0.1)) is None
    now = 3 + REACHABLE
    for _ in range(PROBES):
        assert asked(bed.uplink.tick(now)) == PEER
        assert asked(bed.uplink.tick(now + ASK_AGAIN / 2)) is None
        now += ASK_AGAIN
    for _ in range(PROBES):
        assert asked(bed.uplink.tick(now)) == everybody
        assert bed.uplink.neighbours()[HOST[version]] is not None
        now += ASK_AGAIN
    assert asked(bed.uplink.tick(now)) == everybody
    assert bed.uplink.neighbours() == {HOST[version]: None}


def test_an_answer_ends_the_questions() -> None:
    bed = Bed()
    bed.way()
    bed.uplink.tick(0)
    says(bed)
    bed.uplink.tick(1)
    assert asked(bed.uplink.tick(1 + REACHABLE)) == PEER
    says(bed, heard=2)
    assert asked(bed.uplink.tick(2 + REACHABLE)) is None
    assert asked(bed.uplink.tick(2 + 2 * REACHABLE)) == PEER


def test_a_gateway_is_everybodys_next_hop() -> None:
    bed = Bed(gateway=bytes([192, 0, 2, 254]))
    first = bed.way()
    second = bed.uplink.way(bytes([198, 51, 100, 1]), 0)
    assert first != second
    assert list(bed.uplink.neighbours()) == [bytes([192, 0, 2, 254])]
    (question,) = bed.uplink.tick(0)
    assert Ether(question)[ARP].pdst == "192.0.2.254"
    bed.uplink.drop(HOST[4])
    assert list(bed.uplink.neighbours()) == [bytes([192, 0, 2, 254])]
    bed.uplink.drop(bytes([198, 51, 100, 1]))
    assert bed.uplink.neighbours() == {}


def test_a_host_that_went_is_not_asked_for() -> None:
    bed = Bed()
    bed.way()
    says(bed)
    settled = bed.settled
    bed.uplink.drop(HOST[4])
    assert bed.settled > settled, "no worker writes there any more"
    bed.uplink.drop(HOST[4])
    assert bed.uplink.tick(0) == []
    bed.way()
    assert bed.uplink.neighbours() == {HOST[4]: None}, "nothing is left of what was known"


def test_many_hosts() -> None:
    bed = Bed()
    hosts = [bytes([10, 0, k >> 8, k & 255]) for k in range(3000)]
    ways = {bed.uplink.way(host, 0) for host in hosts}
    assert len(ways) == 3000 <= MAX_HOPS
    asked = [Ether(frame)[ARP].pdst for k in range(47) for frame in bed.uplink.tick(k / 100)]
    assert len(set(asked)) == len(asked) == 3000, "some at a time, each in its turn"
    bed.rx([bytes(Ether(src=PEER, dst=MAC) / ARP(
        op=2, hwsrc=PEER, psrc="10.0.11.5", pdst="192.0.2.1"))])
    known = {ip for ip, mac in bed.uplink.neighbours().items() if mac}
    assert known == {bytes([10, 0, 11, 5])}
    for host in hosts:
        bed.uplink.drop(host)
    assert bed.uplink.neighbours() == {}


def test_a_host_again() -> None:
    """The same host, another way: the old one is gone."""
    bed = Bed()
    bed.way()
    says(bed)
    bed.way()
    assert bed.uplink.neighbours() == {HOST[4]: None}
    bed.uplink.drop(HOST[4])
    assert bed.uplink.neighbours() == {}


def test_the_announcement() -> None:
    arp = Ether(Bed().uplink.announcement())
    assert (arp.dst, arp[ARP].psrc, arp[ARP].pdst) == ("ff:ff:ff:ff:ff:ff", "192.0.2.1",
                                                      "192.0.2.1")
    frame = Bed(6).uplink.announcement()
    told = Ether(frame)
    assert (told.dst, told[IPv6].dst, told[ICMPv6ND_NA].tgt, told[ICMPv6ND_NA].O,
            told[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", "2001:db8::1", 1, 0)
    del told[ICMPv6ND_NA].cksum
    assert bytes(told) == frame


@VERSIONS
def test_an_announcement_is_heard(version: int) -> None:
    bed = Bed(version)
    bed.way()
    far = Bed(version, ip=HOST[version], mac=bytes.fromhex("020000000009"))
    bed.rx([far.uplink.announcement()])
    assert bed.uplink.neighbours() == {HOST[version]: bytes.fromhex("020000000009")}


def test_addresses_for_an_uplink() -> None:
    assert mac_for(OWN[4]) == mac_for(OWN[4]) != mac_for(OTHER[4])
    assert mac_for(OWN[6])[0] & 3 == 2
    with pytest.raises(ValueError, match="01:00:00:00:00:01 is no address of one station"):
        Bed(mac=bytes.fromhex("010000000001"))
    with pytest.raises(ValueError, match="another version of IP"):
        Bed(gateway=HOST[6])
    with pytest.raises(ValueError, match="an address of 16 bytes"):
        Bed().uplink.way(HOST[6], 0)
