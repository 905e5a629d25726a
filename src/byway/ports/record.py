# SPDX-License-Identifier: Apache-2.0
"""What kernels know of a port, and of each of its queues, whatever its kind.

Used by dispatch.py (which branches on the kind), worker, and the port objects that fill it.

A port has any number of rx queues, each served by one worker, and of tx queues, among which frames
are spread by flow. Every queue has counters of its own, so that no two workers write the same.
"""

from enum import IntEnum

from byway.machine.layout import record


class Kind(IntEnum):
    """The kind of a queue, as kernels branch on it."""

    NULL = 0
    DEVICE = 1  # a virtqueue whose driver is somebody else's: vhost-user
    DRIVER = 2  # a virtqueue whose device is somebody else's: virtio-user, vhost-kernel
    PCAP = 3
    TAP = 4  # an interface of the kernel: a system call a frame
    PACKET = 5  # AF_PACKET rings on an interface
    XDP = 6  # AF_XDP rings on a queue of an interface
    UDP = 7  # a socket: each datagram a frame
    TUNNEL = 8  # frames to and from other hosts, in VXLAN


# txqs: address of ntx TXQ records (at least one). first: the RXQ whose worker looks after the tx
# queues when it wakes.
# fault: set by the SIGBUS guard; error: a RingError; both mean that nobody touches the queues.
# alarm, one: event fd that tells the control thread about an error, and what is written to it.
# shared: several workers may deliver here, so a tx queue's lock is taken. stages: what is done with
# its frames besides switching them (switch.stages), 0: nothing.
PORT, port_at, P = record("port", [
    "index", "network", "txqs", "ntx", "fault", "error", "alarm", "one", "shared",
    "first", "stages"], size=128)

# port: its PORT. queue: address of the kind's record (0: nothing ever comes). number: of this rx
# queue in plans. counters: COUNTERS of what came in. discard: it is taken and dropped (a started
# but disabled virtqueue). awake: the peer gave no way to be woken by, so it is polled for ever.
# sibling: the next RXQ of its port that the same worker serves, round in a circle; 0: it has none.
RXQ, rxq_at, X = record("rxq", [
    "kind", "port", "queue", "number", "counters", "discard", "awake", "sibling"])

# queue: address of the kind's record (0: it takes nothing, or swallows). counters: COUNTERS of what
# went out. takes: what the peer takes unfinished (packet.offload).
TXQ, txq_at, T = record("txq", ["kind", "queue", "counters", "takes", "lock"])
