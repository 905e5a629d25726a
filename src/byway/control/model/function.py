# SPDX-License-Identifier: Apache-2.0
"""Network functions that have a name, and the values that ports, networks and functions have for
them.

Used through byway.control.model. Uses base, chains and the values. Which parameters and tables a
function has only its code says: functions.py checks them when it is built.
"""

import json
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, StrictStr, WithJsonSchema

from byway.control.chains import BUILT_IN, MAX_STEPS, Step, checked_use, file_of, parse_step
from byway.control.model.base import Model
from byway.control.problem import shown, wrong
from byway.control.values import Name

Pairs: TypeAlias = tuple[tuple[str, Any], ...]


def _chain(value: tuple[str, ...]) -> tuple[str, ...]:
    for written in value:
        parse_step(written)
    if len(value) > MAX_STEPS:
        raise wrong(f"names {len(value)} functions", f"write {MAX_STEPS} or fewer")
    names = [written for written in value if parse_step(written).name]
    for name in names:
        if names.count(name) > 1:
            raise wrong(f"names {shown(name)} twice", "name it once")
    return value


def _name(value: str) -> str:
    if value.startswith(BUILT_IN):
        raise wrong(f"{shown(value)} is the name of what is built in", "take another name")
    if file_of(value):
        raise wrong(f"{shown(value)} is the name of a file", "take one that does not end in .py:"
                    " chains are to name it")
    return value


def _parameters(value: object) -> Pairs:
    """{"limit": 50} -> (("limit", 50),)."""
    if not isinstance(value, dict):
        raise wrong(f"is {shown(value)}", "write a table of names and values: { limit = 50 }")
    for name, one in value.items():
        if not isinstance(one, bool | int | float | str):
            raise wrong(f"{name} is {shown(one)}", "write a number, a text, true or false")
    return tuple(value.items())


def _tables(value: object) -> Pairs:
    """{"routes": {...}} -> (("routes", JSON),): as text it can be compared and is frozen."""
    if not isinstance(value, dict):
        raise wrong(f"is {shown(value)}",
                    'write a table of tables: { routes = { "10.0.0.0/8" = 1 } }')
    found = []
    for name, rows in value.items():
        if not isinstance(rows, dict | list):
            raise wrong(f"{name} is {shown(rows)}", "write keys with values, or a list of rows")
        try:
            found.append((str(name), json.dumps(rows)))
        except (TypeError, ValueError, RecursionError):
            raise wrong(f"{name} has a value that is no number and no text",
                        "write numbers, texts, true and false") from None
    return tuple(found)


def _written(value: Pairs) -> dict[str, Any]:
    return dict(value)


def _tables_written(value: Pairs) -> dict[str, Any]:
    return {name: json.loads(rows) for name, rows in value}


Chain: TypeAlias = Annotated[tuple[StrictStr, ...], AfterValidator(_chain)]
Use: TypeAlias = Annotated[StrictStr, AfterValidator(checked_use)]
Parameters: TypeAlias = Annotated[
    tuple[tuple[str, Any], ...], BeforeValidator(_parameters), PlainSerializer(_written),
    WithJsonSchema({"type": "object", "additionalProperties": {
        "type": ["boolean", "number", "string"]}})]
Tables: TypeAlias = Annotated[
    tuple[tuple[str, str], ...], BeforeValidator(_tables), PlainSerializer(_tables_written),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["object", "array"]}})]


class FunctionConfig(Model):
    """A network function with a name: one instance, wherever it stands in chains. `use`: its code,
    a class of a file or one that is built in. `tables`: what is in its tables."""

    name: Annotated[Name, AfterValidator(_name)]
    use: Use
    parameters: Parameters = ()
    tables: Tables = ()

    @property
    def rows(self) -> dict[str, Any]:
        """What is in its tables, by their names."""
        return _tables_written(self.tables)


def steps(chain: tuple[str, ...]) -> list[Step]:
    """The functions of a chain that is valid, in order."""
    return [parse_step(written) for written in chain]
