# SPDX-License-Identifier: Apache-2.0
"""Network functions of many ports: names, state and what a change costs."""

import sys
from typing import Any

import pytest

from byway.control.diff import Change
from byway.control.function_edits import without
from byway.control.function_steps import Placed, renamed
from byway.control.model import KINDS, Config, FunctionConfig, NetworkConfig
from byway.control.problem import EngineError
from tests.unit.control.test_api_functions import request
from tests.unit.control.test_functions import GUARD, WRONG, Lab, lab

__all__ = ["lab"]


def placed(*limits: int | str) -> list[Placed]:
    """Guards with these limits, or functions that are called otherwise."""
    names: dict[str, int] = {}
    made = []
    for limit in limits:
        word = limit if isinstance(limit, str) else "Guard"
        names[word] = names.get(word, 0) + 1
        name = f"vm1/{word}" if names[word] == 1 else f"vm1/{word}.{names[word]}"
        made.append(Placed(name, word, {} if isinstance(limit, str) else {"limit": limit}))
    return made


@pytest.mark.parametrize(("before", "after", "going", "found"), [
    ((1, 2), (2,), (), {"Guard.2": "Guard"}),
    ((1, 2), (1,), (), {}),
    ((1, 1), (1,), ("Guard",), {"Guard.2": "Guard"}),
    ((1, 1), (1,), ("Guard.2",), {}),
    ((1, 1, 1), (1, 1), ("Guard.2",), {"Guard.3": "Guard.2"}),
    ((1,), (2, 1), (), {"Guard": "Guard.2"}),
    ((1, 2), (2, 1), (), {"Guard": "Guard.2", "Guard.2": "Guard"}),
    ((1, 2), (3, 2), (), {}),
    ((1, 2), (2, 2), (), {}),
    ((1, "Log", 2), ("Log", 2), (), {"Guard.2": "Guard"}),
    (("Log",), (1,), (), {}),
    ((), (1,), (), {}),
])
def test_who_is_called_how(before: tuple[Any, ...], after: tuple[Any, ...], going: tuple[str, ...],
                           found: dict[str, str]) -> None:
    names = renamed(placed(*before), placed(*after), {f"vm1/{name}" for name in going})
    assert names == {f"vm1/{old}": f"vm1/{new}" for old, new in found.items()}


def counted(lab: Lab) -> dict[str, tuple[int, int]]:
    """Frames and limit of each instance."""
    shown = lab.switch.call(lab.switch.engine.functions.shown)
    return {one["name"]: (one["frames"], one["parameters"]["limit"]) for one in shown}


@pytest.mark.parametrize("at", ["vm1", "net:blue"])
def test_the_other_one_keeps_its_state(lab: Lab, at: str) -> None:
    chain = (lab.use, f"{lab.use}(limit=50)")
    if at == "vm1":
        lab.start(vm1=chain)
    else:
        lab.start(network=chain)
    lab.connect()
    assert lab.send(20) == 2
    first, second = f"{at}/Guard", f"{at}/Guard.2"
    assert counted(lab) == {first: (20, 2), second: (2, 50)}
    lab.wait(lab.wanted.alter_built(without(lab.wanted.has.parts, first)))
    assert counted(lab) == {first: (2, 50)}
    assert lab.show(first)["ports"] == (["vm1"] if at == "vm1" else ["vm1", "vm2"])
    assert lab.send(1) == 1
    assert counted(lab) == {first: (3, 50)}


def test_of_two_that_are_alike_the_one_that_is_named_goes(lab: Lab) -> None:
    lab.start(vm1=(lab.use, lab.use))
    lab.connect()
    assert lab.send(9) == 2
    assert counted(lab) == {"vm1/Guard": (9, 2), "vm1/Guard.2": (2, 2)}
    answer = lab.wait(request(lab.wanted, "DELETE", "/v1/functions/vm1/Guard"))
    assert answer.status_code == 204, answer.text
    assert counted(lab) == {"vm1/Guard": (2, 2)}
    assert not lab.switch.engine.functions.removing


def test_a_chain_that_is_refused_leaves_each_its_state(lab: Lab) -> None:
    lab.start(vm1=(lab.use, f"{lab.use}(limit=50)"))
    lab.connect()
    lab.send(20)
    before = counted(lab)
    port = lab.wanted.has.ports["vm1"]
    other = port.model_copy(update={"chain": (f"{lab.use}(limit=50)",)})
    bad = FunctionConfig(name="x", use=lab.use, tables={"table": {"none": 1}})  # type: ignore[arg-type]
    with pytest.raises(EngineError, match='"none" is no ipv4'):
        lab.alter(add_ports=[other], add_functions=[bad])
    assert counted(lab) == before
    assert lab.send(1) == 0
    assert counted(lab) == {"vm1/Guard": (21, 2), "vm1/Guard.2": (2, 50)}


