# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at any point: what the API acknowledged is in the state file; what went is not.

A switch over a fake engine, killed before each of its writes to the disk in turn. What the next
one finds is the state after the last change that was answered, or the one after that.
"""

import os
from pathlib import Path

import pytest

from byway.control.diff import Change
from byway.control.lasting import Lasting
from byway.control.model import (
    Config,
    EntryConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    NullPort,
    RouterConfig,
    RuleConfig,
    SwitchConfig,
    UnderlayConfig,
)
from byway.control.store import Store
from byway.control.wanted import Wanted
from tests.killing import run_killed
from tests.unit.control.fake_engine import FakeEngine


def null(name: str, network: str = "blue", mac: str | None = None) -> NullPort:
    return NullPort(name=name, network=network, kind="null", mac=mac)


CHANGES = (
    Change(add_networks=[NetworkConfig(name="blue")]),
    Change(add_ports=[null("a"), null("b")]),
    Change(add_networks=[NetworkConfig(name="red")], add_ports=[null("c", "red")]),
    Change(add_ports=[null("a", mac="02:00:00:00:00:01")], remove_ports=["b"]),
    Change(add_networks=[NetworkConfig(name="blue", mtu=9000)]),
    Change(remove_ports=["c"], remove_networks=["red"]),
    Change(add_ports=[null(f"p{k}") for k in range(200)]),
    Change(remove_ports=[f"p{k}" for k in range(100)]),
    Change(add_networks=[NetworkConfig(name="far", vni=7, gateway=("10.0.0.1/24",))],
           add_hosts=[HostConfig(name="h2", address="192.0.2.2", networks=("far",))],
           add_entries=[EntryConfig(network="far", mac="02:00:00:00:00:02", host="h2")],
           add_groups=[GroupConfig(name="web")],
           add_routers=[RouterConfig(name="r", networks=("far",))]),
    Change(add_groups=[GroupConfig(name="web", rules=(RuleConfig(direction="egress"),))],
           remove_routers=["r"], remove_entries=["far/02:00:00:00:00:02"], remove_hosts=["h2"]),
)
UNDERLAY = UnderlayConfig(address="192.0.2.1", mtu=1550)


def started(path: Path) -> Wanted:
    """A switch over the state file, with what is in it."""
    wanted = Wanted(FakeEngine(SwitchConfig()), SwitchConfig(), Lasting("lab", Store(str(path))))
    wanted.change(Config(underlay=UNDERLAY))  # what its configuration file says
    assert wanted.restore() == []
    return wanted


def found(path: Path) -> Config:
    """What a switch has after its start."""
    wanted = started(path)
    wanted.lasting.close()
    config = wanted.config
    return config.model_copy(update={
        field: tuple(sorted(getattr(config, field), key=lambda part: str(part.name)))
        for field in ("networks", "hosts", "entries", "routers", "groups", "ports")})


def states(path: Path) -> list[Config]:
    """What a switch finds after each of the changes."""
    made = [found(path)]
    for change in CHANGES:
        wanted = started(path)
        wanted.alter(change)
        wanted.lasting.close()
        made.append(found(path))
    return made


def work(path: Path, answers: int) -> None:
    """All changes, one byte for each that was answered."""
    wanted = started(path)
    for change in CHANGES:
        wanted.alter(change)
        os.write(answers, b".")
    wanted.lasting.close()


def killed_before_write(path: Path, k: int) -> tuple[bool, int]:
    """-> (whether there was a write k, how many changes were answered before it)."""
    reader, writer = os.pipe()
    try:
        came_so_far = run_killed(lambda: work(path, writer), k)
        os.close(writer)
        return came_so_far, len(os.read(reader, len(CHANGES) + 1))
    finally:
        os.close(reader)


@pytest.mark.compiled_only
def test_what_was_acknowledged_is_there_wherever_the_switch_is_killed(tmp_path: Path) -> None:
    after = states(tmp_path / "whole.db")
    assert len(set(map(str, after))) == len(CHANGES) + 1
    k, came_so_far, points = 0, True, set()
    while came_so_far:
        path = tmp_path / f"killed-{k}.db"
        came_so_far, answered = killed_before_write(path, k)
        assert found(path) in after[answered:answered + 2], f"write {k}, {answered} answers"
        points.add(answered)
        k += 1
    assert points == set(range(len(CHANGES) + 1))  # there was a kill in every change
    assert k > 30
