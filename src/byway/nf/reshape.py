# SPDX-License-Identifier: Apache-2.0
"""What changes the shape of a frame, in plain Python: tags, lengths, whole headers.

Used by frame.py, whose methods say what these do; each answers whether it was done.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from byway.nf.layers import HEAD, IPV6, TCP, UDP, Layers, ethernet
from byway.nf.payload import packet_end
from byway.nf.sums import checksum, total
from byway.nf.undone import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    NEEDS_CSUM,
    Undone,
    moved,
    tears,
)

if TYPE_CHECKING:
    from byway.nf.frame import Frame

MIN_FRAME, MAX_FRAME = 14, 65535 + 14 + 8
MAX_GROWTH = 64  # bytes that one call may add to a header
ALWAYS = 2048  # a frame may be made as long as that whatever its network's MTU
ETHERNET = 14
_TAG = 0x8100


# ---------------------------------------------------------------- tags and tunnels
def push_vlan(frame: "Frame", vlan: int) -> bool:
    """See Frame.push_vlan."""
    if frame.length < MIN_FRAME or not _grow(frame, 12, 4):
        return False
    frame.data[12:16] = _TAG.to_bytes(2, "big") + (int(vlan) & 0xFFF).to_bytes(2, "big")
    return True


def pop_vlan(frame: "Frame") -> bool:
    """See Frame.pop_vlan."""
    if not frame.has_vlan:
        return False
    _strip(frame, 12, 4)
    return True


def decapsulate(frame: "Frame", n: int) -> bool:
    """See Frame.decapsulate."""
    if not 0 < n <= HEAD or n + MIN_FRAME > frame.length or tears(frame.undone, n):
        return False
    _strip(frame, 0, n)
    if not frame.undone.flags & NEEDS_CSUM:
        frame.undone = _left_undone(frame)
    return True


def replace_l3(frame: "Frame", n: int, m: int, eth_type: int) -> bool:
    """See Frame.replace_l3."""
    found = frame.layers
    l3, end = found.l3, packet_end(frame)
    if not found.has("eth") or n < 0 or m < 0 or m - n > MAX_GROWTH:
        return False
    if l3 + n > min(end, HEAD) or l3 + m > HEAD or tears(frame.undone, l3 + n):
        return False
    if end - n + m > MAX_FRAME:
        return False
    if found.version and l3 + n == found.l4 and m > 0 and found.protocol in (TCP, UDP):
        place, size = (l3 + 12, 8) if found.version == 4 else (l3 + 8, 32)
        if found.checksum:
            before = bytes(frame.data[place : place + size])
            frame.add_to_sum(found, before, bytes(size), covers=False)
    del frame.data[end:]
    if m > n:
        _grow(frame, l3, m - n)
    elif n > m:
        _strip(frame, l3, n - m)
    frame.data[l3 : l3 + m] = bytes(m)
    if eth_type:
        frame.data[l3 - 2 : l3] = (int(eth_type) & 0xFFFF).to_bytes(2, "big")
    undone = frame.undone
    kind = undone.gso_type & ~GSO_ECN
    if undone.gso_size > m - n > 0:  # segments stay as long as they were
        undone = replace(undone, gso_size=undone.gso_size - (m - n))
    if eth_type and kind in (GSO_TCPV4, GSO_TCPV6):
        kind = GSO_TCPV6 if eth_type == IPV6 else GSO_TCPV4
        undone = replace(undone, gso_type=undone.gso_type & GSO_ECN | kind)
    frame.undone = undone
    frame.unproven()
    return True


def _grow(frame: "Frame", at: int, n: int) -> bool:
    if frame.length + n > MAX_FRAME:
        return False
    frame.data[at:at] = bytes(n)
    frame.undone = moved(frame.undone, at, n)
    return True


def _strip(frame: "Frame", at: int, n: int) -> None:
    del frame.data[at : at + n]
    frame.undone = moved(frame.undone, at, -n)


def _left_undone(frame: "Frame") -> Undone:
    """A frame out of a tunnel may have a checksum that was left to be completed, and nobody says
    so: its field holds the pseudo-header's sum then."""
    found = ethernet(frame.head)
    if not found.version or found.fragment or found.protocol not in (TCP, UDP):
        return Undone()
    offset = 16 if found.protocol == TCP else 6
    if found.version == 4:
        end = found.l3 + frame.number(found.l3 + 2, 2)
    else:
        end = found.l3 + 40 + frame.number(found.l3 + 4, 2)
    place = found.l4 + offset
    if place + 2 > len(frame.head) or not found.l4 < end <= frame.length:
        return Undone()
    if frame.number(place, 2) != total(_pseudo(frame, found, end - found.l4)):
        return Undone()
    return Undone(NEEDS_CSUM, csum_start=found.l4, csum_offset=offset)


