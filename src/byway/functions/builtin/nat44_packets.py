# SPDX-License-Identifier: Apache-2.0
"""How nat44.py reads and rewrites packets: ports, the identifiers of ICMP, and errors about packets
that were translated (RFC 792; RFC 5508).

Written on the author's page: plain functions of a frame, compiled into the function.
"""

from byway import nf

ECHO_REPLY, ECHO, TIMESTAMP, TIMESTAMP_REPLY = 0, 8, 13, 14
UNREACHABLE, EXPIRED, PARAMETER_PROBLEM = 3, 11, 12
# What is rewritten: the source, the destination, or (hairpin) both.
SOURCE, DESTINATION, BOTH = 1, 2, 3


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


def rewrite_error(frame, inside, src, sport, dst, dport):
    """Translate an error. ``src`` .. ``dport``: what becomes of an answer to the quoted packet;
    ``inside``: the sender is to be hidden, or is who the quoted packet was for."""
    if frame.quoted.is_icmp:
        if is_query(frame.quoted.icmp_type):
            frame.quoted.icmp_id = dport
        elif is_answer(frame.quoted.icmp_type):
            frame.quoted.icmp_id = sport
    else:
        frame.quoted.l4_src = dport
        frame.quoted.l4_dst = sport
    frame.quoted.ipv4_src = dst
    frame.quoted.ipv4_dst = src
    frame.ipv4_dst = dst
    if inside:
        frame.ipv4_src = src
    return nf.PASS

def rewrite(frame, changes, src, sport, dst, dport):
    """Give a packet the addresses and ports of its flow's result."""
    if changes & SOURCE:
        frame.ipv4_src = src
        if frame.is_icmp:
            if is_query(frame.icmp_type):
                frame.icmp_id = sport
        else:
            frame.l4_src = sport
    if changes & DESTINATION:
        frame.ipv4_dst = dst
        if frame.is_icmp:
            if is_answer(frame.icmp_type):
                frame.icmp_id = dport
        else:
            frame.l4_dst = dport
    return nf.PASS
