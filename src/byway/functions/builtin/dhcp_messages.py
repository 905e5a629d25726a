# SPDX-License-Identifier: Apache-2.0
"""DHCP messages (RFC 2131, 2) and their options (RFC 2132), for the server in dhcp.py.

Written on the author's page: plain functions of a frame, compiled into the server. Places are in
the UDP payload.
"""

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
REQUESTED_ADDRESS, MESSAGE_TYPE, SERVER, ROUTES, PAD, END = 50, 53, 54, 121, 0, 255
BOOT_REQUEST, BOOT_REPLY = 1, 2
MAGIC, COOKIE = 236, 0x63825363
OPTIONS = 240
LENGTH = 300  # of an answer: BOOTP's least (RFC 1542, 2.1), 60 bytes of options
MOST_OPTIONS = 64  # that are looked at
METADATA = 0xA9FEA9FE  # 169.254.169.254


def is_request(frame):
    """Is it a whole DHCP message from a guest on Ethernet, not from a relay?"""
    if not frame.is_ipv4 or not frame.is_udp or frame.is_fragment or frame.l4_dst != 67:
        return False
    if frame.payload.length < OPTIONS or frame.payload.u32(MAGIC) != COOKIE:
        return False
    about = frame.payload.u32(0) >> 8  # a request, Ethernet, addresses of 6 bytes
    return about == BOOT_REQUEST << 16 | 1 << 8 | 6 and frame.payload.u32(24) == 0


def find_option(frame, wanted, size):
    """Where the value of an option of at least ``size`` bytes begins; 0: there is none."""
    at = OPTIONS
    for _ in range(MOST_OPTIONS):
        code = frame.payload.u8(at)
        if code == END or at + 2 > frame.payload.length:
            return 0
        if code == PAD:
            at += 1
        else:
            length = frame.payload.u8(at + 1)
            if code == wanted and length >= size and at + 2 + length <= frame.payload.length:
                return at + 2
            at += 2 + length
    return 0


def begin_answer(frame, refused):
    """A request becomes an answer without address and options; -> is there room for it?"""
    if not frame.resize(frame.l4_offset + 8 + LENGTH):
        return False
    frame.payload.set_u8(0, BOOT_REPLY)
    frame.payload.set_u8(3, 0)
    frame.payload.set_u16(8, 0)
    if refused:
        frame.payload.set_u32(12, 0)
    for at in range(44, MAGIC, 4):
        frame.payload.set_u32(at, 0)
    for at in range(OPTIONS, LENGTH, 4):
        frame.payload.set_u32(at, 0)
    return True


def put_byte(frame, at, code, value):
    """Write an option of one byte; -> where the next one goes."""
    frame.payload.set_u8(at, code)
    frame.payload.set_u8(at + 1, 1)
    frame.payload.set_u8(at + 2, value)
    return at + 3


def put_word(frame, at, code, value):
    """As ``put_byte``, two bytes."""
    frame.payload.set_u8(at, code)
    frame.payload.set_u8(at + 1, 2)
    frame.payload.set_u16(at + 2, value)
    return at + 4


def put_address(frame, at, code, value):
    """As ``put_byte``, four bytes: an address, or a number."""
    frame.payload.set_u8(at, code)
    frame.payload.set_u8(at + 1, 4)
    frame.payload.set_u32(at + 2, value)
    return at + 6


def put_routes(frame, at, router):
    """Write the routes to the metadata server, which is on the network, and by the router (RFC
    3442: a guest that is told these does not look at the router's own option)."""
    frame.payload.set_u8(at, ROUTES)
    frame.payload.set_u8(at + 1, 9 if router == 0 else 14)
    frame.payload.set_u8(at + 2, 32)
    frame.payload.set_u32(at + 3, METADATA)
    frame.payload.set_u32(at + 7, 0)
    if router == 0:
        return at + 11
    frame.payload.set_u8(at + 11, 0)
    frame.payload.set_u32(at + 12, router)
    return at + 16
