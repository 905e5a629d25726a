# SPDX-License-Identifier: Apache-2.0
"""What kernels know of a port, whatever its kind.

Used by dispatch.py (which branches on the kind), worker, and the port objects that fill it.
"""

from enum import IntEnum

from byway.machine.layout import record


class Kind(IntEnum):
    """The kind of a port, as kernels branch on it."""

    NULL = 0
    VHOST_USER = 1
    VIRTIO_USER = 2
    PCAP = 3


# rxq, txq: address of the kind's record for the side (0: it has none). rx, tx: COUNTERS.
# fault: set by the SIGBUS guard; error: a RingError; both mean that nobody touches the queues.
# alarm, one: event fd that tells the control thread about an error, and what is written to it.
# discard: what comes in is taken and dropped (started but disabled virtqueue).
# awake: the peer gave no way to be woken by, so the port is polled for ever.
# shared: several workers may deliver here, so tx takes the lock.
PORT, port_at, P = record("port", [
    "kind", "index", "network", "rxq", "txq", "rx", "tx", "fault",
    "error", "alarm", "one", "discard", "awake", "shared", "lock"])
