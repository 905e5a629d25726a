# SPDX-License-Identifier: Apache-2.0
"""What a function will ask its maps: found out for a whole batch before its first frame is at work.

Used by world.py. Uses nothing of translate: it goes by the lines that were made.

Theory of operation
-------------------
In a large table an entry's bucket is in no cache, and a function that waits for one bucket after
the other waits most of its time. So the chain (compose.py) goes over the batch twice: first a
kernel made here, the function's beginning up to its first look-up, has the key's hash and asks for
the bucket; then the function does its work, and takes the hash from where that was kept.

For this to be the same hash, nothing that the beginning depends on may change in between: of what
there is it reads the frame's head, parameters, the time and where the batch came from. Where it
would read or do anything else it ends, and asks nothing: 0. A chain leaves it out behind functions
that may change the frame. The look-ups that it may come to first take what it has found, if that is
not 0; no other one does.
"""

import ast
from collections.abc import Sequence

from byway.functions.fields import FIELDS, METHODS

HASH, ASK, ASKED, AGAIN = "hash_of", "map_ask", "asked", "next_frame"
_ARITHMETIC = {"add", "sub", "mul", "least", "most", "magnitude", "shifted_left", "shifted_right",
               "quotient", "remainder", "int", "hash_more", "hash_wide", "hash_end"}


def _named(kernel: object) -> str:
    return str(getattr(kernel, "__name__", ""))


_READERS = {_named(kernel) for field in FIELDS.values() for kernel in (field.get, field.high)
            } | {_named(method.kernel) for method in METHODS.values() if method.pure}
_PURE = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp,
         ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)


class Ahead:
    """``lines``: of the kernel that asks, indented once; ``kernel``: those of the function, which
    takes what was found under the name of ASKED. Both are empty where nothing is to be asked."""

    def __init__(self, lines: Sequence[str]) -> None:
        body = ast.parse("\n".join(["def kernel():", *lines])).body[0]
        assert isinstance(body, ast.FunctionDef)
        self._states: set[str] = set()  # names that hold a state's address
        self._sites: list[tuple[ast.Call, int]] = []  # look-ups, and which argument the hash is
        asking = self._until(body.body)
        self.lines: list[str] = []
        self.kernel: list[str] = []
        if self._sites:
            self.lines = _written([*asking, ast.Return(ast.Constant(0))])
            for call, place in self._sites:
                call.args[place] = ast.IfExp(
                    ast.Compare(ast.Name(ASKED), [ast.NotEq()], [ast.Constant(0)]),
                    ast.Name(ASKED), call.args[place])
            self.kernel = _written(body.body)

    def _until(self, nodes: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Statements up to the first look-up, or to what cannot be known ahead."""
        made: list[ast.stmt] = []
        for node in nodes:
            known = len(self._sites)
            if not self._is_next(node):
                made.append(self._one(node))
            if made and (isinstance(made[-1], ast.Return) or len(self._sites) > known):
                break  # (behind a branch that asks nobody knows whether something was asked)
        return made

    def _is_next(self, node: ast.stmt) -> bool:
        return isinstance(node, ast.Expr) and _call_of(node.value) == AGAIN

    def _one(self, node: ast.stmt) -> ast.stmt:
        """A statement, or the end."""
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                site = _site(value)
                if site is not None:
                    self._sites.append(site)
                    found = site[0].args[site[1]]
                    assert isinstance(found, ast.Call)
                    return ast.Return(ast.Call(ast.Name(ASK), found.args[:2], []))
                if _is_pure(value):
                    if _is_own_word(value):
                        self._states.add(name)
                    return node
            case ast.Expr(value=ast.Call() as call) if self._is_key(call):
                return node
            case ast.If(test=test) if _is_pure(test):
                body, other = self._until(node.body), self._until(node.orelse)
                return ast.If(test, body or [ast.Pass()], other)
            case ast.Pass():
                return node
        return ast.Return(ast.Constant(0))

    def _is_key(self, call: ast.Call) -> bool:
        """Is it a line that puts a word of a key where a look-up expects it?"""
        name = _call_of(call)
        if name == "put_flow":
            return isinstance(call.args[0], ast.Name) and call.args[0].id in self._states
        return name == "st64" and _is_pure(call.args[1]) and isinstance(
            at := call.args[0], ast.BinOp) and isinstance(at.op, ast.Add) and isinstance(
            at.left, ast.Name) and at.left.id in self._states and isinstance(at.right, ast.Constant)


def _call_of(node: ast.expr) -> str:
    """The name that an expression calls, or nothing."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id
    return ""


def _site(value: ast.expr) -> tuple[ast.Call, int] | None:
    """Is it a look-up? Then the call, and which of its arguments is the key's hash."""
    if _call_of(value) == "int" and isinstance(value, ast.Call):
        value = value.args[0]
    for place, each in enumerate(value.args) if isinstance(value, ast.Call) else ():
        if _call_of(each) == HASH and isinstance(value, ast.Call):
            return value, place
    return None


def _is_own_word(node: ast.expr) -> bool:
    """Does it read a parameter, or a state's address? Both stay as they are for a batch."""
    match node:
        case ast.Call(func=ast.Name(id="ld64"), args=[
                ast.BinOp(left=ast.Name(id="self"), op=ast.Add(), right=ast.Constant())]):
            return True
    return False


def _is_pure(node: ast.AST) -> bool:
    """Is it the same whenever it is computed, while a batch is at work?"""
    if isinstance(node, ast.Call):
        name = _call_of(node)
        return _is_own_word(node) or (
            name in _READERS | _ARITHMETIC and all(_is_pure(each) for each in node.args))
    return isinstance(node, _PURE) and all(_is_pure(each) for each in ast.iter_child_nodes(node))


def _written(nodes: Sequence[ast.stmt]) -> list[str]:
    """Statements as lines, indented once."""
    text = ast.unparse(ast.fix_missing_locations(ast.Module(list(nodes), [])))
    return ["    " + line for line in text.splitlines()]
