# SPDX-License-Identifier: Apache-2.0
"""The population as control uses it; its behaviour: tests/oracles/test_population.py."""

import pytest

from byway.machine.jit import INTERPRETED
from byway.switch import mac_table
from byway.switch.population import IPS, Population, PopulationFullError

MAC = 0x0200_0000_0001
IP = bytes(10) + b"\xff\xff\x0a\0\0\1"


def numbered(k: int) -> bytes:
    return bytes(10) + b"\xff\xff" + k.to_bytes(4, "big")


def test_a_later_entry_replaces_and_a_late_removal_does_not() -> None:
    population = Population()
    population.set_mac(3, MAC, 17)
    population.set_mac(3, MAC, 18)
    assert not population.drop_mac(3, MAC, 17)
    assert population.port_of(3, MAC) == 18
    assert population.port_of(4, MAC) is None, "another network"
    population.set_ip(3, IP, MAC)
    population.set_ip(3, IP, MAC + 1)
    assert not population.drop_ip(3, IP, MAC)
    assert population.mac_of(3, IP) == MAC + 1
    assert population.mac_of(4, IP) is None
    assert population.drop_mac(3, MAC, 18)
    assert population.drop_ip(3, IP)
    assert not population.drop_ip(3, IP)


def test_one_address_in_many_networks() -> None:
    """More networks than buckets: some of them share one."""
    population = Population()
    for network in range(40):
        population.set_mac(network, MAC, network)
        population.set_ip(network, IP, MAC + network)
    assert [population.port_of(n, MAC) for n in range(40)] == list(range(40))
    assert [population.mac_of(n, IP) for n in range(41)] == [*range(MAC, MAC + 40), None]


def test_the_limit_names_the_fix() -> None:
    population = Population(limit=10)
    for k in range(10):
        population.set_mac(0, MAC + k, 1)
    with pytest.raises(PopulationFullError, match="10 MAC addresses already; remove entries, or"):
        population.set_mac(0, MAC + 10, 1)
    population.set_mac(0, MAC + 3, 2)  # no new one
    for k in range(10 * IPS):
        population.set_ip(0, numbered(k), MAC)
    with pytest.raises(PopulationFullError, match="40 IP addresses already"):
        population.set_ip(0, numbered(99), MAC)
    assert population.drop_mac(0, MAC)
    population.set_mac(0, MAC + 10, 1)
    assert len(population) == 10


def test_growth_hands_over_what_workers_may_still_read() -> None:
    population, moved = Population(seed=1), []
    population.on_moved(moved.append)
    address, memory = population.address, population.memory
    first = int(population.record["macs"][0])
    for k in range(200):
        population.set_mac(1, MAC + k, k)
    assert population.address == address
    assert population.memory > memory
    assert int(population.record["macs"][0]) != first
    assert [len(buckets) for buckets, _ in moved] == [
        16 * mac_table.BUCKET, 32 * mac_table.BUCKET]
    old = moved[0][1]
    assert old.ctypes.data == first
    assert mac_table.mac_get(first, MAC << 16 | 1) == 0, "the old table is whole"


@pytest.mark.parametrize("entries", [1000, 2000 if INTERPRETED else 100_000])
def test_memory_of_an_entry(entries: int) -> None:
    """Below 300 bytes in all, of which these tables take a third at the most."""
    population = Population()
    for k in range(entries):
        population.set_mac(k & 63, 0x0200_0000_0000 + k, k & 1023)
        population.set_ip(k & 63, numbered(0x0A000000 + k), 0x0200_0000_0000 + k)
    assert population.memory / entries < 100


def test_forgetting() -> None:
    population = Population()
    for k in range(100):
        population.set_mac(k & 3, MAC + k, k % 5)
        population.set_ip(k & 3, numbered(k), MAC + k)
    assert population.forget_network(2) == 50
    assert {n for n, _, _ in population.macs()} == {n for n, _, _ in population.ips()} == {0, 1, 3}
    assert population.forget_port(4) == 15
    assert {p for _, _, p in population.macs()} == {0, 1, 2, 3}
    assert len(population) == 60


def colliding(seed: int, n: int) -> list[tuple[int, int]]:
    """(network, MAC address) pairs that share their home bucket in a table of any size: the hash
    of mac_table.mac_home backwards, from numbers that are alike in their first 40 bits."""
    back = [pow(factor, -1, 1 << 64) for factor in (mac_table.ROOT, mac_table.GOLDEN)]
    found = []
    for k in range(n):
        x = ((3 << 61 | k) * back[0]) % (1 << 64)
        key = (x ^ x >> 32) * back[1] % (1 << 64) ^ seed
        found.append((key & 0xFFFF, key >> 16))
    return found


def test_chosen_addresses_do_not_make_it_grow_without_end() -> None:
    """Who knew the seed could fill one place: then the table refuses, and the others are well."""
    population = Population(seed=5)
    population.set_mac(1, MAC, 7)
    chosen = colliding(5, (mac_table.PROBES + 1) * mac_table.WAYS + 1)
    for network, mac in chosen[:-1]:
        population.set_mac(network, mac, 1)
    with pytest.raises(PopulationFullError, match="no place for one of its MAC addresses"):
        population.set_mac(*chosen[-1], 1)
    assert population.memory < 1 << 20
    assert all(population.port_of(network, mac) == 1 for network, mac in chosen[:-1])
    population.set_mac(2, MAC, 8)
    assert (population.port_of(1, MAC), population.port_of(2, MAC)) == (7, 8)


def test_address_zero_of_network_0_is_nowhere() -> None:
    """Its key is the mark of a free slot: who asks for it finds none of those."""
    population = Population(seed=1)
    assert population.port_of(0, 0) is None
    population.set_mac(0, 0, 7)
    assert population.port_of(0, 0) is None
    assert not population.drop_mac(0, 0)
    population.set_mac(0, MAC, 9)
    assert (len(population), population.macs()) == (1, [(0, MAC, 9)])
