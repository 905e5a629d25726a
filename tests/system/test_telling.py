# SPDX-License-Identifier: Apache-2.0
"""Functions that tell of traffic, in a switch with stations of the Linux kernel: what they tell is
what was sent, all of it, once."""

import json
import socket
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR

from tests.peers import find_program
from tests.system.peers.collector import Collecting
from tests.system.peers.process import wait_until
from tests.system.peers.switch import Switch
from tests.system.peers.tapped import Tapped

pytestmark = [pytest.mark.system, pytest.mark.compiled_only, pytest.mark.timeout(600)]

ONE, OTHER = "10.9.0.1", "10.9.0.2"
PINGS, QUESTIONS = 30, 20
ALL = {(ONE, 1): PINGS, (OTHER, 1): PINGS, (ONE, 17): QUESTIONS}


def configuration(folder: Path, one: Tapped, other: Tapped, flows: str, samples: str) -> str:
    text = f"""
[switch]
api = "{folder}/api.sock"

[[network]]
name = "blue"
chain = ["byway.flow_export(collector='{flows}', interval=1, domain=7)",
         "byway.sampler(collector='{samples}', rate=1)",
         "byway.dns_log(file='{folder}/dns.json')"]
"""
    for name, station, chain in (
            ("one", one, f"""["byway.tap(file='{folder}/tap.pcapng', protocol=1)"]"""),
            ("other", other, "[]")):
        text += f"""
[[port]]
name = "{name}"
network = "blue"
kind = "tap"
ifname = "eth0"
netns = "{station.name}"
address = ["{station.address}/24"]
chain = {chain}
"""
    return text


def ask(one: Tapped, other: Tapped) -> None:
    """Questions from one station to another, that nobody answers."""
    with other.opened(socket.SOCK_DGRAM) as server, one.opened(socket.SOCK_DGRAM) as client:
        server.bind((OTHER, 53))
        for k in range(QUESTIONS):
            client.sendto(bytes(DNS(id=k, qd=DNSQR(qname=f"n{k}.example"))), (OTHER, 53))
        for _ in range(QUESTIONS):
            server.recv(2000)


def counts(rows: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """Packets of ICMP and UDP by source."""
    found: Counter[tuple[str, int]] = Counter()
    for row in rows:
        if row["proto"] in (1, 17) and "src4_addr" in row:
            found[row["src4_addr"], row["proto"]] += row["in_packets"]
    return found


def captured(path: Path) -> Counter[str]:
    """Echo requests and replies in a capture, by direction."""
    text = subprocess.run(
        [find_program("tshark"), "-r", str(path), "-T", "fields", "-e", "icmp.type",
         "-e", "frame.packet_flags_direction", "-e", "frame.interface_name"],
        capture_output=True, text=True, check=False, timeout=60).stdout
    return Counter(text.splitlines())


def test_all_of_it_is_told_once(own_folder: Path) -> None:
    with Tapped(ONE) as one, Tapped(OTHER) as other, \
            Collecting("nfcapd", own_folder) as nfcapd, \
            Collecting("sfcapd", own_folder) as sfcapd:
        with Switch(own_folder, [], text=configuration(
                own_folder, one, other, nfcapd.place, sfcapd.place)) as switch:
            wait_until(lambda: {port["state"] for port in switch.client.ports()} == {"up"},
                       "the chains are built", 300)
            wait_until(lambda: (own_folder / "tap.pcapng").exists()
                       and (own_folder / "dns.json").exists(), "listeners listen", 60)
            assert one.ping(OTHER, PINGS) == PINGS
            ask(one, other)
            wait_until(lambda: captured(own_folder / "tap.pcapng").total() == 2 * PINGS,
                       "all of it is in the capture", 30)
            lines = own_folder / "dns.json"
            wait_until(lambda: len(lines.read_text().splitlines()) == QUESTIONS,
                       "all questions are noted", 30)
            wait_until(lambda: counts(nfcapd.rows()) == ALL, "the flows are told", 30)
            wait_until(lambda: counts(sfcapd.rows()) == ALL, "the samples are sent", 30)
        assert counts(nfcapd.got()) == counts(sfcapd.got()) == ALL
    assert captured(own_folder / "tap.pcapng") == {
        "8\t0x00000001\tone": PINGS, "0\t0x00000002\tother": PINGS}
    assert [json.loads(line)["name"] for line in lines.read_text().splitlines()] == [
        f"n{k}.example." for k in range(QUESTIONS)]
