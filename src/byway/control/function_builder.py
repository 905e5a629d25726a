# SPDX-License-Identifier: Apache-2.0
"""Building what many ports wait for, so that one file that ends the builder stops nobody else.

Used by functions, for what nobody answers for at once (the start, the cluster) and for reloads.
Uses the library of code.

The builder is one process for everything that is asked for together, which is fast. It may end
badly: an author's file may end the process, or never end. Then every function is tried alone, and
every chain, and only what ends badly alone is lacking. It need not be the file: the machine may
have had no time or memory. So that is tried again later, ever more rarely: others wait meanwhile.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace

from byway.control.function_library import Built, Library
from byway.control.function_steps import Order
from byway.control.problem import EngineError, Problem

TRIES = 3  # of building a chain: what one has compiled is there for the next one
LONGEST_MINUTES = 60  # between two tries of what the builder ended badly of


@dataclass(frozen=True)
class Ended(Problem):
    """That the builder ended badly, which it may not do another time."""


@dataclass(frozen=True)
class Unbuilt:
    """A chain that could not be built, though each of its functions could."""

    order: Order
    why: str


def _uses(orders: Collection[Order], uses: Collection[str]) -> list[str]:
    """All functions of these, each once."""
    return list(dict.fromkeys([*uses, *(use for order in orders for use, _ in order.steps)]))


async def _alone(library: Library, use: str) -> Built:
    """One function; that the process ended badly becomes a problem of it."""
    try:
        return await library.build((), {use})
    except EngineError as error:
        return Built((), {}, {use: (Ended(use, error.problem, error.fix),)})


class Later:
    """When to try again what the builder ended badly of: after a minute, two, four, up to an hour.
    """

    def __init__(self) -> None:
        self._minutes, self._next = 0, 1

    def forget(self, library: Library, unbuilt: dict[Order, str]) -> bool:
        """Called once a minute; -> is it time? Then nothing is known any more of what ended badly.
        """
        ended = [use for use, some in library.problems.items()
                 if any(isinstance(one, Ended) for one in some)]
        if not ended and not unbuilt:
            self._minutes, self._next = 0, 1
            return False
        self._minutes += 1
        if self._minutes < self._next:
            return False
        self._minutes, self._next = 0, min(2 * self._next, LONGEST_MINUTES)
        unbuilt.clear()
        for use in ended:
            del library.problems[use]
        return True


async def in_parts(library: Library, orders: Collection[Order],
                   uses: Collection[str]) -> AsyncIterator[Built | Unbuilt]:
    """Build these, all together or, where that ends badly, in parts. Where there are functions that
    nobody has seen yet, it is they that are tried alone, and chains are lacking still."""
    try:
        yield await library.build(orders, uses)
        return
    except EngineError:
        new = [use for use in _uses(orders, uses) if use not in library.blueprints]
    for use in new:
        yield await _alone(library, use)
    for order in () if new else orders:
        yield await _chain(library, order)


async def _chain(library: Library, order: Order) -> Built | Unbuilt:
    why = ""
    for _ in range(TRIES):
        try:
            return await library.build([order], ())
        except EngineError as error:
            why = str(error)
    return Unbuilt(order, why)


async def again(library: Library, orders: Collection[Order], uses: Collection[str]) -> Built:
    """Build these anew, of files as they are now. What has never worked and ends the process still
    is left out. EngineError: something that works now would end the process, or all of it does."""
    try:
        return await library.build(orders, uses)
    except EngineError:
        every = _uses(orders, uses)
        broken = [use for use in every if use not in library.blueprints]
        if not broken or len(every) == 1:
            raise
    tried = [await _alone(library, use) for use in broken]
    problems = {use: some for one in tried for use, some in one.problems.items()}
    built = await library.build(
        [order for order in orders if not any(use in problems for use, _ in order.steps)],
        [use for use in uses if use not in problems])
    return replace(built, problems={**built.problems, **problems})
