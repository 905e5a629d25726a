# SPDX-License-Identifier: Apache-2.0
"""The population's kernels as tests call them: entries of int64 arguments.

Used by tests and bench/population.py. See the function that each one calls.
"""

from byway.machine.jit import kernel
from byway.machine.mem import ld16be, ld64, ld64_acq, st64, st64be
from byway.machine.system import rdtsc
from byway.packet.batch import UNDECIDED, R, batch_at
from byway.switch.decide import decide, learn_sources
from byway.switch.events import LEARNED, SHARE, G, tell
from byway.switch.population import neighbour, neighbour_near, remote_near, remote_port

LOT = 64  # searches that are announced together, as for a batch


@kernel(entry=True)
def find_port(population, network, key):
    """-> the port of a MAC address (<< 16), or -1."""
    remote_near(population, network, key)
    return remote_port(population, network, key)


@kernel(entry=True)
def find_mac(population, network, high, low):
    """-> the MAC address of an IP address, or 0."""
    neighbour_near(population, network, high, low)
    return neighbour(population, network, high, low)


@kernel(entry=True)
def learn_run(batch, network, port):
    """Learn where the undecided rows of a batch come from."""
    learn_sources(batch, network, port)
    return 0


@kernel(entry=True)
def tell_one(ring, now, kind, network, port, mac, high, low):
    """Write one event."""
    tell(ring, now, kind, network, port, mac, high, low)
    return 0


@kernel(entry=True)
def tell_many(ring, first, n, port):
    """Learn n addresses behind a port, SHARE a tick, as fast as they are taken; -> ticks."""
    now = 1
    told = 0
    while told < n:
        tail = ld64_acq(ring + G.tail)
        if ld64(ring + G.head) - tail <= ld64(ring + G.mask):
            tell(ring, now, LEARNED, 1, port, first + told, 0, 0)
            told += 1
            if told % SHARE == 0:
                now += 1
    return now


@kernel(entry=True)
def find_many(population, network, keys, n, found):
    """Search for n keys (a multiple of LOT) in lots, write their ports; -> ticks it took."""
    began = rdtsc()
    for lot in range(0, n, LOT):
        for k in range(lot, lot + LOT):
            remote_near(population, network, ld64(keys + 8 * k))
        for k in range(lot, lot + LOT):
            st64(found + 8 * k, remote_port(population, network, ld64(keys + 8 * k)))
    return rdtsc() - began


@kernel(entry=True)
def find_steadily(population, network, key, high, low, allowed, rounds):
    """Search for one MAC and one IP address again and again, as a worker does while the control
    thread writes; -> how many answers were neither -1 (or 0) nor ``allowed`` (the port of the one
    and the MAC address of the other)."""
    wrong = 0
    for _ in range(rounds):
        port = remote_port(population, network, key)
        mac = neighbour(population, network, high, low)
        if port != -1 and port != allowed:
            wrong += 1
        if mac != 0 and mac != allowed:
            wrong += 1
    return wrong


@kernel(entry=True)
def decide_lots(batch, network, port, keys, n):
    """Decide about n frames, batch by batch, for the destinations (MAC << 16) at ``keys``; -> ticks
    of deciding alone."""
    b = batch_at(batch)
    rows = b.rows
    ticks = 0
    for lot in range(0, n, LOT):
        for k in range(LOT):
            row = rows + 64 * k
            head = ld64(row + R.head)
            st64be(head, ld64(keys + 8 * (lot + k)) | ld16be(head + 6))
            st64(row + R.out, UNDECIDED)
        began = rdtsc()
        decide(batch, network, port)
        ticks += rdtsc() - began
    return ticks
