# SPDX-License-Identifier: Apache-2.0
"""What functions tell of traffic, as other programs read it: nfdump's collectors of IPFIX and
sFlow, tcpdump and tshark with captures."""

import ipaddress
import re
import subprocess
import time
from pathlib import Path

import pytest

from byway.functions.export.collector import Collector
from byway.functions.export.ipfix import Exporter, Flow
from byway.functions.export.pcapng import Writer
from byway.functions.export.sflow import Agent, Sample
from byway.testing.builders import arp, icmpv6, tcp, udp
from tests.peers import find_program
from tests.system.peers.collector import Collecting

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_nfdump_reads_flows(tmp_path: Path) -> None:
    now = float(int(time.time()))
    v4, v6 = (tuple(map(ipaddress.ip_address, pair))
              for pair in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")))
    flows = [Flow(*v4, 6, 3, 1 << 33, now - 5, now - 1, 40000, 443, 0x1B, tos=0xB8, port=7),
             Flow(*v4, 1, 1, 84, now - 2, now - 2, icmp=0x0301),
             Flow(*v6, 17, 2, 200, now - 9, now - 3, 53, 5353)]
    with Collecting("nfcapd", tmp_path) as nfcapd, Collector(nfcapd.place) as collector:
        for message in Exporter(9).messages([*flows, *[flows[0]] * 100], now):
            collector.send(message)
        got = nfcapd.got()
        told = re.findall(r"Flows: (\d+), Packets: (\d+)", nfcapd.output())  # for each file
        assert [sum(map(int, counted)) for counted in zip(*told, strict=True)] == [103, 306]
        assert "Sequence Errors: 0, Bad Packets: 0" in nfcapd.output()
    first = got[0]
    assert (first["src4_addr"], first["dst4_addr"], first["src_port"], first["dst_port"],
            first["in_packets"], first["in_bytes"], first["tcp_flags"], first["src_tos"],
            first["input_snmp"]) == (
        "10.0.0.1", "10.0.0.2", 40000, 443, 3, 1 << 33, "...AP.SF", 0xB8, 7)
    ping = next(one for one in got if one["proto"] == 1)
    assert (ping["icmp_type"], ping["icmp_code"]) == (3, 1)
    six = next(one for one in got if "src6_addr" in one)
    assert (six["src6_addr"], six["dst6_addr"], six["in_bytes"]) == ("fd00::1", "fd00::2", 200)


def test_sfcapd_reads_samples(tmp_path: Path) -> None:
    frame = tcp("10.0.0.1", "10.0.0.2", 40000, 443, "S", b"x" * 200)
    frame6 = udp("fd00::1", "fd00::2", 53, 5353, b"y" * 20)
    samples = [Sample(frame[:128], len(frame), rate=100, pool=1000 * k, port=7) for k in range(20)]
    samples.append(Sample(frame6[:128], len(frame6), rate=100, pool=20_100, port=7))
    with Collecting("sfcapd", tmp_path) as sfcapd, Collector(sfcapd.place) as collector:
        for datagram in Agent(ipaddress.ip_address("127.0.0.1")).datagrams(samples, 1.0):
            collector.send(datagram)
        got = sfcapd.got()
    assert len(got) == 21
    assert {(one["src4_addr"], one["dst4_addr"], one["src_port"], one["dst_port"], one["proto"])
            for one in got if "src4_addr" in one} == {("10.0.0.1", "10.0.0.2", 40000, 443, 6)}
    assert {one["in_packets"] for one in got} == {100}
    assert [one["src_port"] for one in got if "src6_addr" in one] == [53]


def test_tcpdump_and_tshark_read_captures(tmp_path: Path) -> None:
    frames = [tcp("10.0.0.1", "10.0.0.2", 40000, 443, "S"), udp(data=b"z" * 300), arp(),
              icmpv6("fd00::1", "fd00::2")]
    path = tmp_path / "tap.pcapng"
    with open(path, "wb") as file:
        writer = Writer(file, snaplen=128)
        for k, frame in enumerate(frames):
            writer.frame(f"vm{k % 2}", frame, 1_700_000_000_000_000_007 + k,
                         direction="out" if k % 2 else "in")
    text = subprocess.run([find_program("tcpdump"), "-nr", str(path)], capture_output=True,
                          text=True, check=True, timeout=30).stdout.splitlines()
    assert len(text) == 4
    assert "10.0.0.1.40000 > 10.0.0.2.443: Flags [S]" in text[0]
    assert "ARP, Request" in text[2]
    fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_name",
              "frame.packet_flags_direction"]
    text = subprocess.run(
        [find_program("tshark"), "-r", str(path), "-T", "fields",
         *(word for field in fields for word in ("-e", field))],
        capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    rows = [line.split("\t") for line in text]
    assert [(int(row[1]), int(row[2]), row[3]) for row in rows] == [
        (len(frame), min(len(frame), 128), f"vm{k % 2}") for k, frame in enumerate(frames)]
    assert [row[0] for row in rows] == [f"1700000000.{7 + k:09}" for k in range(4)]
    assert [int(row[4], 0) for row in rows] == [1, 2, 1, 2]
