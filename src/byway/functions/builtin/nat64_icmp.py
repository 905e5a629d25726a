# SPDX-License-Identifier: Apache-2.0
"""What ICMP and ICMPv6 call the same thing (RFC 7915, 4.2 and 5.2), for nat64.py.

Written on the author's page: plain functions of numbers, compiled into the function.
"""

NOTHING = -1  # there is no such message on the other side
ONE_TO_ONE = 0x10000  # the message quotes nothing: its body stays
ECHO_REPLY, UNREACHABLE, ECHO, EXPIRED, PARAMETER = 0, 3, 8, 11, 12
UNREACHABLE6, TOO_BIG6, EXPIRED6, PARAMETER6, ECHO6, ECHO6_REPLY = 1, 2, 3, 4, 128, 129
LEAST_MTU, LEAST_MTU6, GROWTH = 68, 1280, 20


def icmp4_of(kind, code):
    """The type << 8 | code of ICMP for one of ICMPv6, or NOTHING."""
    if kind == ECHO6:
        return ONE_TO_ONE | ECHO << 8
    if kind == ECHO6_REPLY:
        return ONE_TO_ONE | ECHO_REPLY << 8
    if kind == UNREACHABLE6:
        if code == 1:
            return UNREACHABLE << 8 | 10
        if code == 4:
            return UNREACHABLE << 8 | 3
        if code == 0 or code == 2 or code == 3:
            return UNREACHABLE << 8 | 1
    if kind == TOO_BIG6:
        return UNREACHABLE << 8 | 4
    if kind == EXPIRED6:
        return EXPIRED << 8 | code
    if kind == PARAMETER6:
        if code == 0:
            return PARAMETER << 8
        if code == 1:
            return UNREACHABLE << 8 | 2
    return NOTHING


def icmp6_of(kind, code):
    """The type << 8 | code of ICMPv6 for one of ICMP, or NOTHING."""
    if kind == ECHO:
        return ONE_TO_ONE | ECHO6 << 8
    if kind == ECHO_REPLY:
        return ONE_TO_ONE | ECHO6_REPLY << 8
    if kind == EXPIRED:
        return EXPIRED6 << 8 | code
    if kind == PARAMETER and (code == 0 or code == 2):
        return PARAMETER6 << 8
    if kind != UNREACHABLE:
        return NOTHING
    if code == 2:
        return PARAMETER6 << 8 | 1
    if code == 3:
        return UNREACHABLE6 << 8 | 4
    if code == 4:
        return TOO_BIG6 << 8
    if code == 9 or code == 10 or code == 13 or code == 15:
        return UNREACHABLE6 << 8 | 1
    if code == 0 or code == 1 or (code >= 5 and code <= 12):
        return UNREACHABLE6 << 8
    return NOTHING


def word4_of(kind, code, word):
    """The second word of an ICMP error for that of ICMPv6; -1: it points at what is not there."""
    if kind != PARAMETER6 or code != 0:
        return 0
    pointer = pointer4_of(word)
    if pointer < 0:
        return -1
    return pointer << 24


def word6_of(kind, code, word):
    """The second word of an ICMPv6 error for that of ICMP; -1: it points at what is not there."""
    if kind == UNREACHABLE and code == 2:
        return 6  # the next header
    if kind != PARAMETER:
        return 0
    return pointer6_of(word >> 24)


def pointer4_of(at):
    """Where a byte of IPv6's header is in IPv4's (RFC 7915, figure 6); -1: nowhere."""
    if at <= 1:  # version, traffic class
        return at
    if at == 4 or at == 5:  # length
        return 2
    if at == 6:  # next header
        return 9
    if at == 7:  # hop limit
        return 8
    if at >= 8 and at < 24:  # source
        return 12
    if at >= 24 and at < 40:  # destination
        return 16
    return -1


def pointer6_of(at):
    """Where a byte of IPv4's header is in IPv6's (RFC 7915, figure 3); -1: nowhere."""
    if at <= 1:
        return at
    if at == 2 or at == 3:
        return 4
    if at == 8:
        return 7
    if at == 9:
        return 6
    if at >= 12 and at < 16:
        return 8
    if at >= 16 and at < 20:
        return 24
    return -1


def mtu4_of(mtu):
    """The MTU for IPv4 that an ICMPv6 error's means."""
    return min(max(mtu - GROWTH, LEAST_MTU), 0xFFFF)


def mtu6_of(mtu):
    """The MTU for IPv6 that an ICMP error's means; one that is not told (RFC 1191, 5) is the least.
    """
    return max(mtu + GROWTH, LEAST_MTU6)
