# SPDX-License-Identifier: Apache-2.0
"""Instances of network functions stay as long as a chain reaches them, whatever they are called."""

import asyncio
import os
from collections.abc import Generator
from typing import Any

import pytest

from byway.control.diff import Change
from byway.control.function_edits import without
from byway.control.model import NetworkConfig
from byway.control.problem import NotThere
from tests.unit.control.test_functions import GUARD, Lab, lab

__all__ = ["lab"]
SLOW = """
import os, time
while not os.path.exists({gate!r}):
    time.sleep(0.01)
"""


def guard(lab: Lab, name: str, first: str = "") -> str:
    """Another file with a function of this name."""
    file = lab.folder / f"{name}.py"
    file.write_text(first + GUARD)
    return f"{file}:Guard"


def bring(lab: Lab, *chain: str) -> None:
    """As a cluster does: the port has this chain, and nobody waits for its code."""
    port = lab.wanted.has.ports["vm1"].model_copy(update={"chain": chain})
    lab.switch.call(lambda: lab.wanted.alter(Change(add_ports=[port]), keep=False, patient=True))


def test_a_chain_that_is_kept_keeps_all_that_it_reaches(lab: Lab) -> None:
    gate = lab.folder / "gate"
    other, slow = guard(lab, "other"), guard(lab, "slow", SLOW.format(gate=str(gate)))
    lab.start(vm1=(lab.use, other))
    lab.connect()
    functions = lab.switch.engine.functions
    second = functions.instances["vm1/Guard.2"]
    events = second.states["noisy"]
    lab.set("vm1/Guard", limit=1000)  # the first lets all through, the second tells
    first = f"{lab.use}(limit=1000)"
    bring(lab, first, f"{lab.use}(limit=9)", other, slow)  # the second has another name
    bring(lab, first, slow)  # and none is wanted of its use
    os.fstat(events.fd)
    assert lab.send(5) == 2
    assert len(lab.switch.call(events.take)) == 3
    gate.touch()
    assert lab.wait(functions.settled()) == []
    assert events.fd == -1, "it is gone with the chain"
    assert int(events.record["fd"][0]) == -1
    assert [*functions.instances] == ["vm1/Guard", "vm1/Guard.2"]
    assert functions.instances["vm1/Guard.2"].blueprint.use == slow


def test_another_function_takes_the_name_of_one_that_a_chain_keeps(lab: Lab) -> None:
    other = guard(lab, "other")
    lab.start(network=(lab.use,), vm2=(guard(lab, "third"),))
    lab.chain("vm1", other)
    lab.chain("vm1")
    functions = lab.switch.engine.functions
    lacks, lack = functions.library.lacks, functions._lack
    functions.library.lacks = lambda order: len(order.steps) > 1 or lacks(order)
    functions._lack = lambda orders: None
    old = functions.instances["net:blue/Guard"]
    network = NetworkConfig(name="blue", chain=(other,))
    lab.switch.call(lambda: lab.wanted.alter(Change(add_networks=[network])))
    assert functions.instances["net:blue/Guard"].blueprint.use == other
    ((_, fitted),) = functions.places.of_port("vm2")
    assert old in fitted.instances
    os.fstat(old.states["noisy"].fd)
    functions.library.lacks, functions._lack = lacks, lack
    lab.alter(add_ports=[lab.wanted.has.ports["vm2"].model_copy(update={"chain": ()})])
    assert old.states["noisy"].fd == -1


def test_events_of_one_that_went_before_they_are_read(lab: Lab) -> None:
    """The answer has begun, its reader is slow; the number of the fd is another file's by then."""
    lab.start(vm1=(lab.use,))
    functions = lab.switch.engine.functions

    async def run() -> list[Any]:
        events = functions.events("vm1/Guard", None)
        await lab.wanted.alter_built(Change(remove_ports=["vm1"]))
        return [event async for event in events]

    assert lab.wait(run()) == []
    assert not functions.instances._of_code, "nothing is left of what is not there"


def test_each_hears_its_own_events_where_names_change(lab: Lab) -> None:
    chain = (lab.use, f"{lab.use}(limit=50)")
    lab.start(vm1=chain)
    functions = lab.switch.engine.functions
    port = lab.wanted.has.ports["vm1"].model_copy(update={"chain": chain[::-1]})

    async def run() -> list[Any]:
        late = functions.events("vm1/Guard.2", None)  # is not read yet
        await lab.wanted.alter_built(Change(add_ports=[port]))  # now it is the first one
        both = [late, functions.events("vm1/Guard.2", None)]
        tasks = [asyncio.ensure_future(anext(one, None)) for one in both]
        await asyncio.sleep(0)
        await lab.wanted.alter_built(Change(remove_ports=["vm1"]))
        return await asyncio.gather(*tasks)

    assert lab.wait(run()) == [None, None]


def test_rows_go_on_where_the_name_changes(lab: Lab) -> None:
    lab.file.write_text(GUARD.replace("capacity=100", "capacity=2000"))
    lab.start(vm1=(lab.use, f"{lab.use}(limit=7)"))
    functions = lab.switch.engine.functions
    table = functions.instances["vm1/Guard.2"].states["table"]
    rows = {f"10.0.{k >> 8}.{k & 255}": k for k in range(2000)}

    async def run() -> int:
        putting = asyncio.create_task(functions.put("vm1/Guard.2", "table", rows, whole=False))
        while not table.stats()["entries"]:
            await asyncio.sleep(0)
        await lab.wanted.alter_built(without(lab.wanted.has.parts, "vm1/Guard"))
        await putting
        listing = functions.rows("vm1/Guard", "table", 10_000)
        seen = len(await anext(listing))
        port = lab.wanted.has.ports["vm1"]
        chain = (f"{lab.use}(limit=8)", f"{lab.use}(limit=7)")  # it is the second again
        await lab.wanted.alter_built(Change(add_ports=[port.model_copy(update={"chain": chain})]))
        assert functions.instances["vm1/Guard.2"].states["table"] is table
        return seen + sum([len(some) async for some in listing])

    assert lab.wait(run()) == 2000


def test_rows_for_one_that_is_gone(lab: Lab) -> None:
    """Also where another one has its name by then."""
    lab.file.write_text(GUARD.replace("capacity=100", "capacity=2000"))
    lab.start(vm1=(lab.use, f"{lab.use}(limit=7)"))
    functions = lab.switch.engine.functions
    table = functions.instances["vm1/Guard"].states["table"]
    rows = {f"10.0.{k >> 8}.{k & 255}": k for k in range(2000)}

    gate, changing = asyncio.Event(), table.changing

    def held(rows: Any, whole: bool) -> Generator[Any, Any, Any]:
        """It comes to its end only when the gate is open."""
        refused = yield from changing(rows, whole)
        while not gate.is_set():
            yield None
        return refused

    async def run() -> None:
        table.changing = held
        putting = asyncio.create_task(functions.put("vm1/Guard", "table", rows, whole=False))
        while not table.stats()["entries"]:
            await asyncio.sleep(0)
        await lab.wanted.alter_built(without(lab.wanted.has.parts, "vm1/Guard"))
        gate.set()
        with pytest.raises(NotThere, match="vm1/Guard is not there any more"):
            await putting

    lab.wait(run())
    assert lab.rows("vm1/Guard", "table") == {}
