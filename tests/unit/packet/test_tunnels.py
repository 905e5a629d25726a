# SPDX-License-Identifier: Apache-2.0
"""Tables of VNIs and of remote hosts, against dictionaries; what workers see while they change."""

import ipaddress
import random
import threading

import pytest

from byway.packet.tunnels import Remotes, Vnis, words_of
from byway.testing.tunnel_kernels import network_number, tunnel_number


class Settled:
    """Counts how often it was waited for the workers."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def address(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return bytes([10, 0, rng.randrange(4), rng.randrange(256)])
    return bytes.fromhex("fd00") + bytes(12) + bytes([rng.randrange(4), rng.randrange(256)])


def found(remotes: Remotes, host: bytes) -> int:
    return int(tunnel_number(remotes.address, *words_of(host)))


def test_an_address_as_two_words() -> None:
    mapped = ipaddress.ip_address("::ffff:10.0.0.1").packed
    assert words_of(bytes([10, 0, 0, 1])) == words_of(mapped)
    high, low = words_of(ipaddress.ip_address("fe80::1").packed)
    assert (high & (1 << 64) - 1, low) == (0xFE80 << 48, 1)


def test_networks_by_vni() -> None:
    rng = random.Random(2)
    vnis, model = Vnis(), {}
    for number in range(300):
        vni = rng.choice([rng.randrange(1, 1 << 24), rng.randrange(1, 64)])
        vnis.set(vni, number, 1464)
        model[vni] = number
    for vni in rng.sample(sorted(model), 100):
        vnis.drop(vni)
        model[vni] = -1
    vnis.drop(12345678)
    for vni in [*model, *(rng.randrange(1 << 24) for _ in range(200))]:
        assert network_number(vnis.address, vni) == model.get(vni, -1)


@pytest.mark.parametrize("seed", range(4))
def test_remotes_against_a_dictionary(seed: int) -> None:
    rng = random.Random(seed)
    settled = Settled()
    remotes = Remotes(settled)
    model: dict[bytes, int] = {}
    for step in range(1500):
        host = address(rng)
        if rng.random() < (0.7 if step < 700 else 0.3):
            model[host] = rng.randrange(60000)
            remotes.set(host, model[host])
        else:
            model.pop(host, None)
            remotes.drop(host)
        probe = rng.choice([host, address(rng)])
        assert found(remotes, probe) == model.get(probe, -1)
    assert len(remotes) == len(model)
    for host, port in model.items():
        assert found(remotes, host) == port
    assert settled.times > 3, "tables were replaced, and workers waited for"


def test_hosts_that_come_and_go_leave_no_table_behind() -> None:
    settled = Settled()
    remotes = Remotes(settled)
    for k in range(3000):
        host = bytes([10, 1, k >> 8, k & 0xFF])
        remotes.set(host, k)
        assert found(remotes, host) == k
        remotes.drop(host)
        assert found(remotes, host) == -1
    assert len(remotes) == 0
    assert settled.times <= 3000 / 3


@pytest.mark.compiled_only
def test_a_reader_never_misses_who_stays() -> None:
    """While others come and go, and tables are replaced under its hands."""
    stays = bytes([192, 0, 2, 1])
    high, low = words_of(stays)
    passes = [0]
    done = threading.Event()
    wrong: list[int] = []

    def read(remotes: Remotes) -> None:
        while not done.is_set():
            passes[0] += 1
            if tunnel_number(remotes.address, high, low) != 7:
                wrong.append(passes[0])

    def settle() -> None:
        until = passes[0] + 2
        while reader.is_alive() and passes[0] < until:
            pass

    remotes = Remotes(settle)
    reader = threading.Thread(target=read, args=(remotes,))
    remotes.set(stays, 7)
    assert found(remotes, stays) == 7
    reader.start()
    rng = random.Random(3)
    for _ in range(5000):
        host = address(rng)
        if rng.random() < 0.5:
            remotes.set(host, 1)
        else:
            remotes.drop(host)
    done.set()
    reader.join()
    assert wrong == []
    assert passes[0] > 10
