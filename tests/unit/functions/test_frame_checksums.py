# SPDX-License-Identifier: Apache-2.0
"""What is set of a frame leaves checksums that scapy makes as well; the examples of the page.

The plain frame is held against scapy here; tests/oracles/test_fields.py holds the kernels against
the plain frame.
"""

import importlib.util
import random
import re
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from byway import nf
from byway.functions.harness import Harness
from byway.nf.payload import packet_end
from byway.nf.sums import checksum
from byway.nf.undone import NEEDS_CSUM
from byway.testing import builders
from byway.testing.field_kernels import SETTABLE
from byway.testing.generated import generated
from tests.architecture.sources import ROOT

PAGE = (ROOT / "docs/reference/nf-frame.md").read_text()
SIX = "fd00::1", "fd00::2"
FRAMES = [
    builders.tcp(data=b"odd"), builders.tcp(vlan=(5, 6), tcp_options=b"\x02\x04\x05\xb4"),
    builders.tcp(*SIX, data=bytes(300)), builders.udp(), builders.udp(*SIX, data=b"x"),
    builders.udp(options=b"\x01\x01\x01\x00", data=bytes(1000)),
    builders.icmp(data=b"1234567"), builders.icmpv6(data=b"1234567"),
]
SUMMED = {IP: ("chksum", "len"), IPv6: ("plen",), TCP: ("chksum",), UDP: ("chksum", "len"),
          ICMP: ("chksum",), ICMPv6EchoRequest: ("cksum",), ICMPv6DestUnreach: ("cksum",)}
# What scapy itself needs as it is to find the checksum, or what would be another packet.
KEPT = {"eth_type", "tcp_data_offset", "icmp_type", "icmp_code", "vxlan_vni"}


def made_by_scapy(data: bytes) -> bytes:
    """The frame with all checksums and lengths as scapy makes them."""
    packet = Ether(data)
    for kind, fields in SUMMED.items():
        if kind in packet:
            for name in fields:
                delattr(packet[kind], name)
    return bytes(packet)


@pytest.mark.parametrize("data", FRAMES, ids=lambda data: Ether(data).summary())
def test_every_number_that_is_set(data: bytes) -> None:
    assert made_by_scapy(data) == data
    rng = random.Random(8)
    frame = nf.Frame(data)
    for name in SETTABLE:
        if name in KEPT:
            continue
        for value in (rng.getrandbits(128), 0, -1, rng.getrandbits(128)):
            setattr(frame, name, value)
            got, wanted = bytes(frame), made_by_scapy(bytes(frame))
            assert got == wanted, (name, value)


@pytest.mark.parametrize("data", FRAMES, ids=lambda data: Ether(data).summary())
def test_a_frame_made_longer_and_fixed(data: bytes) -> None:
    frame = nf.Frame(data)
    assert frame.resize(frame.length + 33)
    last = frame.payload.length - 1
    frame.payload.set_u16(last - 1, 0xABCD)
    frame.fix()
    assert made_by_scapy(bytes(frame)) == bytes(frame)
    assert bytes(frame)[-2:] == b"\xab\xcd"


def test_padding_stays_padding() -> None:
    data = builders.udp(data=b"hi")[:44].ljust(60, b"\xee")
    frame = nf.Frame(data)
    assert frame.payload.length == 2
    frame.payload.set_u8(0, 0x48)
    frame.fix()
    assert bytes(frame)[-4:] == b"\xee" * 4
    assert (frame.udp_length, frame.ipv4_length) == (10, 30)
    assert bytes(frame)[:44] == builders.udp(data=b"Hi")[:44]


@pytest.mark.parametrize(("about", "error"), [
    (builders.tcp(data=bytes(20)), "192.0.2.1"), (builders.udp(data=bytes(20)), "192.0.2.1"),
    (builders.tcp(*SIX), "fd00::9"), (builders.udp(*SIX), "fd00::9")],
    ids=("tcp", "udp", "tcp6", "udp6"))
