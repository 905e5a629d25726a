# SPDX-License-Identifier: Apache-2.0
"""The TCP segments that the SYN guard (syn_guard.py) makes of those that come (RFC 9293).

Written on the author's page: plain functions of a frame, compiled into the guard. A segment keeps
its Ethernet and IP headers; what was behind its TCP header is cut off.
"""

SYN, RST, ACK, SYN_ACK = 0x02, 0x04, 0x10, 0x12
END, NOTHING, MSS = 0, 1, 2  # options
WORD = 0xFFFFFFFF
TTL = 64
WINDOW = 8192  # bytes, until a segment of the client's own tells
# Segment sizes that a cookie can say.
MSS0, MSS1, MSS2, MSS3 = 536, 1220, 1440, 1460


def turn(frame):
    """Swap source and destination in IP and TCP."""
    frame.swap_ip()
    frame.swap_l4()


def becomes_syn_ack(frame, seq, ack, mss):
    """A SYN becomes the answer to it. Its window is 0: the client is to wait."""
    turn(frame)
    segment(frame, seq, ack, SYN_ACK, 0, mss)


def becomes_syn(frame, seq, mss):
    """A segment to the server becomes the SYN that opens its connection."""
    segment(frame, seq, 0, SYN, frame.tcp_window, mss)


def completes(frame, first, cookie):
    """The server's SYN-ACK: the server gets the acknowledgement of it, as a copy; the frame becomes
    the ACK that opens the client's window. ``first``: the client's first sequence number."""
    seq = frame.tcp_seq
    ack = frame.tcp_ack
    window = frame.tcp_window
    turn(frame)
    frame.swap_eth()
    segment(frame, first + 1 & WORD, seq + 1 & WORD, ACK, WINDOW, 0)
    frame.send_copy(frame.port)
    turn(frame)
    frame.swap_eth()
    segment(frame, cookie + 1 & WORD, ack, ACK, window, 0)


def segment(frame, seq, ack, flags, window, mss):
    """Write a TCP header in place of that of the frame, and nothing behind it. ``mss``: the only
    option (RFC 9293, 3.7.1); 0: none."""
    l4 = frame.l4_offset
    words = 6 if mss != 0 else 5
    frame.resize(l4 + 4 * words)
    frame.set_u32(l4 + 4, seq)
    frame.set_u32(l4 + 8, ack)
    frame.set_u32(l4 + 12, words << 28 | flags << 16 | window)
    frame.set_u32(l4 + 16, 0)
    if mss != 0:
        frame.set_u32(l4 + 20, MSS << 24 | 4 << 16 | mss)
    frame.ip_ttl = TTL
    frame.fix()


def mss_index(frame):
    """The number of the largest size that is not above what a SYN's option says, or what is usual
    without one."""
    at = frame.l4_offset + 20
    end = frame.l4_offset + 4 * frame.tcp_data_offset
    found = MSS0
    while at + 3 < end:
        option = frame.u8(at)
        if option == END:
            break
        if option == NOTHING:
            at += 1
        elif option == MSS:
            found = frame.u16(at + 2)
            break
        else:
            at += max(frame.u8(at + 1), 2)
    if found >= MSS3:
        return 3
    if found >= MSS2:
        return 2
    return 1 if found >= MSS1 else 0


def mss_of(index):
    """The segment size that a number means."""
    if index == 3:
        return MSS3
    if index == 2:
        return MSS2
    return MSS1 if index == 1 else MSS0
