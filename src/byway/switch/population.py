# SPDX-License-Identifier: Apache-2.0
"""The population: which port each MAC address is behind, which MAC each IP address belongs to.

Used by decide.py (``remote_port``), the responder and the router (``neighbour``), and control,
which writes it. One population serves all networks of a switch. The MAC addresses in it are those
of remote guests, and their ports tunnels; the IP addresses are those of remote and local guests.

    population = Population()
    population.set_mac(network=3, mac=0x020000000001, port=17)
    population.set_ip(3, bytes(10) + b"\\xff\\xff" + bytes([10, 0, 0, 1]), mac=0x020000000001)

Python keeps nothing of it besides the two tables (mac_table.py, ip_table.py): an entry takes 11 to
28 bytes, each of its IP addresses 26 to 64.

A table that gets full is copied into one of twice the size, and the record's pointer is changed to
that: one store. Workers may still be reading the old one in the pass that they are in, so its
memory is handed to whoever asked by ``on_moved``, to be kept until every worker has ended a pass.

All methods belong to the control thread. No change pauses a worker.
"""

import secrets
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from byway.machine.jit import kernel
from byway.machine.layout import address_of, alloc, record
from byway.machine.mem import ld64_acq, shr64
from byway.switch import ip_table, mac_table
from byway.switch.ip_table import ip_near, ip_search
from byway.switch.mac_table import NETWORK_MASK, TABLE, mac_near, mac_search

# Addresses of TABLE records.
POPULATION, _population_at, P = record("population", ["macs", "ips"])

LIMIT = 1 << 20
IPS = 4  # IP addresses that a MAC address has on average, at the most
FEW_BUCKETS = 16
FULL = 0.75  # a table grows when so much of it is in use
SPARSE = 1 / 64  # a table that is as empty as this and yet full somewhere is under attack


# ---------------------------------------------------------------- kernels
@kernel
def remote_near(population, network, key):
    """``remote_port`` will be asked soon."""
    mac_near(ld64_acq(population + P.macs), key | network)


@kernel
def remote_port(population, network, key):
    """-> the port that ``key`` (MAC << 16, as in fdb.py) is behind in ``network``, or -1."""
    return mac_search(ld64_acq(population + P.macs), key | network)


@kernel
def neighbour_near(population, network, high, low):
    """``neighbour`` will be asked soon."""
    ip_near(ld64_acq(population + P.ips), network, high, low)


@kernel
def neighbour(population, network, high, low):
    """-> the MAC address (a 48-bit number) that an IP address belongs to in ``network``, or 0.

    The address in two halves as ld64be loads them, IPv4 as ::ffff:a.b.c.d.
    """
    return shr64(ip_search(ld64_acq(population + P.ips), network, high, low), 16)


