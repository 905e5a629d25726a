# SPDX-License-Identifier: Apache-2.0
"""The kernels of taps, as tests and benchmarks call them: cached entries of int64 arguments.

Used by tests of ports.tap_kernels and bench/tap_syscalls.py.
"""

from byway.machine.jit import kernel
from byway.packet.batch import look
from byway.ports.tap_kernels import tap_rx, tap_tx


@kernel(entry=True)
def tap_receive(queue, batch):
    """Read a batch of frames, heads copied; -> rows."""
    n = tap_rx(queue, batch)
    look(batch)
    return n


@kernel(entry=True)
def tap_send(queue, batch, selected, n):
    """Write n rows; -> written."""
    return tap_tx(queue, batch, selected, n)
