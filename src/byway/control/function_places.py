# SPDX-License-Identifier: Apache-2.0
"""Where network functions stand: what frames of each port go through, by port, function and code.

Used by functions and function_answers. Uses function_steps.

There may be thousands of ports. So whatever is asked here is looked up, and costs what it answers.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from byway.control.function_steps import Order, Placed, Way

if TYPE_CHECKING:
    from byway.functions.memory import Chain, Instance

K = TypeVar("K")
Place: TypeAlias = tuple[str, str]  # a port and a network of it, by name


@dataclass(frozen=True)
class Fitted:
    """What frames of a port go through, that are of one network. ``complete``: the chains are what
    is wanted of them; else those that were there before, with instances that were called ``kept``
    when this was noted."""

    ways: tuple[Way, Way]
    chains: "tuple[Chain | None, Chain | None]"
    complete: bool
    kept: tuple[str, ...] = ()
    problem: str = ""  # why not, where it is no matter of building

    @property
    def names(self) -> tuple[str, ...]:
        """The instances that stand there."""
        return (*(one.name for one in self.placed), *self.kept)

    @property
    def instances(self) -> "Collection[Instance]":
        """Those that its chains reach."""
        return dict.fromkeys(one for chain in self.chains if chain for one in chain.instances)

    @property
    def placed(self) -> Iterator[Placed]:
        """The functions that are wanted there."""
        return (one for way in self.ways for one in way.placed)


class Places:
    """All of them."""

    def __init__(self) -> None:
        self._fitted: dict[Place, Fitted] = {}
        self._of_port: dict[str, dict[Place, None]] = {}
        self._of_name: dict[str, dict[Place, None]] = {}
        self._of_instance: dict[Instance, dict[Place, None]] = {}
        self._of_order: dict[Order, dict[Place, None]] = {}
        self._of_use: dict[str, Counter[Order]] = {}
        self._lacking: dict[Place, None] = {}  # that are not complete

    def get(self, place: Place) -> Fitted | None:
        """What is there."""
        return self._fitted.get(place)

    def put(self, place: Place, after: Fitted | None) -> tuple[str, ...]:
        """Note what is there now; -> the instances that stood there before."""
        before = self._fitted.pop(place, None)
        if before:
            self._count(place, before, -1)
        if after:
            self._count(place, after, 1)
            self._fitted[place] = after
        return before.names if before else ()

    def _count(self, place: Place, fitted: Fitted, n: int) -> None:
        _note(self._of_port, place[0], place, n)
        for name in dict.fromkeys(fitted.names):
            _note(self._of_name, name, place, n)
        for one in fitted.instances:
            _note(self._of_instance, one, place, n)
        for order in {way.order for way in fitted.ways if way.placed}:
            _note(self._of_order, order, place, n)
            for use in {use for use, _ in order.steps}:
                orders = self._of_use.setdefault(use, Counter())
                orders[order] += n
                if not orders[order]:
                    del orders[order]
                if not orders:
                    del self._of_use[use]
        if n < 0:
            self._lacking.pop(place, None)
        elif not fitted.complete:
            self._lacking[place] = None

    def of_port(self, port: str) -> list[tuple[Place, Fitted]]:
        """What stands at a port: its own network's first."""
        return [(place, self._fitted[place]) for place in self._of_port.get(port, ())]

    def ports(self, name: str) -> list[str]:
        """The ports whose frames go through the instance."""
        return list(dict.fromkeys(port for port, _ in self._of_name.get(name, ())))

    def stands(self, name: str) -> bool:
        """Does an instance stand anywhere?"""
        return name in self._of_name

    def reach(self, instance: "Instance") -> bool:
        """Does any chain reach it, whatever it is called?"""
        return instance in self._of_instance

    def standing(self, name: str) -> Iterator[Fitted]:
        """Where an instance stands."""
        return (self._fitted[place] for place in self._of_name.get(name, ()))

    def orders(self, uses: Collection[str]) -> set[Order]:
        """The chains that have one of these in them."""
        return {order for use in uses for order in self._of_use.get(use, ())}

    def lacking(self) -> Iterator[tuple[str, Fitted]]:
        """Ports whose chains are not what is wanted."""
        return ((place[0], self._fitted[place]) for place in self._lacking)

    def to_refit(self, uses: Collection[str]) -> list[str]:
        """The ports that are to follow where the code of these is another one: they have it in
        their chains, or lack something."""
        places = [place for order in self.orders(uses) for place in self._of_order[order]]
        return list(dict.fromkeys(port for port, _ in (*self._lacking, *places)))

    def every(self) -> Iterator[Placed]:
        """All that are wanted anywhere, several times where they are shared."""
        return (one for fitted in self._fitted.values() for one in fitted.placed)

    def problems(self) -> Iterable[str]:
        """What is in the way of chains that are built."""
        return (fitted.problem for _, fitted in self.lacking() if fitted.problem)


def _note(index: dict[K, dict[Place, None]], key: K, place: Place, n: int) -> None:
    """A place is there (n = 1), or not any more."""
    if n > 0:
        index.setdefault(key, {})[place] = None
        return
    del index[key][place]
    if not index[key]:
        del index[key]
