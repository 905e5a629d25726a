# SPDX-License-Identifier: Apache-2.0
"""counted: a function's class whose loops tell of each round, so that plain runs have a budget too.

Used by plain.py; uses function.py.

The methods, and the functions that they call by name, are compiled once more from their source with
a call at the head of each loop's body. Everything else is the author's: names, line numbers,
constants. Without source (a shell's input) the class is taken as it is.
"""

import ast
import copy
import types
from collections.abc import Callable
from typing import Any

from byway.nf.function import function_node

_SPEND = "__byway_spend__"


class _Rounds(ast.NodeTransformer):
    """Puts the call at the head of each loop's body."""

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._loop(node)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._loop(node)

    def _loop(self, node: ast.For | ast.While) -> ast.AST:
        self.generic_visit(node)
        call = ast.Expr(ast.Call(ast.Name(_SPEND, ast.Load()), [], []))
        for each in ast.walk(call):
            ast.copy_location(each, node)
        node.body.insert(0, call)
        return node


def counted(cls: type, spend: Callable[[], None]) -> type:
    """The class, with ``spend`` called once for each round of its loops."""
    worlds: dict[str, dict[str, Any]] = {}
    made = {name: _counted(value, spend, worlds) for name, value in vars(cls).items()
            if isinstance(value, types.FunctionType) and not name.startswith("__")}
    return type(cls.__name__, (cls,), made)


def _counted(function: types.FunctionType, spend: Callable[[], None],
             worlds: dict[str, dict[str, Any]]) -> types.FunctionType:
    """The function, counted; ``worlds``: by file, what its functions see."""
    file = function.__code__.co_filename
    node = function_node(function.__code__)
    if node is None or function.__closure__ or node.decorator_list:
        return function
    world = worlds.setdefault(file, {**function.__globals__, _SPEND: spend})
    for name in function.__code__.co_names:
        called = world.get(name)
        if called is function.__globals__.get(name) and isinstance(called, types.FunctionType) \
                and called is not function and not called.__module__.startswith("byway.nf"):
            world[name] = None  # in the making: whoever calls itself comes back to it
            world[name] = _counted(called, spend, worlds)
    tree = ast.Module([_Rounds().visit(copy.deepcopy(node))], [])
    found: dict[str, Any] = {}
    exec(compile(tree, file, "exec"), world, found)
    made: types.FunctionType = found[function.__name__]
    return made
