# SPDX-License-Identifier: Apache-2.0
"""What a frame's sender left to do: a checksum to complete, segments to cut.

Used by virtio (the virtio_net_hdr of each frame), worker (checks, finishing) and segment.py; uses
layers.py. VIRTIO 1.2, 5.1.6 (struct virtio_net_hdr), 5.1.6.2 and 5.1.6.4.

Theory of operation
-------------------
A virtio_net_hdr becomes one *offload word* in the frame's row: ``offload_word`` keeps what is
consistent in itself. ``check_offloads`` then holds it against the frame's private head, once, and
what passes is true wherever the frame goes: the checksum field lies in the frame and behind the IP
header, a frame to be cut is the TCP or UDP that it is said to be, its headers fit into HEAD bytes,
and it makes at most MAX_SEGMENTS. So a hostile guest can reach neither our memory nor another
guest's kernel with it. What the sender says of header length is not believed but found.

As in Linux, the length in the IP header of a frame to be cut is not looked at: the frame's own
length counts (senders of large frames leave 0 there, or what does not fit).

What a destination takes is a mask of TAKES_*; ``takes`` says whether a row can go there as it is,
and segment.py finishes those that cannot.
"""

from byway.machine.formula import formula
from byway.machine.jit import kernel
from byway.machine.mem import ld8, ld64, mul64, shr64, st64, unlikely
from byway.packet.batch import FLOOD, HEAD, UNDECIDED, R, batch_at, dropped
from byway.packet.layers import (
    SCTP,
    TCP,
    UDP,
    is_fragment,
    l3_of,
    l4_of,
    layers,
    protocol_of,
    version_of,
)
from byway.packet.reason import Reason

# virtio_net_hdr: flags, and gso_type (5.1.6).
NEEDS_CSUM, DATA_VALID = 1, 2
GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4 = 1, 3, 4, 5
GSO_ECN = 0x80
GSO_MASK = 0x7F  # the type without ECN

MALFORMED = -1
MAX_SEGMENTS = 256  # that a frame may make
FEW_SEGMENTS = 64
TCP_CHECKSUM, UDP_CHECKSUM = 16, 6  # offsets in the protocol's header
UDP_HEADER, TCP_HEADER = 8, 20
FRAGMENT_HEADER = 8  # IPv6's

# What a destination takes unfinished. TAKES_VALID: it may be told of a checksum that is known to be
# good, as a driver with GUEST_CSUM may (5.1.6.4.1) and a device may not (5.1.6.2.1).
TAKES_CSUM, TAKES_TSO4, TAKES_VALID, TAKES_UFO, TAKES_TSO6 = 1, 2, 4, 8, 16
TAKES_USO4, TAKES_USO6, TAKES_ECN = 32, 64, 128

_BAD_OFFLOAD = int(Reason.BAD_OFFLOAD)


# ---------------------------------------------------------------- the word
@formula
def word_flags(word):
    """NEEDS_CSUM, DATA_VALID."""
    return word & 0xFF


@formula
def word_gso(word):
    """The GSO type without ECN, 0 for none."""
    return word >> 8 & GSO_MASK


@formula
def word_gso_size(word):
    """Bytes of payload in a segment."""
    return word >> 16 & 0xFFFF


@formula
def word_csum_start(word):
    """Where the bytes to sum begin, from the start of the frame."""
    return word >> 32 & 0xFFFF


@formula
def word_csum_offset(word):
    """Where the sum is to be stored, from csum_start."""
    return word >> 48 & 0xFF


@formula
def without_gso(word):
    """The word of a frame of which only the checksum is left to do."""
    return word & ~0xFFFFFF00


@kernel
def offload_word(low, csum_offset):
    """The offload word of a virtio_net_hdr: its first 8 bytes as an int64, and bytes 8 and 9.

    0 where nothing is left to do, MALFORMED where the header contradicts itself. Unknown flags are
    ignored (5.1.6.2.2), hdr_len is not used.
    """
    flags = low & (NEEDS_CSUM | DATA_VALID)
    gso = low >> 8 & 0xFF
    if flags & NEEDS_CSUM == 0:
        return flags if gso == 0 else MALFORMED  # 5.1.6.2.1: GSO comes with NEEDS_CSUM
    if csum_offset > 0xFF:
        return MALFORMED
    word = NEEDS_CSUM | shr64(low, 48) << 32 | csum_offset << 48
    if gso == 0:
        return word
    kind = gso & GSO_MASK
    size = low >> 32 & 0xFFFF
    tcp = kind == GSO_TCPV4 or kind == GSO_TCPV6
    if size == 0 or not (tcp or (gso == GSO_UDP or gso == GSO_UDP_L4)):  # ECN goes with TCP
        return MALFORMED
    return word | gso << 8 | size << 16


@kernel
def header_low(word, hdr_len):
    """The first 8 bytes of the virtio_net_hdr that says what ``word`` does."""
    return (word & 0xFFFF | (hdr_len & 0xFFFF) << 16 | word_gso_size(word) << 32) \
        + mul64(word_csum_start(word), 1 << 48)


