# SPDX-License-Identifier: Apache-2.0
"""From a port to the kernels of its kind: receive, give back, deliver, go to sleep, wake up.

Used by worker, one branch a batch. The only place that knows all kinds.
"""

from byway.machine.jit import kernel
from byway.machine.mem import cas64, fence, ld64, ld64_acq, st64, st64_rel, unlikely
from byway.machine.system import SYS_SCHED_YIELD, SYS_WRITE, pause, syscall0, syscall3
from byway.packet.batch import UNDECIDED, R, batch_at, dropped
from byway.packet.counters import count_drops
from byway.packet.reason import Reason
from byway.ports.null import null_tx
from byway.ports.pcap_kernels import pcap_rx, pcap_tx
from byway.ports.record import Kind, P, port_at
from byway.virtio.device_rx import device_give_back, device_near, device_rx
from byway.virtio.device_tx import device_tx
from byway.virtio.driver import driver_give_back, driver_rx, driver_tx
from byway.virtio.notify import (
    call_driver,
    kick_device,
    refuse_calls,
    refuse_kicks,
    want_calls,
    want_kicks,
)
from byway.virtio.ring import D, Q

_VHOST_USER = int(Kind.VHOST_USER)
_VIRTIO_USER = int(Kind.VIRTIO_USER)
_PCAP = int(Kind.PCAP)
_RING_DISABLED = int(Reason.RING_DISABLED)
_PORT_DOWN = int(Reason.PORT_DOWN)
SPINS = 1000  # before a waiting worker lets somebody else run


@kernel
def usable(port):
    """May the port's queues be touched?"""
    return ld64_acq(port + P.fault) == 0 and ld64(port + P.error) == 0


@kernel
def fail(port, error):
    """The ring is broken: remember why, ring the alarm; nobody touches the port any more."""
    if error != 0:
        st64_rel(port + P.error, error)
        if ld64(port + P.alarm) >= 0:
            syscall3(SYS_WRITE, ld64(port + P.alarm), ld64(port + P.one), 8)


@kernel
def discard(batch):
    """Mark all rows: taken from a virtqueue that is started but disabled."""
    b = batch_at(batch)
    for k in range(b.n):
        if ld64(b.rows + 64 * k + R.out) == UNDECIDED:
            st64(b.rows + 64 * k + R.out, dropped(_RING_DISABLED))


@kernel
def port_near(port):
    """Ask for what port_rx looks at first, while another port is served."""
    p = port_at(port)
    if p.kind == _VHOST_USER:
        device_near(p.rxq)


@kernel
def port_rx(port, batch):
    """Fill the batch with frames that wait at the port; -> how many rows."""
    p = port_at(port)
    if unlikely(not usable(port)):
        return 0
    n = 0
    if p.kind == _VHOST_USER:
        n = device_rx(p.rxq, batch)
        fail(port, ld64(p.rxq + Q.error))
    elif p.kind == _VIRTIO_USER:
        n = driver_rx(p.rxq, batch)
        fail(port, ld64(p.rxq + D.error))
    elif p.kind == _PCAP:
        n = pcap_rx(p.rxq, batch)
    if unlikely(p.discard != 0):
        discard(batch)
    return n


@kernel
def port_give_back(port, batch):
    """Return what port_rx borrowed, in the same pass."""
    p = port_at(port)
    if p.kind == _VHOST_USER:
        device_give_back(p.rxq, batch)
    elif p.kind == _VIRTIO_USER:
        driver_give_back(p.rxq, batch)


@kernel
def acquire(lock):
    """Take a lock that other workers hold for a batch at the most."""
    spins = 0
    while cas64(lock, 0, 1) != 0:
        pause()
        spins += 1
        if spins == SPINS:  # its holder may not be running
            syscall0(SYS_SCHED_YIELD)
            spins = 0


@kernel
def no_queue_tx(kind, counters, selected, n):
    """Deliver to a port without a queue: a disabled virtqueue takes nothing, others swallow."""
    if kind == _VHOST_USER or kind == _VIRTIO_USER:
        count_drops(counters, _RING_DISABLED, n)
        return 0
    return null_tx(counters, selected, n)


@kernel
def deliver_to(port, batch, selected, n):
    """Deliver to a port that we have for ourselves; -> frames delivered."""
    p = port_at(port)
    if unlikely(not usable(port)):
        count_drops(p.tx, _PORT_DOWN, n)
        return 0
    sent = 0
    if p.txq == 0:
        sent = no_queue_tx(p.kind, p.tx, selected, n)
    elif p.kind == _VHOST_USER:
        sent = device_tx(p.txq, batch, selected, n)
        fail(port, ld64(p.txq + Q.error))
    elif p.kind == _VIRTIO_USER:
        sent = driver_tx(p.txq, batch, selected, n)
        fail(port, ld64(p.txq + D.error))
    elif p.kind == _PCAP:
        sent = pcap_tx(p.txq, batch, selected, n)
    return sent


@kernel
def port_tx(port, batch, selected, n):
    """Deliver the n rows listed at ``selected``; -> frames delivered, the others are counted."""
    shared = ld64(port + P.shared) != 0
    if shared:
        acquire(port + P.lock)
    sent = deliver_to(port, batch, selected, n)
    if shared:
        st64_rel(port + P.lock, 0)
    return sent


@kernel
def tell(port, queue):
    """Notify the peer of what was published on one of the port's queues, if it wants that."""
    kind = ld64(port + P.kind)
    if kind == _VHOST_USER:
        call_driver(queue)
        fail(port, ld64(queue + Q.error))
    elif kind == _VIRTIO_USER:
        kick_device(queue)
        fail(port, ld64(queue + D.error))


@kernel
def port_tell_rx(port):
    """Notify the peer of what port_give_back returned, if it wants that. After a full fence."""
    tell(port, ld64(port + P.rxq))


@kernel
def port_tell_tx(port):
    """Notify the peer of what port_tx delivered, if it wants that. After a full fence.

    Two workers may do so at once: the worst that can come of it is a notification too many.
    """
    queue = ld64(port + P.txq)
    if usable(port) and queue != 0:
        tell(port, queue)


@kernel
def port_sleep(port):
    """Ask to be woken for new frames; -> True where there are some already."""
    p = port_at(port)
    if not usable(port):
        return False
    if p.awake != 0:
        return True
    if p.kind == _VHOST_USER:
        return want_kicks(p.rxq)
    if p.kind == _VIRTIO_USER:
        return want_calls(p.rxq)
    return False


@kernel
def port_wake(port):
    """Polled again: no wake-ups needed, on neither queue; and tell the peer of what it may not
    know yet (a queue that has just been attached)."""
    p = port_at(port)
    if not usable(port):
        return
    if p.kind == _VHOST_USER:
        refuse_kicks(p.rxq)
        if p.txq != 0:
            refuse_kicks(p.txq)
    elif p.kind == _VIRTIO_USER:
        refuse_calls(p.rxq)
        refuse_calls(p.txq)
    fence()
    port_tell_rx(port)
    port_tell_tx(port)
