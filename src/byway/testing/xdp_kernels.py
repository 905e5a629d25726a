# SPDX-License-Identifier: Apache-2.0
"""The kernels of AF_XDP sockets, as tests call them one by one.

Used by plain_xsk.py and by tests of af_xdp_kernels and packet.unfinished.
"""

from byway.machine.jit import kernel
from byway.packet.batch import look
from byway.packet.unfinished import mark_undone
from byway.ports.af_xdp_kernels import (
    xdp_give_back,
    xdp_kick,
    xdp_reap,
    xdp_refilled,
    xdp_rx,
    xdp_sleep,
    xdp_tx,
)


@kernel(entry=True)
def xdp_receive(queue, batch):
    """Take a batch from the RX ring, heads copied; -> rows."""
    n = xdp_rx(queue, batch)
    look(batch)
    return n


@kernel(entry=True)
def xdp_return(queue, batch):
    """Give the chunks of a batch back, and tell the driver; -> 0."""
    xdp_give_back(queue, batch)
    xdp_refilled(queue)
    return 0


@kernel(entry=True)
def xdp_waits(queue):
    """1 where the worker must not sleep."""
    return 1 if xdp_sleep(queue) else 0


@kernel(entry=True)
def xdp_send(queue, batch, selected, n):
    """Copy rows into the TX ring; -> sent."""
    return xdp_tx(queue, batch, selected, n)


@kernel(entry=True)
def xdp_collect(queue):
    """Take back what has gone; -> 0."""
    xdp_reap(queue)
    return 0


@kernel(entry=True)
def xdp_flush(queue):
    """Have the kernel send; -> 0."""
    xdp_kick(queue)
    return 0


@kernel(entry=True)
def mark(batch):
    """Recognise checksums that were left undone; -> 0."""
    mark_undone(batch)
    return 0
