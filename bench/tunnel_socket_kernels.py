# SPDX-License-Identifier: Apache-2.0
"""The kernels of tunnels with a clock around them, for tunnel_sockets.py."""

from byway.machine.jit import kernel
from byway.machine.system import rdtsc
from byway.packet.batch import look
from byway.ports.tunnel_kernels import tunnel_rx
from byway.ports.tunnel_send import tunnel_tx

_rx, _tx = kernel(tunnel_rx), kernel(tunnel_tx)


@kernel(entry=True)
def send_timed(queue, batch, selected, n, times):
    """Send n rows so often; -> cycles."""
    began = rdtsc()
    for _ in range(times):
        _tx(queue, batch, selected, n, 0)
    return rdtsc() - began


@kernel(entry=True)
def receive_timed(queue, batch):
    """Take all that waits, as a worker does; -> cycles."""
    began = rdtsc()
    while _rx(queue, batch, 0) > 0:
        look(batch)
    return rdtsc() - began
