# SPDX-License-Identifier: Apache-2.0
"""The one door through which a switch changes: checked whole, applied at once, or not at all."""

import pytest

from byway.control.diff import Change
from byway.control.model import Config, NetworkConfig, NullPort, SwitchConfig, VhostUserPort
from byway.control.problem import ConfigError, EngineError
from byway.control.wanted import Wanted
from tests.unit.control.changing import changed, merged
from tests.unit.control.fake_engine import FakeEngine

BLUE = Config(networks=(NetworkConfig(name="blue"),))


def null(name: str, network: str = "blue") -> NullPort:
    return NullPort(name=name, network=network, kind="null")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(SwitchConfig())


@pytest.fixture
def wanted(engine: FakeEngine) -> Wanted:
    made = Wanted(engine, SwitchConfig())
    made.change(BLUE)
    return made


def test_hundreds_of_ports_are_one_call(wanted: Wanted, engine: FakeEngine) -> None:
    wanted.change(merged(BLUE, ports=[null(f"p{k}") for k in range(500)]))
    assert [len(actions) for actions in engine.applied] == [1, 500]


def test_no_difference_is_no_call(wanted: Wanted, engine: FakeEngine) -> None:
    assert wanted.change(BLUE) == []
    assert len(engine.applied) == 1


def test_parts_that_do_not_fit_change_nothing(wanted: Wanted, engine: FakeEngine) -> None:
    with pytest.raises(ConfigError, match='there is no network "red"'):
        wanted.change(merged(BLUE, ports=[null("a", "red")]))
    assert wanted.config == BLUE
    assert len(engine.applied) == 1


def test_a_new_port_is_held_against_the_machine(wanted: Wanted, engine: FakeEngine) -> None:
    port = VhostUserPort(name="a", network="blue", kind="vhost-user", socket="/nowhere/a.sock")
    with pytest.raises(ConfigError, match='port "a": socket: there is no directory /nowhere'):
        wanted.change(merged(BLUE, ports=[port]))
    assert len(engine.applied) == 1


def test_what_the_engine_refuses_is_not_wanted(wanted: Wanted, engine: FakeEngine) -> None:
    engine.refuse.add("b")
    with pytest.raises(EngineError):
        wanted.change(merged(BLUE, ports=[null("a"), null("b")]))
    assert wanted.config == BLUE
    assert engine.ports() == []


def test_a_change_is_the_same_by_either_door(wanted: Wanted, engine: FakeEngine) -> None:
    """What goes and comes, said in short, against the whole that results."""
    other = Wanted(FakeEngine(SwitchConfig()), SwitchConfig())
    other.change(BLUE)
    for change in (Change(add_ports=[null("a"), null("b")]),
                   Change(remove_ports=["a"], add_ports=[null("c")]),
                   Change(add_networks=[NetworkConfig(name="red")], add_ports=[null("b", "red")])):
        assert wanted.alter(change) == other.change(changed(other.config, change))
        assert wanted.config == other.config


def test_a_change_that_does_not_fit_changes_nothing(wanted: Wanted, engine: FakeEngine) -> None:
    with pytest.raises(ConfigError, match='there is no network "red"'):
        wanted.alter(Change(add_ports=[null("a", "red")]))
    engine.refuse.add("b")
    with pytest.raises(EngineError):
        wanted.alter(Change(add_ports=[null("a"), null("b")]))
    assert wanted.config == BLUE
    assert len(engine.applied) == 1
