# SPDX-License-Identifier: Apache-2.0
"""Rules by look-ups answer what a walk through them answers; a balancer's table in memory too."""

import ipaddress
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.functions.rules_memory import MaglevMemory, RulesMemory
from byway.functions.state_memory import Surroundings
from byway.machine.layout import address_of, alloc
from byway.nf import Maglev, Rules
from byway.nf.frame import Frame
from byway.packet.batch import ROWS, Batch
from byway.testing.builders import tcp, udp
from byway.testing.generated import PORTS, V4, V6, generated
from byway.testing.rules_kernels import maglev_ask, rules_ask
from tests.frames_wanted import frames_wanted

_WORD = np.dtype("<i8")
NOTHING = 77
FLAGS = ("SYN/SYN", "SYN/SYN,ACK", "ACK/ACK", "FIN,RST/FIN,RST", "FIN/FIN,SYN,RST,PSH,ACK,URG,ECE")


class Asked:
    """nf.Rules and its memory with the same rules, asked the same."""

    def __init__(self, rules: Sequence[dict[str, Any]] = ()) -> None:
        self.plain = Rules(capacity=16000, values=("drop", "pass", "log"))
        self._lock = alloc(_WORD, 1, 64)
        around = Surroundings(address_of(self._lock), lambda name: 0, lambda: 0)
        self.memory = RulesMemory(self.plain.spec(), around)
        self._batch = Batch()
        self._answers = alloc(_WORD, ROWS, 64)
        rows = {7 * k: rule for k, rule in enumerate(rules)}
        assert self.plain.fill(rows)
        assert self.memory.fill(rows)

    def compiled(self, frames: Sequence[bytes]) -> list[int]:
        """What the look-ups answer."""
        said: list[int] = []
        for first in range(0, len(frames), ROWS):
            portion = [np.frombuffer(one, np.uint8) for one in frames[first:first + ROWS]]
            for row, octets in zip(self._batch.rows, portion, strict=False):
                row["addr"], row["len"], row["nsegs"] = address_of(octets), len(octets), 0
            self._batch.record["n"] = len(portion)
            rules_ask(self.memory.address, self._batch.address, address_of(self._answers), NOTHING)
            said += self._answers[:len(portion)].tolist()
        return said

    def check(self, frames: Sequence[bytes]) -> list[int]:
        """-> the answers, which are the same both ways."""
        said = self.compiled(frames)
        assert said == [self.plain.match(Frame(one), NOTHING) for one in frames]
        assert [(row["key"], row["value"]) for row in self.memory.dump(1 << 20)] \
            == self.plain.entries()
        return said


def _network(rng: random.Random, known: Sequence[str]) -> str:
    address = ipaddress.ip_address(rng.choice(known))
    bits = address.max_prefixlen
    length = rng.choice((bits, bits, bits - 8, 3 * bits // 4, bits // 2, 8, 1, 0))
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))


def _ports(rng: random.Random) -> Any:
    low, high = sorted((rng.choice(PORTS), rng.choice(PORTS)))
    return rng.choice((low, f"{low}-{high}", "0-65535"))


def random_rule(rng: random.Random) -> dict[str, Any]:
    """A rule that some of ``generated`` frames match."""
    rule: dict[str, Any] = {"value": rng.choice(("drop", "pass", "log", 1))}
    if rng.random() < 0.1:
        return {**rule, "eth_type": rng.choice((0x0800, 0x86DD, 0x0806, 0x88CC, 0, 0xFFFF))}
    known = rng.choice((V4, V4, V6))
    for key in ("source", "destination"):
        if rng.random() < 0.5:
            rule[key] = _network(rng, known)
    kind = rng.randrange(6)
    if kind == 0:
        rule["protocol"] = rng.choice((0, 17, 44, 47, 58, 1, "tcp", "sctp", 255))
    if kind in (1, 2, 3):
        if rng.random() < 0.7:
            rule["protocol"] = rng.choice(("tcp", "udp"))
        for key in ("source_ports", "destination_ports"):
            if rng.random() < 0.6:
                rule[key] = _ports(rng)
        if rule.get("protocol") == "tcp" and rng.random() < 0.4:
            rule["tcp_flags"] = rng.choice(FLAGS)
    if kind == 4:
        rule["protocol"] = "icmp" if known is V4 else "icmpv6"
        rule["icmp_type"] = rng.choice((0, 3, 8, 128, 135, 255))
        if rng.random() < 0.5:
            rule["icmp_code"] = rng.choice((0, 1, 4))
    return rule


@pytest.mark.parametrize("count", [0, 1, 64, 65, 400])
def test_look_ups_answer_what_a_walk_answers(count: int) -> None:
    rng = random.Random(count)
    asked = Asked([random_rule(rng) for _ in range(count)])
    said = asked.check(generated(frames_wanted(), count))
    assert count < 64 or len(set(said)) > 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 12))
