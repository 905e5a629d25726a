# SPDX-License-Identifier: Apache-2.0
"""byway.dhcp against a server of a few dictionaries; and scapy reads what it says."""

import random
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest
from scapy.all import BOOTP, DHCP, IP, UDP, Ether

from byway import nf
from byway.functions.builtin.dhcp import Dhcp
from byway.testing.builders import arp, udp
from byway.testing.frames import mac as mac_bytes
from byway.testing.generated import generated
from tests.both_ways import Both, has_right_sums
from tests.frames_wanted import frames_wanted

SERVER, SERVER_MAC = "10.0.0.1", "02:00:00:00:00:fd"
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
SECOND = 10**9
SETTINGS = {"server": SERVER, "first": "10.0.0.10", "last": "10.0.0.17", "router": SERVER,
            "dns": "192.0.2.53", "dns2": "192.0.2.54", "mtu": 1450, "metadata": True, "lease": 100}
HOSTS = {"02:00:00:00:01:01": "10.0.0.200", "02:00:00:00:01:02": "10.0.0.201"}
# What SETTINGS become, behind the lease time.
TOLD = (b"\x01\x04\xff\xff\xff\0" b"\x03\x04\x0a\0\0\x01" b"\x06\x08\xc0\0\x02\x35\xc0\0\x02\x36"
        b"\x1a\x02\x05\xaa" b"\x79\x0e\x20\xa9\xfe\xa9\xfe\0\0\0\0\0\x0a\0\0\x01")


def packed(address: str) -> bytes:
    return IPv4Address(address).packed


def number(address: str) -> int:
    return int(IPv4Address(address))


@dataclass
class Message:
    """What a guest says."""

    kind: int
    mac: str
    requested: str = ""
    ciaddr: str = "0.0.0.0"
    server: str = ""
    flags: int = 0
    xid: int = 0x1234
    giaddr: str = "0.0.0.0"
    chaddr: str = ""
    more: bytes = b""

    def frame(self) -> bytes:
        """The message on its way, to all."""
        options = b"\x35\x01" + bytes([self.kind]) + self.more
        if self.requested:
            options += b"\x32\x04" + packed(self.requested)
        if self.server:
            options += b"\x36\x04" + packed(self.server)
        body = struct.pack(">BBBBIHH", 1, 1, 6, 0, self.xid, 7, self.flags) + packed(self.ciaddr) \
            + bytes(8) + packed(self.giaddr) + mac_bytes(self.chaddr or self.mac).ljust(16, b"\0") \
            + b"name".ljust(192, b"\0") + b"\x63\x82\x53\x63" + options + b"\xff"
        return udp("0.0.0.0", "255.255.255.255", 68, 67, body, eth_src=self.mac,
                   eth_dst="ff:ff:ff:ff:ff:ff")


def answer(said: Message, kind: int, address: str = "0.0.0.0") -> bytes:
    """What the server is to say."""
    ciaddr = "0.0.0.0" if kind == NAK else said.ciaddr
    options = b"\x35\x01" + bytes([kind]) + b"\x36\x04" + packed(SERVER)
    if kind != NAK:
        options += (b"\x33\x04\0\0\0\x64" if said.kind != INFORM else b"") + TOLD
    body = struct.pack(">BBBBIHH", 2, 1, 6, 0, said.xid, 0, said.flags) + packed(ciaddr) \
        + packed(address) + bytes(4) + packed(said.giaddr) \
        + mac_bytes(said.mac).ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63" + options \
        + b"\xff"
    to = said.ciaddr if said.ciaddr != "0.0.0.0" else address
    if kind == NAK or said.flags & 0x8000 or to == "0.0.0.0":
        return udp(SERVER, "255.255.255.255", 67, 68, body.ljust(300, b"\0"),
                   eth_src=SERVER_MAC, eth_dst="ff:ff:ff:ff:ff:ff")
    return udp(SERVER, to, 67, 68, body.ljust(300, b"\0"), eth_src=SERVER_MAC, eth_dst=said.mac)


