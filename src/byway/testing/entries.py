# SPDX-License-Identifier: Apache-2.0
"""Kernels as Python can call them one by one: what a fake guest and the tests need of virtio.

Used by byway.testing and tests. Every function takes addresses; see virtio.driver.
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence
from byway.packet.batch import look
from byway.virtio.driver import (
    driver_collect,
    driver_fill,
    driver_give_back,
    driver_rewind,
    driver_rx,
    driver_tx,
)
from byway.virtio.driver_notify import kick_device, refuse_calls, want_calls


@kernel(entry=True)
def guest_borrow(queue, batch):
    """Borrow received frames of a driver queue, heads copied; -> rows."""
    n = driver_rx(queue, batch)
    if n > 0:
        look(batch)
    return n


@kernel(entry=True)
def guest_give_back(queue, batch):
    """Post the buffers of a batch again; -> 0."""
    driver_give_back(queue, batch)
    fence()
    kick_device(queue)
    return 0


@kernel(entry=True)
def guest_send(queue, batch, selected, n):
    """Send n rows listed at ``selected``; -> frames sent."""
    sent = driver_tx(queue, batch, selected, n)
    fence()
    kick_device(queue)
    return sent


@kernel(entry=True)
def guest_kick(queue):
    """Tell the device of what it was not told yet, if it wants that; -> 0."""
    fence()
    kick_device(queue)
    return 0


@kernel(entry=True)
def guest_sleep(queue):
    """Ask for calls; -> 1 where something was used already."""
    if want_calls(queue):
        refuse_calls(queue)
        return 1
    return 0


@kernel(entry=True)
def guest_wake(queue):
    """Polling again; -> 0."""
    refuse_calls(queue)
    return 0


ENTRIES = (guest_borrow, guest_give_back, guest_send, guest_kick, guest_sleep, guest_wake,
           driver_fill, driver_collect, driver_rewind)
