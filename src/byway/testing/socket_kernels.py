# SPDX-License-Identifier: Apache-2.0
"""The kernels of ports that go through sockets, as tests call them one by one.

Used by tests of af_packet_kernels and udp_kernels.
"""

from byway.machine.jit import kernel
from byway.packet.batch import look
from byway.ports.af_packet_kernels import packet_give_back, packet_rx, packet_tx, packet_waits
from byway.ports.datagrams import reason_of
from byway.ports.udp_kernels import udp_rx, udp_tx, udp_waits


@kernel(entry=True)
def packet_receive(queue, batch):
    """Take a batch from the ring, heads copied; -> rows."""
    n = packet_rx(queue, batch)
    look(batch)
    return n


@kernel(entry=True)
def packet_return(queue, batch):
    """Give the slots of a batch back; -> 0."""
    packet_give_back(queue, batch)
    return 0


@kernel(entry=True)
def packet_send(queue, batch, selected, n):
    """Send rows; -> sent."""
    return packet_tx(queue, batch, selected, n)


@kernel(entry=True)
def packet_waiting(queue):
    """1 where a frame waits."""
    return 1 if packet_waits(queue) else 0


@kernel(entry=True)
def udp_receive(queue, batch):
    """Take a batch of datagrams, heads copied; -> rows."""
    n = udp_rx(queue, batch)
    look(batch)
    return n


@kernel(entry=True)
def udp_send(queue, batch, selected, n):
    """Send rows; -> sent."""
    return udp_tx(queue, batch, selected, n)


@kernel(entry=True)
def udp_waiting(queue):
    """1 where a datagram waits."""
    return 1 if udp_waits(queue) else 0


@kernel(entry=True)
def reason(error):
    """Why a frame is dropped that was refused with this errno."""
    return reason_of(error)
