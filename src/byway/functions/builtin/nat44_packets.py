# SPDX-License-Identifier: Apache-2.0
"""How nat44.py reads and rewrites packets: ports, the identifiers of ICMP, and errors about packets
that were translated (RFC 792; RFC 5508).

Written on the author's page: plain functions of a frame, compiled into the function.
"""

from byway import nf

ICMP, UDP = 1, 17
ECHO_REPLY, ECHO, TIMESTAMP, TIMESTAMP_REPLY = 0, 8, 13, 14
UNREACHABLE, EXPIRED, PARAMETER_PROBLEM = 3, 11, 12


def is_query(kind):
    """Does an ICMP message of this type ask, with an identifier?"""
    return kind == ECHO or kind == TIMESTAMP


def is_answer(kind):
    """Does it answer, with the identifier of who asked?"""
    return kind == ECHO_REPLY or kind == TIMESTAMP_REPLY


def is_error(frame):
    """Does it quote a packet that met an error?"""
    kind = frame.icmp_type
    return frame.is_icmp and (kind == UNREACHABLE or kind == EXPIRED or kind == PARAMETER_PROBLEM)


def quotes_ports(frame):
    """Does the quoted packet tell of its ports? A fragment but the first does not."""
    return frame.quoted.is_ipv4 and (frame.quoted.is_tcp or frame.quoted.is_udp
                                     or frame.quoted.is_icmp)


def quoted_source_port(frame):
    """The port, or the query's identifier, that the quoted packet comes from."""
    if frame.quoted.is_icmp:
        return frame.quoted.icmp_id if is_query(frame.quoted.icmp_type) else 0
    return frame.quoted.l4_src


def quoted_destination_port(frame):
    """The port, or the answer's identifier, that the quoted packet is for."""
    if frame.quoted.is_icmp:
        return frame.quoted.icmp_id if is_answer(frame.quoted.icmp_type) else 0
    return frame.quoted.l4_dst


def rewrite_error(frame, inside, source, target):
    """Translate an error. ``source`` and ``target``: the ends that an answer to the quoted packet
    gets; ``inside``: the sender is to be hidden, or is who the quoted packet was for."""
    if frame.quoted.is_icmp:
        if is_query(frame.quoted.icmp_type):
            frame.quoted.icmp_id = target >> 32
        elif is_answer(frame.quoted.icmp_type):
            frame.quoted.icmp_id = source >> 32
    else:
        frame.quoted.l4_src = target >> 32
        frame.quoted.l4_dst = source >> 32
    frame.quoted.ipv4_src = target
    frame.quoted.ipv4_dst = source
    frame.ipv4_dst = target
    if inside:
        frame.ipv4_src = source
    return nf.PASS


def rewrite_icmp(frame, source, target):
    """Give a query or an answer these ends."""
    if is_query(frame.icmp_type):
        frame.icmp_id = source >> 32
    else:
        frame.icmp_id = target >> 32
    frame.ipv4_src = source
    frame.ipv4_dst = target
    return nf.PASS


def source_of(frame):
    """The end that a packet of TCP or UDP comes from."""
    return frame.ipv4_src | frame.l4_src << 32


def target_of(frame):
    """The end that it is for."""
    return frame.ipv4_dst | frame.l4_dst << 32
