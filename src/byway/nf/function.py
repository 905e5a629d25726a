# SPDX-License-Identifier: Apache-2.0
"""nf.function: makes a class a network function, and knows what it declares.

Part of the author's page. Used by authors, by plain.py and by byway.functions, which translates
the class's methods. Uses parameters.py, state.py, problem.py.

What stands in the class:

    limit: int = 100           a parameter (parameters.py)
    table = nf.Map(...)        a state (states.py); each instance has its own
    budget = 5000              loop rounds and calls that a frame may take (default: 1000)
    SYN = 2                    a constant: an int, bool, text, or a tuple of ints
    def process(self, frame)   the function, for frames of both directions; or
    def rx(self, frame)        ... for frames that come from the port, and
    def tx(self, frame)        ... for frames that go to it
    def other(self, x)         what these call
    async def listen(session)  a static method, run in a process of its own: receives events
"""

import ast
import functools
import inspect
import linecache
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from byway.nf.addresses import IPv4, IPv6, Mac, Prefix4, Prefix6, Seconds
from byway.nf.parameters import REQUIRED, Parameter, parameter, values
from byway.nf.problem import FunctionError, ParameterError, Problem
from byway.nf.state import State

BUDGET, MOST = 1000, 1_000_000  # loop rounds and calls: as a rule, and at the most
ENTRIES = ("process", "rx", "tx")
LISTENER = "listen"
_MARK = "__byway_function__"
_CONSTANTS = (int, str, IPv4, IPv6, Mac, Seconds, Prefix4, Prefix6)
T = TypeVar("T")


@dataclass(frozen=True)
class Definition:
    """What an author's class declares. ``entries``: which of process, rx, tx it has."""

    cls: type
    name: str
    summary: str
    file: str
    line: int
    parameters: tuple[Parameter, ...]
    states: dict[str, State]
    methods: dict[str, types.FunctionType]
    constants: dict[str, Any]
    entries: tuple[str, ...]
    budget: int
    listener: bool

    def parameter(self, name: str) -> Parameter:
        """Its parameter of this name. Raises KeyError."""
        return next(each for each in self.parameters if each.name == name)


def definition(cls: type) -> Definition:
    """What a class with @nf.function declares. Raises FunctionError where it is none."""
    found: Definition | None = vars(cls).get(_MARK)
    if found is None:
        raise FunctionError([Problem(
            _file(cls), 0, f"{cls.__name__} is no network function",
            "write @nf.function above the class")])
    return found


def is_function(thing: object) -> bool:
    """Is it a class with @nf.function?"""
    return isinstance(thing, type) and _MARK in vars(thing)


@typing.dataclass_transform(kw_only_default=True)
def function(cls: type[T]) -> type[T]:
    """Make a class a network function. Raises FunctionError, which names all that it declares
    wrongly, with file and line."""
    made = _Reader(cls).definition()
    setattr(cls, _MARK, made)

    def start(self: Any, **given: Any) -> None:
        for name, value in values(made.parameters, given).items():
            setattr(self, name, value)
        for name, state in made.states.items():
            setattr(self, name, state.fresh(self))

    start.__doc__ = "An instance of the function, in plain Python. Raises ParameterError."
    setattr(cls, "__init__", start)  # noqa: B010  (mypy refuses the plain assignment)
    return cls


def _file(cls: type) -> str:
    for each in vars(cls).values():
        if isinstance(each, types.FunctionType):
            return each.__code__.co_filename
    try:
        return inspect.getfile(cls)
    except (TypeError, OSError):
        return cls.__module__


