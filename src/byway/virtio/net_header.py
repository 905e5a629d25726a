# SPDX-License-Identifier: Apache-2.0
"""The header in front of every frame in a virtqueue: struct virtio_net_hdr.

Used by the device's and the driver's kernels, in both directions. VIRTIO 1.2, 5.1.6; its length
depends on what was negotiated (features.header_length).

    flags u8 @0, gso_type u8 @1, hdr_len u16 @2, gso_size u16 @4, csum_start u16 @6,
    csum_offset u16 @8, num_buffers u16 @10 (12 bytes and more), hash_value u32 @12,
    hash_report u16 @16, padding u16 @18 (20 bytes)
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld16_once, ld64, ld64_once, likely, st16, st32, st64
from byway.packet.batch import R
from byway.packet.offload import header_bytes, header_low, offload_word, word_csum_offset

CSUM_OFFSET, BUFFERS, HASH = 8, 10, 12
MAX_HEADER = 20


@kernel
def put_header(header, destination, buffers, row):
    """Write a header of ``header`` bytes for the frame of ``row``, which takes ``buffers`` buffers.

    There is no hash in it: HASH_REPORT_NONE (5.1.6.4.4).
    """
    low = 0
    last = 0
    word = ld64(row + R.offload)
    if not likely(word == 0):
        low = header_low(word, header_bytes(row))
        last = word_csum_offset(word)
    st64(destination, low)
    if header == 10:
        st16(destination + CSUM_OFFSET, last)
    else:
        st32(destination + CSUM_OFFSET, last | buffers << 16)
        if header > HASH:
            st64(destination + HASH, 0)


@kernel
def read_offload(header):
    """The offload of a frame whose header lies at ``header``, each byte read once; see
    packet.offload."""
    return offload_word(ld64_once(header), ld16_once(header + CSUM_OFFSET))
