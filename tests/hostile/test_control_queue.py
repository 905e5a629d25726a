# SPDX-License-Identifier: Apache-2.0
"""Control commands spoiled in every way: always an answer, never half a command, bounded state."""

import copy
import random

import pytest

from byway.virtio.control_commands import VLANS, Command, encode
from byway.virtio.control_queue import GUEST_OFFLOADS, ControlDevice, Limits
from byway.virtio.features import Feature, mask
from tests.spec.test_control_queue import COMMANDS, OWN

CASES = 20000
LIMITS = Limits(pairs=4, macs=3, table=8)
FEATURES = (mask(*Feature), mask(Feature.CTRL_VQ, Feature.CTRL_RX, Feature.MQ, Feature.GUEST_TSO4),
            mask(*Feature) & ~mask(Feature.CTRL_VQ), 0)


def spoiled(rng: random.Random) -> bytes:
    """A command, more or less."""
    command, value, *_ = rng.choice(COMMANDS)
    data = bytearray(encode(command, value))
    kind = rng.randrange(6)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = rng.randrange(len(data))
        data[at] = rng.choice((0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    if kind == 0:
        return bytes(data[: rng.randrange(len(data) + 1)])
    if kind == 1:
        return bytes(data) + rng.randbytes(rng.choice((1, 2, 6, 4096)))
    if kind == 2:
        return bytes(data[:2]) + rng.randbytes(rng.randrange(100))
    if kind == 3:  # a table that claims to be as long as a number can say
        return bytes([1, 0]) + rng.choice((0xFFFFFFFF, 0x2AAAAAAB, 1 << 31, 700)).to_bytes(
            4, "little") + rng.randbytes(rng.choice((0, 6, 600)))
    return bytes(data)


def check_state(device: ControlDevice) -> None:
    """What holds whatever was asked for."""
    state = device.state
    assert 1 <= state.pairs <= LIMITS.pairs
    assert state.offloads & ~(device.features & GUEST_OFFLOADS) == 0
    assert all(0 <= vlan < VLANS for vlan in state.vlans)
    assert len(state.mac) == 6
    assert not state.mac[0] & 1
    for table in (state.unicast, state.multicast):
        assert table is None or len(table) <= LIMITS.macs
    if state.rss:
        assert len(state.rss.table) <= LIMITS.table
        assert max(state.rss.unclassified, *state.rss.table) < LIMITS.pairs
    for config in (state.rss, state.hash):
        assert config is None or len(config.key) <= LIMITS.key


@pytest.mark.parametrize("features", FEATURES)
def test_spoiled_commands(features: int) -> None:
    rng = random.Random(20263)
    device = ControlDevice(features, OWN, LIMITS)
    answers = {b"\0": 0, b"\1": 0}
    for case in range(CASES // len(FEATURES)):
        before = copy.deepcopy(device.state)
        data = spoiled(rng)
        answer = device.execute(data)
        answers[answer] += 1
        if answer == b"\1":
            assert device.state == before, case
            assert device.refusal
        check_state(device)
    refused = answers[b"\1"] / sum(answers.values())
    assert refused == 1 if not features >> Feature.CTRL_VQ & 1 else 0.2 < refused < 0.99


def test_every_class_and_command() -> None:
    """Those that do not exist are refused, with and without data."""
    device = ControlDevice(FEATURES[0], OWN, LIMITS)
    known = {(command.kind, command.number) for command in Command}
    for kind in range(256):
        for number in range(0, 256, 1 if kind < 8 else 17):
            if (kind, number) not in known:
                for data in (b"", b"\0", b"\1", bytes(64)):
                    assert device.execute(bytes([kind, number]) + data) == b"\1"


def test_a_long_command_costs_what_its_bytes_cost() -> None:
    """A table of 100,000 addresses is taken: as one that does not fit."""
    device = ControlDevice(FEATURES[0], OWN, LIMITS)
    n = 100_000
    table = n.to_bytes(4, "little") + b"".join(
        b"\2\0" + k.to_bytes(4, "big") for k in range(n))
    assert device.execute(bytes([1, 0]) + table + bytes(4)) == b"\0"
    assert device.state.unicast is None
