# SPDX-License-Identifier: Apache-2.0
"""All kernels that one function of an author becomes, and what they have in common.

Used by translate (the package's face). Uses all its parts.

Theory of operation
-------------------
Each of the class's entries (process, rx, tx) becomes a kernel ``(self, row, frame, batch, now)``;
each method and function that it calls becomes one more, made when its first call is met, once for
each way in which its arguments are numbers, addresses, records or frames. A function that calls
itself, however far away, is refused: kernels have no stack to speak of.

Kernels are written as text. An expression stays an expression; whatever changes something or may go
wrong is a line of its own, in the author's order. A fault ends the function at once: it is noted in
the instance's record (kind, file, line), the kernel returns, and so do its callers.

Loops and calls: where it is known how many rounds and calls there are at the most, and that is
within the budget, they run as they are. Else all is translated once more, and each round of each
loop and each call takes one from the budget (``counting``). Calls of what has neither loops nor
calls do not: they cost what its lines would, and there are only so many of them in a source.
"""

import ast
import dataclasses
import types
from collections.abc import Sequence
from typing import Any

from byway.functions import blueprint as does
from byway.functions.instance import FIRST, I, place
from byway.functions.translate import calls, comparing, expressions, statements, states
from byway.functions.translate.ahead import ASK, ASKED, Ahead
from byway.functions.translate.refused import Refused, too_deep
from byway.functions.translate.unit import Unit
from byway.functions.translate.values import NONE, Value
from byway.nf.function import Definition, function_node
from byway.nf.problem import Problem

_MEM = "byway.machine.mem"
DIGEST = "__DIGEST__"  # stands in the text for the digest of the text
DEEPEST = 24  # calls in calls: the compiler looks into each by recursion
_PARAMETERS = "self, row, frame, batch, now"
_SHORT, _INLINED = 7, 100  # lines of a kernel that becomes part of its callers: its own, and in all


@dataclasses.dataclass(frozen=True)
class Made:
    """A kernel that was made of a method or function (``node``). ``counts``: is a call of it a
    round? ``spends``: does it take that from the budget itself? Then its caller, who looks for a
    fault anyway, does not."""

    name: str
    result: Value
    faulty: bool
    reshapes: bool
    rounds: int | None
    size: int
    node: ast.FunctionDef
    counts: bool
    spends: bool


