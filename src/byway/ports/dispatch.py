# SPDX-License-Identifier: Apache-2.0
"""From a queue to the kernels of its kind: receive, give back, deliver, go to sleep, wake up.

Used by worker, one branch a batch; uses tx.py's layers for delivering. Knows all kinds.
"""

from byway.machine.jit import kernel
from byway.machine.mem import fence, ld64, ld64_acq, st64, st64_rel, unlikely
from byway.machine.system import SYS_WRITE, call3, call5, syscall3
from byway.packet.batch import UNDECIDED, R, batch_at, dropped
from byway.packet.counters import count_drops
from byway.packet.reason import Reason
from byway.ports.af_packet_kernels import packet_give_back, packet_rx, packet_tx, packet_waits
from byway.ports.af_xdp_kernels import (
    XR,
    XT,
    xdp_give_back,
    xdp_kick,
    xdp_refilled,
    xdp_rx,
    xdp_sleep,
    xdp_tx,
)
from byway.ports.null import null_tx
from byway.ports.pcap_kernels import pcap_rx, pcap_tx
from byway.ports.record import TXQ, Kind, P, port_at, rxq_at, txq_at
from byway.ports.tap_kernels import K, tap_rx, tap_tx
from byway.ports.tunnel_kernels import V, tunnel_waits
from byway.ports.tunnel_send import N
from byway.ports.udp_kernels import udp_rx, udp_tx, udp_waits
from byway.virtio.ahead import look_ahead
from byway.virtio.device_rx import device_give_back, device_near, device_rx
from byway.virtio.device_tx import device_tx
from byway.virtio.driver import driver_give_back, driver_rx, driver_tx
from byway.virtio.driver_notify import kick_device, refuse_calls, want_calls
from byway.virtio.notify import call_driver, refuse_kicks, want_kicks
from byway.virtio.ring import WRITE, D, Q

_DEVICE = int(Kind.DEVICE)
_DRIVER = int(Kind.DRIVER)
_PCAP = int(Kind.PCAP)
_TAP = int(Kind.TAP)
_PACKET = int(Kind.PACKET)
_XDP = int(Kind.XDP)
_UDP = int(Kind.UDP)
_TUNNEL = int(Kind.TUNNEL)
_RING_DISABLED = int(Reason.RING_DISABLED)
_PORT_DOWN = int(Reason.PORT_DOWN)
TXQ_SIZE = TXQ.itemsize


@kernel
def usable(port):
    """May the port's queues be touched?"""
    return ld64_acq(port + P.fault) == 0 and ld64(port + P.error) == 0


@kernel
def fail(port, error):
    """A ring is broken: remember why, ring the alarm; nobody touches the port any more."""
    if error != 0:
        st64_rel(port + P.error, error)
        if ld64(port + P.alarm) >= 0:
            syscall3(SYS_WRITE, ld64(port + P.alarm), ld64(port + P.one), 8)


# ---------------------------------------------------------------- into Byway
@kernel
def discard(batch, first):
    """Mark the rows from the first on: taken from a virtqueue that is started but disabled."""
    b = batch_at(batch)
    for k in range(first, b.n):
        if ld64(b.rows + 64 * k + R.out) == UNDECIDED:
            st64(b.rows + 64 * k + R.out, dropped(_RING_DISABLED))


@kernel
def queue_near(rxq):
    """Ask for what queue_rx looks at first, while another queue is served."""
    x = rxq_at(rxq)
    if x.kind == _DEVICE:
        device_near(x.queue)


@kernel
def queue_rx(rxq, batch):
    """Fill the batch with frames that wait in an rx queue; -> how many rows.

    Frames of a virtqueue come after the rows that are there already; for the other kinds the batch
    is to be an empty one.
    """
    x = rxq_at(rxq)
    port = x.port
    first = batch_at(batch).n
    if unlikely(not usable(port)):
        return 0
    n = 0
    if x.kind == _DEVICE:
        n = device_rx(x.queue, batch)
        look_ahead(x.queue, 0)
        fail(port, ld64(x.queue + Q.error))
    elif x.kind == _DRIVER:
        n = driver_rx(x.queue, batch)
        fail(port, ld64(x.queue + D.error))
    elif x.kind == _PCAP:
        n = pcap_rx(x.queue, batch)
    elif x.kind == _TAP:
        n = tap_rx(x.queue, batch)
        fail(port, ld64(x.queue + K.error))
    elif x.kind == _PACKET:
        n = packet_rx(x.queue, batch)
    elif x.kind == _XDP:
        n = xdp_rx(x.queue, batch)
        fail(port, ld64(x.queue + XR.error))
    elif x.kind == _UDP:
        n = udp_rx(x.queue, batch)
    elif x.kind == _TUNNEL and x.queue != 0:
        n = call3(ld64(x.queue + V.code), x.queue, batch, 0)
    if unlikely(x.discard != 0):
        discard(batch, first)
    return n


