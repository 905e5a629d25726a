# SPDX-License-Identifier: Apache-2.0
"""What of an author's source cannot be compiled, and what to write instead.

Used by all of translate. Uses nothing.
"""

import ast


class Refused(Exception):
    """``node`` cannot be translated: ``message`` says why, ``fix`` what to write instead."""

    def __init__(self, node: ast.AST, message: str, fix: str) -> None:
        super().__init__(message)
        self.line: int = getattr(node, "lineno", 0)
        self.message = message
        self.fix = fix


# What Python has and a frame's function has not: the node, what it is called, what to do.
_FORBIDDEN: dict[type[ast.AST], tuple[str, str]] = {
    ast.List: ("a list is made", "keep it in an nf.Array, or write a tuple of constants"),
    ast.Dict: ("a dict is made", "keep it in an nf.Map"),
    ast.Set: ("a set is made", "write a tuple of constants, or keep it in an nf.Map"),
    ast.ListComp: ("a list is made", "write a for loop over range(...)"),
    ast.SetComp: ("a set is made", "write a for loop over range(...)"),
    ast.DictComp: ("a dict is made", "write a for loop over range(...) and an nf.Map"),
    ast.GeneratorExp: ("a generator is made", "write a for loop over range(...)"),
    ast.JoinedStr: ("text is put together", "send the numbers with an nf.Event"),
    ast.Lambda: ("a function is made while frames flow", "write a method, or a function of the "
                 "file"),
    ast.Await: ("await in what is called for every frame", "do it in the function's listener"),
    ast.Yield: ("yield in what is called for every frame", "return a verdict"),
    ast.YieldFrom: ("yield in what is called for every frame", "return a verdict"),
    ast.NamedExpr: ("an assignment in an expression", "write the assignment in a line before"),
    ast.Starred: ("* in a list of values", "write each of them"),
    ast.Slice: ("a slice", "read with frame.u8(at), u16(at) or u32(at)"),
    ast.Try: ("try: nothing raises here", "test the condition with if"),
    ast.TryStar: ("try: nothing raises here", "test the condition with if"),
    ast.Raise: ("raise: nobody would catch it", 'return nf.DROP("why")'),
    ast.Assert: ("assert: nobody would see it", 'write if not ...: return nf.DROP("why")'),
    ast.With: ("with: there is nothing to open or to lock", "leave it out: an instance's state is "
               "never used by two at once"),
    ast.Import: ("import in what is called for every frame", "import at the top of the file"),
    ast.ImportFrom: ("import in what is called for every frame", "import at the top of the file"),
    ast.FunctionDef: ("a function is made while frames flow", "write it as a method, or at the top "
                      "level of the file"),
    ast.AsyncFunctionDef: ("a function is made while frames flow", "write the listener beside the "
                           "methods"),
    ast.ClassDef: ("a class is made while frames flow", "write it at the top level of the file"),
    ast.Global: ("global: an instance has no variables outside itself", "keep it in an nf.Array"),
    ast.Nonlocal: ("nonlocal: an instance has no variables outside itself",
                   "keep it in an nf.Array"),
    ast.Delete: ("del", "delete an entry with self.table.delete(key)"),
    ast.Match: ("match", "write if and elif"),
    ast.AsyncFor: ("async for in what is called for every frame", "do it in the listener"),
    ast.AsyncWith: ("async with in what is called for every frame", "do it in the listener"),
}


def forbidden(node: ast.AST) -> Refused:
    """The refusal of a node that nothing translates."""
    message, fix = _FORBIDDEN.get(
        type(node), (f"{type(node).__name__} is not translated", "write it with numbers, if and "
                     "for"))
    return Refused(node, message, fix)


# How deep Python's parser lets the lines be nested that are made of an author's (100 levels), and
# how many calls in calls (200), with some to spare.
DEEPEST_BLOCK, DEEPEST_EXPRESSION = 90, 100


def too_deep(source: ast.FunctionDef) -> Refused | None:
    """The refusal of what is nested too deep."""
    left: list[tuple[ast.AST, int, int]] = [(source, 0, 0)]
    while left:
        node, blocks, parts = left.pop()
        if blocks > DEEPEST_BLOCK:
            return Refused(node, f"blocks are nested more than {DEEPEST_BLOCK} deep (each elif is "
                           "one)", "write a helper for some of them, or keep them in an nf.Map")
        if parts > DEEPEST_EXPRESSION:
            return Refused(node, f"an expression is nested more than {DEEPEST_EXPRESSION} deep",
                           "give parts of it a name first")
        for each in ast.iter_child_nodes(node):
            inside = isinstance(each, ast.expr)
            left.append((each, blocks + isinstance(each, ast.If | ast.For | ast.While),
                         parts + 1 if inside else 0))
    return None