class World:
    """``counting``: do loops and calls take from the budget? ``problems``: all that was refused.
    ``reasons``: of drops, in the order in which they were met (shared between entries)."""

    def __init__(self, definition: Definition, reasons: list[str], files: list[str],
                 counting: bool) -> None:
        self.definition = definition
        self.counting = counting
        self.problems: list[Problem] = []
        self.flags: set[str] = set()
        self.kernels: list[str] = []
        self.ahead = ""  # the entry's, that asks its maps for a whole batch (ahead.py)
        self._reasons = reasons
        self._files = files
        self._imports: dict[str, str] = {"kernel": "byway.machine.jit"}
        self.called: set[tuple[str, str]] = set()  # states, and which of their methods
        self._made: dict[Any, Made] = {}
        self._open: list[types.FunctionType] = []  # whose kernels are in the making
        self._assigned: dict[ast.FunctionDef, set[str]] = {}

    # ------------------------------------------------------------ places and names
    def use(self, module: str, name: str) -> str:
        """Have ``name`` imported from ``module``."""
        assert self._imports.setdefault(name, module) == module, name
        return name

    def reason(self, text: str) -> int:
        """The number of a drop reason."""
        if text not in self._reasons:
            self._reasons.append(text)
        return self._reasons.index(text)

    def file_number(self, function: types.FunctionType) -> int:
        """Which of the function's files something is in."""
        file = function.__code__.co_filename
        if file not in self._files:
            self._files.append(file)
        return self._files.index(file)

    def parameter_word(self, unit: Unit, name: str, k: int) -> str:
        """The expression that reads a parameter's word number k."""
        word = FIRST + k
        for each in self.definition.parameters:
            if each.name == name:
                break
            word += each.size
        return f"{unit.use(_MEM, 'ld64')}(self + {place(word)})"

    def state_address(self, unit: Unit, name: str) -> str:
        """The expression for the address of a state."""
        self.flags.add(does.STATEFUL)
        word = FIRST + sum(each.size for each in self.definition.parameters)
        word += list(self.definition.states).index(name)
        return f"{unit.use(_MEM, 'ld64')}(self + {place(word)})"

    def store_high(self, unit: Unit, high: str) -> None:
        """A wide result's high word goes by way of the instance."""
        self.flags.add(does.STATEFUL)
        unit.emit(f"{unit.use(_MEM, 'st64')}(self + {I.high}, {high})")

    def load_high(self, unit: Unit) -> str:
        """The expression for the high word of what was just returned."""
        return f"{unit.use(_MEM, 'ld64')}(self + {I.high})"

    def assigned_names(self, node: ast.FunctionDef) -> set[str]:
        """The variables of a function: all that it assigns to."""
        if node not in self._assigned:
            self._assigned[node] = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)
                                    and isinstance(each.ctx, ast.Store)}
        return self._assigned[node]

    def refuse(self, unit: Unit, refused: Refused) -> None:
        """Note what cannot be translated."""
        problem = Problem(unit.function.__code__.co_filename, refused.line, refused.message,
                          refused.fix)
        if problem not in self.problems:
            self.problems.append(problem)

    # ------------------------------------------------------------ expressions
    def value(self, unit: Unit, node: ast.expr) -> Value:
        """What an expression is."""
        match node:
            case ast.Constant():
                return expressions.constant(node, node.value)
            case ast.Name():
                return expressions.name(unit, node)
            case ast.Attribute():
                return expressions.attribute(unit, node)
            case ast.BinOp():
                return expressions.binary(unit, node)
            case ast.UnaryOp():
                return expressions.unary(unit, node)
            case ast.BoolOp():
                return expressions.both(unit, node)
            case ast.IfExp():
                return expressions.either(unit, node)
            case ast.Compare():
                return comparing.compare(unit, node)
            case ast.Call():
                return calls.call(unit, node)
            case ast.Subscript():
                return expressions.subscript(unit, node)
            case ast.Tuple():
                values = [unit.value(each) for each in node.elts]
                if all(isinstance(each.constant, int) for each in values):
                    return Value("tuple", constant=tuple(each.constant for each in values))
                raise Refused(node, "several values at once",
                              "use a tuple as a key, or with in; or give each value a name")
        return expressions.refused(unit, node)

    def test(self, unit: Unit, node: ast.expr) -> str:
        """An expression as a condition."""
        return expressions.test(unit, node)

    # ------------------------------------------------------------ kernels
    def kernel_for(self, unit: Unit, node: ast.AST, function: types.FunctionType,
                   values: dict[str, Value]) -> Made:
        """The kernel of a method or function for arguments like these. Refused where it calls
        itself, or has no source."""
        shapes = {name: Value(each.kind, name=each.name) for name, each in values.items()}
        key = function, tuple(shapes.items())
        if key not in self._made:
            if function in self._open:
                raise Refused(node, f"{function.__name__} calls itself",
                              "write a loop: a function cannot be at work twice")
            if len(self._open) > DEEPEST:
                raise Refused(node, f"{function.__name__} is called more than {DEEPEST} calls deep",
                              "write what it does where it is called")
            source = function_node(function.__code__)
            if not isinstance(source, ast.FunctionDef):
                raise Refused(node, f"there is no source of {function.__name__}",
                              "write it in a file")
            self._made[key] = self.kernel(function, source, shapes)
        return self._made[key]

    def kernel(self, function: types.FunctionType, source: ast.FunctionDef,
               shapes: dict[str, Value]) -> Made:
        """Make the kernel of a method or function."""
        unit = Unit(self, function, source)
        parameters = [_PARAMETERS]
        for name, shape in shapes.items():
            if shape.kind == "wide":
                parameters += [f"h_{name}", f"v_{name}"]
            elif not shape.everywhere:
                parameters.append(f"v_{name}")
            unit.variables[name] = dataclasses.replace(
                shape, code="frame" if shape.everywhere else f"v_{name}",
                high=f"h_{name}" if shape.kind == "wide" else "")
            unit.assigned.add(name)
        self._open.append(function)
        try:
            if deep := too_deep(source):
                self.refuse(unit, deep)
            ended = deep is not None or statements.run(unit, source.body)
        finally:
            self._open.pop()
        if not ended:
            self._fall_off(unit, source)
        spends = unit.counts and unit.faulty and bool(self._open)
        with unit.capture() as first:
            if spends:
                unit.spend(source)
            elif not self._open:
                states.begin(unit)
        unit.lines[:0] = first
        number = f"{len(self.kernels)}_" if self._open else ""
        name = f"{function.__name__}_{number}{DIGEST}"
        short = len(unit.lines) < _SHORT and unit.size < _INLINED
        inline = "(inline=True)" if short or not self._open else ""
        lines = unit.lines
        if not self._open and not self.problems and (asking := Ahead(lines)).lines:
            self.use("byway.functions.map_kernels", ASK)
            self.ahead, lines = f"{name}_ahead", asking.kernel
            self._add("(inline=True)", self.ahead, parameters, asking.lines)
            parameters = [*parameters, ASKED]
        self._add(inline, name, parameters, lines)
        if unit.faulty:
            self.flags |= {does.FAULTY, does.STATEFUL}
        if unit.reshapes:
            self.flags.add(does.RESHAPES)
        return Made(name, unit.result or NONE, unit.faulty, unit.reshapes, unit.rounds,
                    len(unit.lines) + unit.size if short else 0, source, unit.counts, spends)

    def _add(self, inline: str, name: str, parameters: Sequence[str],
             lines: Sequence[str]) -> None:
        self.kernels.append("\n".join([
            f"@kernel{inline}", f"def {name}({', '.join(parameters)}):", *lines]))

    def _fall_off(self, unit: Unit, source: ast.FunctionDef) -> None:
        """The last line is reached: right in what returns nothing."""
        unit.emit("return 0")
        if not self._open or (unit.result is not None and unit.result.kind != "none"):
            last = source.body[-1]
            self.refuse(unit, Refused(
                ast.copy_location(ast.Pass(), last), f"{source.name} can end without an answer",
                "return nf.PASS, or another verdict, on every way through it"
                if not self._open else "return a value on every way through it"))

    def returned(self, unit: Unit, node: ast.AST, value: Value) -> None:
        """A function returns something: the same kind each time; an entry a verdict."""
        if value.kind == "unknown":
            return
        if len(self._open) == 1 and value.kind != "verdict":
            raise Refused(node, f"{unit.node.name} returns {value.shown}",
                          'return a verdict: nf.PASS, nf.DROP("why"), nf.REDIRECT(port), ...')
        if value.kind not in ("number", "wide", "verdict", "record", "none"):
            raise Refused(node, f"{unit.node.name} returns {value.shown}",
                          "return a number, an address or a verdict")
        known = unit.result
        if known is not None and (known.kind, known.name) != (value.kind, value.name):
            raise Refused(node, f"{unit.node.name} returns {value.shown} here, {known.shown} "
                          "elsewhere", "return the same kind of thing each time")
        unit.result = Value(value.kind, name=value.name,
                            truth=value.truth and (known is None or known.truth))

    # ------------------------------------------------------------ text
    def entry(self, name: str) -> Made | None:
        """Make the kernel of an entry; None where it was refused."""
        function = self.definition.methods[name]
        source = function_node(function.__code__)
        if not isinstance(source, ast.FunctionDef):
            self.problems.append(Problem(self.definition.file, 0, f"there is no source of {name}",
                                         "write the function in a file"))
            return None
        me, frame = (each.arg for each in source.args.args)
        return self.kernel(function, source, {me: Value("self", name="self"),
                                              frame: Value("view", name="frame")})

    def text(self) -> str:
        """All kernels, and the imports that they need."""
        lines = [f"from {module} import {name}" for name, module in sorted(
            self._imports.items(), key=lambda each: (each[1], each[0]))]
        return "\n".join(lines) + "\n\n\n" + "\n\n\n".join(self.kernels) + "\n"


