# SPDX-License-Identifier: Apache-2.0
"""The kernels of offloads one by one, as tests call them: each a cached entry of int64 arguments.

Used by tests of packet.offload, checksum, segment and flow; see the function that each one calls.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld64
from byway.packet.batch import B
from byway.packet.checksum import (
    complete,
    finished,
    folded,
    ipv4_checksum,
    sum_bytes,
    swapped,
)
from byway.packet.flow import flow_hash, flow_queue
from byway.packet.layers import layers
from byway.packet.offload import (
    check_offloads,
    header_bytes,
    header_low,
    offload_word,
    takes,
    wire_length,
)
from byway.packet.segment import finish_begin, finish_next


@kernel(entry=True)
def word_of(low, csum_offset):
    """-> the offload word of a virtio_net_hdr."""
    return offload_word(low, csum_offset)


@kernel(entry=True)
def low_of(word, hdr_len):
    """-> the first 8 bytes of a virtio_net_hdr."""
    return header_low(word, hdr_len)


@kernel(entry=True)
def check(batch):
    """Check the offloads of a batch; -> BATCH.offloads."""
    check_offloads(batch)
    return ld64(batch + B.offloads)


@kernel(entry=True)
def headers_of(row):
    """-> bytes of headers of a checked row."""
    return header_bytes(row)


@kernel(entry=True)
def wire_length_of(row):
    """-> bytes of the longest frame that a checked row makes."""
    return wire_length(row)


@kernel(entry=True)
def may_go(row, mask):
    """-> 1 where the row can go as it is."""
    return 1 if takes(row, mask) else 0


@kernel(entry=True)
def layers_of(row):
    """-> where the layers of a frame begin."""
    return layers(row)


@kernel(entry=True)
def flow_of(row):
    """-> the flow hash of a frame."""
    return flow_hash(row)


@kernel(entry=True)
def queue_of(row, queues):
    """-> which of so many queues a frame goes to."""
    return flow_queue(row, queues)


@kernel(entry=True)
def sum_of(address, n):
    """-> the folded sum over n bytes."""
    return folded(sum_bytes(address, n))


@kernel(entry=True)
def fold(total):
    """-> a sum, folded."""
    return folded(total)


@kernel(entry=True)
def begin(finisher, row, mask):
    """Begin to finish a row; -> 0 or a reason."""
    return finish_begin(finisher, row, mask)


@kernel(entry=True)
def following(finisher):
    """-> how many rows are listed next."""
    return finish_next(finisher)


@kernel(entry=True)
def swap(number):
    """-> 16 bits the other way round."""
    return swapped(number)


@kernel(entry=True)
def finished_sum(total, udp):
    """-> what is stored for a sum."""
    return finished(total, udp != 0)


@kernel(entry=True)
def complete_at(frame, start, offset, n):
    """Complete one checksum."""
    complete(frame, start, offset, n)
    return 0


@kernel(entry=True)
def ipv4_sum(header, n):
    """Set the checksum of an IPv4 header."""
    ipv4_checksum(header, n)
    return 0