@dataclass
class Server:
    """Who has what, until when."""

    leases: dict[str, tuple[str, int]] = field(default_factory=dict)
    offers: dict[str, tuple[str, int]] = field(default_factory=dict)
    now: int = 0

    def is_free(self, address: str, mac: str) -> bool:
        """May a guest have this address of the range?"""
        if not number("10.0.0.10") <= number(address) <= number("10.0.0.17"):
            return False
        return all(table.get(address, (mac, 0))[0] == mac or table[address][1] <= self.now
                   for table in (self.leases, self.offers))

    def free(self, mac: str) -> list[str]:
        """All addresses of the range that a guest may have."""
        return [text for k in range(10, 18) if self.is_free(text := f"10.0.0.{k}", mac)]

    def request(self, said: Message) -> bytes:
        """What it says to a request."""
        wanted = said.requested or said.ciaddr
        if said.mac in HOSTS:
            good = HOSTS[said.mac] == wanted
        else:
            good = self.is_free(wanted, said.mac)
        if not good:
            return answer(said, NAK)
        self.offers.pop(wanted, None)
        self.leases[wanted] = said.mac, self.now + 100 * SECOND
        return answer(said, ACK, wanted)

    def give_back(self, said: Message) -> None:
        """A release, or a decline."""
        if said.kind == RELEASE and self.has(self.leases, said.ciaddr, said.mac):
            del self.leases[said.ciaddr]
        if said.kind == DECLINE and (self.has(self.leases, said.requested, said.mac)
                                     or self.has(self.offers, said.requested, said.mac)):
            self.offers.pop(said.requested, None)
            self.leases[said.requested] = "somebody", self.now + 100 * SECOND

    def has(self, table: dict[str, tuple[str, int]], address: str, mac: str) -> bool:
        """Has a guest this address there?"""
        holder, until = table.get(address, ("", 0))
        return holder == mac and until > self.now


def any_message(chance: random.Random) -> Message:
    """A message of one of a few guests, more than there are addresses."""
    guest = chance.choice([*HOSTS, *(f"02:00:00:00:00:{k:02x}" for k in range(12))])
    kind = chance.choice([DISCOVER] * 4 + [REQUEST] * 6 + [RELEASE, RELEASE, DECLINE, INFORM])
    said = Message(kind, guest, xid=chance.randrange(1 << 32), flags=chance.choice([0, 0x8000]),
                   more=chance.choice([b"", b"\0\0", b"\x0c\x03abc", b"\x37\x02\x01\x03"]))
    address = f"10.0.0.{chance.choice([*range(8, 20), 200, 201])}"
    if kind in (RELEASE, INFORM) or (kind == REQUEST and chance.random() < 0.3):
        said.ciaddr = address
    elif kind != DISCOVER or chance.random() < 0.5:
        said.requested = address
    if kind == REQUEST and chance.random() < 0.3:
        said.server = chance.choice([SERVER, "10.0.0.2"])
    return said


def test_whatever_guests_say_addresses_are_given_as_the_plain_server_says() -> None:
    both, server, chance = Both(Dhcp, **SETTINGS), Server(), random.Random(1)
    both.put("hosts", HOSTS.items())
    seen = set()
    for _ in range(frames_wanted()):
        server.now += chance.choice([0] * 9 + [7, 14, 56]) * SECOND  # never 60 or 100
        said = any_message(chance)
        outcome = both.one(said.frame(), now=server.now)
        seen.add((said.kind, outcome.verdict.kind, outcome.reason))
        if said.server == "10.0.0.2":
            assert (outcome.verdict, outcome.frame) == (nf.PASS, said.frame())
        elif said.kind == DISCOVER:
            check_offer(server, said, outcome.frame, outcome.reason)
        elif said.kind == REQUEST:
            assert (outcome.verdict, outcome.frame) == (nf.REPLY, server.request(said))
        elif said.kind == INFORM:
            assert outcome.frame == answer(said, ACK)
        else:
            server.give_back(said)
            assert outcome.reason == ("released" if said.kind == RELEASE else "declined")
    assert len(seen) >= 7


def check_offer(server: Server, said: Message, frame: bytes, reason: str) -> None:
    """An offer is of an address that may be had; which one is the server's choice."""
    if said.mac in HOSTS:
        offered = HOSTS[said.mac]
    elif reason:
        assert (reason, server.free(said.mac)) == ("no address left", [])
        return
    else:
        offered = str(IPv4Address(frame[58:62]))
        assert offered in server.free(said.mac)
    assert frame == answer(said, OFFER, offered)
    server.offers[offered] = said.mac, server.now + 60 * SECOND


# ---------------------------------------------------------------- one by one
def dhcp(**parameters: object) -> Both:
    return Both(Dhcp, **{**SETTINGS, **parameters})


def test_scapy_reads_an_offer() -> None:
    request = (Ether(src="02:00:00:00:00:05", dst="ff:ff:ff:ff:ff:ff")
               / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
               / BOOTP(chaddr=mac_bytes("02:00:00:00:00:05"), xid=77)
               / DHCP(options=[("message-type", "discover"), ("requested_addr", "10.0.0.12"),
                               "end"]))
    outcome = dhcp().one(bytes(request))
    assert has_right_sums(outcome.frame)
    read = Ether(outcome.frame)
    assert (read[BOOTP].yiaddr, read[BOOTP].xid, read.dst) == ("10.0.0.12", 77, request.src)
    assert read[DHCP].options[:8] == [
        ("message-type", 2), ("server_id", SERVER), ("lease_time", 100),
        ("subnet_mask", "255.255.255.0"), ("router", SERVER),
        ("name_server", "192.0.2.53", "192.0.2.54"), ("interface-mtu", 1450),
        ("classless_static_routes", ["169.254.169.254/32:0.0.0.0", f"0.0.0.0/0:{SERVER}"])]


