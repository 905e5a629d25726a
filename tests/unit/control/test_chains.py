# SPDX-License-Identifier: Apache-2.0
"""Chains as they are written: what stands in them, what it is called, what a change of them needs,
and how it is edited."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from byway.control.actions import AddFunction, ChangeFunction, ChangePort, RemoveFunction
from byway.control.chains import based, file_of, parse_step, short_name, with_parameters
from byway.control.config import load
from byway.control.diff import Change, diff
from byway.control.function_edits import put, stands, with_given, without
from byway.control.function_needs import NONE, needs
from byway.control.function_steps import Order, ways
from byway.control.model import Config, FunctionConfig, NetworkConfig, NullPort
from byway.control.parts import Key, Parts, parts_of
from byway.control.problem import ConfigError, EngineError

GUARD = "/etc/guard.py:Guard"
LIMITS = FunctionConfig(name="limits", use=GUARD)


def port(name: str = "a", network: str = "blue", **keys: Any) -> NullPort:
    return NullPort.model_validate({"name": name, "network": network, "kind": "null", **keys})


def network(*chain: str, name: str = "blue") -> NetworkConfig:
    return NetworkConfig(name=name, chain=chain)


def parts(*ports: NullPort, networks: tuple[NetworkConfig, ...] = (network(),),
          functions: tuple[FunctionConfig, ...] = (LIMITS,)) -> Parts:
    return Parts(parts_of(Config(networks=networks, ports=ports, functions=functions)))


@pytest.mark.parametrize(("written", "name", "use", "parameters"), [
    ("limits", "limits", "", {}),
    (GUARD, "", GUARD, {}),
    ("/etc/x/../guard.py:Guard", "", GUARD, {}),
    ("/etc/guard.py", "", "/etc/guard.py", {}),
    ("byway.nat44", "", "byway.nat44", {}),
    (f'{GUARD}(a=1, b=-2.5, c="x y", d=true, e=False)', "", GUARD,
     {"a": 1, "b": -2.5, "c": "x y", "d": True, "e": False}),
    ("byway.nat44()", "", "byway.nat44", {}),
    ("byway.nat44(x='a)b')", "", "byway.nat44", {"x": "a)b"}),
])
def test_what_stands_in_a_chain(written: str, name: str, use: str,
                                parameters: dict[str, Any]) -> None:
    step = parse_step(written)
    assert tuple(step) == (name, use, parameters)
    if use:
        assert parse_step(with_parameters(step, step.parameters)) == step


@pytest.mark.parametrize(("written", "why"), [
    ("guard.py:Guard", "is no absolute path"),
    ("/etc/guard.py:", "is no network function"),
    ("byway.", "is no network function"),
    ("byway.Nat", "is no network function"),
    ("a b", "is no network function"),
    ("", "is no network function"),
    (f"{GUARD}(1)", "are no parameters"),
    (f"{GUARD}(a=1", "is no network function"),
    (f"{GUARD}(a=)", "are no parameters"),
    (f"{GUARD}(a=1)(b=2)", "are no parameters"),
    (f"{GUARD}(**a)", "a parameter is there twice, or has no name"),
    (f"{GUARD}(a=b)", "the value of a is no number and no text"),
    (f"{GUARD}(a=[1])", "the value of a is no number and no text"),
    (f"{GUARD}(a=__import__('os'))", "the value of a is no number and no text"),
    (f"{GUARD}({'(' * 5000}", "is no network function"),
])
def test_what_cannot_stand_in_a_chain(written: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        port(chain=[written])


def test_keys_of_functions_that_cannot_be() -> None:
    for keys, why in (
            ({"name": "byway.x", "use": GUARD}, "is the name of what is built in"),
            ({"name": "x", "use": "guard"}, "names no function's code"),
            ({"name": "x", "use": GUARD, "parameters": [1]}, "write a table"),
            ({"name": "x", "use": GUARD, "parameters": {"a": [1]}}, "a is \\[1\\]"),
            ({"name": "x", "use": GUARD, "tables": {"a": 1}}, "a is 1"),
            ({"name": "x", "use": GUARD, "tables": 1}, "write a table of tables")):
        with pytest.raises(ValidationError, match=why):
            FunctionConfig.model_validate(keys)
    with pytest.raises(ValidationError, match="names \"limits\" twice"):
        port(chain=["limits", "limits"])
    with pytest.raises(ValidationError, match="names 33 functions"):
        port(chain=[GUARD] * 33)


def test_a_function_is_written_as_it_was_read() -> None:
    table = {"name": "x", "use": GUARD, "parameters": {"a": 1, "b": "c"},
             "tables": {"rules": [{"value": "drop"}], "next": {"10.0.0.0/8": 3}}}
    made = FunctionConfig.model_validate(table)
    assert made.model_dump(mode="json") == table
    assert made.rows == table["tables"]
    assert made == FunctionConfig.model_validate_json(made.model_dump_json())
    assert hash(made)


def test_files_are_seen_from_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text("""
        [[function]]
        name = "limits"
        use = "sub/guard.py:Guard"
        [[network]]
        name = "blue"
        chain = ["limits", "guard.py(a=1)"]
        [[port]]
        name = "a"
        network = "blue"
        kind = "null"
        chain = ["/etc/guard.py:Guard", "byway.nat44"]
        chain_tx = ["./guard.py:Guard"]
    """)
    config = load(str(file))
    assert config.functions[0].use == f"{tmp_path}/sub/guard.py:Guard"
    assert config.networks[0].chain == ("limits", f"{tmp_path}/guard.py(a=1)")
    assert config.ports[0].chain == ("/etc/guard.py:Guard", "byway.nat44")
    assert parse_step(config.ports[0].chain_tx[0]).use == f"{tmp_path}/guard.py:Guard"
    assert config.has_stages
    assert based(7, "/x") == 7


@pytest.mark.parametrize(("written", "said"), [
    ("guard.py", "/x/y/guard.py"),
    ("./sub/guard.py:Guard(a='x.py')", "/x/y/sub/guard.py:Guard(a='x.py')"),
    ("../guard (1).py:Guard", "/x/guard (1).py:Guard"),
    ("a:b/guard.py:Guard", "/x/y/a:b/guard.py:Guard"),
    ("/etc/guard.py(a=1)", "/etc/guard.py(a=1)"),
    ("byway.nat44(file='x.py')", "byway.nat44(file='x.py')"),
    ("limits", "limits"),
])
def test_files_are_seen_from_a_folder(written: str, said: str) -> None:
    assert based(written, "/x/y") == said


@pytest.mark.parametrize(("name", "why"), [
    ("x.py", 'is the name of a file; take one that does not end in .py: chains are to name it'),
    ("byway.nat44", "is the name of what is built in"),
])
def test_a_name_that_no_chain_can_have(name: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        FunctionConfig(name=name, use=GUARD)


def test_a_folder_with_a_colon() -> None:
    step = parse_step("/etc/a:b/guard.py:Guard")
    assert (step.use, short_name(step.use), file_of(step.use)) == (
        "/etc/a:b/guard.py:Guard", "Guard", "/etc/a:b/guard.py")


def test_a_function_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('[[function]]\nname = "limits"\nuse = "byway.nat44"\n'
                    '[[network]]\nname = "blue"\nchain = ["limit"]\n')
    with pytest.raises(ConfigError, match='chain: there is no network function "limit"; did you'):
        load(str(file))


# ---------------------------------------------------------------- order and names
def use_of(name: str) -> str:
    return {"limits": GUARD}[name]


def test_the_way_in_and_the_way_out() -> None:
    rx, tx = ways(port(chain=["limits", "byway.nat44"], chain_tx=["byway.acl"]),
                  network("byway.tap"), use_of)
    assert [one.name for one in rx.placed] == ["limits", "a/nat44", "net:blue/tap"]
    assert [(one.name, one.own) for one in tx.placed] == [
        ("net:blue/tap", True), ("a/nat44", True), ("limits", True), ("a/acl", False)]
    assert rx.order == Order("rx", ((GUARD, False), ("byway.nat44", False), ("byway.tap", False)))


def test_several_of_one_name() -> None:
    rx, tx = ways(port(chain=[GUARD, "/x/guard.py:Guard(a=1)"], chain_tx=[GUARD]), network(),
                  use_of)
    assert [one.name for one in rx.placed] == ["a/Guard", "a/Guard.2"]
    assert tx.placed[-1].name == "a/Guard.3"
    assert short_name("/x/some.py") == "some"


# ---------------------------------------------------------------- what a change needs
def test_a_change_without_chains_needs_nothing() -> None:
    assert needs(parts(), {Key("port", "a"): port(), Key("network", "red"): network(
        name="red"), Key("host", "h"): None}) == NONE


def test_a_port_needs_its_chain_and_that_of_its_network() -> None:
    found = needs(parts(networks=(network("byway.tap"),)), {Key("port", "a"): port(chain=[GUARD])})
    assert found.orders == {
        Order("rx", ((GUARD, False), ("byway.tap", False))),
        Order("tx", (("byway.tap", True), (GUARD, True)))}
    assert found.fresh == {GUARD}
    assert found.given == (('port "a": chain[1]', GUARD, {}),)


def test_a_network_needs_the_chains_of_its_ports() -> None:
    has = parts(port(chain=[GUARD]), port("b"), port("c", "red"),
                networks=(network(), network(name="red")))
    found = needs(has, {Key("network", "blue"): network("limits")})
    assert {order for order in found.orders if order.direction == "rx"} == {
        Order("rx", ((GUARD, False), (GUARD, False))), Order("rx", ((GUARD, False),))}
    assert found.fresh == {GUARD}


def test_a_function_needs_the_chains_that_it_stands_in() -> None:
    has = parts(port(chain=["limits"]), port("b"), networks=(network("limits"),))
    new = FunctionConfig(name="limits", use="byway.nat44")
    found = needs(has, {Key("function", "limits"): new})
    assert Order("rx", (("byway.nat44", False),) * 2) in found.orders
    assert Order("rx", (("byway.nat44", False),)) in found.orders
    assert found.fresh == {"byway.nat44"}
    same = LIMITS.model_copy(update={"parameters": (("limit", 3),)})
    found = needs(has, {Key("function", "limits"): same})
    assert (found.fresh, found.given) == (
        frozenset(), (('network function "limits": parameters', GUARD, {"limit": 3}),))


# ---------------------------------------------------------------- edits
def test_other_parameters() -> None:
    has = parts(port(chain=["limits", f"{GUARD}(a=1, b=2)"]))
    (changed,) = with_given(has, "a/Guard", {"b": 3, "c": "x"}).add_ports
    assert changed.chain == ("limits", f'{GUARD}(a=1, b=3, c="x")')
    (function,) = with_given(has, "limits", {"limit": 3}).add_functions
    assert function.parameters == (("limit", 3),)
    with pytest.raises(EngineError, match='no network function "b/Guard"'):
        with_given(has, "b/Guard", {})


def test_out_of_all_chains() -> None:
    has = parts(port(chain=["limits", GUARD], chain_tx=["limits"]),
                port("b", chain=["limits"]), networks=(network("byway.tap", "limits"),))
    assert len(stands(has, "limits")) == 4
    change = without(has, "limits")
    assert [(one.name, one.chain, one.chain_tx) for one in change.add_ports] == [
        ("b", (), ()), ("a", (GUARD,), ())]
    assert [one.chain for one in change.add_networks] == [("byway.tap",)]
    assert change.remove_functions == ("limits",)
    assert without(has, "net:blue/tap").after() == put(
        network("byway.tap", "limits"), chain=["limits"]).after()
    with pytest.raises(EngineError, match="no network function"):
        without(has, "none")


def test_functions_come_first_and_go_last() -> None:
    old = Config(networks=(network(),), ports=(port(),))
    new = Config(networks=(network(),), ports=(port(chain=["limits"]),), functions=(LIMITS,))
    assert diff(old, new) == [
        AddFunction(LIMITS), ChangePort(port(), port(chain=["limits"]))]
    assert diff(new, old) == [
        ChangePort(port(chain=["limits"]), port()), RemoveFunction("limits")]
    other = LIMITS.model_copy(update={"use": "byway.nat44"})
    assert diff(new, new.model_copy(update={"functions": (other,)})) == [
        ChangeFunction(LIMITS, other)]
    assert Change(add_functions=[LIMITS]).after() == {Key("function", "limits"): LIMITS}
