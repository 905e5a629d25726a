# SPDX-License-Identifier: Apache-2.0
"""Instances of network functions by name: made, changed, replaced, and what is known of each.

Used by functions. Uses byway.functions (their memory, loaded with the first of them: most switches
have none) and nf (their parameters). Belongs to the control thread; workers see a new value of a
parameter with their next frame.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from byway.control.chains import Values
from byway.control.problem import EngineError, Problem
from byway.functions.blueprint import Blueprint
from byway.nf.parameters import from_description, values
from byway.nf.problem import ParameterError

if TYPE_CHECKING:
    from byway.functions.memory import Instance

Tables = tuple[tuple[str, str], ...]  # of a [[function]]: name and rows, in JSON


class Instances:
    """All of them. ``number``: of a port by its name, -1 where there is none; ``hz``: ticks a
    second of the time stamp counter."""

    def __init__(self, number: Callable[[str], int], hz: float) -> None:
        self._number = number
        self._hz = hz
        self._by_name: dict[str, "Instance"] = {}
        self._given: dict[str, Values] = {}
        self._tables: dict[str, Tables] = {}
        self._naming: dict[str, set[str]] = {}  # names of instances by the port they speak of
        self._gone: list["Instance"] = []  # others have taken their names
        self.on_close: Callable[[Any], None] = lambda state: None  # its memory is given back
        self._replaced: list[tuple["Instance", "Instance"]] = []  # new, old: to be added up

    def __iter__(self) -> Iterator[str]:
        """Their names."""
        return iter(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> "Instance":
        """One that is there."""
        return self._by_name[name]

    def have(self, name: str, blueprint: Blueprint, given: Values, tables: Tables) -> "Instance":
        """The instance of this name, of this code, with these parameters, and these rows in its
        tables where they are others than before. EngineError: one of them cannot be."""
        from byway.functions.memory import Instance, clock_of

        old = self._by_name.get(name)
        code = blueprint.use, blueprint.digest
        try:
            if old is None or (old.blueprint.use, old.blueprint.digest) != code:
                made = Instance(blueprint, given, self._number, clock_of(self._hz))
                if old and old.blueprint.use == blueprint.use:
                    made.carry(old)
                    self._replaced.append((made, old))
                else:
                    self._tables.pop(name, None)
                    self._gone += [old] if old else []
                self._by_name[name] = made
            elif self._given[name] != given:
                _set(old, given)
        except ParameterError as error:
            raise EngineError(f"{name}: {error}", f"see `byway nf show {name}`") from None
        if self._given.get(name) != given or old is not self._by_name[name]:
            self._given[name] = dict(given)
            self._note_ports(name)
        self._fill(name, tables)
        return self._by_name[name]

    def _fill(self, name: str, tables: Tables) -> None:
        """Have the tables hold what the configuration says, where it says something new."""
        before = dict(self._tables.get(name, ()))
        for table, rows in tables:
            if before.get(table) != rows:
                self.fill(name, table, json.loads(rows))
        self._tables[name] = tables

    def drop(self, name: str) -> None:
        """It is wanted no longer, and no worker is in it; it may be gone already."""
        if name in self._by_name:
            self._forget_ports(name)
            self._close(self._by_name.pop(name).states.values())
            self._given.pop(name, None)
            self._tables.pop(name, None)

    def _close(self, states: Iterable[Any]) -> None:
        for state in states:
            self.on_close(state)
            state.close()

    @property
    def leaving(self) -> bool:
        """Are there instances whose place was taken, and that are not added up yet?"""
        return bool(self._replaced or self._gone)

    def add_up(self) -> None:
        """No worker is in what was replaced: add what it counted, give back its memory."""
        for one in self._gone:
            self._close(one.states.values())
        self._gone.clear()
        for new, old in self._replaced:
            new.add_counts(old)
            self._close(state for name, state in old.states.items()
                        if new.states.get(name) is not state)
        self._replaced.clear()

    def renumber(self, port: str) -> None:
        """A port has come or gone: parameters that name it have another number."""
        for name in self._naming.get(port, ()):
            self._by_name[name].renumber()

    def _note_ports(self, name: str) -> None:
        """Which ports the parameters of an instance name."""
        self._forget_ports(name)
        instance = self._by_name[name]
        for parameter, value in instance.parameters.items():
            if value and instance.blueprint.parameters[parameter]["kind"] == "port":
                self._naming.setdefault(str(value), set()).add(name)

    def _forget_ports(self, name: str) -> None:
        for port, names in list(self._naming.items()):
            names.discard(name)
            if not names:
                del self._naming[port]

    def expire(self) -> None:
        """Have tables give back the memory of what has aged out."""
        for instance in self._by_name.values():
            for state in instance.states.values():
                state.expire()

    def check(self, where: str, blueprint: Blueprint, given: Values) -> Iterator[Problem]:
        """What is wrong with parameters."""
        try:
            values([from_description(name, one) for name, one in blueprint.parameters.items()],
                   dict(given))
        except ParameterError as error:
            problem, _, fix = str(error).rpartition("; ")
            yield Problem(where, problem or fix, fix)

    def outgrown(self, blueprints: Mapping[str, Blueprint]) -> Iterator[Problem]:
        """What is wrong with the parameters that instances have, for code that is to take the place
        of theirs."""
        for name, instance in self._by_name.items():
            new = blueprints.get(instance.blueprint.use)
            if new and new.digest != instance.blueprint.digest:
                yield from self.check(name, new, self._given[name])

    # ------------------------------------------------------------ tables
    def state(self, name: str, table: str) -> Any:
        """A table of an instance. EngineError: it has none of that name, or it is none."""
        states = self._by_name[name].states
        if table not in states:
            known = ", ".join(states) or "none"
            raise EngineError(f'{name} has no table "{table}"', f"its tables are: {known}")
        return states[table]

    def fill(self, name: str, table: str, rows: Any) -> None:
        """Have a table hold these rows only: {key: value}. EngineError: it cannot."""
        state = self.state(name, table)
        with _told(name, table):
            if not state.fill(dict(_pairs(rows))):
                raise EngineError(f"{name}: {table} has no room for all {len(rows)} rows",
                                  "write fewer, or give the table a larger capacity")

    def put(self, name: str, table: str, rows: Any) -> None:
        """Have a table hold these rows as well. EngineError: it has no room for some; the others
        are there."""
        state = self.state(name, table)
        with _told(name, table):
            if refused := state.put_all(dict(_pairs(rows))):
                raise EngineError(f"{name}: {table} has no room for {refused[0]!r}",
                                  "remove entries, or give the table a larger capacity")

    def remove(self, name: str, table: str, key: str | None) -> bool:
        """Remove an entry, or all; -> was it there?"""
        state = self.state(name, table)
        with _told(name, table):
            if key is None:
                state.clear()
                return True
            return bool(state.remove(key))


def _set(instance: "Instance", given: Values) -> None:
    """Have these parameters, and the defaults of all others."""
    before, instance.given = instance.given, {}
    try:
        instance.set(given)
    except ParameterError:
        instance.given = before
        raise


def _pairs(rows: Any) -> list[tuple[Any, Any]]:
    """Rows as users write them: a table of keys and values, or a list whose places are the keys."""
    return list(rows.items()) if isinstance(rows, Mapping) else list(enumerate(rows))


@contextlib.contextmanager
def _told(name: str, table: str) -> Iterator[None]:
    """What a table says to a key or value that cannot be becomes a refusal."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise EngineError(f"{name}: {table}: {error}", f"see `byway nf show {name}`") from None
