# SPDX-License-Identifier: Apache-2.0
"""An echo request in a row becomes its reply (RFC 792; RFC 4443, 4.2).

Used by whoever has an address of the switch's own: gateway.py and uplink_answers.py, which have
looked at the packet and say where the row goes. Works on private heads; the data stays where it is,
so it may have any length, and a checksum that was wrong is wrong in the reply.

Limits: requests in fragments, or with IPv6 extension headers, are not answered; IPv4 options are in
the reply as they came.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld16, ld32, ld64, ld64be, shr64, st8, st16, st32, st64
from byway.packet.batch import R
from byway.packet.checksum import adjusted, ipv4_checksum
from byway.packet.offload import NEEDS_CSUM
from byway.switch.arp import L3, set_macs
from byway.switch.nd import DESTINATION, L4, SOURCE

TTL = 64  # of what the switch sends itself
ECHO, ECHO_REPLY = 8, 0
ECHO6, ECHO6_REPLY = 128, 129


@kernel
def set_type(row, field, kind):
    """Write the ICMP type at ``field`` and keep the checksum behind it right, unless that is still
    to be completed: then the type is in the sum.

    0 and 0xFFFF are the same sum, but only the second is one of nothing but zeros, which a reply
    with no data may be.
    """
    old = ld16(field)
    st8(field, kind)
    if ld64(row + R.offload) & NEEDS_CSUM == 0:
        made = adjusted(ld16(field + 2), old, ld16(field))
        st16(field + 2, 0xFFFF if made == 0 else made)


@kernel
def echo_reply(row, mac, l4):
    """The IPv4 echo request, with its ICMP header at ``l4``, becomes the reply of ``mac``."""
    head = ld64(row + R.head)
    set_macs(head, shr64(ld64be(head + 6), 16), mac)
    ip = head + L3
    source, destination = ld32(ip + 12), ld32(ip + 16)
    st32(ip + 12, destination)
    st32(ip + 16, source)
    st8(ip + 8, TTL)
    ipv4_checksum(ip, l4 - L3)
    set_type(row, head + l4, ECHO_REPLY)


@kernel
def echo_reply_ipv6(row, mac):
    """The ICMPv6 echo request, without extension headers, becomes the reply of ``mac``. The
    pseudo-header's sum stays what it was, whichever way round its addresses are."""
    head = ld64(row + R.head)
    set_macs(head, shr64(ld64be(head + 6), 16), mac)
    for k in range(0, 16, 8):
        source, destination = ld64(head + SOURCE + k), ld64(head + DESTINATION + k)
        st64(head + SOURCE + k, destination)
        st64(head + DESTINATION + k, source)
    st8(head + L3 + 7, TTL)
    set_type(row, head + L4, ECHO6_REPLY)