# ---------------------------------------------------------------- the check
@kernel
def checked_sum(row, word, found):
    """Does a checksum in this place fit the frame with these layers?"""
    start, offset = word_csum_start(word), word_csum_offset(word)
    if start + offset + 2 > ld64(row + R.len):
        return False
    if version_of(found) == 0:
        return start >= l3_of(found)
    l4, protocol = l4_of(found), protocol_of(found)
    if is_fragment(found) or start < l4:
        return False
    if protocol == TCP:
        return start == l4 and offset == TCP_CHECKSUM
    if protocol == UDP:  # or a tunnel in UDP: the sum is an inner header's
        return offset == UDP_CHECKSUM if start == l4 else start >= l4 + UDP_HEADER
    return protocol != SCTP or start > l4  # SCTP has another kind of checksum


@kernel
def gso_header(row, word, found):
    """Bytes of headers that every segment begins with, or 0 where the frame is not what it is said
    to be. (UFO makes fragments: their headers end with IP's.)"""
    kind, l4, protocol = word_gso(word), l4_of(found), protocol_of(found)
    if word_csum_start(word) != l4:
        return 0
    n = min(ld64(row + R.len), HEAD)
    if kind == GSO_UDP:
        header = l4 + FRAGMENT_HEADER if version_of(found) == 6 else l4
        return header if protocol == UDP and header <= HEAD else 0
    if kind == GSO_UDP_L4:
        return l4 + UDP_HEADER if protocol == UDP and l4 + UDP_HEADER <= n else 0
    version = 4 if kind == GSO_TCPV4 else 6
    if version_of(found) != version or protocol != TCP or l4 + TCP_HEADER > n:
        return 0
    header = 4 * (ld8(ld64(row + R.head) + l4 + 12) >> 4)
    return l4 + header if header >= TCP_HEADER and l4 + header <= n else 0


@kernel
def checked(row):
    """The row's offload word, checked against its head: as it is, simplified, or MALFORMED."""
    word = ld64(row + R.offload)
    if word < 0 or word & NEEDS_CSUM == 0:
        return word
    found = layers(row)
    if found < 0 or not checked_sum(row, word, found):
        return MALFORMED
    if word_gso(word) == 0:
        return word
    header = gso_header(row, word, found)
    if header == 0:
        return MALFORMED
    size = word_gso_size(word)
    payload = ld64(row + R.len) - header
    if word_gso(word) == GSO_UDP:
        payload = ld64(row + R.len) - l4_of(found)
    if payload <= size:
        return without_gso(word)
    if word_gso(word) == GSO_UDP:
        size &= ~7  # all fragments but the last hold a multiple of 8 bytes (RFC 791, RFC 8200)
    return word if payload <= size * MAX_SEGMENTS else MALFORMED


@kernel
def check_offloads(batch):
    """Hold the offload words of a batch against the heads; what does not fit is BAD_OFFLOAD.

    Of all rows that may go out, so of those, too, that a stage has decided about. Once a batch,
    after ``look``, where BATCH.offloads is not 0 (it is set anew).
    """
    b = batch_at(batch)
    left = 0
    for k in range(b.n):
        row = b.rows + 64 * k
        out = ld64(row + R.out)
        if ld64(row + R.offload) != 0 and (out == UNDECIDED or out >= FLOOD):
            word = checked(row)
            if unlikely(word < 0):
                word = 0
                st64(row + R.out, dropped(_BAD_OFFLOAD))
            st64(row + R.offload, word)
            left |= word
    b.offloads = left


@kernel
def pieces_of(word, length):
    """Roughly how many frames a frame of ``length`` bytes makes, not less than it does.

    A guest's number divides nothing: it makes few, or as many as there may be.
    """
    if word_gso(word) == 0:
        return 1
    return FEW_SEGMENTS if length <= FEW_SEGMENTS * word_gso_size(word) else MAX_SEGMENTS


# ---------------------------------------------------------------- checked rows
@kernel
def header_bytes(row):
    """Bytes up to the end of the transport header (hdr_len, 5.1.6.2) of a row that was checked.

    Of a checksum without GSO: up to the end of its field; 0 for a row with neither.
    """
    word = ld64(row + R.offload)
    start = word_csum_start(word)
    kind = word_gso(word)
    if kind == GSO_TCPV4 or kind == GSO_TCPV6:
        return start + 4 * (ld8(ld64(row + R.head) + start + 12) >> 4)
    if word & NEEDS_CSUM == 0:
        return 0
    return start + word_csum_offset(word) + 2  # UDP's checksum ends its header


@kernel
def wire_length(row):
    """Bytes of the longest frame that a row makes on the wire, for a row that was checked."""
    word = ld64(row + R.offload)
    kind = word_gso(word)
    if kind == 0:
        return ld64(row + R.len)
    if kind == GSO_UDP:
        return gso_header(row, word, layers(row)) + (word_gso_size(word) & ~7)
    return header_bytes(row) + word_gso_size(word)


@kernel
def takes(row, mask):
    """Can the row go as it is to a destination that takes ``mask`` unfinished?"""
    word = ld64(row + R.offload)
    if word == 0:
        return True
    if word & NEEDS_CSUM == 0:
        return mask & TAKES_VALID != 0
    wanted = TAKES_CSUM
    kind = word_gso(word)
    if kind != 0:
        if kind == GSO_TCPV4:
            wanted |= TAKES_TSO4
        elif kind == GSO_TCPV6:
            wanted |= TAKES_TSO6
        elif kind == GSO_UDP:
            wanted |= TAKES_UFO
        elif version_of(layers(row)) == 4:
            wanted |= TAKES_USO4
        else:
            wanted |= TAKES_USO6
        if word >> 8 & GSO_ECN != 0:
            wanted |= TAKES_ECN
    return mask & wanted == wanted
