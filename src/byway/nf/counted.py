# SPDX-License-Identifier: Apache-2.0
"""counted: a function's class whose loops and calls tell of themselves, so that plain runs have a
budget too.

Used by plain.py; uses function.py.

The methods, and the functions that they call by name, are compiled once more from their source with
a call at the head of each loop's body, and at their own where they have loops or calls. Everything
else is the author's: names, line numbers, constants. Without source (a shell's input) the class is
taken as it is.
"""

import ast
import copy
import types
from collections.abc import Callable, Collection
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
        _tell(node)
        return node


def _has_rounds(node: ast.AST, function: types.FunctionType, methods: Collection[str]) -> bool:
    """Has a function loops, or calls of the author's methods and functions?"""
    seen = function.__globals__
    for each in ast.walk(node):
        if isinstance(each, ast.For | ast.While):
            return True
        if not isinstance(each, ast.Call):
            continue
        called = None
        if isinstance(each.func, ast.Name):
            called = seen.get(each.func.id)
        elif isinstance(each.func, ast.Attribute) and isinstance(each.func.value, ast.Name):
            owner, name = each.func.value.id, each.func.attr
            if (owner,) == function.__code__.co_varnames[:1] and name in methods:
                return True
            called = getattr(seen.get(owner), name, None)
        if isinstance(called, types.FunctionType) and not called.__module__.startswith("byway.nf"):
            return True
    return False


def _tell(node: Any) -> None:
    """Have a node's body tell first that it was come to."""
    call = ast.Expr(ast.Call(ast.Name(_SPEND, ast.Load()), [], []))
    for each in ast.walk(call):
        ast.copy_location(each, node)
    node.body.insert(0, call)


def counted(cls: type, spend: Callable[[], None]) -> type:
    """The class, with ``spend`` called once for each round of its loops, and for each call of
    a method or function that has loops or calls itself (entries as well)."""
    worlds: dict[str, dict[str, Any]] = {}
    methods = {name: value for name, value in vars(cls).items()
               if isinstance(value, types.FunctionType) and not name.startswith("__")}
    made = {name: _counted(value, spend, worlds, methods.keys()) for name, value in methods.items()}
    return type(cls.__name__, (cls,), made)


def _counted(function: types.FunctionType, spend: Callable[[], None],
             worlds: dict[str, dict[str, Any]], methods: Collection[str]) -> types.FunctionType:
    """The function, counted; ``worlds``: by file, what its functions see; ``methods``: names of the
    class's."""
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
            world[name] = _counted(called, spend, worlds, methods)
    tree = ast.Module([_Rounds().visit(copy.deepcopy(node))], [])
    if _has_rounds(node, function, methods):
        _tell(tree.body[0])
    found: dict[str, Any] = {}
    exec(compile(tree, file, "exec"), world, found)
    made: types.FunctionType = found[function.__name__]
    return made
