# SPDX-License-Identifier: Apache-2.0
"""What of the state file comes back at the start, and what waits until it can."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from byway.control.cluster.desk import WantedDesk
from byway.control.diff import Change
from byway.control.lasting import Lasting
from byway.control.model import Config, GroupConfig, NetworkConfig, NullPort, SwitchConfig
from byway.control.parts import key_of
from byway.control.returning import fitting
from byway.control.store import Store
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine

BLUE, RED = NetworkConfig(name="blue"), NetworkConfig(name="red")
Start = Callable[..., tuple[Wanted, list[str]]]


def null(name: str, network: str = "blue", **keys: Any) -> NullPort:
    return NullPort.model_validate({"name": name, "network": network, "kind": "null", **keys})


def group(name: str, remote: str | None = None) -> GroupConfig:
    rules = [{"direction": "ingress", "remote_group": remote}] if remote else []
    return GroupConfig.model_validate({"name": name, "rules": rules})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a switch over the one state file, whose configuration file has networks only."""
    running: list[Wanted] = []

    def one(*networks: NetworkConfig, refuse: str = "") -> tuple[Wanted, list[str]]:
        if running:
            running.pop().lasting.close()
        engine = FakeEngine(SwitchConfig())
        engine.refuse.add(refuse)
        made = Wanted(engine, SwitchConfig(), Lasting("lab", Store(str(tmp_path / "lab.db"))))
        running.append(made)
        file = Config(networks=networks)
        made.change(file)
        return made, made.lasting.file_says(file) + made.restore()

    yield one
    running.pop().lasting.close()


def ports(wanted: Wanted) -> set[str]:
    """Those that the engine has, which are those that the inventory has."""
    names = {port["name"] for port in wanted.engine.ports()}
    assert names == set(wanted.has.ports)
    return names


def with_circles(wanted: Wanted) -> None:
    """Groups that name each other, a mirror to a later port and a circle of mirrors."""
    wanted.alter(Change(add_groups=[group("web"), group("alone")]))
    wanted.alter(Change(add_groups=[group("db", "web")]))
    wanted.alter(Change(add_groups=[group("web", "db")]))
    wanted.alter(Change(add_ports=[
        null("early", mirror={"to": "late"}), null("in-red", "red"),
        null("web1", security_groups=["web"]), null("one", mirror={"to": "two"}),
        null("two", mirror={"to": "one"}), null("on-red", mirror={"to": "in-red"}),
        null("on-on-red", mirror={"to": "on-red"}), null("late", security_groups=["db"])]))


def test_what_does_not_fit_takes_only_along_what_stands_on_it(start: Start) -> None:
    wanted, _ = start(BLUE, RED)
    with_circles(wanted)
    bare, said = start(BLUE)
    assert ports(bare) == {"early", "web1", "one", "two", "late"}
    assert set(bare.has.parts.all("group")) == {"web", "db", "alone"}
    assert said == [
        'not restored: port "in-red": network: there is no network "red";'
        " it comes back when that does",
        'not restored: port "on-red": mirror.to: there is no port "in-red";'
        " it comes back when that does",
        'not restored: port "on-on-red": mirror.to: there is no port "on-red";'
        " it comes back when that does"]


@pytest.mark.parametrize(("refuse", "missing"), [
    ("web1", {"web1"}), ("late", {"late", "early"}), ("two", {"one", "two"}),
    ("in-red", {"in-red", "on-red", "on-on-red"})])
def test_what_is_refused_takes_only_along_what_stands_on_it(
    start: Start, refuse: str, missing: set[str]
) -> None:
    wanted, _ = start(BLUE, RED)
    with_circles(wanted)
    every = ports(wanted)
    again, said = start(BLUE, RED, refuse=refuse)
    assert every - ports(again) == missing
    assert f'not restored: port "{refuse}": cannot be opened; try another' in said
    assert set(again.has.parts.all("group")) == {"web", "db", "alone"}