# ---------------------------------------------------------------- control
class PopulationFullError(RuntimeError):
    """There is no room for an entry: the problem, and what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


class _Table:
    """The memory of one table, which grows."""

    def __init__(self, kind: Any, nothing: int, limit: int, seed: int) -> None:
        """``kind``: the module of its kernels; ``nothing``: what its ``get`` answers then."""
        self.put, self.get, self.take, self.copy = kind.ENTRIES
        self.bucket, self.ways, self.nothing = kind.BUCKET, kind.WAYS, nothing
        self.limit, self.seed = limit, seed
        self.count = 0
        self._make(FEW_BUCKETS)

    def _make(self, buckets: int) -> None:
        self.memory = alloc(np.dtype("u1"), buckets * self.bucket)
        self.record = alloc(TABLE, 1, 64)
        row = self.record[0]
        row["buckets"], row["mask"] = address_of(self.memory), buckets - 1
        row["shift"], row["seed"] = 64 - (buckets.bit_length() - 1), self.seed
        self.address = address_of(self.record)

    @property
    def slots(self) -> int:
        return len(self.memory) // self.bucket * self.ways

    def grow(self) -> Any:
        """Move into twice the memory, or more; -> what must be kept for a pass."""
        before = self.memory, self.record
        old, buckets, copied = self.address, len(self.memory) // self.bucket, -1
        while copied < 0:
            buckets *= 2
            self._make(buckets)
            copied = int(self.copy(old, self.address))
        return before


class Population:
    """The tables of a switch. ``address``: of its record, which never moves."""

    def __init__(self, limit: int = LIMIT, seed: int | None = None) -> None:
        """``limit``: MAC addresses that there may be (IP addresses: IPS times as many)."""
        chosen = secrets.randbits(63) if seed is None else seed
        self._macs = _Table(mac_table, -1, limit, chosen)
        self._ips = _Table(ip_table, 0, IPS * limit, chosen)
        self.record = alloc(POPULATION, 1)
        self.record["macs"], self.record["ips"] = self._macs.address, self._ips.address
        self.address = address_of(self.record)
        self._keep: Callable[[Any], None] = [].append

    def on_moved(self, callback: Callable[[Any], None]) -> None:
        """``callback`` is given memory that no worker will find any more, to be kept until each has
        ended a pass. To be set before workers know the population."""
        self._keep = callback

    @property
    def memory(self) -> int:
        """Bytes that the tables take."""
        return sum(t.memory.nbytes + t.record.nbytes for t in (self._macs, self._ips))

    def __len__(self) -> int:
        """MAC addresses."""
        return self._macs.count

    # ------------------------------------------------------------ MAC addresses
    def set_mac(self, network: int, mac: int, port: int) -> None:
        """``mac`` is behind ``port`` now, wherever it was before. PopulationFullError."""
        key = _signed(mac << 16 | network)
        self._set(self._macs, "MAC", (key,), (key, port))

    def drop_mac(self, network: int, mac: int, port: int = -1) -> bool:
        """Forget where ``mac`` is, if it is behind ``port`` (-1: anywhere); -> whether it was."""
        return self._drop(self._macs, (_signed(mac << 16 | network), port))

    def port_of(self, network: int, mac: int) -> int | None:
        """The port that ``mac`` is behind, None where it is not known."""
        found = int(self._macs.get(self._macs.address, _signed(mac << 16 | network)))
        return None if found < 0 else found

    def macs(self) -> list[tuple[int, int, int]]:
        """(network, MAC address, port), in order."""
        return sorted((key & NETWORK_MASK, _unsigned(key) >> 16, port)
                      for key, port in self._mac_rows().tolist())

    # ------------------------------------------------------------ IP addresses
    def set_ip(self, network: int, ip: bytes, mac: int) -> None:
        """``ip`` (16 bytes, IPv4 as ::ffff:a.b.c.d) belongs to ``mac`` now, whomever it belonged to
        before. PopulationFullError."""
        halves = _halves(ip)
        self._set(self._ips, "IP", (network, *halves), (*halves, _signed(mac << 16 | network)))

    def drop_ip(self, network: int, ip: bytes, mac: int = -1) -> bool:
        """Forget ``ip``, if it belongs to ``mac`` (-1: anybody); -> whether it did."""
        return self._drop(self._ips, (*_halves(ip), network, mac))

    def mac_of(self, network: int, ip: bytes) -> int | None:
        """The MAC address that ``ip`` belongs to, None where it is not known."""
        owner = int(self._ips.get(self._ips.address, network, *_halves(ip)))
        return _unsigned(owner) >> 16 if owner else None

    def ips(self) -> list[tuple[int, bytes, int]]:
        """(network, IP address of 16 bytes, MAC address), in order."""
        return sorted((owner & NETWORK_MASK, struct.pack(">qq", high, low), _unsigned(owner) >> 16)
                      for high, low, owner in self._ip_rows().tolist())

    # ------------------------------------------------------------ many
    def forget_network(self, network: int) -> int:
        """Remove all entries of a network: its number is to be given again; -> how many."""
        macs, ips = self._mac_rows(), self._ip_rows()
        gone = [self._drop(self._macs, (key, -1))
                for key in macs[macs[:, 0] & NETWORK_MASK == network, 0].tolist()]
        gone += [self._drop(self._ips, (high, low, network, -1))
                 for high, low, _ in ips[ips[:, 2] & NETWORK_MASK == network].tolist()]
        return sum(gone)

    def forget_port(self, port: int) -> int:
        """Remove the MAC addresses behind a port: its number is to be given again; -> how many."""
        rows = self._mac_rows()
        return sum([self._drop(self._macs, (key, port))
                    for key in rows[rows[:, 1] == port, 0].tolist()])

    # ------------------------------------------------------------ both tables
    def _mac_rows(self) -> Any:
        return mac_table.mac_entries(self._macs.memory)

    def _ip_rows(self) -> Any:
        return ip_table.ip_entries(self._ips.memory)

    def _set(self, table: _Table, name: str, key: tuple[int, ...], entry: tuple[int, ...]) -> None:
        if table.count >= table.limit and int(table.get(table.address, *key)) == table.nothing:
            raise PopulationFullError(
                f"the population has {table.count} {name} addresses already",
                "remove entries, or give it a higher limit")
        if table.count >= FULL * table.slots:
            self._grow(table, name)
        put = int(table.put(table.address, *entry))
        while put < 0:
            if table.count < SPARSE * table.slots:
                raise PopulationFullError(
                    f"the population has no place for one of its {name} addresses",
                    "look for who chose addresses to fill it")
            self._grow(table, name)
            put = int(table.put(table.address, *entry))
        table.count += put

    @staticmethod
    def _drop(table: _Table, entry: tuple[int, ...]) -> bool:
        taken = int(table.take(table.address, *entry))
        table.count -= taken
        return taken == 1

    def _grow(self, table: _Table, name: str) -> None:
        before = table.grow()
        self.record[f"{name.lower()}s"] = table.address  # x86-64 keeps the order of stores
        self._keep(before)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _unsigned(value: int) -> int:
    return value & (1 << 64) - 1


def _halves(ip: bytes) -> tuple[int, int]:
    """An IP address as kernels have it."""
    high, low = struct.unpack(">qq", ip)
    return high, low


ENTRIES: tuple[Any, ...] = (*mac_table.ENTRIES, *ip_table.ENTRIES)