def null(lab: Lab, k: int, network: str = "blue") -> Any:
    return KINDS["null"](kind="null", name=f"p{k}", network=network,
                         chain=(f'{lab.use}(out="q{k}")',))


def cost(lab: Lab, change: Change) -> int:
    """Calls of Python functions of control that a change takes on the control thread."""
    seen = [0]

    def look(frame: Any, event: str, _: Any) -> None:
        if event == "call" and "/control/" in frame.f_code.co_filename:
            seen[0] += 1

    lab.switch.call(sys.setprofile, look)
    try:
        lab.wait(lab.wanted.alter_built(change))
    finally:
        lab.switch.call(sys.setprofile, None)
    return seen[0]


def test_a_change_costs_the_same_beside_many_ports(lab: Lab) -> None:
    lab.file.write_text(GUARD.replace("limit: int = 2", 'limit: int = 2\n    out: nf.Port = ""'))
    lab.switch.call(lab.wanted.change, Config(networks=(NetworkConfig(name="blue"),)))
    lab.alter(add_ports=[null(lab, 0)])
    few = cost(lab, Change(add_ports=[null(lab, 1)]))
    lab.alter(add_ports=[null(lab, k) for k in range(2, 102)])
    many = cost(lab, Change(add_ports=[null(lab, 102)]))
    assert many < few + 30, "no call for each port that is there"


# ---------------------------------------------------------------- a guard that is not there
def bring(lab: Lab, *chain: str) -> None:
    """As a cluster does: the network has this chain, and nobody waits for its code."""
    network = NetworkConfig(name="blue", chain=chain)
    lab.switch.call(lambda: lab.wanted.alter(Change(add_networks=[network]), keep=False))


def test_a_port_goes_on_until_its_first_chain_is_there(lab: Lab) -> None:
    lab.start()
    lab.connect()
    bring(lab, lab.use)
    assert lab.switch.port("vm1")["state"] == "up"
    assert lab.send(1) == 1  # by the new chain or without it
    assert lab.wait(lab.switch.engine.functions.settled()) == []
    assert lab.switch.port("vm1")["state"] == "up"
    assert lab.send(5, "10.0.0.2") == 2


def test_a_port_is_shut_where_its_first_chain_cannot_be(lab: Lab) -> None:
    lab.start(vm2=(lab.use,))
    lab.connect()
    broken = lab.folder / "broken.py"
    broken.write_text(WRONG)
    bring(lab, f"{broken}:Guard")
    (said, *_) = lab.wait(lab.switch.engine.functions.settled())
    assert "broken.py" in said
    port = lab.switch.port("vm1")
    assert port["state"] == "down"
    assert "its chain cannot be built" in port["reason"]
    assert "broken.py" in port["reason"]
    assert lab.switch.port("vm2")["state"] == "up", "it has the chain that it had"
    broken.write_text(GUARD)
    assert lab.wait(lab.switch.engine.functions.reload()) == [f"{broken}:Guard"]
    lab.switch.call(lab.switch.engine.open_waiting)
    assert lab.switch.port("vm1")["state"] == "waiting"


def test_a_port_is_opened_again_where_its_chain_is_wanted_no_more(lab: Lab) -> None:
    lab.start()
    lab.connect()
    lab.file.write_text(WRONG)
    bring(lab, lab.use)
    lab.wait(lab.switch.engine.functions.settled())
    assert lab.switch.port("vm1")["state"] == "down"
    bring(lab)
    lab.switch.call(lab.switch.engine.open_waiting)
    assert {lab.switch.port(name)["state"] for name in ("vm1", "vm2")} == {"waiting"}


def test_a_change_that_is_taken_back_leaves_each_of_two_alike_its_state(lab: Lab) -> None:
    lab.start(vm1=(lab.use, lab.use))
    lab.connect()
    assert lab.send(9) == 2
    before = counted(lab)
    assert before == {"vm1/Guard": (9, 2), "vm1/Guard.2": (2, 2)}
    functions = lab.switch.engine.functions
    port = lab.wanted.has.ports["vm1"].model_copy(update={"chain": (lab.use,)})
    bad = FunctionConfig(name="x", use=lab.use, tables={"table": {"none": 1}})  # type: ignore[arg-type]
    functions.removing.add("vm1/Guard")
    with pytest.raises(EngineError, match='"none" is no ipv4'):
        lab.alter(add_ports=[port], add_functions=[bad])
    functions.removing.clear()
    assert counted(lab) == before
