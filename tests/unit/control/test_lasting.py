# SPDX-License-Identifier: Apache-2.0
"""What came through the API outlives the switch; what the file says is the file's business."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byway.control.diff import Change
from byway.control.function_edits import with_given
from byway.control.lasting import Lasting
from byway.control.model import (
    Config,
    FunctionConfig,
    NetworkConfig,
    NullPort,
    SwitchConfig,
    TapPort,
    VhostUserPort,
)
from byway.control.problem import ConfigError, EngineError
from byway.control.store import Store
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine

BLUE, RED = NetworkConfig(name="blue"), NetworkConfig(name="red")
FILE = Config(networks=(BLUE,), ports=(NullPort(name="f", network="blue", kind="null"),))
Start = Callable[..., tuple[Wanted, list[str]]]


def null(name: str, network: str = "blue") -> NullPort:
    return NullPort(name=name, network=network, kind="null")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a switch over the one state file, with a configuration file; the last one ends."""
    running: list[Wanted] = []

    def one(file: Config = FILE, refuse: str = "") -> tuple[Wanted, list[str]]:
        if running:
            running.pop().lasting.close()
        engine = FakeEngine(SwitchConfig())
        engine.refuse.add(refuse)
        made = Wanted(engine, file.switch, Lasting("lab", Store(str(tmp_path / "lab.db"))))
        running.append(made)
        made.change(file)
        return made, made.lasting.file_says(file) + made.restore()

    yield one
    running.pop().lasting.close()


def names(wanted: Wanted) -> list[str]:
    """What the engine has."""
    return [n["name"] for n in wanted.engine.networks()] + [
        p["name"] for p in wanted.engine.ports()]


def test_what_came_through_the_api_is_restored(start: Start) -> None:
    wanted, _ = start()
    wanted.alter(Change(add_networks=[RED], add_ports=[null("a", "red"), null("b")]))
    wanted.alter(Change(add_ports=[null("c")], remove_ports=["b"]))
    again, said = start()
    assert names(again) == ["blue", "red", "f", "a", "c"]
    assert again.config == wanted.config
    assert said == []


def test_what_is_kept_of_network_functions(start: Start) -> None:
    guard = "/etc/guard.py:Guard"
    limits = FunctionConfig(name="limits", use=guard, parameters={"limit": 5})  # type: ignore[arg-type]
    file = FILE.model_copy(update={"functions": (limits,), "ports": (
        NullPort(name="f", network="blue", kind="null", chain=(guard,)),)})
    wanted, _ = start(file)
    mine = limits.model_copy(update={"name": "mine"})
    wanted.alter(Change(add_functions=[mine], add_ports=[
        null("a").model_copy(update={"chain": ("mine", guard)})]))
    has = wanted.has.parts
    for name in ("limits", "mine", "a/Guard", "f/Guard"):  # as `byway nf set` does
        wanted.alter(with_given(has, name, {"limit": 9}))
    again, said = start(file)
    assert said == []
    assert again.has.parts.all("function")["limits"] == limits  # as the file says
    assert again.has.ports["f"].chain == (guard,)
    assert dict(again.has.parts.all("function")["mine"].parameters) == {"limit": 9}
    assert again.has.ports["a"].chain == ("mine", f"{guard}(limit=9)")


def test_what_the_file_no_longer_says_does_not_come_back(start: Start) -> None:
    start()
    wanted, _ = start(Config(networks=(BLUE,)))
    assert names(wanted) == ["blue"]


def test_a_network_of_the_file_takes_its_ports_along_and_they_stay_the_files(start: Start) -> None:
    wanted, _ = start()
    wanted.alter(Change(add_ports=[null("a")]))
    wanted.alter(Change(add_networks=[NetworkConfig(name="blue", mtu=9000)]))  # reopens both
    again, _ = start(Config(networks=(BLUE,)))
    assert names(again) == ["blue", "a"]
    assert again.config.networks == (BLUE,)  # as the file says


def test_an_entry_of_the_file_takes_the_place_of_one_of_the_api_for_good(start: Start) -> None:
    wanted, _ = start()
    wanted.alter(Change(add_networks=[RED], add_ports=[null("a", "red")]))
    mine = VhostUserPort(name="a", network="red", kind="vhost-user", socket="/tmp/a.sock")
    again, said = start(Config(networks=(RED,), ports=(mine,)))
    assert again.config.ports == (mine,)
    assert said == [
        'network "red" stands in the file now: what came through the API is forgotten',
        'port "a" stands in the file now: what came through the API is forgotten']
    last, said = start()
    assert names(last) == ["blue", "f"]
    assert said == []


def test_what_does_not_fit_any_more_is_left_out_said_and_kept(start: Start) -> None:
    wanted, _ = start()
    wanted.alter(Change(add_ports=[null("a"), null("b")]))
    for _ in range(2):
        bare, said = start(Config(networks=(RED,)))
        assert names(bare) == ["red"]
        assert [sentence.partition(";")[0] for sentence in said] == [
            'not restored: port "a": network: there is no network "blue"',
            'not restored: port "b": network: there is no network "blue"']
    again, _ = start()
    assert names(again) == ["blue", "f", "a", "b"]


def test_one_that_is_refused_does_not_hold_up_the_others(start: Start) -> None:
    wanted, _ = start()
    wanted.alter(Change(add_networks=[RED], add_ports=[null("a"), null("b"), null("c", "red")]))
    again, said = start(refuse="b")
    assert names(again) == ["blue", "red", "f", "a", "c"]
    assert said == ['not restored: port "b": cannot be opened; try another']


def test_what_is_refused_is_not_kept(start: Start) -> None:
    wanted, _ = start(refuse="b")
    with pytest.raises(EngineError):
        wanted.alter(Change(add_ports=[null("a"), null("b")]))
    with pytest.raises(ConfigError):
        wanted.alter(Change(add_ports=[null("c", "nowhere")]))
    assert names(start()[0]) == ["blue", "f"]


def test_what_cannot_be_kept_is_not_done(start: Start) -> None:
    wanted, _ = start()
    store = wanted.lasting._store
    assert store is not None
    store._database.execute("PRAGMA max_page_count = 5")
    with pytest.raises(EngineError, match="the disk is full; make room and try again"):
        wanted.alter(Change(add_ports=[null(f"p{k}") for k in range(500)]))
    assert names(wanted) == ["blue", "f"]


def test_a_gateway_port_without_nft_is_refused_and_not_kept(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("byway.nat.table._SBIN", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted, _ = start()
    gateway = TapPort(name="gw", network="blue", kind="tap", ifname="gw0",
                      address=("10.0.0.1/24",), masquerade=True)
    with pytest.raises(EngineError, match='port "gw": masquerade: the program nft is not inst'):
        wanted.alter(Change(add_ports=[gateway]))
    assert names(wanted) == ["blue", "f"]
    assert names(start()[0]) == ["blue", "f"]


def test_what_only_goes_along_is_not_kept(start: Start) -> None:
    wanted, _ = start()
    wanted.alter(Change(add_networks=[RED], add_ports=[null("a", "red")]))
    wanted.alter(Change(add_ports=[null("b", "red")]), keep=False)
    wanted.alter(Change(add_networks=[RED.model_copy(update={"mtu": 2000})]))
    again, said = start()
    assert [port.name for port in again.config.ports] == ["f", "a"]
    assert said == []
