# SPDX-License-Identifier: Apache-2.0
"""Instances of network functions by name: made, changed, replaced, and what is known of each.

Used by functions. Uses function_tables, byway.functions (their memory, loaded with the first of
them: most switches have none) and nf (their parameters). Belongs to the control thread; workers see
a new value of a parameter with their next frame.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byway.control.chains import Values
from byway.control.function_tables import fill, state_of
from byway.control.problem import EngineError, Problem
from byway.functions.blueprint import Blueprint
from byway.nf.parameters import from_description, values
from byway.nf.problem import ParameterError

if TYPE_CHECKING:
    from byway.functions.memory import Instance

Tables = tuple[tuple[str, str], ...]  # of a [[function]]: name and rows, in JSON


@dataclass
class _Held:
    """An instance, and what the configuration had filled into its tables."""

    instance: "Instance"
    tables: Tables = ()
    ports: tuple[str, ...] = ()  # that its parameters name


class Instances:
    """All of them. ``number``: of a port by its name, -1 where there is none; ``hz``: ticks a
    second of the time stamp counter."""

    def __init__(self, number: Callable[[str], int], hz: float) -> None:
        self._number = number
        self._hz = hz
        self._by_name: dict[str, _Held] = {}
        self._changed: set[str] = set()
        self._naming: dict[str, set[str]] = {}  # names of instances by the port they speak of
        self._of_code: dict[str, dict[str, dict[str, None]]] = {}  # names, by use and digest
        self._gone: list[_Held] = []  # without a name, by the change that is under way
        self._staying: list[_Held] = []  # by earlier ones, and still in chains
        self.on_close: Callable[[Any], None] = lambda state: None  # its memory is given back

    def __iter__(self) -> Iterator[str]:
        """Their names."""
        return iter(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> "Instance":
        """One that is there."""
        return self._by_name[name].instance

    def get(self, name: str) -> "Instance | None":
        """One that may be there."""
        held = self._by_name.get(name)
        return held.instance if held else None

    def changed(self) -> set[str]:
        """The names that have another instance, or none, or one with other parameters, since this
        was asked last."""
        found, self._changed = self._changed, set()
        return found

    def have(self, name: str, blueprint: Blueprint, given: Values, tables: Tables) -> "Instance":
        """The instance of this name, of this code, with these parameters, and these rows in its
        tables where they are others than before. EngineError: one of them cannot be, and all is as
        it was."""
        held = self._by_name.get(name)
        if held is None or not _is_of(held, blueprint):
            held = self._back(name, blueprint) or held
        try:
            if held is None or not _is_of(held, blueprint):
                self._replace(name, blueprint, given, tables)
            elif held.tables != tables or held.instance.given != given:
                self._change(name, held, given, tables)
        except ParameterError as error:
            raise EngineError(f"{name}: {error}", f"see `byway nf show {name}`") from None
        return self._by_name[name].instance

    def _make(self, name: str, blueprint: Blueprint, given: Values,
              rows: Mapping[str, Any]) -> "Instance":
        """A new one, with these rows in its tables; nobody knows it yet."""
        from byway.functions.memory import Instance, clock_of

        made = Instance(blueprint, given, self._number, clock_of(self._hz))
        try:
            for table, some in rows.items():
                fill(name, state_of(name, made, table), table, some)
        except EngineError:
            self._close(made.states.values())
            raise
        return made

    def _replace(self, name: str, blueprint: Blueprint, given: Values, tables: Tables) -> None:
        """Have a new instance take the name. Where it is newer code of the same function, it takes
        over the tables that are described as before; the others are filled as configured."""
        held = self._by_name.get(name)
        newer = held is not None and held.instance.blueprint.use == blueprint.use
        before: Tables = ()
        if held and newer:
            old = held.instance.blueprint.states
            before = tuple(one for one in held.tables
                           if old.get(one[0]) == blueprint.states.get(one[0]))
        rows = _other_rows(before, tables, blueprint)
        made = self._make(name, blueprint, given, rows)  # what cannot be is found out here
        if held and newer:
            made.carry(held.instance)
            for table in rows:
                if made.states[table] is held.instance.states.get(table):
                    fill(name, made.states[table], table, rows[table])
            held.instance.heir = made
        self.drop(name)
        self._give(name, _Held(made, tables))

    def _change(self, name: str, held: _Held, given: Values, tables: Tables) -> None:
        """Other parameters, or other rows in tables, for one that is there."""
        instance = held.instance
        rows = _other_rows(held.tables, tables, instance.blueprint)
        if rows and (len(rows) > 1 or instance.given != given):
            # Would all of it be possible? Then a part that is refused leaves no other part behind.
            self._close(self._make(name, instance.blueprint, given, rows).states.values())
        if instance.given != given:
            _set(instance, given)
            self._changed.add(name)
            self._note_ports(name)
        for table, some in rows.items():
            fill(name, state_of(name, instance, table), table, some)
        held.tables = tables

    def _back(self, name: str, blueprint: Blueprint) -> _Held | None:
        """One of this code whose name was just taken, in a change that was refused: it has it
        again."""
        for held in self._gone:
            one = held.instance
            if one.name == name and one.heir is None and _is_of(held, blueprint):
                self._gone.remove(held)
                self.drop(name)
                self._give(name, held)
                return held
        return None

    def drop(self, name: str) -> None:
        """It has no name any more, and goes with ``let_go``; it may be gone already."""
        if held := self._take_away(name):
            self._gone.append(held)

    def rename(self, names: Mapping[str, str]) -> None:
        """Some have other names; who had one of those gets one that became free."""
        others = [name for name in names.values() if name not in names]
        free = [name for name in names if name not in names.values()]
        every = {**names, **dict(zip(others, free, strict=True))}
        held = {other: one for name, other in every.items() if (one := self._take_away(name))}
        for name, one in held.items():
            for state in one.instance.states.values():
                self.on_close(state)  # who listens to it knows it by another name
            self._give(name, one)
        for one in self._gone:
            one.instance.name = every.get(one.instance.name, one.instance.name)

    def _give(self, name: str, held: _Held) -> None:
        """It has this name from now on."""
        self._by_name[name] = held
        held.instance.name = name
        self._changed.add(name)
        code = held.instance.blueprint
        self._of_code.setdefault(code.use, {}).setdefault(code.digest, {})[name] = None
        self._note_ports(name)

    def _take_away(self, name: str) -> _Held | None:
        """Nothing has this name any more; -> what had it."""
        held = self._by_name.pop(name, None)
        if held:
            self._changed.add(name)
            self._forget_ports(name, held)
            code = held.instance.blueprint
            codes = self._of_code[code.use]
            del codes[code.digest][name]
            if not codes[code.digest]:
                del codes[code.digest]
            if not codes:
                del self._of_code[code.use]
        return held

    def _close(self, states: Iterable[Any]) -> None:
        for state in states:
            self.on_close(state)
            state.close()

    def let_go(self, in_chain: "Callable[[Instance], bool]", settle: Callable[[], None]) -> None:
        """No change brings back what has no name any more: add what it counted to its heir, and
        give back its memory, as soon as it is in no chain and no worker is in it. What is in one
        waits, and so does its heir, which may have its states."""
        going: list[_Held] = []
        left, self._staying, self._gone = [*self._staying, *self._gone], [], []
        in_use: set[Instance | None] = set()
        for held in left:  # the older ones first
            if in_chain(held.instance) or held.instance in in_use:
                self._staying.append(held)
                in_use.add(held.instance.heir)
            else:
                going.append(held)
        if going:
            settle()
        for old in (held.instance for held in going):
            if old.heir:
                old.heir.add_counts(old)
            self._close(state for name, state in old.states.items()
                        if old.heir is None or old.heir.states.get(name) is not state)

    def renumber(self, port: str) -> None:
        """A port has come or gone: parameters that name it have another number."""
        for name in self._naming.get(port, ()):
            self._by_name[name].instance.renumber()

    def _note_ports(self, name: str) -> None:
        """Which ports the parameters of an instance name."""
        held = self._by_name[name]
        self._forget_ports(name, held)
        declared = held.instance.blueprint.parameters
        held.ports = tuple({str(value) for parameter, value in held.instance.parameters.items()
                            if value and declared[parameter]["kind"] == "port"})
        for port in held.ports:
            self._naming.setdefault(port, set()).add(name)

    def _forget_ports(self, name: str, held: _Held) -> None:
        for port in held.ports:
            self._naming[port].discard(name)
            if not self._naming[port]:
                del self._naming[port]
        held.ports = ()

    def expire(self) -> None:
        """Have tables give back the memory of what has aged out."""
        for held in self._by_name.values():
            for state in held.instance.states.values():
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
        for use, new in blueprints.items():
            for digest, names in self._of_code.get(use, {}).items():
                for name in names if digest != new.digest else ():
                    yield from self._outgrown(name, new)

    def _outgrown(self, name: str, new: Blueprint) -> Iterator[Problem]:
        held = self._by_name[name]
        yield from self.check(name, new, held.instance.given)
        for table in dict(held.tables).keys() - new.states.keys():
            yield Problem(name, f'its new code has no table "{table}"',
                          "take the table out of its [[function]] first")


def _is_of(held: _Held, blueprint: Blueprint) -> bool:
    """Is it an instance of this very code?"""
    its = held.instance.blueprint
    return (its.use, its.digest) == (blueprint.use, blueprint.digest)


def _other_rows(before: Tables, after: Tables, blueprint: Blueprint) -> dict[str, Any]:
    """Tables that the configuration fills with other rows than before, with these; those that it
    does not fill any more, with none."""
    old, new = dict(before), dict(after)
    return {**{table: {} for table in old if table not in new and table in blueprint.states},
            **{table: json.loads(text) for table, text in after if old.get(table) != text}}


def _set(instance: "Instance", given: Values) -> None:
    """Have these parameters, and the defaults of all others."""
    before, instance.given = instance.given, {}
    try:
        instance.set(given)
    except ParameterError:
        instance.given = before
        raise