def test_few_rules_of_any_kind(seed: int, count: int) -> None:
    rng = random.Random(seed)
    Asked([random_rule(rng) for _ in range(count)]).check(generated(60, seed))


def many_rules(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Rules for hosts and networks of 10.0.0.0/8 and ports, and one for all the rest."""
    rng = random.Random(seed)
    for k in range(count - 1):
        length = rng.choice((8, 16, 24, 32, 32))
        source = ipaddress.ip_network(f"10.{rng.randrange(256)}.{rng.randrange(256)}."
                                      f"{rng.randrange(256)}/{length}", strict=False)
        yield {"value": k % 3, "source": str(source), "protocol": rng.choice(("tcp", "udp")),
               "destination": f"192.168.{rng.randrange(256)}.{rng.randrange(256)}",
               "destination_ports": rng.choice((53, 80, "1024-2047", rng.randrange(65536)))}
    yield {"value": 1, "source": "10.0.0.0/8"}


def test_ten_thousand_rules() -> None:
    asked = Asked(list(many_rules(10000)))
    frames = []
    rng = random.Random(2)
    for rule in rng.sample([*many_rules(10000)][:-1], 15):
        source = ipaddress.ip_network(rule["source"])[-1]
        port = int(str(rule["destination_ports"]).split("-")[0])
        make = tcp if rule["protocol"] == "tcp" else udp
        frames.append(make(str(source), rule["destination"], 4000, port))
        frames.append(make(str(source), "192.168.0.1", 4000, port + 1 & 0xFFFF))
    frames.append(tcp("11.0.0.1", "192.168.0.1"))
    said = asked.check(frames + frames[::-1])
    assert set(said) == {0, 1, 2, NOTHING}
    assert asked.memory.stats() == {"entries": 10000, "capacity": 16000, "asked": 2 * len(frames),
                                    "unmatched": 2}


def test_a_change_takes_effect_and_counts_go_on() -> None:
    asked = Asked([{"value": "pass", "source": "10.0.0.1"}, {"value": "drop"}])
    frames = [udp("10.0.0.1", "10.0.0.2"), udp("10.0.0.3", "10.0.0.2")]
    assert asked.check(frames) == [1, 0]
    for rules in (asked.plain, asked.memory):
        assert rules.put(3, {"value": "log", "source": "10.0.0.0/8"})
    assert asked.check(frames) == [1, 2]
    for rules in (asked.plain, asked.memory):
        assert rules.remove(0)
        assert not rules.remove(0)
    assert asked.check(frames) == [2, 2]
    assert [row["value"]["hits"] for row in asked.memory.dump()] == [3, 1]
    more = {k: {"value": "pass", "source": "10.0.0.3"} for k in (1, 2)}
    assert asked.memory.put_all(more) == []
    assert asked.plain.put(1, more[1])
    assert asked.plain.put(2, more[2])
    assert asked.check(frames) == [2, 1]
    for rules in (asked.plain, asked.memory):
        rules.clear()
    assert asked.check(frames) == [NOTHING, NOTHING]


def test_a_full_table_refuses_another_rule() -> None:
    plain = Rules(capacity=2)
    lock = alloc(_WORD, 1, 64)
    memory = RulesMemory(plain.spec(), Surroundings(address_of(lock), lambda name: 0, lambda: 0))
    for rules in (plain, memory):
        assert rules.put(1, {"value": 1})
        assert rules.put("2", {"value": 2})
        assert not rules.put(3, {"value": 3})
        assert rules.put(2, {"value": 4})
    assert memory.put_all({1: {"value": 5}, 7: {"value": 7}}) == [7]
    assert not memory.fill({k: {"value": k} for k in range(3)})
    with pytest.raises(ValueError, match="no rule"):
        memory.fill({1: {"value": 9}, 2: "no rule"})
    assert [(row["key"], row["value"]["value"]) for row in memory.dump()] == [(1, 1), (2, 4)]


def test_members_in_memory_are_those_of_the_plain_table() -> None:
    plain = Maglev(4099, capacity=8)
    lock = alloc(_WORD, 1, 64)
    memory = MaglevMemory(plain.spec(), Surroundings(address_of(lock), lambda name: 0, lambda: 0))
    rng = random.Random(3)
    hashes = [rng.getrandbits(40) - (1 << 39) for _ in range(500)]
    words = alloc(_WORD, len(hashes), 64)
    for change in ((), (5, {}), (9, {"weight": 3}), ("0", {"up": False}), (5, {"up": False})):
        for table in (plain, memory):
            assert not change or table.put(*change)
        words[:] = hashes
        maglev_ask(memory.address, address_of(words), len(hashes), -1)
        assert words.tolist() == [plain.pick(one) for one in hashes]
    assert set(words.tolist()) == {9}
    assert memory.remove(9)
    assert memory.put_all({0: {"up": True}, 5: {"up": False}}) == []
    assert memory.stats() == {"entries": 2, "capacity": 8, "up": 1}