# ---------------------------------------------------------------- lengths and checksums
def resize(frame: "Frame", n: int) -> bool:
    """See Frame.resize."""
    longest = max(ALWAYS, frame.mtu + ETHERNET, frame.length)
    if not MIN_FRAME <= n <= longest:
        return False
    frame.data[n:] = bytes(max(n - frame.length, 0))
    frame.unproven()
    found = ethernet(frame.head)
    if found.version:
        _set_lengths(frame, found, n)
    return True


def fix(frame: "Frame") -> None:
    """See Frame.fix."""
    found = frame.layers
    if not found.version:
        frame.undone = Undone()
        return
    end = packet_end(frame)
    _set_lengths(frame, found, end)
    undone, place = frame.undone, found.checksum
    if undone.flags & NEEDS_CSUM and undone.csum_start > found.l4 and found.has("udp"):
        frame.data[place : place + 2] = b"\0\0"  # a tunnel: what it carries is yet to be completed
        return
    if undone.flags & NEEDS_CSUM and not (
            place and undone.csum_start == found.l4
            and undone.csum_offset == place - found.l4):
        frame.undone = undone = Undone()
    if undone.gso_type and end - frame.payload_offset <= undone.gso_size:
        frame.undone = undone = replace(undone, gso_type=0, gso_size=0)
    if not place or found.fragment:
        return
    pseudo = b"" if found.has("icmp") else _pseudo(frame, found, end - found.l4)
    if undone.flags & NEEDS_CSUM:
        frame.data[place : place + 2] = total(pseudo).to_bytes(2, "big")
        kind = undone.gso_type & ~GSO_ECN
        if kind in (GSO_TCPV4, GSO_TCPV6):
            kind = GSO_TCPV4 if found.version == 4 else GSO_TCPV6
            frame.undone = replace(undone, gso_type=undone.gso_type & GSO_ECN | kind)
        return
    frame.data[place : place + 2] = b"\0\0"
    value = checksum(pseudo + bytes(frame.data[found.l4 : end]), udp=found.has("udp"))
    frame.data[place : place + 2] = value.to_bytes(2, "big")


def _set_lengths(frame: "Frame", found: Layers, end: int) -> None:
    """IP's length and header checksum, and UDP's length, of a packet that ends at ``end``."""
    l3 = found.l3
    if found.version == 4:
        frame.data[l3 + 2 : l3 + 4] = (end - l3 & 0xFFFF).to_bytes(2, "big")
        frame.data[l3 + 10 : l3 + 12] = b"\0\0"
        value = checksum(bytes(frame.data[l3 : found.l4]))
        frame.data[l3 + 10 : l3 + 12] = value.to_bytes(2, "big")
    else:
        frame.data[l3 + 4 : l3 + 6] = (end - l3 - 40 & 0xFFFF).to_bytes(2, "big")
    if found.has("udp") and not found.fragment:
        length = (end - found.l4 & 0xFFFF).to_bytes(2, "big")
        frame.data[found.l4 + 4 : found.l4 + 6] = length


def _pseudo(frame: "Frame", found: Layers, length: int) -> bytes:
    """What the transport's checksum covers of IP (RFC 768, 9293, 8200): in which order does not
    matter to a sum."""
    start, size = (found.l3 + 12, 8) if found.version == 4 else (found.l3 + 8, 32)
    return bytes(frame.data[start : start + size]) + (length & 0xFFFF).to_bytes(2, "big") \
        + bytes([0, found.protocol])
