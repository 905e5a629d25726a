# SPDX-License-Identifier: Apache-2.0
"""Builds chains in a process of its own (built.COMMAND): an order comes in, an answer goes out.

Used by control (functions) and by nobody else; uses finding, translate, compose and code.

The author's files are imported here, so whatever they do (never end, print, exit) they do to this
process. The compiler works here as well, where it takes nobody's interpreter lock; what it makes
lies in the cache, from which the switch takes it. Both texts are JSON:

    order:  {"functions": {use: folder}, "chains": [{"direction": "rx", "uses": [use, ...],
             "own": [false, ...], "traced": false}], "sources": digest of the switch's own}
    answer: {"blueprints": {use: blueprint}, "problems": {use: [{file, line, message, fix}]}}

A chain is compiled where all its functions have blueprints; those that take no part in it (``own``:
Blueprint.takes_part) are left out. Blueprints are kept in the cache too, with digests of the
files they came from (built.py), so that what was built once is not built again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from byway.functions.blueprint import Blueprint
from byway.functions.built import forget_old, keep, sources
from byway.functions.code import native
from byway.functions.compose import compose
from byway.functions.confined import answer
from byway.functions.entries import ENTRIES
from byway.functions.finding import find, is_builtin
from byway.functions.translate import translate
from byway.functions.trial import problem_of
from byway.machine.jit import prepare
from byway.nf.function import definition
from byway.nf.problem import FunctionError, Problem


def blueprint_of(use: str, folder: Path) -> Blueprint:
    """The function that ``use`` names, translated. Raises FunctionError."""
    cls, files = find(use, folder)
    return translate(definition(cls), use, files)


def _tried(use: str, folder: Path) -> Blueprint:
    """As ``blueprint_of``; one that uses up its work budget is refused."""
    cls, files = find(use, folder)
    blueprint = translate(definition(cls), use, files)
    if not is_builtin(use) and (problem := problem_of(cls, blueprint)):
        raise FunctionError([problem])
    return blueprint


def build(order: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out an order; -> the answer."""
    if order.get("sources", sources()) != sources():
        return {"blueprints": {}, "problems": {
            use: [asdict(_replaced(use))] for use in order["functions"]}}
    blueprints: dict[str, Blueprint] = {}
    problems: dict[str, list[dict[str, Any]]] = {}
    for use, folder in order["functions"].items():
        try:
            blueprints[use] = _tried(use, Path(folder))
        except FunctionError as error:
            problems[use] = [asdict(problem) for problem in error.problems]
    prepare(ENTRIES)
    for chain in order["chains"]:
        if all(use in blueprints for use in chain["uses"]):
            _compile(chain, blueprints, problems)
    for use, blueprint in blueprints.items():
        if use not in problems:
            keep(blueprint, order["functions"][use])
    return {"blueprints": {use: json.loads(one.to_json()) for use, one in blueprints.items()},
            "problems": problems}


def _replaced(use: str) -> Problem:
    return Problem(use, 0, "Byway's own files are others than those that the switch was started"
                   " with: they do not fit together", "restart the switch")


def _compile(chain: Mapping[str, Any], blueprints: Mapping[str, Blueprint],
             problems: dict[str, list[dict[str, Any]]]) -> None:
    """Have a chain's code in the cache. What the compiler refuses is a defect of the translation,
    and is told as such."""
    direction, owns = chain["direction"], chain.get("own", [False] * len(chain["uses"]))
    parts = [blueprints[use] for use, own in zip(chain["uses"], owns, strict=True)
             if blueprints[use].takes_part(direction, own)]
    try:
        traced = bool(chain.get("traced"))
        assert not parts or native(compose(parts, direction, traced=traced)).address
    except Exception as error:
        last = chain["uses"][-1]
        problems.setdefault(last, []).append(asdict(Problem(
            last, 0, f"the compiler refuses the chain: {type(error).__name__}: {error}",
            "please report it, with the function's source")))


def main() -> None:
    """The process: one order, one answer."""
    answer(build)
    forget_old()
