# SPDX-License-Identifier: Apache-2.0
"""Changes that wait for the code of network functions, while others change the same things."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from byway.control.diff import rebase
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine
from tests.unit.control.fake_switch import LAB
from tests.unit.control.test_api_functions import GUARD, engine, request, wanted

__all__ = ["engine", "wanted"]
NEW = {"function": "/etc/new.py:New"}
PORT = {"network": "blue", "kind": "vhost-user", "socket": "/tmp/vm1.sock"}
Meanwhile = Callable[..., httpx.Response]


async def waiting(engine: FakeEngine, change: Coroutine[Any, Any, Any],
                  others: Callable[[], Coroutine[Any, Any, None]]) -> Any:
    """Have others change something while a change waits for its code; -> what comes of it."""
    engine.functions.gate = asyncio.Event()
    engine.functions.changing = asyncio.Lock()
    task = asyncio.create_task(change)
    while not engine.functions.built:
        await asyncio.sleep(0)
    await others()
    engine.functions.gate.set()
    return await task


@pytest.fixture
def meanwhile(engine: FakeEngine, wanted: Wanted) -> Meanwhile:
    """A call of the API that waits for its code, and those that come meanwhile."""
    def run(call: tuple[Any, ...], *others: tuple[Any, ...]) -> Any:
        async def change() -> None:
            for other in others:
                assert (await request(wanted, *other)).status_code in (200, 204), other

        return asyncio.run(waiting(engine, request(wanted, *call), change))

    return run


def test_two_steps_are_both_there(engine: FakeEngine, wanted: Wanted) -> None:
    async def go() -> list[int]:
        engine.functions.changing = asyncio.Lock()
        return [one.status_code for one in await asyncio.gather(*(
            request(wanted, "POST", "/v1/ports/vm1/chain", {"function": use})
            for use in (GUARD, "byway.acl")))]

    assert asyncio.run(go()) == [200, 200]
    assert set(wanted.has.ports["vm1"].chain) == {GUARD, "byway.acl"}


def test_a_port_that_went_does_not_come_again(meanwhile: Meanwhile, wanted: Wanted) -> None:
    answer = meanwhile(("POST", "/v1/ports/vm1/chain", NEW), ("DELETE", "/v1/ports/vm1"))
    assert answer.status_code == 404
    assert "vm1" not in wanted.has.ports


@pytest.mark.parametrize("call", [
    ("POST", "/v1/ports/vm1/chain", NEW),
    ("PUT", "/v1/ports/vm1/chain", {"chain": [NEW["function"]]})])
def test_what_others_changed_stays(meanwhile: Meanwhile, wanted: Wanted, call: Any) -> None:
    answer = meanwhile(call, ("PUT", "/v1/ports/vm1", {**PORT, "limit": {"rx_bits": 1_000_000}}))
    assert answer.status_code == 200
    assert wanted.has.ports["vm1"].limit is not None
    assert wanted.has.ports["vm1"].chain == (NEW["function"],)


@pytest.fixture
def two(engine: FakeEngine, wanted: Wanted) -> list[str]:
    """Two alike in a chain, with another one between whose code is lacking; -> as written."""
    steps = [f"{GUARD}(limit=1)", "byway.acl", f"{GUARD}(limit=2)"]
    asyncio.run(request(wanted, "PUT", "/v1/ports/vm1/chain", {"chain": steps}))
    engine.functions.built.clear()
    engine.functions.known = {GUARD}
    return steps


@pytest.mark.parametrize(("method", "body", "status"), [
    ("DELETE", None, 204), ("PATCH", {"parameters": {"limit": 9}}, 200)])
def test_an_instance_in_a_chain_that_others_change(
        meanwhile: Meanwhile, wanted: Wanted, two: list[str], method: str, body: Any,
        status: int) -> None:
    answer = meanwhile((method, "/v1/functions/vm1/Guard", body), (
        "PUT", "/v1/ports/vm1", {**PORT, "chain": [two[0], two[2]]}))
    assert answer.status_code == status
    left = [f"{GUARD}(limit=9)"] * (method == "PATCH")
    assert wanted.has.ports["vm1"].chain == (*left, two[2])


@pytest.mark.parametrize(("method", "body"), [
    ("DELETE", None), ("PATCH", {"parameters": {"limit": 9}})])
def test_a_name_that_is_another_ones_by_then(
        meanwhile: Meanwhile, engine: FakeEngine, wanted: Wanted, two: list[str], method: str,
        body: Any) -> None:
    swapped = [two[2], two[0]]
    answer = meanwhile((method, "/v1/functions/vm1/Guard", body), (
        "PUT", "/v1/ports/vm1/chain", {"chain": swapped}))
    assert answer.status_code == 409
    assert wanted.has.ports["vm1"].chain == tuple(swapped)


def test_one_that_waits_to_be_removed_is_renamed_till_then(
        engine: FakeEngine, wanted: Wanted, two: list[str]) -> None:
    async def look() -> None:
        assert engine.functions.removing == set()

    change = request(wanted, "DELETE", "/v1/functions/vm1/Guard")
    assert asyncio.run(waiting(engine, change, look)).status_code == 204
    assert wanted.has.ports["vm1"].chain == tuple(two[1:])


def test_a_reload_keeps_what_came_meanwhile(engine: FakeEngine, wanted: Wanted) -> None:
    file = LAB.model_copy(update={"networks": (
        LAB.networks[0].model_copy(update={"chain": (GUARD,)}),)})

    async def add() -> None:
        answer = await request(wanted, "PUT", "/v1/ports/vm3", {**PORT, "socket": "/tmp/vm3.sock"})
        assert answer.status_code == 201

    engine.functions.known = {GUARD}
    asyncio.run(waiting(engine, wanted.change_built(lambda: rebase(wanted.config, LAB, file)), add))
    assert "vm3" in wanted.has.ports
    assert wanted.has.networks["blue"].chain == (GUARD,)
