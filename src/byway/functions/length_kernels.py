# SPDX-License-Identifier: Apache-2.0
"""A frame made longer or shorter, and its lengths and checksums made anew. Kernels.

Used by fields.py (which names them; nf/frame.py says what each does, nf/reshape.py is the plain
form); see shape_kernels.py for where the bytes are. A checksum is summed over the sender's memory
where the frame lies there: if the sender changes it meanwhile the checksum is wrong, as if the
frame had been damaged on its way, and nothing else.
"""

from byway.functions.frame_kernels import unproven
from byway.functions.parse_kernels import (
    HAS_ICMP,
    HAS_UDP,
    IS_FRAGMENT,
    IS_IP,
    IS_IPV4,
    parse_any,
    sum_of,
)
from byway.functions.shape_kernels import in_one_piece, offset_of, own, packet_end
from byway.functions.transport_kernels import get_payload_offset
from byway.machine.jit import kernel
from byway.machine.mem import ld64, memzero, st16, st16be, st64
from byway.packet.batch import BUFFER, HEAD, MIN_FRAME, R, batch_at
from byway.packet.checksum import finished, folded, ipv4_checksum, sum_bytes, swapped
from byway.packet.layers import l3_of, l4_of, protocol_of
from byway.packet.offload import (
    GSO_TCPV4,
    GSO_TCPV6,
    NEEDS_CSUM,
    without_gso,
    word_csum_offset,
    word_csum_start,
    word_gso,
    word_gso_size,
)
from byway.packet.row_sum import sum_row
from byway.switch.network import N

ALWAYS = 2048  # a frame may be made as long as that whatever its network's MTU


@kernel
def set_lengths(row, frame, end):
    """IP's length and header checksum, and UDP's length, of a packet that ends at ``end``."""
    head, l3, l4 = ld64(row + R.head), l3_of(frame), l4_of(frame)
    if frame & IS_IPV4 != 0:
        st16be(head + l3 + 2, end - l3)
        ipv4_checksum(head + l3, l4 - l3)
    else:
        st16be(head + l3 + 4, end - l3 - 40)
    if frame & HAS_UDP != 0 and frame & IS_FRAGMENT == 0:
        st16be(head + l4 + 4, end - l4)


@kernel
def add_zeros(row, frame, batch, length, n):
    """Have bytes of 0 from ``length`` to n, if need be in a place of the frame's own; -> was it
    done?"""
    rest = max(length, HEAD)
    if n > HEAD:
        if not own(row, frame, batch) or offset_of(row, frame, batch) + n > BUFFER:
            return False
        memzero(ld64(row + R.addr) + rest, n - rest)
    if length < HEAD:
        memzero(ld64(row + R.head) + length, min(n, HEAD) - length)
    return True


@kernel
def do_resize(row, frame, batch, n):
    """-> bool."""
    length = ld64(row + R.len)
    here = batch_at(batch).here
    longest = max(ALWAYS, length)
    if here != 0:
        longest = max(longest, ld64(here + N.max_frame))
    if n < MIN_FRAME or n > longest or not in_one_piece(row, frame, batch):
        return False
    if n > length and not add_zeros(row, frame, batch, length, n):
        return False
    st64(row + R.len, n)
    unproven(row)
    found = parse_any(row)
    if found & IS_IP != 0:
        set_lengths(row, found, n)
    return True


@kernel
def pseudo_header(row, frame, length):
    """The sum over what a transport's checksum covers of IP (RFC 768, 9293, 8200)."""
    if frame & HAS_ICMP != 0:
        return 0
    ip = ld64(row + R.head) + l3_of(frame)
    total = swapped(protocol_of(frame)) + swapped(length)
    if frame & IS_IPV4 != 0:
        return total + sum_bytes(ip + 12, 8)
    return total + sum_bytes(ip + 8, 32)


@kernel
def left_to_do(row, frame):
    """What is left to do on a frame whose headers stand as they are: its offload word, without what
    does not fit them."""
    word = ld64(row + R.offload)
    if word & NEEDS_CSUM == 0:
        return word
    l4, place = l4_of(frame), sum_of(frame)
    if place == 0 or word_csum_start(word) != l4 or word_csum_offset(word) != place - l4:
        return 0
    kind = word_gso(word)
    if kind == GSO_TCPV4 or kind == GSO_TCPV6:
        word &= ~((GSO_TCPV4 | GSO_TCPV6) << 8)
        word |= (GSO_TCPV4 if frame & IS_IPV4 != 0 else GSO_TCPV6) << 8
    return word


@kernel
def do_fix(row, frame, batch):
    """-> 1."""
    if frame & IS_IP == 0:
        st64(row + R.offload, 0)
        return 1
    end, l4, place = packet_end(row, frame), l4_of(frame), sum_of(frame)
    set_lengths(row, frame, end)
    at = ld64(row + R.head) + place
    word = ld64(row + R.offload)
    if word & NEEDS_CSUM != 0 and word_csum_start(word) > l4 and frame & HAS_UDP != 0:
        st16(at, 0)  # a tunnel: what it carries is yet to be completed
        return 1
    word = left_to_do(row, frame)
    if word_gso(word) != 0 and end - get_payload_offset(row, frame) <= word_gso_size(word):
        word = without_gso(word)
    st64(row + R.offload, word)
    if place == 0 or frame & IS_FRAGMENT != 0:
        return 1
    total = pseudo_header(row, frame, end - l4 & 0xFFFF)
    if word & NEEDS_CSUM != 0:
        st16(at, folded(total))
        return 1
    st16(at, 0)
    st16(at, finished(total + sum_row(row, l4, end - l4), frame & HAS_UDP != 0))
    return 1