def test_what_is_left_out_comes_back_with_its_network(start: Start) -> None:
    wanted, _ = start(BLUE, RED)
    with_circles(wanted)
    bare, _ = start(BLUE)
    told: list[str] = []
    bare.on_return = told.extend
    bare.alter(Change(add_networks=[NetworkConfig(name="green")]))
    assert (told, "in-red" in ports(bare)) == ([], False)
    bare.change(Config(networks=(BLUE, NetworkConfig(name="green"), RED), groups=tuple(
        bare.has.parts.all("group").values()), ports=tuple(bare.has.ports.values())))
    assert {"in-red", "on-red", "on-on-red"} <= ports(bare)
    assert told == ['port "in-red" is back', 'port "on-red" is back', 'port "on-on-red" is back']
    again, said = start(BLUE, RED)  # it stayed in the file meanwhile
    assert ports(again) == ports(bare)
    assert said == []


def test_a_port_in_a_network_of_the_cluster_comes_back_when_etcd_does(start: Start) -> None:
    wanted, _ = start()
    WantedDesk(wanted).put("network", {"name": "blue", "vni": 20})
    wanted.alter(Change(add_ports=[null("vm1"), null("vm2")]))
    again, said = start()
    assert len(said) == 2
    again.engine.refuse.add("vm2")  # type: ignore[attr-defined]
    told: list[str] = []
    again.on_return = told.extend
    desk = WantedDesk(again)
    desk.put("network", {"name": "blue", "vni": 20})
    assert ports(again) == {"vm1"}
    assert told == ['port "vm1" is back',
                    'not restored: port "vm2": cannot be opened; try another']
    told.clear()
    desk.put("network", {"name": "red", "vni": 21})
    assert told == []


def test_what_came_by_another_way_meanwhile_is_not_brought_back(start: Start) -> None:
    wanted, _ = start(BLUE, RED)
    wanted.alter(Change(add_ports=[null("a"), null("b")]))
    bare, _ = start(RED)
    bare.alter(Change(add_ports=[null("a", "red")]))
    bare.alter(Change(remove_ports=["a"]))
    bare.alter(Change(add_networks=[BLUE]))
    assert ports(bare) == {"b"}
    assert ports(start(BLUE, RED)[0]) == {"b"}


def test_of_two_with_one_claim_the_second_is_left_out_only_where_the_first_comes() -> None:
    one, other = (null(name, network, mac="02:00:00:00:00:01", vlans={"5": vlan})
                  for name, network, vlan in (("one", "blue", "red"), ("two", "blue", "green")))
    for networks, comes in (((BLUE, RED, NetworkConfig(name="green")), "one"),
                            ((BLUE, NetworkConfig(name="green")), "two")):
        wanted = Wanted(FakeEngine(SwitchConfig()), SwitchConfig())
        wanted.change(Config(networks=networks))
        actions, problems = fitting(wanted.has, {key_of(part): part for part in (one, other)})
        assert [action.port.name for action in actions] == [comes]  # type: ignore[union-attr]
        assert len(problems) == 1


def test_the_work_grows_with_the_number_of_ports_and_not_faster() -> None:
    def calls(count: int) -> int:
        wanted = Wanted(FakeEngine(SwitchConfig()), SwitchConfig())
        wanted.change(Config(networks=(BLUE,)))
        found = [null(f"p{k}", "blue" if k % 2 else "nowhere", ips=[f"10.0.{k >> 8}.{k & 255}"],
                      mac=f"02:00:00:00:{k >> 8:02x}:{k & 255:02x}") for k in range(1, count + 1)]
        found.append(null("twice", mac="02:00:00:00:00:01"))
        made = 0

        def count_calls(frame: object, event: str, argument: object) -> None:
            nonlocal made
            made += 1

        before = sys.getprofile()
        sys.setprofile(count_calls)
        try:
            actions, _ = fitting(wanted.has, {key_of(part): part for part in found})
        finally:
            sys.setprofile(before)
        assert len(actions) == count // 2
        return made

    assert calls(400) < 2.2 * calls(200)