class _Reader:
    """Reads a class, and gathers what is wrong with it."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.file = _file(cls)
        self.node = _class_node(cls, self.file)
        self.problems: list[Problem] = []

    def problem(self, name: str, message: str, fix: str) -> None:
        self.problems.append(Problem(self.file, self._line(name), message, fix))

    def _line(self, name: str) -> int:
        """Where the class says ``name`` (its own line: name "")."""
        if self.node is None:
            return 0
        for statement in self.node.body if name else ():
            targets: list[ast.expr] = []
            if isinstance(statement, ast.Assign):
                targets = statement.targets
            elif isinstance(statement, ast.AnnAssign):
                targets = [statement.target]
            elif isinstance(statement, ast.FunctionDef) and statement.name == name:
                return statement.lineno
            if any(isinstance(each, ast.Name) and each.id == name for each in targets):
                return statement.lineno
        return self.node.lineno

    def definition(self) -> Definition:
        """What the class declares. Raises FunctionError."""
        cls = self.cls
        if cls.__bases__ != (object,):
            self.problem("", f"{cls.__name__} is derived from another class",
                         "write all that the function is in one class")
        parameters = self._parameters()
        names = {each.name for each in parameters}
        states: dict[str, State] = {}
        methods: dict[str, types.FunctionType] = {}
        constants: dict[str, Any] = {}
        for name, value in vars(cls).items():
            if name.startswith("__") or name in names or name == "budget":
                continue
            if isinstance(value, State):
                states[name] = value
            elif name == LISTENER or inspect.iscoroutinefunction(value):
                continue  # runs beside the switch, in Python
            elif isinstance(value, types.FunctionType):
                methods[name] = value
            elif _is_constant(value):
                constants[name] = value
            elif name not in vars(cls).get("__annotations__", {}):
                self.problem(name, f"{name} is of type {type(value).__name__}, which a "
                             "function cannot have", "declare a parameter (name: type = "
                             "default), a state (nf.Map(...)), a constant number or a method")
        entries = self._entries(methods)
        budget = self._budget()
        if self.problems:
            raise FunctionError(sorted(self.problems, key=lambda each: each.line))
        doc = inspect.getdoc(cls) or ""
        return Definition(
            cls, cls.__name__, doc.split("\n")[0], self.file, self._line(""), tuple(parameters),
            states, methods, constants, entries, budget,
            LISTENER in vars(cls))

    def _parameters(self) -> list[Parameter]:
        made = []
        try:
            hints = typing.get_type_hints(self.cls, include_extras=True)
        except NameError as error:
            self.problem("", f"a type is not known ({error})", "import it")
            hints = {}
        for name, annotation in hints.items():
            if typing.get_origin(annotation) is typing.ClassVar:
                continue
            default = vars(self.cls).get(name, REQUIRED)
            if name in ("budget", *ENTRIES) or name.startswith("_"):
                self.problem(name, f"a parameter cannot be called {name}", "give it another name")
                continue
            if isinstance(default, State):
                self.problem(name, f"{name} is a state, with the type of a parameter",
                             f"write {name} = ... without a type")
                continue
            try:
                made.append(parameter(name, annotation, default))
            except ParameterError as error:
                self.problem(name, str(error).partition("; ")[0], str(error).partition("; ")[2])
            except TypeError:
                self.problem(
                    name, f"parameter {name} cannot be of type {_shown(annotation)}",
                    'write int, bool, Literal["a", "b"], nf.IPv4, nf.IPv6, nf.Mac, nf.Prefix4, '
                    "nf.Prefix6, nf.Seconds, nf.Port, or Annotated[int, nf.Range(1, 100)]")
        return made

    def _entries(self, methods: dict[str, types.FunctionType]) -> tuple[str, ...]:
        entries = tuple(name for name in ENTRIES if name in methods)
        if not entries:
            self.problem("", f"{self.cls.__name__} has no method for frames",
                         "write def process(self, frame), or rx(self, frame) and tx(self, frame)")
        if "process" in entries and len(entries) > 1:
            self.problem(entries[1], f"{self.cls.__name__} has process and {entries[1]}",
                         "write process, or rx and tx")
        for name in entries:
            code = methods[name].__code__
            if code.co_argcount != 2 or code.co_kwonlyargcount or code.co_flags & (
                    inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
                self.problem(name, f"{name} must take the frame and nothing else",
                             f"write def {name}(self, frame)")
        return entries

    def _budget(self) -> int:
        budget = vars(self.cls).get("budget", BUDGET)
        if isinstance(budget, bool) or not isinstance(budget, int) or not 1 <= budget <= MOST:
            self.problem("budget", f"budget is {budget!r}, which is no number of loop rounds",
                         f"write a number from 1 to {MOST}")
            return BUDGET
        return budget


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(each, int) for each in value)
    return isinstance(value, _CONSTANTS)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def source_tree(file: str) -> ast.Module | None:
    """The syntax tree of an author's file; None where there is no source (a shell's input)."""
    linecache.checkcache(file)
    text = "".join(linecache.getlines(file))
    return _parsed(text, file) if text else None


@functools.lru_cache(maxsize=8)
def _parsed(text: str, file: str) -> ast.Module:
    return ast.parse(text, file)


def function_node(code: types.CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The definition that a method's or function's code was compiled from."""
    tree = source_tree(code.co_filename)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first == code.co_firstlineno:
                return node
    return None


def _class_node(cls: type, file: str) -> ast.ClassDef | None:
    """The class's definition: the one of its name that holds its methods."""
    lines = {each.__code__.co_firstlineno for each in vars(cls).values()
             if isinstance(each, types.FunctionType)}
    tree = source_tree(file)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
             and node.name == cls.__name__] if tree else []
    for node in found:
        if all(node.lineno <= line <= (node.end_lineno or 0) for line in lines):
            return node
    return None
