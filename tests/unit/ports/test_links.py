# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of an interface (rtnetlink(7)), as bytes and as it is on this machine."""

import errno
import struct

import pytest

from byway.ports.links import Link, Links, parse_link


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def answer(flags: int, *attributes: bytes, kind: int = 16) -> bytes:
    """A struct nlmsghdr, a struct ifinfomsg, attributes."""
    body = struct.pack("=BxHiII", 0, 1, 7, flags, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


@pytest.mark.parametrize(("flags", "up", "carrier"), [
    (0, False, False), (0x1, True, False), (0x10001, True, True), (0x10000, False, True)])
def test_flags(flags: int, up: bool, carrier: bool) -> None:
    found = parse_link(answer(flags, attribute(3, b"eth1\0"), attribute(4, b"\xdc\x05\0\0")),
                       "eth1")
    assert found == Link("eth1", 7, 1, up, carrier, 1500)


def test_no_such_interface() -> None:
    said = struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -errno.ENODEV) + bytes(16)
    assert parse_link(said, "eth1") is None


def test_a_refusal() -> None:
    said = struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -errno.EPERM) + bytes(16)
    with pytest.raises(PermissionError, match="does not tell of interfaces"):
        parse_link(said, "eth1")


@pytest.mark.parametrize("end", [b"", b"\0", struct.pack("=HH", 0, 4), struct.pack("=HH", 3, 4),
                                 struct.pack("=HH", 0xFFFF, 99)])
def test_attributes_that_end_strangely(end: bytes) -> None:
    found = parse_link(answer(1, attribute(4, b"\xdc\x05\0\0")) + end, "eth1")
    assert found
    assert found.mtu == 1500


def test_this_machine() -> None:
    links = Links(None)
    try:
        found = links.find("lo")
        assert found
        assert (found.index, found.type, found.name) == (1, 772, "lo")  # if_arp.h: LOOPBACK
        assert links.find("no-such-thing") is None
        links.drain()
    finally:
        links.close()