@kernel
def queue_give_back(rxq, batch, first, n):
    """Return what queue_rx borrowed, in the same pass: n rows of the batch from the first on."""
    x = rxq_at(rxq)
    if x.kind == _DEVICE:
        device_give_back(x.queue, batch, first, n)
    elif x.kind == _DRIVER:
        driver_give_back(x.queue, batch)
    elif x.kind == _PACKET:
        packet_give_back(x.queue, batch)
    elif x.kind == _XDP:
        xdp_give_back(x.queue, batch)


# ---------------------------------------------------------------- out of Byway
@kernel
def queue_tx(port, txq, batch, selected, n):
    """Deliver n rows, as they are, to a tx queue that we have for ourselves; -> delivered."""
    t = txq_at(txq)
    if unlikely(not usable(port)):
        count_drops(t.counters, _PORT_DOWN, n)
        return 0
    sent = 0
    if t.kind == _DEVICE and t.queue != 0:
        sent = device_tx(t.queue, batch, selected, n)
        fail(port, ld64(t.queue + Q.error))
    elif t.kind == _DRIVER and t.queue != 0:
        sent = driver_tx(t.queue, batch, selected, n)
        fail(port, ld64(t.queue + D.error))
    elif t.kind == _DEVICE or t.kind == _DRIVER:  # a disabled virtqueue takes nothing
        count_drops(t.counters, _RING_DISABLED, n)
    elif t.kind == _PCAP and t.queue != 0:
        sent = pcap_tx(t.queue, batch, selected, n)
    elif t.kind == _TAP and t.queue != 0:
        sent = tap_tx(t.queue, batch, selected, n)
        fail(port, ld64(t.queue + K.error))
    elif t.kind == _PACKET and t.queue != 0:
        sent = packet_tx(t.queue, batch, selected, n)
    elif t.kind == _XDP and t.queue != 0:
        sent = xdp_tx(t.queue, batch, selected, n)
        fail(port, ld64(t.queue + XT.error))
    elif t.kind == _UDP and t.queue != 0:
        sent = udp_tx(t.queue, batch, selected, n)
    elif t.kind == _TUNNEL and t.queue != 0:
        sent = call5(ld64(t.queue + N.code), t.queue, batch, selected, n, 0)
    else:
        sent = null_tx(t.counters, selected, n)
    return sent


@kernel
def after_tx(port, txq):
    """Once a batch was delivered: what is known to be needed for the next one is asked for."""
    t = txq_at(txq)
    if t.kind == _DEVICE and t.queue != 0 and usable(port):
        look_ahead(t.queue, WRITE)


# ---------------------------------------------------------------- notifications
@kernel
def tell(port, kind, queue):
    """Notify the peer of what was published in a queue, if it wants that. After a full fence."""
    if kind == _DEVICE:
        call_driver(queue)
        fail(port, ld64(queue + Q.error))
    elif kind == _DRIVER:
        kick_device(queue)
        fail(port, ld64(queue + D.error))


@kernel
def tell_rx(rxq):
    """Notify the peer of what queue_give_back returned."""
    x = rxq_at(rxq)
    if x.kind == _XDP:
        xdp_refilled(x.queue)
    else:
        tell(x.port, x.kind, x.queue)


@kernel
def tell_tx(port):
    """Notify the peer of what was delivered to a port.

    Two workers may do so at once: the worst that can come of it is a notification too many.
    """
    if not usable(port):
        return
    p = port_at(port)
    for k in range(p.ntx):
        t = txq_at(p.txqs + TXQ_SIZE * k)
        if t.queue != 0 and t.kind == _XDP:
            xdp_kick(t.queue)
            fail(port, ld64(t.queue + XT.error))
        elif t.queue != 0:
            tell(port, t.kind, t.queue)


@kernel
def queue_sleep(rxq):
    """Ask to be woken for new frames; -> True where there are some already."""
    x = rxq_at(rxq)
    if not usable(x.port):
        return False
    if x.awake != 0:
        return True
    if x.kind == _DEVICE:
        return want_kicks(x.queue)
    if x.kind == _DRIVER:
        return want_calls(x.queue)
    if x.kind == _PACKET:
        return packet_waits(x.queue)
    if x.kind == _XDP:
        return xdp_sleep(x.queue)
    if x.kind == _UDP:
        return udp_waits(x.queue)
    if x.kind == _TUNNEL:
        return tunnel_waits(x.queue)
    return False


@kernel
def queue_wake(rxq):
    """Polled again: no wake-ups needed, not from the port's tx queues either; and tell the peer of
    what it may not know yet (a queue that has just been attached)."""
    x = rxq_at(rxq)
    port = x.port
    if not usable(port):
        return
    if x.kind == _DEVICE:
        refuse_kicks(x.queue)
    elif x.kind == _DRIVER:
        refuse_calls(x.queue)
    p = port_at(port)
    if rxq != p.first:
        fence()
        tell_rx(rxq)
        return
    for k in range(p.ntx):
        t = txq_at(p.txqs + TXQ_SIZE * k)
        if t.queue != 0 and t.kind == _DEVICE:
            refuse_kicks(t.queue)
            look_ahead(t.queue, WRITE)
        elif t.queue != 0 and t.kind == _DRIVER:
            refuse_calls(t.queue)
    fence()
    tell_rx(rxq)
    tell_tx(port)