def test_a_guest_keeps_its_address_over_lease_and_restart() -> None:
    both = dhcp()
    both.one(Message(REQUEST, "02:00:00:00:00:05", "10.0.0.13").frame())
    later = 500 * SECOND
    offer = both.one(Message(DISCOVER, "02:00:00:00:00:05").frame(), now=later)
    assert offer.frame[58:62] == packed("10.0.0.13")
    anew = dhcp()
    said = Message(REQUEST, "02:00:00:00:00:05", ciaddr="10.0.0.13")
    assert anew.one(said.frame()).frame == answer(said, ACK, "10.0.0.13")


def test_without_a_range_only_hosts_get_an_address() -> None:
    both = dhcp(first="0.0.0.0")
    both.put("hosts", HOSTS.items())
    assert both.one(Message(DISCOVER, "02:00:00:00:01:02").frame()).verdict == nf.REPLY
    assert both.one(Message(DISCOVER, "02:00:00:00:00:05").frame()).reason == "no address left"


def test_settings_that_are_not_set_are_not_told() -> None:
    both = Both(Dhcp, first="10.0.0.9", last="10.0.0.9")
    options = both.one(Message(DISCOVER, "02:00:00:00:00:05").frame()).frame[282:]
    assert options.rstrip(b"\0") == (b"\x35\x01\x02\x36\x04\x0a\0\0\x01\x33\x04\0\0\x0e\x10"
                                     b"\x01\x04\xff\xff\xff\0\xff")
    metadata = Both(Dhcp, first="10.0.0.9", last="10.0.0.9", metadata=True, prefix=32)
    options = metadata.one(Message(DISCOVER, "02:00:00:00:00:05").frame()).frame[303:]
    assert options[:12] == b"\x79\x09\x20\xa9\xfe\xa9\xfe\0\0\0\0\xff"


def test_nobody_takes_addresses_in_anothers_name() -> None:
    said = Message(DISCOVER, "02:00:00:00:00:05", chaddr="02:00:00:00:00:06")
    assert dhcp().one(said.frame()).reason == "another's MAC address"


@pytest.mark.parametrize("frame", [
    Message(DISCOVER, "02:00:00:00:00:05", giaddr="10.0.0.3").frame(),
    Message(DISCOVER, "02:00:00:00:00:05").frame()[:280],
    udp("10.0.0.5", SERVER, 68, 67, bytes(300)), udp(dport=68), arp("10.0.0.5", "10.0.0.9"),
    udp("10.0.0.5", "10.0.0.3", 68, 67, Message(DISCOVER, "02:00:00:00:00:01").frame()[42:])])
def test_what_is_not_for_the_server_passes(frame: bytes) -> None:
    outcome = dhcp().one(frame)
    assert (outcome.verdict, outcome.frame) == (nf.PASS, frame)


def test_a_renewal_goes_to_the_servers_own_address_which_arp_tells() -> None:
    both = dhcp()
    reply = both.one(arp("10.0.0.12", SERVER, sender_mac="02:00:00:00:00:05",
                         eth_src="02:00:00:00:00:05"))
    assert reply.frame[:42] == arp(SERVER, "10.0.0.12", 2, SERVER_MAC, "02:00:00:00:00:05",
                                   eth_src=SERVER_MAC, eth_dst="02:00:00:00:00:05")[:42]
    said = Message(REQUEST, "02:00:00:00:00:05", ciaddr="10.0.0.12")
    frame = udp("10.0.0.12", SERVER, 68, 67, said.frame()[42:], eth_src=said.mac,
                eth_dst=SERVER_MAC)
    assert both.one(frame).frame == answer(said, ACK, "10.0.0.12")
    assert both.value("acks") == 1


def test_options_that_lead_nowhere_end() -> None:
    both = dhcp()
    for options in (b"\xff", bytes(60), b"\x35\xff\x01", b"\x35\x00\x01", b"\x0c"):
        said = Message(DISCOVER, "02:00:00:00:00:05").frame()
        frame = udp("0.0.0.0", "255.255.255.255", 68, 67, said[42:282] + options,
                    eth_src="02:00:00:00:00:05", eth_dst="ff:ff:ff:ff:ff:ff")
        assert both.one(frame).reason == "no request"


def test_any_frame_fares_the_same_both_ways() -> None:
    both = dhcp()
    for outcome in both.run(generated(frames_wanted(), seed=9)):
        assert outcome.fault is None
