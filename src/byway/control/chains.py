# SPDX-License-Identifier: Apache-2.0
"""Chains as users write them: lists of network functions, by name or as they are used.

Used by model (keys of ports and networks), config and the functions at work. Uses problem, values.

    "limits"                                a [[function]] of that name
    "/etc/byway/guard.py:RateGuard"         a class of a file, with its parameters as they are
    "/etc/byway/guard.py"                   the only one in it
    "byway.nat44(address=\"192.0.2.1\")"    one that is built in, with a parameter

Parameters are written as in Python or TOML: numbers, texts in quotes, true and false.
"""

import ast
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from byway.control.problem import shown, wrong
from byway.control.values import NAME

BUILT_IN = "byway."
MAX_STEPS = 32  # functions of one chain
_FILE = re.compile(r"(?P<file>.*?\.py)(:(?P<name>[A-Za-z_]\w*))?", re.DOTALL)
_BUILT_IN = re.compile(r"byway\.[a-z]\w*\s*(\(|$)")
_USE = re.compile(rf"(?P<use>{_FILE.pattern}|byway\.[a-z]\w*)\s*(?P<given>\(.*\))?", re.DOTALL)
_SHAPES = ('write the name of a [[function]], "guard.py:RateGuard", or "byway.nat44",'
           ' these two also with parameters: "guard.py:RateGuard(limit=50)"')
_WORDS = {"true": True, "false": False}
Values = dict[str, Any]


class Step(NamedTuple):
    """One function of a chain: that of a [[function]] (``name``), or its own (``use``)."""

    name: str
    use: str
    parameters: Values


def parse_step(written: str) -> Step:
    """What stands in a chain. PydanticCustomError: it cannot stand there."""
    found = _USE.fullmatch(written.strip())
    if found is None:
        if not NAME.fullmatch(written) or written.startswith(BUILT_IN):
            raise wrong(f"{shown(written)} is no network function", _SHAPES)
        return Step(written, "", {})
    return Step("", checked_use(found["use"]), _given(written, found["given"] or "()"))


def checked_use(use: str) -> str:
    """What names a function's code, in the form in which it is compared."""
    found = _FILE.fullmatch(use)
    if found is None:
        if not re.fullmatch(r"byway\.[a-z]\w*", use):
            raise wrong(f"{shown(use)} names no function's code",
                        'write "guard.py:RateGuard" (file and class), or "byway.nat44"')
        return use
    if not os.path.isabs(found["file"]):
        raise wrong(f"{shown(found['file'])} is no absolute path", 'write it as in'
                    ' "/etc/byway/guard.py:RateGuard": the switch has a directory of its own')
    if "\0" in use:
        raise wrong("contains a NUL byte", "write the path of a file")
    file = os.path.normpath(found["file"])
    return f"{file}:{found['name']}" if found["name"] else file


def _given(written: str, given: str) -> Values:
    """The parameters in a pair of brackets."""
    try:
        call = ast.parse(f"f{given}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
        raise wrong(f"{shown(written)}: {shown(given)} are no parameters",
                    "write names and values, as in (limit=50, mode=\"strict\")")
    found: Values = {}
    for one in call.keywords:
        if one.arg is None or one.arg in found:
            raise wrong(f"{shown(written)}: a parameter is there twice, or has no name",
                        "write each once, as in (limit=50)")
        found[one.arg] = _value(written, one.arg, one.value)
    return found


def _value(written: str, name: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        value = None
    if not isinstance(value, bool | int | float | str):
        raise wrong(f"{shown(written)}: the value of {name} is no number and no text",
                    'write texts in quotes, as in (mode="strict")')
    return value


def with_parameters(step: Step, parameters: Mapping[str, Any]) -> str:
    """A step that has a use of its own, as it is written with these parameters."""
    given = ", ".join(f"{name}={json.dumps(value)}" for name, value in parameters.items())
    return f"{step.use}({given})" if given else step.use


def short_name(use: str) -> str:
    """What a function is called by itself: its class, or the last word of a built-in one."""
    found = _FILE.fullmatch(use)
    if found is None:
        return use.rpartition(".")[2]
    return found["name"] or os.path.basename(found["file"]).removesuffix(".py")


def file_of(use: str) -> str:
    """The file of a function's code; empty for one that is built in."""
    found = _FILE.fullmatch(use)
    return found["file"] if found else ""


def based(written: object, directory: str) -> object:
    """What stands in a file of ``directory``, with the path of a function's file as seen from
    everywhere. What is no such text stays as it is."""
    if not isinstance(written, str) or _BUILT_IN.match(written):
        return written
    found = _FILE.match(written)
    if found is None or os.path.isabs(found["file"]):
        return written
    return os.path.normpath(os.path.join(directory, found["file"])) + written[found.end("file"):]
