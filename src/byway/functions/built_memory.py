# SPDX-License-Identifier: Apache-2.0
"""Tables that are built anew as a whole at each change: put many rows at once.

Used by table_memory.py and rules_memory.py. Uses state_memory.py.

What workers look up never changes; a change puts another in its place while the instance's lock is
held, so the old one is let go of at once. To build it takes long, and is pure work: it may be done
in another thread.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from byway.functions.state_memory import (
    StateMemory,
    Steps,
    Surroundings,
    enough_for,
    in_steps,
    run,
)
from byway.nf.keys import rows_as

Parts: TypeAlias = dict[Any, Any]


class BuiltAnew(StateMemory):
    """``parts``: what it is built of, in order of their keys."""

    def __init__(self, spec: Mapping[str, Any], around: Surroundings) -> None:
        super().__init__(spec, around)
        self.parts: Parts = {}

    # ------------------------------------------------------------ for kinds of tables
    def _read(self, key: Any, value: Any) -> tuple[Any, Any]:
        """A row as its user wrote it: its part's key, and the part."""
        raise NotImplementedError

    def _part(self, key: Any) -> Any:
        """The key of the part that a user means."""
        raise NotImplementedError

    @staticmethod
    def _takes(n: int) -> int:
        """Bytes of memory that it takes to build n parts, about."""
        raise NotImplementedError

    def _build(self, parts: Mapping[Any, Any]) -> Any:
        """What is looked up where these are the parts. Pure."""
        raise NotImplementedError

    @staticmethod
    def _in_order(keys: Collection[Any]) -> Iterable[Any]:
        """Keys of parts in their order."""
        return sorted(keys)

    def _place(self, parts: Mapping[Any, Any], built: Any) -> None:
        """Have workers look that up."""
        raise NotImplementedError

    def _shown(self, key: Any, part: Any) -> dict[str, Any]:
        """A part as users see it."""
        raise NotImplementedError

    # ------------------------------------------------------------ what users do
    def portions(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        parts = self.parts
        for keys in in_steps(list(parts)[:limit]):
            yield [self._shown(key, parts[key]) for key in keys]

    def changing(self, rows: Mapping[Any, Any], whole: bool) -> Steps[list[Any]]:
        read = []
        for some in in_steps(rows.items()):
            parts = rows_as(some, self._read)
            read += [(given, *part) for (given, _), part in zip(some, parts, strict=True)]
            yield None
        refused: list[Any] = []

        def wanted(before: Parts) -> Parts | None:
            made = {} if whole else dict(before)
            refused.clear()
            for given, key, part in read:
                if key in made or len(made) < self.spec["capacity"]:
                    made[key] = part
                else:
                    refused.append(given)
            return None if refused else made

        yield from self._replacing(wanted)
        return refused

    def removing(self, key: Any) -> Steps[bool]:
        gone = self._part(key)

        def wanted(before: Parts) -> Parts | None:
            return {one: part for one, part in before.items() if one != gone} \
                if gone in before else None

        return (yield from self._replacing(wanted))

    def clear(self) -> None:
        run(self._replacing(lambda before: {}))

    def _replacing(self, wanted: Callable[[Parts], Parts | None]) -> Steps[bool]:
        """Have other parts; ``wanted``: made of those that there are, None: leave them."""
        def make() -> tuple[Parts, Any] | None:
            made = wanted(before)
            if made is None:
                return None
            enough_for(self._takes(len(made)), "put fewer rows")
            parts = {key: made[key] for key in self._in_order(made)}
            return parts, self._build(parts)

        while True:
            before = self.parts
            made = yield make
            if made is None:
                return False
            if self.parts is before:  # else somebody else was faster
                self._place(*made)
                self.parts = made[0]
                return True
