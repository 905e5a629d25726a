# SPDX-License-Identifier: Apache-2.0
"""A change of network functions that is refused leaves all as it was; a gate stays shut."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from byway.control.model import FunctionConfig
from byway.control.problem import ConfigError, EngineError
from tests.running import RunningSwitch
from tests.unit.control.test_functions import GUARD, Lab

TABLES = GUARD.replace("table = nf.Map", """first = nf.Array(size=4)
    routes = nf.Lpm(value="u32", capacity=3)
    table = nf.Map""")
ROUTES = {"10.0.0.0/8": 1}
WRONG_ROUTES = {"10.0.0.0/8": "x"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with RunningSwitch(tmp_path, stepped=True) as switch, ExitStack() as stack:
        made = Lab(switch, tmp_path, stack)
        made.file.write_text(TABLES)
        yield made


def function(lab: Lab, name: str = "x", **options: Any) -> FunctionConfig:
    return FunctionConfig(name=name, **({"use": lab.use} | options))


def rows(lab: Lab, table: str, name: str = "x") -> dict[Any, Any]:
    return lab.rows(name, table)


def test_a_chain_whose_function_cannot_be_had_is_refused(lab: Lab) -> None:
    (said,) = lab.start(function(lab, tables={"none": [1]}))
    assert 'x has no table "none"' in said
    lab.connect()
    with pytest.raises(EngineError, match='x has no table "none"'):
        lab.chain("vm1", "x")
    assert lab.wanted.has.ports["vm1"].chain == ()
    lab.alter(add_functions=[function(lab)])
    lab.chain("vm1", "x")
    assert lab.send(5) == 2


def test_a_port_keeps_the_chain_that_it_has(lab: Lab) -> None:
    lab.start(function(lab, tables={"none": [1]}), vm1=(lab.use,))
    lab.connect()
    with pytest.raises(EngineError, match='x has no table "none"'):
        lab.chain("vm1", lab.use, "x")
    assert lab.send(5) == 2


def test_a_port_of_a_function_that_cannot_be_had_is_down(lab: Lab) -> None:
    lab.start(function(lab, tables={"none": [1]}), vm1=("x",))
    assert lab.switch.port("vm1")["state"] == "down"
    assert 'x has no table "none"' in lab.switch.port("vm1")["reason"]
    port = lab.wanted.has.ports["vm1"]
    lab.alter(add_ports=[port.model_copy(update={"mtu": 1400})])  # it has other worries as well
    lab.alter(add_functions=[function(lab)])
    lab.switch.call(lab.switch.engine.open_waiting)
    lab.connect()
    assert lab.send(5) == 2


def test_a_function_that_is_refused_is_not_there(lab: Lab) -> None:
    lab.start(vm1=(lab.use,))
    with pytest.raises(EngineError, match="ghost: routes: "):
        lab.alter(add_functions=[function(lab, "ghost", tables={"routes": WRONG_ROUTES})])
    assert lab.names() == ["vm1/Guard"]
    assert list(lab.switch.engine.functions.instances) == ["vm1/Guard"]


def test_tables_are_changed_all_or_none(lab: Lab) -> None:
    lab.start(function(lab, tables={"first": [1, 2], "routes": ROUTES}))
    with pytest.raises(EngineError, match="x: routes: "):
        lab.alter(add_functions=[function(
            lab, parameters={"limit": 7}, tables={"first": [7, 8], "routes": WRONG_ROUTES})])
    assert rows(lab, "first") == {0: 1, 1: 2}
    assert rows(lab, "routes") == ROUTES
    assert lab.show("x")["parameters"] == {"limit": 2}
    lab.alter(add_functions=[function(lab, tables={"first": [7], "routes": {"10.0.0.0/8": 3}})])
    assert rows(lab, "first")[0] == 7
    assert rows(lab, "routes") == {"10.0.0.0/8": 3}


def test_a_table_that_is_filled_no_more_is_empty(lab: Lab) -> None:
    lab.start(function(lab, tables={"routes": ROUTES}))
    lab.alter(add_functions=[function(lab)])
    assert rows(lab, "routes") == {}


def test_other_code_that_is_refused_leaves_the_instance(lab: Lab) -> None:
    lab.start(function(lab), vm1=("x",))
    lab.connect()
    assert lab.send(3) == 2
    other = lab.folder / "other.py"
    other.write_text(TABLES)
    use = f"{other}:Guard"
    with pytest.raises(EngineError, match="none"):
        lab.alter(add_functions=[function(lab, use=use, tables={"none": [1]})])
    with pytest.raises(EngineError, match="y: routes: "):  # it goes with what is refused
        lab.alter(add_functions=[
            function(lab, use=use), function(lab, "y", tables={"routes": WRONG_ROUTES})])
    shown = lab.show("x")
    assert (shown["use"], shown["frames"]) == (lab.use, 3)
    assert shown["states"]["table"]["entries"] == 1
    assert lab.send(1) == 0
    assert lab.names() == ["x"]


def test_other_code_takes_its_configured_rows_along(lab: Lab) -> None:
    lab.start(function(lab, tables={"first": [5], "routes": ROUTES}))
    lab.wait(lab.switch.engine.functions.put("x", "first", [6, 7], whole=False))
    lab.file.write_text(TABLES.replace("capacity=3", "capacity=30"))
    assert lab.wait(lab.switch.engine.functions.reload()) == [lab.use]
    assert rows(lab, "routes") == ROUTES  # of another layout: as configured
    assert rows(lab, "first") == {0: 6, 1: 7}  # as it was
    lab.file.write_text(GUARD)
    with pytest.raises(ConfigError, match='x: its new code has no table "'):
        lab.wait(lab.switch.engine.functions.reload())


def test_a_refused_change_leaves_the_code_that_runs(lab: Lab) -> None:
    lab.start(vm1=(lab.use,))
    lab.connect()
    assert lab.send(3) == 2
    lab.file.write_text(TABLES.replace("n > self.limit", "n > 0"))
    with pytest.raises(ConfigError, match="limit"):
        lab.chain("vm2", f'{lab.use}(limit="x")')
    assert lab.send(1, "10.0.0.9") == 1
    with pytest.raises(EngineError, match="y: routes: "):  # known only when it is carried out
        lab.alter(add_functions=[function(lab, "y", tables={"routes": WRONG_ROUTES})])
    assert lab.send(1, "10.0.0.8") == 1
    assert lab.send(1) == 0  # with the state that it had
    assert lab.show("vm1/Guard")["frames"] == 6
    assert lab.names() == ["vm1/Guard"]


def test_of_a_chain_that_never_was_nothing_is_kept(lab: Lab) -> None:
    lab.start(function(lab, tables={"none": [1]}), vm1=("x", lab.use))
    functions = lab.switch.engine.functions
    for _ in range(3):
        lab.switch.call(functions.refit, ["vm1"])
    ((_, fitted),) = functions.places.of_port("vm1")
    assert sorted(fitted.names) == ["vm1/Guard", "vm1/Guard", "x", "x"]  # both ways
