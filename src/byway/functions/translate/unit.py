# SPDX-License-Identifier: Apache-2.0
"""One kernel in the making: its lines, its variables, and what it does.

Used by the parts of translate, which add lines to it. Uses values.py and refused.py.
"""

import ast
import contextlib
import dataclasses
import re
import types
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from byway.functions.instance import BUDGET, LINE_BITS, I
from byway.functions.translate.refused import Refused
from byway.functions.translate.values import UNKNOWN, Value, whole

if TYPE_CHECKING:
    from byway.functions.translate.world import World

FILE_SHIFT = LINE_BITS  # a fault's place: the line, and above it which of the function's files


@dataclasses.dataclass
class Unit:
    """``function``: the author's, as Python has it (for the names that it sees). ``node``: its
    source. ``rounds``: how many rounds its loops and calls take at the most (None: nobody knows).
    ``size``: lines of the kernels that become part of this one."""

    world: "World"
    function: types.FunctionType
    node: ast.FunctionDef
    lines: list[str] = dataclasses.field(default_factory=list)
    depth: int = 1
    temps: int = 0
    variables: dict[str, Value] = dataclasses.field(default_factory=dict)
    assigned: set[str] = dataclasses.field(default_factory=set)
    result: Value | None = None
    rounds: int | None = 0
    size: int = 0
    faulty: bool = False
    reshapes: bool = False
    views: set[str] = dataclasses.field(default_factory=set)  # names that hold a view's word
    counts: bool = False  # is a call of it a round? Where it has loops, or calls

    # ------------------------------------------------------------ lines
    def emit(self, line: str) -> None:
        """Add a line."""
        self.lines.append("    " * self.depth + line)

    @contextlib.contextmanager
    def block(self, line: str) -> Iterator[None]:
        """Add a line, and what follows below it."""
        self.emit(line)
        before = len(self.lines)
        self.depth += 1
        try:
            yield
        finally:
            if len(self.lines) == before:
                self.emit("pass")
            self.depth -= 1

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[str]]:
        """Keep the lines that are added in a list of their own."""
        kept, self.lines = self.lines, []
        try:
            yield self.lines
        finally:
            self.lines = kept

    def paste(self, lines: Sequence[str], deeper: int = 0) -> None:
        """Add lines that were kept, so much deeper than where they were made."""
        self.lines += ["    " * deeper + line for line in lines]

    def temp(self) -> str:
        """A name that nobody has."""
        self.temps += 1
        return f"t{self.temps}"

    def use(self, module: str, name: str) -> str:
        """A name from another module, which the kernel's source will import."""
        return self.world.use(module, name)

    # ------------------------------------------------------------ values
    def value(self, node: ast.expr) -> Value:
        """What an expression is; adds the lines that must come before it."""
        return self.world.value(self, node)

    def test(self, node: ast.expr) -> str:
        """An expression as a condition."""
        return self.world.test(self, node)

    def number(self, node: ast.expr, what: str) -> Value:
        """An expression as an int64."""
        return whole(self.value(node), node, what)

    def in_order(self, nodes: Sequence[ast.expr]) -> list[Value]:
        """Several expressions, each computed before what the next one does."""
        parts = []
        for node in nodes:
            with self.capture() as lines:
                value = self.value(node)
                if value.kind == "view" and not value.everywhere:
                    value = self.settle(value)  # what comes next may change the frame's shape
            parts.append((lines, value))
        last = max((k for k, (lines, _) in enumerate(parts) if lines), default=-1)
        values = []
        for k, (lines, value) in enumerate(parts):
            self.lines += lines
            values.append(self.settle(value) if k < last else value)
        return values

    def joined(self, parts: Sequence[tuple[list[str], str]], word: str) -> str:
        """Conditions, each with the lines that must come before it, joined by "and" or "or": one
        after the other, as far as it must go."""
        if not any(lines for lines, _ in parts[1:]):
            self.lines += parts[0][0]
            return "(" + f" {word} ".join(code for _, code in parts) + ")"
        made, depth = self.temp(), self.depth
        self.emit(f"{made} = {int(word == 'or')}")
        for k, (lines, code) in enumerate(parts):
            self.paste(lines, k)
            self.emit(f"if {code}:" if word == "and" else f"if not {code}:")
            self.depth += 1
        self.emit(f"{made} = {int(word == 'and')}")
        self.depth = depth
        return f"({made} != 0)"

    def settle(self, value: Value) -> Value:
        """The value as it is now, whatever happens later."""
        if value.settled or value.kind in ("text", "tuple", "object", "state", "self", "unknown"):
            return value
        name = self.temp()
        return self.assign(name, f"h{name}", value)

    def assign(self, name: str, high: str, value: Value) -> Value:
        """Give a value a name (the high word of a wide one: ``high``)."""
        code = f"int({value.code})" if value.test else value.code
        if re.search(rf"\b{name}\b", value.high):  # read before the low word is written
            kept = self.temp()
            self.emit(f"{kept} = {value.high}")
            value = dataclasses.replace(value, high=kept)
        self.emit(f"{name} = {code}")
        if value.kind == "view":
            self.views.add(name)
        if value.high:
            self.emit(f"{high} = {value.high}")
        return dataclasses.replace(value, code=name, high=high if value.high else "", test=False)

    # ------------------------------------------------------------ faults
    def fault(self, node: ast.AST, kind: int) -> None:
        """Add the lines that end the function here with a fault."""
        store = self.use("byway.machine.mem", "st64")
        self.emit(f"{store}(self + {I.fault}, {self._fault_word(node, kind)})")
        self.emit("return 0")

    def _fault_word(self, node: ast.AST, kind: int,
                    function: types.FunctionType | None = None) -> int:
        """What is noted of a fault: its kind and place (``function``: what that is in)."""
        self.faulty = True
        file = self.world.file_number(function or self.function)
        return kind << 32 | file << FILE_SHIFT | getattr(node, "lineno", 0)

    def spend(self, node: ast.AST, function: types.FunctionType | None = None) -> None:
        """Add the lines that take a round from the budget, where rounds are counted. ``node``: the
        loop, or (in ``function``) what is called."""
        if self.world.counting:
            spent = self.use("byway.functions.budget", "spent")
            with self.block(f"if {spent}(self, {self._fault_word(node, BUDGET, function)}):"):
                self.emit("return 0")

    def check_fault(self) -> None:
        """Add the lines that end the function where something that it called went wrong."""
        self.faulty = True
        load = self.use("byway.machine.mem", "ld64")
        with self.block(f"if {load}(self + {I.fault}) != 0:"):
            self.emit("return 0")

    # ------------------------------------------------------------ names
    def local(self, node: ast.Name) -> Value | None:
        """The variable of this name; None: it is none. Refused where it may have no value yet."""
        if node.id not in self.variables:
            if node.id in self.world.assigned_names(self.node):
                raise Refused(node, f"{node.id} has no value yet here",
                              f"give it one before, on every way that leads here: {node.id} = 0")
            return None
        if node.id not in self.assigned:
            raise Refused(node, f"{node.id} may have no value here",
                          f"give it one before, on every way that leads here: {node.id} = 0")
        return self.variables[node.id]

    def bind(self, node: ast.AST, name: str, value: Value) -> None:
        """Assign a value to a variable. Refused where it was something else before."""
        if value.kind == "flow":
            raise Refused(node, f"{name} would be a flow", "write frame.flow where the key is")
        if value.kind in ("text", "tuple", "object", "self", "none", "state", "prefix", "choice"):
            raise Refused(node, f"{name} would be {value.shown}",
                          "assign numbers, addresses, records or verdicts")
        known = self.variables.get(name)
        if known is not None and "unknown" not in (known.kind, value.kind) and (
                known.kind != value.kind or known.name != value.name):
            raise Refused(node, f"{name} is {known.shown} before, and {value.shown} here",
                          "use two names")
        if value.everywhere:
            self.variables[name] = value
            self.assigned.add(name)
            return
        self.variables[name] = dataclasses.replace(
            self.assign(f"v_{name}", f"h_{name}", value), constant=None, truth=False)
        self.assigned.add(name)

    def forget(self, name: str) -> None:
        """A variable whose assignment was refused: nothing is said of it any more."""
        self.variables.setdefault(name, UNKNOWN)
        self.assigned.add(name)

    def seen(self, name: str) -> Any:
        """What the author's function sees under a name that is no variable. Raises KeyError."""
        code, cells = self.function.__code__, self.function.__closure__ or ()
        if name in code.co_freevars:
            return cells[code.co_freevars.index(name)].cell_contents
        if name in self.function.__globals__:
            return self.function.__globals__[name]
        builtins = self.function.__globals__["__builtins__"]
        return (builtins if isinstance(builtins, dict) else vars(builtins))[name]
