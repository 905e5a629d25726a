# SPDX-License-Identifier: Apache-2.0
"""Every frame that a host sends into the underlay, and what is inside of tunnels.

Used by the tests of the overlay. A packet socket (packet(7)) in the underlay's namespace sees each
frame where it enters the bridge, once; a thread keeps it. The same for a station: `at` its
interface, both ways.

    with capture.of(underlay) as seen:
        ...
    assert seen.inner(capture.Kind.ARP_REQUEST) == []
"""

import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from byway.machine.netns import inside
from tests.system.overlay.underlay import Underlay

ETH_P_ALL = 3
OUTGOING = 4  # PACKET_OUTGOING
ROOM = 16 << 20  # bytes of the socket's buffer
POLL, LONGER = 0.05, 0.1  # seconds
AT_MOST = 5.0  # seconds more, while frames still wait in the socket
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS = 33, 263, 6
VXLAN_PORT = 4789
IPV4, IPV6, ARP, RARP = 0x0800, 0x86DD, 0x0806, 0x8035
ICMP, UDP, ICMPV6, NO_EXTENSION = 1, 17, 58, 40
SOLICITATION, ADVERTISEMENT = 135, 136  # ICMPv6 types (RFC 4861 4.3, 4.4)


class Kind(Enum):
    """What a frame is."""

    ARP_REQUEST = "ARP request"
    ARP_REPLY = "ARP reply"
    SOLICITATION = "neighbour solicitation"
    ADVERTISEMENT = "neighbour advertisement"
    RARP = "RARP"
    IPV4 = "IPv4"
    IPV6 = "IPv6"
    OTHER = "other"


def kind_of(frame: bytes) -> Kind:
    """What a frame is; frames are not tagged here."""
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype == ARP:
        return Kind.ARP_REQUEST if frame[20:22] == b"\0\1" else Kind.ARP_REPLY
    if ethertype == RARP:
        return Kind.RARP
    if ethertype == IPV6:
        message = frame[54] if frame[20] == ICMPV6 and len(frame) > 54 else 0
        return {SOLICITATION: Kind.SOLICITATION,
                ADVERTISEMENT: Kind.ADVERTISEMENT}.get(message, Kind.IPV6)
    return Kind.IPV4 if ethertype == IPV4 else Kind.OTHER


def target_of(frame: bytes) -> str:
    """The IP address that a question is for, or that an answer is about; "" for other frames."""
    kind = kind_of(frame)
    if kind is Kind.ARP_REQUEST:
        return socket.inet_ntoa(frame[38:42])
    if kind is Kind.ARP_REPLY:
        return socket.inet_ntoa(frame[28:32])
    if kind in (Kind.SOLICITATION, Kind.ADVERTISEMENT):
        return socket.inet_ntop(socket.AF_INET6, frame[62:78])
    return ""


def is_probe(frame: bytes) -> bool:
    """Whether a question is one after the asker's own address, which nobody may answer (RFC 5227
    2.1.1, RFC 4862 5.4), or an announcement (RFC 5227 3)."""
    if kind_of(frame) is Kind.ARP_REQUEST:
        return frame[28:32] in (bytes(4), frame[38:42])
    return frame[22:38] == bytes(16)


def is_echo(frame: bytes) -> bool:
    """Whether it is an echo request or reply, of ICMP or ICMPv6."""
    if kind_of(frame) is Kind.IPV4:
        return frame[23] == ICMP and frame[34] in (0, 8)
    return kind_of(frame) is Kind.IPV6 and frame[20] == ICMPV6 and frame[54] in (128, 129)


def to_group(frame: bytes) -> bool:
    """Whether a frame is for everybody or for a group."""
    return bool(frame[0] & 1)


@dataclass(frozen=True)
class Tunnelled:
    """What a tunnel carried: (host's interface at the bridge, VNI, frame)."""

    interface: str
    vni: int
    frame: bytes


def inside_of(frame: bytes) -> tuple[int, bytes] | None:
    """(VNI, inner frame) of a VXLAN frame (RFC 7348 5); None for any other."""
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype == IPV4 and frame[23] == UDP:
        start = 14 + 4 * (frame[14] & 15)
    elif ethertype == IPV6 and frame[20] == UDP:
        start = 14 + NO_EXTENSION
    else:
        return None
    if int.from_bytes(frame[start + 2 : start + 4], "big") != VXLAN_PORT:
        return None
    header = frame[start + 8 : start + 16]
    return int.from_bytes(header[4:7], "big"), frame[start + 16 :]


@dataclass
class Seen:
    """What was captured: (interface, frame), oldest first; ``missed``: that the socket had no room
    for."""

    frames: list[tuple[str, bytes]] = field(default_factory=list)
    missed: int = 0

    def tunnelled(self) -> list[Tunnelled]:
        """What the tunnels carried."""
        return [Tunnelled(interface, *found) for interface, frame in self.frames
                if (found := inside_of(frame)) is not None]

    def inner(self, *kinds: Kind) -> list[Tunnelled]:
        """What the tunnels carried of these kinds."""
        return [one for one in self.tunnelled() if kind_of(one.frame) in kinds]

    def inner_groups(self) -> list[Tunnelled]:
        """The broadcasts and multicasts that tunnels carried."""
        return [one for one in self.tunnelled() if to_group(one.frame)]

    def outer_groups(self) -> list[bytes]:
        """The underlay's own broadcasts and multicasts."""
        return [frame for _, frame in self.frames if to_group(frame)]

    def kinds(self) -> Counter[str]:
        """How many frames of which kind, outside; for messages."""
        return Counter(kind_of(frame).value for _, frame in self.frames)

    def inner_kinds(self) -> Counter[str]:
        """How many frames of which kind, inside; for messages."""
        return Counter(("group " if to_group(one.frame) else "") + kind_of(one.frame).value
                       for one in self.tunnelled())


@contextmanager
def of(underlay: Underlay) -> Iterator[Seen]:
    """What hosts send while the block runs, and a moment longer."""
    ends = inside(underlay.wire.name, socket.if_nameindex)
    ends = [(index, name) for index, name in ends if name.startswith("u")]
    with _running(underlay.wire.name, dict(ends), incoming_only=True) as seen:
        yield seen


@contextmanager
def at(namespace: str, interface: str) -> Iterator[Seen]:
    """What passes an interface, both ways, while the block runs."""
    ends = inside(namespace, socket.if_nameindex)
    wanted = {index: name for index, name in ends if name == interface}
    with _running(namespace, wanted, incoming_only=False) as seen:
        yield seen


@contextmanager
def _running(namespace: str, ends: dict[int, str], incoming_only: bool) -> Iterator[Seen]:
    seen = Seen()
    end = math.inf  # when to stop

    def opened() -> socket.socket:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))

    names = set(ends.values())
    with inside(namespace, opened) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        sock.settimeout(POLL)

        def take() -> None:
            while time.monotonic() < end + AT_MOST:
                try:
                    frame, (name, _, kind, *_) = sock.recvfrom(65536)
                except TimeoutError:
                    if time.monotonic() < end:
                        continue
                    return
                if name in names and not (incoming_only and kind == OUTGOING):
                    seen.frames.append((name, frame))

        thread = threading.Thread(target=take, name="capture")
        thread.start()
        try:
            yield seen
        finally:
            end = time.monotonic() + LONGER
            thread.join()
            statistics = sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
            seen.missed = int.from_bytes(statistics[4:8], "little")