def test_what_an_error_quotes(about: bytes, error: str) -> None:
    kind = 3 if "." in error else 1
    frame = nf.Frame(builders.icmp_error(error, about, kind))
    quoted = frame.quoted
    assert (quoted.l4_src, quoted.l4_dst) == (nf.Frame(about).l4_src, nf.Frame(about).l4_dst)
    quoted.ipv4_src = 0xC0000205
    quoted.ipv6_dst = 0xFD << 120 | 5
    quoted.l4_src = 1234
    quoted.ip_ttl = 3
    got = bytes(frame)
    assert made_by_scapy(got) == got
    inside = about[:14] + got[quoted.l3_offset : quoted.l3_offset + len(about) - 14]
    assert made_by_scapy(inside) == inside
    found = nf.Frame(inside)
    assert (found.l4_src, found.ip_ttl) == (1234, 3)
    assert found.ipv4_src == 0xC0000205 or found.ipv6_dst == 0xFD << 120 | 5


def completed(frame: nf.Frame) -> bytes:
    """The frame with the checksum that its sender left to be completed (VIRTIO 1.2, 5.1.6.2)."""
    data, start = bytearray(bytes(frame)), frame.undone.csum_start
    place = start + frame.undone.csum_offset
    end = packet_end(frame)
    data[place : place + 2] = checksum(bytes(data[start:end])).to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize("data", FRAMES[:6], ids=lambda data: Ether(data).summary())
def test_a_checksum_left_to_be_completed(data: bytes) -> None:
    offset = 6 if nf.Frame(data).is_udp else 16
    start = nf.Frame(data).l4_offset
    frame = nf.Frame(data, undone=nf.Undone(NEEDS_CSUM, csum_start=start, csum_offset=offset))
    frame.fix()
    assert bytes(frame) != data
    assert completed(frame) == data
    rng = random.Random(9)
    for name in SETTABLE:
        if name not in KEPT:
            setattr(frame, name, rng.getrandbits(128))
            assert completed(frame) == made_by_scapy(completed(frame)), name
    assert frame.has_vlan or frame.push_vlan(9)
    assert frame.resize(frame.length + 3)
    frame.fix()
    assert completed(frame) == made_by_scapy(completed(frame))


# ---------------------------------------------------------------- the page
def function_of(block: str, folder: Path) -> Any:
    """A function whose process() is an example of the page."""
    [body] = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.S) if block in code]
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    file = folder / "example.py"
    file.write_text("from byway import nf\n\n\n@nf.function\nclass Example:\n"
                    f"    def process(self, frame):\n{lines}        return nf.PASS\n")
    spec = importlib.util.spec_from_file_location("example", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Example


@pytest.mark.parametrize("block", ["nf.IPv4(", "replace_l3", "payload.set_u8"])
def test_the_examples_compiled_and_plain(block: str, tmp_path: Path) -> None:
    example = function_of(block, tmp_path)
    frames = [*FRAMES, builders.udp(dport=53), *generated(200, seed=4)]
    assert Harness(example).run(frames) == nf.Plain(example).run(frames)


def test_ipv4_becomes_ipv6(tmp_path: Path) -> None:
    plain = nf.Plain(function_of("replace_l3", tmp_path))
    left = nf.Frame(builders.tcp(data=b"odd"), undone=nf.Undone(NEEDS_CSUM, 0, 0, 34, 16))
    left.fix()
    plain.frame(left)
    assert left.is_ipv6
    assert completed(left) == made_by_scapy(completed(left))
    padded = builders.udp(data=b"")[:42].ljust(60, b"x")
    for data in (builders.tcp(data=b"odd"), builders.udp(options=b"\x01" * 4), padded,
                 builders.tcp(vlan=(7,), data=bytes(1400))):
        [outcome] = plain.run([data])
        packet = Ether(outcome.frame)
        assert made_by_scapy(outcome.frame) == outcome.frame
        assert (packet[IPv6].src, packet[IPv6].hlim) == ("64:ff9b::a00:1", 63)
