# SPDX-License-Identifier: Apache-2.0
"""The flow hash: a number that all frames of a flow share; and the choice of a queue by flow.

Used by ports (tx queue, a tunnel's source port) and by network functions; uses layers.py.

A flow is what must stay in order: addresses, protocol and, for TCP and UDP, ports. Fragments have
ports in the first one only, so for them, and for all other protocols, the addresses make the flow;
for what is not IP, the MAC addresses. The two directions are two flows.
"""

from byway.machine.jit import kernel
from byway.machine.mem import crc32c, ld32, ld64, likely, mul64, shr64, wadd64
from byway.packet.batch import HEAD, R
from byway.packet.layers import (
    TCP,
    UDP,
    is_fragment,
    l3_of,
    l4_of,
    layers,
    protocol_of,
    version_of,
)

# Odd numbers with bits all over: the 64-bit fractions of the golden ratio and of square roots.
_A, _B = -0x61C8864680B583EB, 0x6A09E667F3BCC909
_PLAIN_IPV4_LE = 0x450008  # the Ethernet type, version and header length as they are loaded
# Eight bytes from there on: more fragments, or an offset; TTL; protocol.
_FRAGMENT_OR_PROTOCOL_LE, _WHOLE_UDP_LE, _WHOLE_TCP_LE = 0xFF00FF3F, UDP << 24, TCP << 24


@kernel
def mixed(a, b):
    """A non-negative number in which each bit depends on all bits of both."""
    x = wadd64(mul64(a, _A), mul64(b, _B))
    x = mul64(x ^ shr64(x, 32), _A)
    x = mul64(x ^ shr64(x, 29), _B)
    return (x ^ shr64(x, 32)) & 0x7FFFFFFFFFFFFFFF


@kernel
def any_key(row):
    """As ``flow_key``, for any frame."""
    head = ld64(row + R.head)
    found = layers(row)
    if found < 0 or version_of(found) == 0:
        return ld64(head), ld32(head + 8)
    l3, l4 = l3_of(found), l4_of(found)
    protocol = protocol_of(found)
    key = 0
    if not is_fragment(found):
        key = protocol << 32
        if (protocol == TCP or protocol == UDP) and l4 + 4 <= min(ld64(row + R.len), HEAD):
            key |= ld32(head + l4)
    if version_of(found) == 4:
        return ld64(head + l3 + 12), key
    source = mixed(ld64(head + l3 + 8), ld64(head + l3 + 16))
    target = mixed(ld64(head + l3 + 24), ld64(head + l3 + 32))
    return wadd64(source, mul64(target, _B)), key


@kernel(inline=True)
def plain_protocol(row, head):
    """Protocol << 24 of TCP or UDP in IPv4, as most frames are; 0 for any other frame.

    Two words tell: type, version and length of the header; and fragment with protocol.
    """
    word = ld64(head + 20) & _FRAGMENT_OR_PROTOCOL_LE
    if likely((word == _WHOLE_UDP_LE or word == _WHOLE_TCP_LE)
              and ld32(head + 12) & 0xFFFFFF == _PLAIN_IPV4_LE and ld64(row + R.len) >= 38):
        return word
    return 0


@kernel(inline=True)
def flow_key(row):
    """Two numbers that are the same for all frames of a flow; of the second, the low 32 bits are
    its ports, if it has any.

    Reads the row's head only (``look`` was before).
    """
    head = ld64(row + R.head)
    protocol = plain_protocol(row, head)
    if likely(protocol != 0):
        return ld64(head + 26), ld32(head + 34) | protocol << 8
    return any_key(row)


@kernel
def flow_hash(row):
    """-> a non-negative number, the same for all frames of a flow, any bits of which can be used.
    """
    a, b = flow_key(row)
    return mixed(a, b)


@kernel(inline=True)
def flow_queue(row, queues):
    """-> which of so many queues a flow's frames go to. (A checksum of addresses and ports spreads
    flows well enough, for less than the hash costs.)"""
    head = ld64(row + R.head)
    if likely(plain_protocol(row, head) != 0):
        return crc32c(crc32c(0, ld64(head + 26)), ld32(head + 34)) * queues >> 32
    a, b = any_key(row)
    return crc32c(crc32c(0, a), b & 0xFFFFFFFF) * queues >> 32
