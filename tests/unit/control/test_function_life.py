# SPDX-License-Identifier: Apache-2.0
"""Instances of network functions stay as long as a chain reaches them, whatever they are called."""

import os

from byway.control.diff import Change
from byway.control.model import NetworkConfig
from tests.unit.control.test_functions import GUARD, Lab, lab

__all__ = ["lab"]


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
    other, slow = guard(lab, "other"), guard(lab, "slow", "import time; time.sleep(2)\n")
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
