# SPDX-License-Identifier: Apache-2.0
"""The flow hash: a number that all frames of a flow share, to choose one of several queues by.

Used by worker and ports (tx queue), uses layers.py.

A flow is what must stay in order: addresses, protocol and, for TCP and UDP, ports. Fragments have
ports in the first one only, so for them, and for all other protocols, the addresses make the flow;
for what is not IP, the MAC addresses. The two directions are two flows.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld16, ld32, ld64, likely, mul64, shr64, wadd64
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
_IPV4_LE = 0x0008  # the Ethernet type as it is loaded
_FRAGMENT_LE = 0xFF3F  # more fragments, or an offset


@kernel
def mixed(a, b):
    """A non-negative number in which each bit depends on all bits of both."""
    x = wadd64(mul64(a, _A), mul64(b, _B))
    x = mul64(x ^ shr64(x, 32), _A)
    x = mul64(x ^ shr64(x, 29), _B)
    return (x ^ shr64(x, 32)) & 0x7FFFFFFFFFFFFFFF


@kernel
def any_flow(row):
    """As ``flow_hash``, for any frame."""
    head = ld64(row + R.head)
    found = layers(row)
    if found < 0 or version_of(found) == 0:
        return mixed(ld64(head), ld32(head + 8))
    l3, l4 = l3_of(found), l4_of(found)
    protocol = protocol_of(found)
    key = 0
    if not is_fragment(found):
        key = protocol << 32
        if (protocol == TCP or protocol == UDP) and l4 + 4 <= min(ld64(row + R.len), HEAD):
            key |= ld32(head + l4)
    if version_of(found) == 4:
        return mixed(ld64(head + l3 + 12), key)
    source = mixed(ld64(head + l3 + 8), ld64(head + l3 + 16))
    target = mixed(ld64(head + l3 + 24), ld64(head + l3 + 32))
    return mixed(wadd64(source, mul64(target, _B)), key)


@kernel
def flow_hash(row):
    """-> a non-negative number, the same for all frames of a flow, any bits of which can be used.

    Reads the row's head only (``look`` was before).
    """
    head = ld64(row + R.head)
    if likely(ld16(head + 12) == _IPV4_LE and ld8(head + 14) == 0x45
              and ld64(row + R.len) >= 38):
        protocol = ld8(head + 23)
        if likely((protocol == TCP or protocol == UDP) and ld16(head + 20) & _FRAGMENT_LE == 0):
            return mixed(ld64(head + 26), ld32(head + 34) | protocol << 32)
    return any_flow(row)
