# SPDX-License-Identifier: Apache-2.0
"""Many rows of a table, while the control thread goes on with other work."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from byway.control.model import FunctionConfig
from byway.control.problem import EngineError
from byway.functions import state_memory
from byway.machine.jit import INTERPRETED
from tests.unit.control.test_functions import Lab, lab

__all__ = ["lab"]
T = TypeVar("T")
MANY = 3000 if INTERPRETED else 45_000
TABLES = f'''
from byway import nf


@nf.function
class Tables:
    """Drop what routes say."""

    hosts = nf.Map(key="ipv4", value="u32", capacity={MANY + 10})
    few = nf.Map(key="ipv4", value="u32", capacity=3)
    routes = nf.Lpm(value="u32", capacity={MANY + 10})
    acl = nf.Rules(capacity=16000)
    sums = nf.Array("u32", size={MANY + 10})

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if self.acl.match(frame) or self.routes.lookup(frame.ipv4_src) == 1:
            return nf.DROP("no")
        self.sums[0] += self.hosts.get(frame.ipv4_src) + self.few.get(frame.ipv4_src)
        return nf.PASS
'''
IPS = [f"10.{k >> 16 & 255}.{k >> 8 & 255}.{k & 255}" for k in range(MANY)]
ROWS: dict[str, Any] = {
    "hosts": {ip: k for k, ip in enumerate(IPS)},
    "routes": {f"{ip}/32": k for k, ip in enumerate(IPS)},
    "acl": {k: {"source": f"{ip}/32", "value": 1} for k, ip in enumerate(IPS[:MANY // 10], 1)},
    "sums": {0: list(range(1, MANY))}}


def start(lab: Lab) -> Any:
    lab.file.write_text(TABLES)
    lab.use = f"{lab.file}:Tables"
    lab.start(FunctionConfig(name="x", use=lab.use))
    return lab.switch.engine.functions


async def held(work: Coroutine[Any, Any, T]) -> tuple[T, float, int]:
    """What comes of some work; how long others waited for the control thread at the most, and how
    often it came to them."""
    looks, longest, last = 0, 0.0, time.perf_counter()
    task = asyncio.create_task(work)
    while not task.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        looks, longest, last = looks + 1, max(longest, now - last), now
    return await task, longest, looks


@pytest.mark.parametrize("table", ROWS)
def test_others_go_on_meanwhile(lab: Lab, table: str) -> None:
    functions = start(lab)

    async def every() -> list[Any]:
        return [row async for some in functions.rows("x", table, 1 << 20) for row in some]

    for whole in (False, True):
        _, longest, looks = lab.wait(held(functions.put("x", table, ROWS[table], whole=whole)))
        print(f"{table}: {looks} looks, {1000 * longest:.0f} ms at the most")
        assert looks >= (1 if table == "acl" and INTERPRETED else 8)
    rows, longest, looks = lab.wait(held(every()))
    print(f"{table}: {looks} looks, {1000 * longest:.0f} ms at the most")
    assert len(rows) == (MANY - 1 if table == "sums" else len(ROWS[table]))
    assert looks >= (1 if table == "acl" and INTERPRETED else 4)
    assert lab.wait(functions.remove("x", table, str(rows[0]["key"])))
    assert lab.rows("x", table, 1 << 20).keys() == {row["key"] for row in rows[1:]}


def test_of_two_changes_of_a_table_the_second_waits(lab: Lab) -> None:
    """... also where it removes all rows."""
    functions = start(lab)

    async def both() -> None:
        putting = asyncio.create_task(functions.put("x", "sums", ROWS["sums"], whole=True))
        await asyncio.sleep(0)
        assert await functions.remove("x", "sums", None)
        assert putting.done()
        await putting

    lab.wait(both())
    assert lab.rows("x", "sums") == {}


def test_rows_without_room_are_taken_back(lab: Lab) -> None:
    functions = start(lab)
    lab.wait(functions.put("x", "few", {"1.1.1.1": 1}, whole=False))
    rows = {**ROWS["hosts"], "1.1.1.1": 9}
    for whole in (False, True):
        with pytest.raises(EngineError, match="no room"):
            lab.wait(functions.put("x", "few", rows, whole=whole))
        assert lab.rows("x", "few") == {"1.1.1.1": 1}
    with pytest.raises(EngineError, match=r"300.0.0.1"):
        lab.wait(functions.put("x", "hosts", {**ROWS["hosts"], "300.0.0.1": 9}, whole=False))
    assert lab.rows("x", "hosts") == {}


@pytest.mark.parametrize("whole", [False, True])
def test_rows_that_there_is_no_memory_for_are_refused(
        lab: Lab, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = start(lab)
    lab.wait(functions.put("x", "routes", {"1.1.1.1/32": 1}, whole=False))
    monkeypatch.setattr(state_memory, "LARGE", 1 << 16)
    monkeypatch.setattr(state_memory, "memory_left", lambda: 1 << 16)
    with pytest.raises(EngineError, match=r"x: routes: the machine has no \d+ MiB of memory"):
        lab.wait(functions.put("x", "routes", ROWS["routes"], whole=whole))
    monkeypatch.setattr(state_memory, "LARGE", 1 << 60)

    def build(parts: object) -> object:
        raise MemoryError

    monkeypatch.setattr(functions.instances["x"].states["routes"], "_build", build)
    with pytest.raises(EngineError, match="x: routes: the machine has no memory for so many rows"):
        lab.wait(functions.put("x", "routes", ROWS["routes"], whole=whole))
    monkeypatch.undo()
    assert lab.rows("x", "routes") == {"1.1.1.1/32": 1}


def test_a_table_that_there_is_no_memory_for_is_refused(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = start(lab)
    lab.file.write_text(TABLES.replace("hosts = nf.Map(", "huge = nf.Array(size=1 << 24)\n"
                                       "    hosts = nf.Map("))
    monkeypatch.setattr(state_memory, "memory_left", lambda: 100 << 20)
    lab.wait(functions.reload())
    assert "huge" not in functions.instances["x"].states
    said = lab.wait(functions.settled())
    assert any("x: huge: the machine has no 128 MiB of memory" in one for one in said), said
    monkeypatch.setattr(state_memory, "memory_left", lambda: 1 << 10)  # what is small is no matter
    lab.wait(functions.remove("x", "hosts", None))


def test_of_two_changes_of_a_table_one_waits(lab: Lab) -> None:
    functions = start(lab)

    async def both() -> None:
        await asyncio.gather(
            functions.put("x", "hosts", ROWS["hosts"], whole=False),
            functions.put("x", "hosts", {"10.0.0.0": 7, "10.0.0.1": 8}, whole=True))

    lab.wait(both())
    assert lab.rows("x", "hosts") == {"10.0.0.0": 7, "10.0.0.1": 8}


def test_a_table_that_goes_meanwhile(lab: Lab) -> None:
    """What is put finds none, and what is listed ends."""
    functions = start(lab)
    lab.wait(functions.put("x", "hosts", ROWS["hosts"], whole=True))

    async def both() -> tuple[int, Any]:
        listing = functions.rows("x", "hosts", 1 << 20)
        seen = len(await anext(listing))
        putting = asyncio.create_task(functions.put("x", "hosts", ROWS["hosts"], whole=False))
        await asyncio.sleep(0)
        lab.file.write_text(TABLES.replace(f"capacity={MANY + 10}", f"capacity={MANY + 20}"))
        await functions.reload()
        seen += sum([len(some) async for some in listing])
        return seen, (await asyncio.gather(putting, return_exceptions=True))[0]

    seen, refused = lab.wait(both())
    assert 0 < seen < MANY
    assert refused is None or "has become another one" in str(refused)


def test_a_table_is_filled_while_rows_are_put(lab: Lab) -> None:
    """The rows are there as well, whoever was faster."""
    start(lab)
    state = lab.switch.engine.functions.instances["x"].states["hosts"]

    def work() -> None:
        steps = state.changing(ROWS["hosts"], whole=False)
        for number, _ in enumerate(steps):
            if number == MANY // 256 + 2:  # all is read, and some of it is there
                state.fill({"1.1.1.1": 1})

    lab.switch.call(work)
    assert lab.rows("x", "hosts", 1 << 20) == {**ROWS["hosts"], "1.1.1.1": 1}
