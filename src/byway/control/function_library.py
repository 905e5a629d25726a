# SPDX-License-Identifier: Apache-2.0
"""The code of network functions: built by a process of its own, found by what was asked for.

Used by functions. Uses byway.functions: what was built, the source of chains, and their machine
code, all of it out of the cache. Never imports a user's file.

One version of a function's code is in the switch at a time. A file is read again when a change
names it or a reload asks for it; whatever uses it then follows.
"""

import importlib
import json
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from byway.control.function_process import aside, ask
from byway.control.function_steps import Order
from byway.control.problem import EngineError, Problem
from byway.functions.blueprint import Blueprint
from byway.functions.built import COMMAND, known, sources
from byway.functions.code import native
from byway.functions.compose import compose
from byway.machine.cachedir import cache_root
from byway.machine.jit import INTERPRETED, Native, prepare
from byway.worker import units

BUILD_SECONDS, MORE_SECONDS = 60.0, 30.0  # for one function, and for each other one
READ_SECONDS = 5.0  # for a look at the files of all functions of a change
LOAD_SECONDS = 60.0  # for code out of the cache, and what else is compiled at the first time
FOLDER = "/"  # the paths of files are absolute


@dataclass(frozen=True)
class Built:
    """What came of building these orders. ``problems``: by use; ``codes``: of those that there is
    code for."""

    orders: tuple[Order, ...]
    blueprints: Mapping[str, Blueprint]
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    codes: Mapping[Order, "Code"] = field(default_factory=dict)

    def every_problem(self) -> list[Problem]:
        """All of them."""
        return [problem for some in self.problems.values() for problem in some]


@dataclass(frozen=True)
class Code:
    """Machine code of a chain, loaded: it stays as long as this. ``places``: which of the order's
    steps are in it; without any no function has anything to do there, and there is no code."""

    places: tuple[int, ...]
    native: Native | None = None


class Library:
    """The code that the switch has. ``builder``: the command that builds."""

    def __init__(self, builder: Iterable[str] = COMMAND) -> None:
        self._builder = tuple(builder)
        self.blueprints: dict[str, Blueprint] = {}
        self.problems: dict[str, tuple[Problem, ...]] = {}
        self._codes: dict[Order, Code] = {}

    def lacks(self, order: Order) -> bool:
        """Must it be built before there is code for it?"""
        if order in self._codes:
            return False
        if any(use not in self.blueprints for use, _ in order.steps):
            return True
        code = _loaded(order, self.blueprints)
        if code is not None:
            self._codes[order] = code
        return code is None

    def failed(self, order: Order) -> list[Problem]:
        """Why there is none: what was wrong with its functions when they were built last."""
        return [problem for use, _ in order.steps for problem in self.problems.get(use, ())]

    def code(self, order: Order) -> Code:
        """The code of an order that is not lacking."""
        return self._codes[order]

    def forget(self, wanted: Collection[Order]) -> None:
        """Code for others than these is of no use now; if it is again, it is in the cache."""
        self._codes = {order: code for order, code in self._codes.items() if order in wanted}

    async def build(self, orders: Collection[Order], uses: Collection[str]) -> Built:
        """Have these in the cache, of files as they are now. Nothing of the switch changes yet.
        EngineError: the process does not end, or ends badly."""
        wanted = dict.fromkeys([*uses, *(use for order in orders for use, _ in order.steps)])
        if not INTERPRETED:
            await units.made()
        found = await self._known(wanted)
        if len(found) == len(wanted):
            codes = await self._codes_of(orders, found)
            if all(order in codes for order in orders):
                return Built(tuple(orders), found, codes=codes)
        answer = await ask(self._builder, {
            **({} if INTERPRETED else {"sources": sources()}),  # whose code is to fit together
            "functions": dict.fromkeys(wanted, FOLDER),
            "chains": [{"direction": order.direction, "uses": [use for use, _ in order.steps],
                        "own": [own for _, own in order.steps], "traced": order.traced}
                       for order in orders]},
            f"building {', '.join(wanted)}", BUILD_SECONDS + MORE_SECONDS * (len(wanted) - 1))
        try:
            blueprints = {use: Blueprint.from_json(json.dumps(one))
                          for use, one in answer["blueprints"].items()}
            problems = {use: tuple(_problem(use, one) for one in some)
                        for use, some in answer["problems"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EngineError(f"building {', '.join(wanted)} gave an answer that is none ({error})",
                              "try `byway nf check` on the files") from None
        whole = [order for order in orders if all(
            use in blueprints and use not in problems for use, _ in order.steps)]
        codes = await self._codes_of(whole, blueprints)
        for order in whole:
            if order not in codes:
                last = order.steps[-1][0]
                problems[last] = (_not_loaded(last),)
        return Built(tuple(orders), blueprints, problems, codes)

    @staticmethod
    async def _known(uses: Iterable[str]) -> dict[str, Blueprint]:
        """Those that were built of files as they are now. Files are not read by this thread: they
        may lie where nothing answers."""
        try:
            return await aside(lambda: {use: blueprint for use in uses
                                        if (blueprint := known(use, FOLDER))}, READ_SECONDS)
        except TimeoutError:
            return {}

    async def _codes_of(self, orders: Collection[Order],
                        blueprints: Mapping[str, Blueprint]) -> dict[Order, Code]:
        """The code of those that there is some for in the cache. It is loaded, and what the control
        thread calls to have instances of them, beside that thread: other work goes on."""

        def load() -> dict[Order, Code]:
            if not INTERPRETED:
                prepare(importlib.import_module("byway.functions.entries").ENTRIES)
            importlib.import_module("byway.functions.memory")
            return {order: code for order in orders if (code := _loaded(order, blueprints))}

        try:
            return await aside(load, LOAD_SECONDS)
        except TimeoutError:
            return {}

    def install(self, built: Built) -> set[str]:
        """These are the switch's from now on; -> the uses whose code is another one than before, or
        new."""
        changed = {use for use, one in built.blueprints.items()
                   if use not in self.blueprints or self.blueprints[use].digest != one.digest}
        for use in built.blueprints:
            self.problems.pop(use, None)
        self.problems.update(built.problems)
        self.blueprints.update(built.blueprints)
        for order in [one for one in self._codes if any(use in changed for use, _ in one.steps)]:
            del self._codes[order]
        self._codes.update(built.codes)
        return changed


def _loaded(order: Order, blueprints: Mapping[str, Blueprint]) -> Code | None:
    """The code of an order, loaded; None: there is none in the cache. It is built by the process
    that builds, never here."""
    places = tuple(place for place, (use, own) in enumerate(order.steps)
                   if blueprints[use].takes_part(order.direction, own))
    if not places:
        return Code(())
    parts = [blueprints[order.steps[place][0]] for place in places]
    try:
        made = native(compose(parts, order.direction, traced=order.traced))
        return Code(places, made) if made.load() else None
    except Exception as error:  # its source does not run: Byway's own files are others now
        print(f"byway: a chain cannot be loaded ({type(error).__name__}: {error})", file=sys.stderr)
        return None


def _not_loaded(use: str) -> Problem:
    return Problem(use, f"its machine code was made, but is not to be had from {cache_root()}",
                   "see that the switch can write there and others cannot (BYWAY_CACHE), that there"
                   " is room, and what its log says")


def _problem(use: str, told: Mapping[str, Any]) -> Problem:
    """One of the builder's, in the words of a configuration's."""
    place = f"{told['file'] or use}:{told['line']}" if told["line"] else told["file"] or use
    return Problem(place, told["message"], told["fix"])
