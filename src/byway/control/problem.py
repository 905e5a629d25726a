# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a configuration, in words: the key, the problem, the fix.

Used by model, config, the engine and the API. A pydantic error says what a program expects; here
it becomes what a user did and can do about it, with the nearest known word where one was mistyped.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from byway.nf.problem import nearest as nearest

_EXAMPLES = {
    "name": 'add one, such as name = "blue"',
    "network": "name the network that it belongs to",
    "address": 'add one, such as address = "192.0.2.1"',
    "mac": 'add one, such as mac = "02:00:00:00:00:01"',
    "host": "name the host that it is behind",
    "direction": 'write direction = "ingress" (to the guest) or "egress" (from it)',
    "etcd": 'add one, such as etcd = ["10.0.0.9:2379"]',
    "socket": 'add the path of a Unix socket, such as socket = "/tmp/vm1.sock"',
}
_WANTED = {
    "int_type": "a whole number",
    "string_type": "a string in double quotes",
    "tuple_type": "a list in square brackets",
    "bool_type": "true or false",
    "model_type": "a table of keys",
}
_KINDS_OF_VALUE = {bool: "a boolean", int: "a whole number", float: "a fraction", str: "a string",
                   list: "a list", dict: "a table"}


@dataclass(frozen=True)
class Problem:
    """One thing to mend. `key` is a path such as 'port[1] "vm1": socket', `file` may be empty."""

    key: str
    problem: str
    fix: str
    file: str = ""

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.key) if part)
        return f"{where}: {self.problem}; {self.fix}"


class ConfigError(Exception):
    """A configuration that cannot be used: every problem that was found in it."""

    def __init__(self, problems: Sequence[Problem], file: str = "") -> None:
        self.problems = tuple(replace(p, file=file) if file else p for p in problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class EngineError(Exception):
    """A change that the engine refused: the problem and what to do about it."""

    def __init__(self, problem: str, fix: str) -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}; {fix}")


class NotThere(EngineError):
    """What is asked for, or to be changed, is not there."""


class NotValid(EngineError):
    """What was given cannot be, however things stand."""


def wrong(problem: str, fix: str) -> PydanticCustomError:
    """What a validator raises: the problem, said of the value, and the fix, said to the user."""
    return PydanticCustomError("byway", "{problem}; {fix}", {"problem": problem, "fix": fix})


def shown(value: object) -> str:
    """A value as the user may have written it, cut to one short line, for messages."""
    text = json.dumps(value, default=str, ensure_ascii=half_character(value) is not None)
    return text if len(text) <= 60 else text[:57] + "..."


def half_character(value: object) -> str | None:
    """The first text in a value, however deep, that no UTF-8 can say: one half of a surrogate pair
    stands in it (RFC 8259, 8.2); None: there is none."""
    ahead: list[object] = [value]
    while ahead:
        one = ahead.pop()
        if isinstance(one, str):
            try:
                one.encode()
            except UnicodeEncodeError:
                return one
        elif isinstance(one, dict):
            ahead += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            ahead += one
    return None


def kind_of_value(value: object) -> str:
    """What a TOML or JSON value is, in words."""
    if value is None:
        return "null"
    return _KINDS_OF_VALUE.get(type(value), f"a {type(value).__name__}")


def from_validation(
    error: ValidationError, model: type[BaseModel], what: str, where: str
) -> list[Problem]:
    """The problems of one table, `where`, that should have been `model`, `what` in words."""
    return [_one(dict(found), model, what, where) for found in error.errors(include_url=False)]


def _one(found: dict[str, Any], model: type[BaseModel], what: str, where: str) -> Problem:
    key = ": ".join(part for part in (where, _key_path(found["loc"])) if part)
    kind, value, context = found["type"], found["input"], found.get("ctx", {})
    if kind == "byway":
        return Problem(key, context["problem"], context["fix"])
    if kind == "extra_forbidden":
        *path, word = found["loc"]
        keys = list(_table(model, path).model_fields)
        fix = nearest(str(word), keys) or f"the keys are: {', '.join(keys)}"
        return Problem(key, f"{_key_path(path) or what} has no such key", fix)
    if kind == "missing":
        name = str(found["loc"][-1])
        return Problem(key, "is missing", _EXAMPLES.get(name, "add it"))
    if kind == "greater_than_equal":
        return Problem(key, f"is {value}", f"write {context['ge']} or more")
    if kind == "less_than_equal":
        return Problem(key, f"is {value}", f"write {context['le']} or less")
    if kind == "literal_error":
        choice = str(context["expected"]).replace("'", '"')
        return Problem(key, f"is {shown(value)}", f"write {choice}")
    if kind in _WANTED:
        return Problem(key, f"is {shown(value)} ({kind_of_value(value)})", f"write {_WANTED[kind]}")
    return Problem(key, f"is {shown(value)}", str(found["msg"]))


def _table(model: type[BaseModel], path: Iterable[int | str]) -> type[BaseModel]:
    """The model of the table that stands at ``path`` in one of ``model``."""
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = next(_models(model.model_fields[step].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type such as ``tuple[Route, ...]`` or ``Limit | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _key_path(location: Sequence[int | str]) -> str:
    """('workers', 0) -> 'workers[1]': places are counted from 1, as a reader counts."""
    text = ""
    for step in location:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text
