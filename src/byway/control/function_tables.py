# SPDX-License-Identifier: Apache-2.0
"""Tables of network functions, as users look at them and change them.

Used by function_instances (tables that the configuration fills), function_answers and
function_trace. Uses problem, and the memory of states.

Many rows take long. The control thread does a few milliseconds of them, then what else there is to
do, and so on; what is pure work (a table that is built anew) is done beside it. Of two who change
one table the second waits for the first.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from byway.control.function_process import aside
from byway.control.problem import EngineError, NotThere, NotValid, nearest

if TYPE_CHECKING:
    from byway.functions.memory import Instance
    from byway.functions.state_memory import Steps

T = TypeVar("T")
Row = dict[str, Any]
BUILD_SECONDS = 60.0  # for a table that is built anew


def state_of(name: str, instance: "Instance", table: str) -> Any:
    """A table of an instance. NotThere: it has none of that name, or it is none."""
    tables = [state for state, spec in instance.blueprint.states.items()
              if spec["kind"] != "event"]
    if table in tables:
        return instance.states[table]
    fix = nearest(table, tables) or f"its tables are: {', '.join(tables) or 'none'}"
    if table in instance.states:
        raise NotThere(f"{name}: {table} is an nf.Event, and no table", fix)
    raise NotThere(f'{name} has no table "{table}"', fix)


def fill(name: str, state: Any, table: str, rows: Any) -> None:
    """Have a table hold these rows only, at once. EngineError: it cannot."""
    with _told(name, table):
        if not state.fill(_by_key(state, rows)):
            raise _no_room(name, table, f"all {len(rows)} rows")


class Desk:
    """Tables while the switch runs. ``find``: the instance of a name, None: it has none."""

    def __init__(self, find: "Callable[[str], Instance | None]") -> None:
        self._find_one = find
        self._changing: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()

    def rows(self, name: str, table: str, limit: int) -> AsyncIterator[list[Row]]:
        """At most so many entries, some at a time; they end where the table is no longer there.
        EngineError: there is none."""
        instance = self._find(name)
        return self._portions(table, instance, state_of(name, instance, table), limit)

    async def _portions(self, table: str, instance: "Instance", state: Any,
                        limit: int) -> AsyncIterator[list[Row]]:
        # ``instance`` is kept: its lock is used. Another name makes it no other.
        for some in state.portions(limit):
            if some:
                yield some
            await asyncio.sleep(0)
            now = self._newest(instance)
            if now is None or now.states.get(table) is not state:
                break

    async def put(self, name: str, table: str, rows: Any, *, whole: bool) -> None:
        """Put rows into a table, all or none; ``whole``: and have no others. EngineError: one
        cannot be, or there is no room."""
        with _told(name, table):
            given = _by_key(state_of(name, self._find(name), table), rows)
            if refused := await self._change(
                    name, table, lambda state: state.changing(given, whole)):
                raise _no_room(name, table, f"all {len(rows)} rows" if whole else repr(refused[0]))

    async def remove(self, name: str, table: str, key: str | None) -> bool:
        """Remove an entry, or all; -> was it there?"""
        with _told(name, table):
            if key is None:
                await self._change(name, table, lambda state: state.changing({}, True))
                return True
            return await self._change(name, table, lambda state: state.removing(key))

    async def _change(self, name: str, table: str, change: "Callable[[Any], Steps[T]]") -> T:
        instance = self._find(name)  # is kept: its lock is used
        state = state_of(name, instance, table)
        async with self._changing.setdefault(state, asyncio.Lock()):
            steps = change(state)
            sent = None
            while True:
                now = self._newest(instance)
                if now is None:
                    raise _went(name)
                if now.states.get(table) is not state:
                    raise EngineError(f"{name}: {table} has become another one meanwhile",
                                      "put the rows again")
                try:
                    work = steps.send(sent)
                except StopIteration as end:
                    done: T = end.value
                    return done
                sent = await self._beside(work) if work else None
                await asyncio.sleep(0)

    @staticmethod
    async def _beside(work: Callable[[], Any]) -> Any:
        try:
            return await aside(work, BUILD_SECONDS)
        except TimeoutError:
            raise EngineError(f"it took longer than {BUILD_SECONDS:.0f} seconds",
                              "put fewer rows") from None

    def _find(self, name: str) -> "Instance":
        if instance := self._find_one(name):
            return instance
        raise _went(name)

    def _newest(self, instance: "Instance") -> "Instance | None":
        """It, or newer code of it, whatever that is called now; None: they are gone."""
        while instance.heir:
            instance = instance.heir
        return instance if self._find_one(instance.name) is instance else None


def _went(name: str) -> NotThere:
    return NotThere(f"{name} is not there any more", "see `byway nf list`")


def _no_room(name: str, table: str, what: str) -> EngineError:
    return EngineError(f"{name}: {table} has no room for {what}",
                       "write fewer, remove entries, or give the table a larger capacity")


def _by_key(state: Any, rows: Any) -> dict[Any, Any]:
    """Rows as users write them: keys and values, or a list whose places are the keys. ValueError:
    a list, where keys are no numbers."""
    if isinstance(rows, Mapping):
        return dict(rows)
    declared = state.spec.get("key", "u32")
    key = declared if isinstance(declared, str) else ",".join(declared)
    if key not in ("u8", "u16", "u32", "u64"):
        raise ValueError(f'is given as a list, and its keys are {key}; write {{"KEY": VALUE, ...}}')
    return dict(enumerate(rows))


@contextlib.contextmanager
def _told(name: str, table: str) -> Iterator[None]:
    """What a table says to a key or value that cannot be becomes a refusal."""
    try:
        yield
    except (ValueError, TypeError) as error:
        problem, _, fix = str(error).rpartition("; ")
        raise NotValid(f"{name}: {table}: {problem or fix}",
                       fix if problem else f"see `byway nf show {name}`") from None
    except MemoryError:
        raise EngineError(f"{name}: {table}: the machine has no memory for so many rows",
                          "put fewer rows") from None
