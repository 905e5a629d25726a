# SPDX-License-Identifier: Apache-2.0
"""Network functions whose files end the builder: whoever is not concerned goes on."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from byway.control.actions import AddFunction
from byway.control.function_library import Built, Library
from byway.control.function_steps import Order
from byway.control.functions import EXPIRE_SECONDS
from byway.control.model import FunctionConfig
from byway.control.problem import ConfigError, EngineError
from byway.functions.blueprint import Blueprint
from tests.running import RunningSwitch
from tests.unit.control.test_functions import GUARD, SECONDS, WRONG, Lab

ENDS = "import os\nos._exit(3)\n"


class Failing(Library):
    """Ends as ``fails`` says: the answer to a request, or None. Chains are lacking until they are
    built, interpreted ones as well."""

    def __init__(self, fails: Callable[[Collection[Order], Collection[str]], Exception | None],
                 ) -> None:
        super().__init__()
        self.fails = fails
        self.built: set[Order] = set()

    def lacks(self, order: Order) -> bool:
        return order not in self.built or super().lacks(order)

    async def build(self, orders: Collection[Order], uses: Collection[str]) -> Built:
        if error := self.fails(orders, uses):
            raise error
        self.built.update(orders)
        return await super().build(orders, uses)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with RunningSwitch(tmp_path, stepped=True) as switch, ExitStack() as stack:
        yield Lab(switch, tmp_path, stack)


def other(lab: Lab, name: str, text: str) -> str:
    (lab.folder / name).write_text(text)
    return f"{lab.folder / name}:Guard"


def test_a_file_that_ends_the_builder_holds_up_nobody_else(lab: Lab) -> None:
    bad = other(lab, "bad.py", ENDS)
    said = lab.start(vm1=(lab.use,), vm2=(bad,))
    assert [one.startswith(f"{bad}: building {bad} ended with status 3") for one in said] == [True]
    assert lab.switch.port("vm1")["state"] == "waiting"
    assert "its chain cannot be built" in lab.switch.port("vm2")["reason"]
    lab.file.write_text(GUARD.replace("over limit", "too many"))
    assert lab.wait(lab.switch.engine.functions.reload()) == [lab.use]
    assert lab.show("vm1/Guard")["drops"] == {"too many": 0}
    other(lab, "bad.py", GUARD)
    assert lab.wait(lab.switch.engine.functions.reload()) == [bad]
    assert lab.switch.port("vm2")["state"] == "waiting"


def test_one_of_two_broken_files_is_mended(lab: Lab) -> None:
    bad = other(lab, "bad.py", WRONG)
    lab.file.write_text(WRONG)
    functions = lab.switch.engine.functions
    assert len(lab.start(vm1=(lab.use,), vm2=(bad,))) == 2
    with pytest.raises(ConfigError, match=r"guard.py:15"):
        lab.wait(functions.reload())
    lab.file.write_text(GUARD)
    assert lab.wait(functions.reload()) == [lab.use]
    assert lab.switch.port("vm1")["state"] == "waiting"
    with pytest.raises(ConfigError, match=r"bad.py:15"):  # nothing is mended any more
        lab.wait(functions.reload())
    lab.file.write_text(WRONG)
    other(lab, "bad.py", GUARD)
    with pytest.raises(ConfigError, match=r"guard.py:15"):  # what works goes before
        lab.wait(functions.reload())
    assert "cannot be built" in lab.switch.port("vm2")["reason"]


def test_a_chain_that_ends_the_builder_holds_up_no_other(lab: Lab) -> None:
    two = other(lab, "two.py", GUARD)
    library = Failing(lambda orders, uses: EngineError("out of memory", "get some") if any(
        len(order.steps) == 2 and order.direction == "rx" for order in orders) else None)
    lab.switch.engine.functions.library = library
    said = lab.start(vm1=(lab.use,), vm2=(lab.use, two))
    assert said == [f"{two}: out of memory; get some"]
    assert lab.switch.port("vm1")["state"] == "waiting"
    assert lab.switch.port("vm2")["reason"] == (
        "its chain cannot be built: out of memory; get some")
    shown = lab.show("vm2/Guard")
    assert (shown["state"], shown["reason"]) == ("failed", "out of memory; get some")
    library.fails = lambda orders, uses: None
    other(lab, "two.py", GUARD.replace("over limit", "too many"))
    assert lab.wait(lab.switch.engine.functions.reload()) == [two]
    assert lab.switch.port("vm2")["state"] == "waiting"


def test_what_the_builder_had_no_time_for_is_tried_again(lab: Lab) -> None:
    tries: list[int] = []

    def no_time(orders: Collection[Order], uses: Collection[str]) -> Exception | None:
        tries.append(1)
        return EngineError("building took longer than 60 seconds", "see why")

    functions = lab.switch.engine.functions
    library = Failing(no_time)
    functions.library = library
    named = FunctionConfig(name="limits", use=lab.use)
    assert len(lab.start(named, vm1=(lab.use,))) == 1

    def minute() -> int:
        tries.clear()
        for _ in range(EXPIRE_SECONDS):
            lab.switch.call(functions.tick)
        lab.wait(functions.settled())
        return len(tries)

    assert [minute() > 0 for _ in range(7)] == [True, False, True, False, False, False, True]
    assert "took longer" in lab.switch.port("vm1")["reason"]
    library.fails = lambda orders, uses: None
    for _ in range(8):
        minute()
    assert lab.switch.port("vm1")["state"] == "waiting"
    assert lab.show("limits")["state"] == "ready"


def test_what_nobody_foresaw_stops_no_later_building(lab: Lab) -> None:
    lab.switch.engine.functions.library = Failing(
        lambda orders, uses: ValueError("a surprise"))
    (said,) = lab.start(vm1=(lab.use,))
    assert said == f"{lab.use}: ValueError: a surprise"
    assert "a surprise" in lab.switch.port("vm1")["reason"]
    assert len(lab.switch.errors) == 1
    assert "a surprise" in lab.switch.errors.pop()
    lab.switch.engine.functions.library.fails = lambda orders, uses: None
    assert lab.wait(lab.switch.engine.functions.reload()) == [lab.use]
    assert lab.switch.port("vm1")["state"] == "waiting"


def test_ports_that_cannot_be_opened_stop_no_later_building(lab: Lab) -> None:
    two = other(lab, "two.py", GUARD)
    functions = lab.switch.engine.functions
    ready = functions.ready

    def no_room() -> None:
        functions.ready = ready
        functions.carry_out(AddFunction(FunctionConfig(name="late", use=two)))
        raise MemoryError("no room")

    functions.library = Failing(lambda orders, uses: ValueError("a surprise") if orders else None)
    functions.ready = no_room
    lab.start(vm1=(lab.use,))
    assert lab.show("late")["state"] == "ready"
    assert "no room" in lab.switch.errors.pop()
    lab.switch.errors.clear()


def test_code_that_cannot_be_loaded_leaves_the_others(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    two = other(lab, "two.py", GUARD)
    functions = lab.switch.engine.functions
    have = functions.instances.have

    def no_memory(name: str, blueprint: Blueprint, given: dict[str, Any], tables: Any) -> Any:
        if name == "vm1/Guard":
            raise MemoryError("no room")
        return have(name, blueprint, given, tables)

    monkeypatch.setattr(functions.instances, "have", no_memory)
    (said,) = lab.start(vm1=(lab.use,), vm2=(two,))
    assert "no room" in said
    assert "no room" in lab.switch.port("vm1")["reason"]
    assert lab.switch.port("vm2")["state"] == "waiting"
    lab.switch.errors.clear()


def test_a_chain_becomes_another_one_while_it_is_watched(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    late = GUARD + '''

@nf.function
class Late:
    """Takes part in what goes out only."""

    def tx(self, frame: nf.Frame) -> nf.Verdict:
        return nf.PASS
'''
    lab.file.write_text(late)
    lab.start(vm1=(f"{lab.use}(limit=100)", f"{lab.file}:Late"))
    lab.connect()
    functions = lab.switch.engine.functions
    assert lab.wait(functions.watch("vm1", "rx", 3, 0.01)) == []
    watching = asyncio.run_coroutine_threadsafe(
        functions.watch("vm1", "rx", 3, SECONDS), lab.switch.loop)
    lab.switch.until(lambda: bool(functions._traced))
    assert lab.send(1) == 1
    with pytest.raises(EngineError, match="is watched already"):
        lab.wait(functions.watch("vm1", "rx", 3, SECONDS))
    lab.file.write_text(late.replace("def tx", "def rx"))
    assert lab.wait(functions.reload()) == [f"{lab.file}:Late"]
    assert lab.send(1) == 1
    (found,) = watching.result(SECONDS)  # what it was until then
    assert [step["function"] for step in found["steps"]] == ["vm1/Guard"]
    lab.file.write_text(late)
    monkeypatch.setattr(functions.library, "lacks", lambda order: order.traced)
    with pytest.raises(EngineError, match="reload"):  # it would be another chain that is watched
        lab.wait(functions.watch("vm1", "rx", 3, SECONDS))
    assert lab.send(1) == 1
