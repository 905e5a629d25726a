# SPDX-License-Identifier: Apache-2.0
"""The kernels of tunnels one by one, as tests call them: each a cached entry of int64 arguments.

Used by tests of packet.vxlan, packet.tunnels and ports.tunnel_kernels.
"""

from byway.machine.jit import kernel
from byway.packet.batch import look
from byway.packet.joining import join, joinable
from byway.packet.tunnels import network_of, tunnel_of
from byway.packet.vxlan import combine_ecn, inner_ecn, put_vxlan, vni_of
from byway.ports.tunnel_kernels import tunnel_rx, tunnel_waits
from byway.ports.tunnel_send import tunnel_tx

_rx, _tx = kernel(tunnel_rx), kernel(tunnel_tx)


@kernel(entry=True)
def vxlan_write(at, vni):
    """Write a VXLAN header; -> the VNI that is read from it."""
    put_vxlan(at, vni)
    return vni_of(at)


@kernel(entry=True)
def vxlan_read(at):
    """-> the VNI of a VXLAN header, or -1."""
    return vni_of(at)


@kernel(entry=True)
def ecn_of(frame, n):
    """-> the ECN bits of a frame."""
    return inner_ecn(frame, n)


@kernel(entry=True)
def ecn_combine(frame, n, outer):
    """1 where the frame passes."""
    return 1 if combine_ecn(frame, n, outer) else 0


@kernel(entry=True)
def network_number(vnis, vni):
    """-> the number of the network with a VNI, or -1."""
    return network_of(vnis, vni)


@kernel(entry=True)
def tunnel_number(remotes, high, low):
    """-> the number of the port that is the tunnel to a host, or -1."""
    return tunnel_of(remotes, high, low)


@kernel(entry=True)
def joined(row, first, n, stride, rest, segs):
    """Join what can be into a row; -> frames, 1: none was and the row is untouched."""
    count = joinable(first, n, stride, rest)
    if count > 1:
        join(row, first, n, stride, count, min(n, rest - stride * (count - 1)), segs)
    return count


@kernel(entry=True)
def tunnel_receive(queue, batch):
    """Take a batch out of tunnels, heads copied; -> rows."""
    n = _rx(queue, batch, 0)
    look(batch)
    return n


@kernel(entry=True)
def tunnel_send(queue, batch, selected, n):
    """Send rows; -> sent."""
    return _tx(queue, batch, selected, n, 0)


@kernel(entry=True)
def tunnel_waiting(queue):
    """1 where there is something to take."""
    return 1 if tunnel_waits(queue) else 0
