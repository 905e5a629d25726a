# SPDX-License-Identifier: Apache-2.0
"""From an author's class to the source of kernels: translate(definition, use, files) -> Blueprint.

Used by build.py (whose process has imported the author's file) and harness.py. Uses nf, and the
tables that say which kernel does what: fields.py, states.py.

    world.py         all kernels of one function; the theory of operation
    unit.py          one kernel in the making: lines, variables, faults
    values.py        what an expression is
    statements.py    if, while, for, return, assignments
    expressions.py   names, attributes, arithmetic, conditions; comparing.py: comparisons
    calls.py         verdicts, the page's functions, own methods and functions
    frames.py        the frame; states.py, events.py: state
    refused.py       what is not translated, and what to write instead
"""

import hashlib
from collections.abc import Mapping

from byway.functions import blueprint as does
from byway.functions.blueprint import Blueprint, Method
from byway.functions.translate.world import DIGEST, World
from byway.nf.function import Definition
from byway.nf.problem import FunctionError, Problem
from byway.nf.state import State


def translate(definition: Definition, use: str, files: Mapping[str, str]) -> Blueprint:
    """The blueprint of a function. ``use``: what stands in chains for it; ``files``: path and
    digest of each file that was read for it. Raises FunctionError, which names all that cannot be
    translated."""
    reasons: list[str] = []
    sources = [definition.file]
    worlds = {name: _entry(definition, name, reasons, sources) for name in definition.entries}
    problems = list(dict.fromkeys(each for world in worlds.values() for each in world.problems))
    problems += _ages(definition)
    if problems:
        raise FunctionError(sorted(problems, key=lambda each: (each.file, each.line)))
    texts = {name: world.text() for name, world in worlds.items()}
    states = {name: _spec(state) for name, state in definition.states.items()}
    parameters = {each.name: each.described for each in definition.parameters}
    what = texts, definition.budget, reasons, states, parameters, definition.summary
    digest = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    methods = {
        name: Method(f"{name}_{digest}", texts[name].replace(DIGEST, digest),
                     frozenset(worlds[name].flags), worlds[name].ahead.replace(DIGEST, digest))
        for name in definition.entries}
    return Blueprint(
        use=use, name=definition.name, doc=definition.summary, digest=digest,
        parameters=parameters, states=states, reasons=tuple(reasons), budget=definition.budget,
        methods=methods, files=dict(files), sources=tuple(sources), listener=definition.listener)


def _entry(definition: Definition, name: str, reasons: list[str], sources: list[str]) -> World:
    """The kernels of one entry. Loops count their rounds where they may be too many."""
    world = World(definition, reasons, sources, counting=False)
    made = world.entry(name)
    if made is None or world.problems or (
            made.rounds is not None and made.rounds <= definition.budget):
        return world
    world = World(definition, reasons, sources, counting=True)
    world.entry(name)
    world.flags |= {does.LOOPS, does.STATEFUL}
    return world


def _spec(state: State) -> dict[str, object]:
    """What a state is like, as JSON."""
    spec: dict[str, object] = state.spec()  # type: ignore[attr-defined]
    return spec


def _ages(definition: Definition) -> list[Problem]:
    """Ages of states that name no nf.Seconds parameter."""
    seconds = [each.name for each in definition.parameters if each.kind == "seconds"]
    return [Problem(definition.file, definition.line,
                    f"{name} has the {what} {age!r}, which is no nf.Seconds parameter",
                    f"declare it: {age}: nf.Seconds = nf.Seconds(30)")
            for name, state in definition.states.items() for what in ("age", "idle")
            if isinstance(age := getattr(state, what, None), str) and age not in seconds]
