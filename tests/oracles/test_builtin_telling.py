# SPDX-License-Identifier: Apache-2.0
"""Built-in functions that tell of traffic, against what scapy sees in the same frames."""

import ipaddress
import json
import random
from collections import Counter
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from byway import nf
from byway.functions.builtin.dns_log import DnsLog, name_of
from byway.functions.builtin.flow_export import FlowExport
from byway.functions.builtin.sampler import Sampler
from byway.functions.builtin.tap import Tap
from byway.nf.events import show_event
from byway.testing.builders import arp, icmp, icmpv6, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both
from tests.frames_wanted import frames_wanted

SECOND = 1_000_000_000
HOSTS = ("10.0.0.1", "10.0.0.2", "10.9.0.3")
HOSTS6 = ("fd00::1", "fd00::2", "fd09::3")


def mixed(count: int, seed: int = 1) -> list[bytes]:
    """Whole frames of few flows."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        src, dst = chance.sample(chance.choice((HOSTS, HOSTS6)), 2)
        sport, dport = chance.choice((1000, 53)), chance.choice((53, 80))
        data = bytes(chance.randrange(64))
        made.append(chance.choice((
            lambda s=src, d=dst, x=data, p=sport, q=dport: tcp(
                s, d, p, q, chance.choice(("S", "A", "PA", "FA", "R")), x),
            lambda s=src, d=dst, x=data, p=sport, q=dport: udp(s, d, p, q, x),
            lambda s=src, d=dst, x=data: icmpv6(s, d, data=x) if ":" in s else icmp(s, d, data=x),
            lambda: arp()))())
    return made


def taken(both: Both, event: str) -> list[dict[str, Any]]:
    """The events of both, which are the same, as users see them."""
    plain = getattr(both.plain.instances[0], event)
    ring = both.harness.instances[0].states[event]
    mine, theirs = plain.take(), []
    while found := ring.take():
        theirs += found
    assert theirs == mine
    assert ring.stats()["lost"] == plain.lost
    return [show_event(plain.fields, one) for one in mine]


@pytest.mark.parametrize("function", [FlowExport, Sampler, DnsLog, Tap])
def test_translated_as_it_stands_over_anything(function: type) -> None:
    given: dict[type, dict[str, Any]] = {Sampler: {"rate": 7}, FlowExport: {"idle": 86400}}
    both = Both(function, **given.get(function, {}))
    event = {Sampler: "samples", DnsLog: "messages", Tap: "frames"}.get(function)
    frames = generated(frames_wanted(), seed=5)
    for first in range(0, len(frames), 500):
        both.run(frames[first:first + 500], port=3, now=first * SECOND // 1000)
        if event:
            taken(both, event)
    if function is FlowExport:
        assert rows_of(both) == plain_rows(both)
        assert both.value("untold") == 0


# ---------------------------------------------------------------- flows
def rows_of(both: Both) -> dict[str, Any]:
    table = both.harness.instances[0].states["flows"]
    return {row["key"]: row["value"] for row in table.dump(limit=1 << 20)}


def plain_rows(both: Both) -> dict[str, Any]:
    table = both.plain.instances[0].flows
    return {str(key): {name: getattr(record, name) for name in table.fields} if not isinstance(
        record, dict) else record for key, record in table.entries()}


def flow_of(frame: bytes) -> tuple[str, int] | None:
    """The flow as users write it, and bytes of IP, by scapy."""
    packet = Ether(frame)
    layer = packet.getlayer(IP) or packet.getlayer(IPv6)
    if layer is None:
        return None
    six = isinstance(layer, IPv6)
    length = layer.plen + 40 if six else layer.len
    for name, kind in (("tcp", TCP), ("udp", UDP)):
        if found := layer.getlayer(kind):
            return f"{name} {layer.src} {found.sport} {layer.dst} {found.dport}", length
    assert layer.haslayer(ICMPv6EchoRequest) if six else layer.haslayer(ICMP)
    return f"{'icmpv6' if six else 'icmp'} {layer.src} 0 {layer.dst} 0", length


def test_flows_are_those_that_scapy_counts() -> None:
    both = Both(FlowExport)
    packets, octets, flags = Counter[str](), Counter[str](), Counter[str]()
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for at, frame in enumerate(mixed(min(frames_wanted(), 3000))):
        both.run([frame], port=4, now=at * 1000)
        if (found := flow_of(frame)) is None:
            continue
        key, length = found
        packets[key] += 1
        octets[key] += length
        if (segment := Ether(frame).getlayer(TCP)) is not None:
            flags[key] |= int(segment.flags)
        first.setdefault(key, at * 1000)
        last[key] = at * 1000
    rows = rows_of(both)
    assert {key: (row["packets"], row["octets"], row["flags"], row["first"], row["last"])
            for key, row in rows.items()} == {
        key: (packets[key], octets[key], flags[key], first[key], last[key]) for key in packets}
    assert {row["port"] for row in rows.values()} == {4}


def test_flows_end_when_nothing_comes_and_a_full_table_is_counted() -> None:
    both = Both(FlowExport, idle=5)
    both.run([tcp(sport=1), tcp(sport=2)], now=0)
    both.run([tcp(sport=1)], now=4 * SECOND)
    both.run([arp()], now=7 * SECOND)
    assert [row["packets"] for row in rows_of(both).values()] == [2]
    both.plain.instances[0].flows._entries._capacity = 1
    assert both.plain.run([tcp(sport=9)], now=7 * SECOND)[0].verdict == nf.PASS
    assert both.plain.instances[0].untold.value == 1
    assert both.value("other") == 1


# ---------------------------------------------------------------- samples
def test_samples_are_frames_as_they_came() -> None:
    both = Both(Sampler, rate=1)
    frames = mixed(200, seed=2)
    both.run(frames, port=6)
    told = taken(both, "samples")
    assert [bytes.fromhex(one["header"]) for one in told] == [frame[:128] for frame in frames]
    assert [one["length"] for one in told] == [len(frame) for frame in frames]
    assert [one["pool"] for one in told] == list(range(1, 201))
    assert {(one["port"], one["rate"]) for one in told} == {(6, 1)}


def test_one_frame_in_so_many_is_chosen() -> None:
    both = Both(Sampler, rate=20)
    frame, count = tcp(), 2000
    both.run([frame] * count)
    assert 0.5 < len(taken(both, "samples")) * 20 / count < 1.5
    both.set("rate", 1)
    both.run([frame] * 3)
    assert [one["pool"] for one in taken(both, "samples")] == [count + 1, count + 2, count + 3]


# ---------------------------------------------------------------- DNS
def question(name: str = "www.example.com", kind: str = "AAAA", answer: bool = False,
             number: int = 7) -> bytes:
    made = DNS(id=number, qr=int(answer), rcode=3 if answer else 0,
               qd=DNSQR(qname=name, qtype=kind))
    if answer:
        made.an = DNSRR(rrname=name, type="A", rdata="10.0.0.9")
    return bytes(made)


@pytest.mark.parametrize("host", ["10.0.0.53", "fd00::53"])
@pytest.mark.parametrize("name", ["a.b", "www.example.com", "x" * 63 + "." + "y" * 63, "."])
def test_messages_are_those_that_scapy_reads(host: str, name: str) -> None:
    client = "fd00::1" if ":" in host else "10.0.0.1"
    both = Both(DnsLog)
    both.run([udp(client, host, 4000, 53, question(name)),
              udp(host, client, 53, 4000, question(name, answer=True))], now=9)
    asked, answered = taken(both, "messages")
    six = "6" if ":" in host else ""
    assert (asked[f"source{six}"], asked[f"target{six}"]) == (client, host)
    assert (asked["source_port"], asked["target_port"], asked["type"]) == (4000, 53, 28)
    for one in (asked, answered):
        message = bytes.fromhex(one["message"])
        assert name_of(message) == DNS(message).qd[0].qname.decode().rstrip(".") + "."
    assert (both.value("queries"), both.value("answers"), both.value("malformed")) == (1, 1, 0)


@pytest.mark.parametrize("message", [
    b"", question()[:12], question()[:20], question()[:-5],
    question()[:4] + b"\0\0" + question()[6:],  # no question
    question()[:4] + b"\0\2" + question()[6:],
    question()[:12] + b"\xc0\x0c" + question()[14:],  # a pointer where the name begins
    question()[:12] + b"\x3f" * 300,  # labels without end
    question()[:12] + b"\1a" * 130 + b"\0\0\1\0\1"])
def test_what_is_no_message_is_counted(message: bytes) -> None:
    both = Both(DnsLog)
    assert both.one(udp(dport=53, data=message)).fault is None
    assert taken(both, "messages") == []
    assert both.value("malformed") == 1


def test_what_is_not_wanted_is_not_noted() -> None:
    both = Both(DnsLog, log="answers", port=5353)
    both.run([udp(sport=1, dport=53, data=question()), udp(sport=1, dport=5353, data=question()),
              tcp(dport=5353, data=question()),
              udp(sport=5353, dport=1, data=question(answer=True))])
    assert [one["source_port"] for one in taken(both, "messages")] == [5353]
    assert (both.value("queries"), both.value("answers")) == (1, 1)


# ---------------------------------------------------------------- copies
def chosen(frame: bytes, wanted: dict[str, Any]) -> bool:
    """Is it one of those that are wanted, by scapy?"""
    packet = Ether(frame)
    four, six = packet.getlayer(IP), packet.getlayer(IPv6)
    layer = four or six
    if wanted.get("family", "any") != "any" and not (
            four if wanted["family"] == "ipv4" else six):
        return False
    for key, there in (("address", four), ("address6", six)):
        if key in wanted and there:
            network = ipaddress.ip_network(wanted[key])
            if not any(ipaddress.ip_address(one) in network for one in (there.src, there.dst)):
                return False
    if wanted.get("protocol") and (
            layer is None or (four.proto if four else six.nh) != wanted["protocol"]):
        return False
    if wanted.get("number"):
        ports = packet.getlayer(TCP) or packet.getlayer(UDP)
        return ports is not None and wanted["number"] in (ports.sport, ports.dport)
    return True


@pytest.mark.parametrize("wanted", [
    {}, {"address": "10.9.0.0/16"}, {"address6": "fd09::/16", "family": "ipv6"},
    {"family": "ipv4"}, {"protocol": 17}, {"protocol": 1}, {"number": 53},
    {"address": "10.0.0.1/32", "protocol": 6, "number": 80, "family": "ipv4"}])
def test_what_is_wanted_is_copied_whole(wanted: dict[str, Any]) -> None:
    both = Both(Tap, **wanted)
    frames = mixed(min(frames_wanted(), 900), seed=3)
    expected = [frame for frame in frames if chosen(frame, wanted)]
    assert 0 < len(expected) <= len(frames)
    assert {one.verdict for one in both.run(frames, port=2)} == {nf.PASS}
    told = taken(both, "frames")
    assert [bytes.fromhex(one["frame"]) for one in told] == expected
    assert both.value("copied") == len(expected)


def test_both_directions_and_long_frames() -> None:
    both = Both(Tap)
    long = udp(data=bytes(range(256)) * 12)
    both.run([long], port=1, direction="rx")
    both.run([long], port=2, direction="tx")
    into, out = taken(both, "frames")
    assert [(one["port"], one["out"], one["length"]) for one in (into, out)] == [
        (1, 0, len(long)), (2, 1, len(long))]
    assert bytes.fromhex(into["frame"]) == long[:2048]


def test_copies_to_a_port() -> None:
    both = Both(Tap, ports={"probe": 9}, to="probe", to_file=False, protocol=6)
    copied, left = both.run([tcp(), udp()])
    assert copied.verdict == nf.CLONE(9)
    assert copied.copies == ((9, tcp()),)
    assert left.copies == ()
    assert taken(both, "frames") == []


def test_names_are_written_as_in_zone_files() -> None:
    message = bytes(12) + b"\x05a.b\\\x01" + b"\x02\xff\x20" + b"\0" + bytes(4)
    assert name_of(message) == "a\\.b\\\\\\001.\\255\\032."
    assert json.dumps(name_of(message)).isascii()
