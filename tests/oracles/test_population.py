# SPDX-License-Identifier: Apache-2.0
"""The population against two dicts, and under the eyes of a worker while it changes."""

import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.switch.population import Population
from byway.testing.population_kernels import find_mac, find_port, find_steadily

EXAMPLES = 40 if INTERPRETED else 200
MAX_PORT = 0xFFFD


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def searched_port(population: Population, network: int, mac: int) -> int:
    return int(find_port(population.address, network, signed(mac << 16)))


def searched_mac(population: Population, network: int, ip: bytes) -> int:
    return int(find_mac(population.address, network, *struct.unpack(">qq", ip)))


def ipv4(number: int) -> bytes:
    return bytes(10) + b"\xff\xff" + number.to_bytes(4, "big")


networks = st.sampled_from([0, 1, 255, 0xFFFF])
macs = st.one_of(st.integers(1, 20), st.integers(1, (1 << 48) - 1))
ports = st.one_of(st.integers(0, 3), st.just(MAX_PORT))
ips = st.one_of(st.integers(0, 20).map(ipv4), st.binary(min_size=16, max_size=16),
                st.integers(0, 5).map(lambda k: b"\xfe\x80" + bytes(13) + bytes([k])))
changes = st.one_of(
    st.tuples(st.just("set_mac"), networks, macs, ports),
    st.tuples(st.just("drop_mac"), networks, macs, st.one_of(st.just(-1), ports)),
    st.tuples(st.just("set_ip"), networks, ips, macs),
    st.tuples(st.just("drop_ip"), networks, ips, st.one_of(st.just(-1), macs)),
    st.tuples(st.just("forget_network"), networks),
    st.tuples(st.just("forget_port"), ports))


class Model:
    """What a population is: two dicts."""

    def __init__(self) -> None:
        self.macs: dict[tuple[int, int], int] = {}
        self.ips: dict[tuple[int, bytes], int] = {}

    def set_mac(self, network: int, mac: int, port: int) -> None:
        self.macs[network, mac] = port

    def drop_mac(self, network: int, mac: int, port: int) -> bool:
        if (network, mac) in self.macs and port in (-1, self.macs[network, mac]):
            del self.macs[network, mac]
            return True
        return False

    def set_ip(self, network: int, ip: bytes, mac: int) -> None:
        self.ips[network, ip] = mac

    def drop_ip(self, network: int, ip: bytes, mac: int) -> bool:
        if (network, ip) in self.ips and mac in (-1, self.ips[network, ip]):
            del self.ips[network, ip]
            return True
        return False

    def forget_network(self, network: int) -> int:
        before = len(self.macs) + len(self.ips)
        self.macs = {k: v for k, v in self.macs.items() if k[0] != network}
        self.ips = {k: v for k, v in self.ips.items() if k[0] != network}
        return before - len(self.macs) - len(self.ips)

    def forget_port(self, port: int) -> int:
        before = len(self.macs)
        self.macs = {k: v for k, v in self.macs.items() if v != port}
        return before - len(self.macs)


@settings(max_examples=EXAMPLES, deadline=None)
@given(steps=st.lists(changes, max_size=60), seed=st.integers(0, (1 << 63) - 1),
       asked=st.lists(st.tuples(networks, macs, ips), max_size=10))
def test_like_two_dicts(steps: list[tuple[str, int, int, int]], seed: int,
                        asked: list[tuple[int, int, bytes]]) -> None:
    population, model = Population(seed=seed), Model()
    for name, *given_ in steps:
        assert getattr(population, name)(*given_) == getattr(model, name)(*given_)
    assert population.macs() == sorted((n, m, p) for (n, m), p in model.macs.items())
    assert population.ips() == sorted((n, ip, m) for (n, ip), m in model.ips.items())
    assert len(population) == len(model.macs)
    for network, mac in [*model.macs, *((n, m) for n, m, _ in asked)]:
        expected = model.macs.get((network, mac))
        assert population.port_of(network, mac) == expected
        assert searched_port(population, network, mac) == (-1 if expected is None else expected)
    for network, ip in [*model.ips, *((n, ip) for n, _, ip in asked)]:
        owner = model.ips.get((network, ip))
        assert population.mac_of(network, ip) == owner
        assert searched_mac(population, network, ip) == (owner or 0)


@pytest.mark.parametrize("entries", [50, 1000, 3000 if INTERPRETED else 100_000])
def test_growth_and_decline(entries: int) -> None:
    """Everything is found while the tables grow, and nothing is left when all is removed: not even
    a bucket that believes that somebody passed it by."""
    population, moved = Population(seed=7), []
    population.on_moved(moved.append)
    made = [(k % 100, (k * 0x9E3779B97F4B) & (1 << 48) - 1 | 1 << 41, k % 997, ipv4(k * 2654435761
             & 0xFFFFFFFF)) for k in range(entries)]
    for network, mac, port, ip in made:
        population.set_mac(network, mac, port)
        population.set_ip(network, ip, mac)
    assert len(population) == entries
    assert bool(moved) == (entries > 50)
    for network, mac, port, ip in made[:: max(1, entries // 1000)]:
        assert searched_port(population, network, mac) == port
        assert searched_mac(population, network, ip) == mac
    for network, mac, port, ip in made:
        assert population.drop_mac(network, mac, port)
        assert population.drop_ip(network, ip, mac)
    assert (len(population), population.macs(), population.ips()) == (0, [], [])
    states = population._macs.memory.view("<u2").reshape(-1, 32)[:, 30]
    assert not states.any()
    assert not population._ips.memory.view("<u4").reshape(-1, 32)[:, 30].any()


def test_a_worker_never_sees_a_half_made_change() -> None:
    """Slots are freed and filled by others without end: the answer is the right one or none."""
    population = Population(seed=1)
    network, mac, port = 5, 0x0200_0000_0001, 0x0200
    ip = ipv4(1)
    rounds = 20_000 if INTERPRETED else 3_000_000
    wrong: list[int] = []
    population.set_mac(network, mac, port)
    high, low = struct.unpack(">qq", ip)
    worker = threading.Thread(target=lambda: wrong.append(int(find_steadily(
        population.address, network, mac << 16, high, low, port, rounds))))
    worker.start()
    k = 0
    while worker.is_alive() or k < 2:
        k += 1
        population.drop_mac(network, mac)
        population.drop_ip(network, ip)
        population.set_mac(network, 0x0600_0000_0000 + k % 90, 9)
        population.set_ip(network, ipv4(100 + k % 70), 0x0999)
        population.set_mac(network, mac, port)
        population.set_ip(network, ip, port)  # the worker takes one number for either answer
        population.drop_mac(network, 0x0600_0000_0000 + (k + 45) % 90)
        population.drop_ip(network, ipv4(100 + (k + 35) % 70))
    worker.join()
    assert wrong == [0]
