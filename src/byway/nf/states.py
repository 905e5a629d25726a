# SPDX-License-Identifier: Apache-2.0
"""State that a function keeps between frames: counters, arrays, buckets. Maps: see maps.py.

Part of the author's page. Used by authors; by byway.functions, which has the same as kernels over
memory; and as the oracle of those. Uses keys.py, running.py.

An object in the class says what the state is like. Each instance has its own (``fresh``), empty at
first. What control does to a table through the API is here too: put, remove, clear, entries.

Time has ticks of 2^20 ns (about 1 ms), as kernels count ages with.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from byway.nf.keys import BITS, read, read_part, show, word_of
from byway.nf.running import current
from byway.nf.state import State

TICK_BITS = 20
LONGEST = 1 << 30  # ticks that an age may have: thirteen days
MOST = 1 << 26  # entries
SECOND = 1_000_000_000
MOST_TOKENS, MOST_RATE = 1 << 30, 1 << 40


def declared(what: str, value: Any, most: int) -> int:
    """A number that a declaration gives. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{what}={value!r}: write a number from 1 to {most}")
    return value


def word_type(kind: Any) -> str:
    if kind not in BITS or kind == "ipv6":
        words = ", ".join(name for name in BITS if name != "ipv6")
        raise ValueError(f"value={kind!r}: write one of {words}")
    return str(kind)


class Table(State):
    """A state whose entries users see and change."""

    kind: ClassVar[str]

    def spec(self) -> dict[str, Any]:
        """What it is like, as JSON. Two with the same have the same memory."""
        raise NotImplementedError

    def entries(self) -> list[tuple[Any, Any]]:
        """Its keys and values."""
        raise NotImplementedError

    def put(self, key: Any, value: Any) -> bool:
        """Set a value, as a user does; -> False where there is no room. Raises ValueError."""
        raise NotImplementedError

    def remove(self, key: Any) -> bool:
        """Remove an entry, as a user does; -> was there one? Raises ValueError."""
        raise NotImplementedError

    def clear(self) -> None:
        """Remove all entries."""
        raise NotImplementedError

    def fill(self, rows: Mapping[Any, Any]) -> bool:
        """Replace all entries by these; -> False where there was no room for all: the entries stay
        as they were. Raises ValueError, and they do as well."""
        before, done = self.entries(), False
        self.clear()
        try:
            done = all(self.put(key, value) for key, value in rows.items())
        finally:
            if not done:
                self.clear()
                for key, value in before:
                    self.put(key, value)
        return done


class Counter(Table):
    """A number that only grows, until it is set from outside: ``hits = nf.Counter()``."""

    kind = "counter"

    def __init__(self) -> None:
        self.value = 0
        """What was counted. (For tests and users; a function cannot read it.)"""

    def fresh(self, owner: object) -> Self:
        return type(self)()

    def add(self, n: int = 1) -> None:
        """Count n more."""
        self.value = word_of("u64", self.value + n)

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def entries(self) -> list[tuple[Any, Any]]:
        return [("value", self.value)]

    def put(self, key: Any, value: Any) -> bool:
        self.value = counter_row(key, value)
        return True

    def remove(self, key: Any) -> bool:
        return self.put(key, 0)

    def clear(self) -> None:
        self.value = 0


def counter_row(key: Any, value: Any) -> int:
    """What a user puts into a counter. Raises ValueError."""
    if key != "value":
        raise ValueError(f'a counter has no {key!r}; its one key is "value"')
    return int(read("u64", value))


class Array(Table):
    """Numbers by place: ``sums = nf.Array(value="u64", size=256)``, then ``self.sums[i] += 1``.

    A place that there is not is a fault: the frame is dropped.
    """

    kind = "array"

    def __init__(self, value: str = "u64", *, size: int) -> None:
        self.type = word_type(value)
        self.size = declared("size", size, MOST)
        self._values: dict[int, int] = {}

    def fresh(self, owner: object) -> Self:
        return type(self)(self.type, size=self.size)

    def _place(self, index: int) -> int:
        if not 0 <= index < self.size:
            raise IndexError(f"place {index} of an array of {self.size}")
        return index

    def __getitem__(self, index: int) -> int:
        return self._values.get(self._place(index), 0)

    def __setitem__(self, index: int, value: int) -> None:
        self._values[self._place(index)] = word_of(self.type, value)

    def __len__(self) -> int:
        return self.size

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "value": self.type, "size": self.size}

    def entries(self) -> list[tuple[Any, Any]]:
        """Those that are not 0."""
        return sorted((place, value) for place, value in self._values.items() if value)

    def put(self, key: Any, value: Any) -> bool:
        """``value``: for one place, or a list (or bytes) for the places from ``key`` on."""
        first, values = array_rows(self.type, self.size, key, value)
        self._values.update(enumerate(values, first))
        return True

    def remove(self, key: Any) -> bool:
        first, _ = array_rows(self.type, self.size, key, 0)
        return bool(self._values.pop(first, 0))

    def clear(self) -> None:
        self._values.clear()


def array_rows(kind: str, size: int, key: Any, value: Any) -> tuple[int, list[int]]:
    """What a user puts into an array: the first place, and values from there on. Raises
    ValueError."""
    first = read_part("u32", key)
    values = [read(kind, one) for one in (value if isinstance(value, (list, bytes)) else [value])]
    last = first + max(1, len(values)) - 1
    if last >= size:
        raise ValueError(f"there is no place {last}; "
                         f"write places from 0 to {size - 1}")
    return first, values


class Level:
    """What one token bucket holds: how many billionths of a token are missing, and since when."""

    __slots__ = ("missing", "since")

    def __init__(self) -> None:
        self.missing = self.since = 0

    def take(self, n: int, rate: int, burst: int) -> bool:
        """Take n tokens if they are there."""
        n, rate, burst = (max(0, number) for number in (n, rate, burst))
        elapsed = current().now - self.since
        if elapsed > 0:
            self.missing = max(0, self.missing - elapsed * min(rate, MOST_RATE))
            self.since = current().now
        if n > MOST_TOKENS or self.missing + n * SECOND > min(burst, MOST_TOKENS) * SECOND:
            return False
        self.missing += n * SECOND
        return True


class Bucket(State):
    """A token bucket: ``limit = nf.Bucket()``, then ``if not self.limit.take(1, self.rate, 100)``.

    It holds at most ``burst`` tokens (full at first) and gets ``rate`` of them each second. Rate:
    below 2^40; burst: at most 2^30 and, or they never pass, at least what is taken at once.
    """

    kind: ClassVar[str] = "bucket"

    def __init__(self) -> None:
        self._level = Level()

    def fresh(self, owner: object) -> Self:
        return type(self)()

    def take(self, n: int, rate: int, burst: int) -> bool:
        """Take n tokens; -> False, and none are taken, where there are not so many."""
        return self._level.take(n, rate, burst)

    def spec(self) -> dict[str, Any]:
        """What it is like, as JSON."""
        return {"kind": self.kind}


def age_spec(age: "float | str | None") -> "float | str | None":
    """An age as declared: seconds, or the name of a parameter. Raises ValueError."""
    if age is None or (isinstance(age, str) and age.isidentifier()):
        return age
    if isinstance(age, (str, bool)) or not 0 < age <= 1_000_000:
        raise ValueError(f"{age!r} is no age: write seconds, or the name of an nf.Seconds "
                         "parameter")
    return float(age)


class Ages:
    """Has an entry aged out? ``limit``: seconds, or the name of the owner's parameter that has
    them; None: never."""

    def __init__(self, owner: object, limit: "float | str | None") -> None:
        self._owner, self._limit = owner, limit

    def out(self, tick: int) -> bool:
        """Has an entry of this tick?"""
        if self._limit is None:
            return False
        ns = getattr(self._owner, self._limit) if isinstance(self._limit, str) else round(
            self._limit * SECOND)
        return self.tick() - tick >= min(max(1, ns + (1 << TICK_BITS) - 1 >> TICK_BITS), LONGEST)

    @staticmethod
    def tick() -> int:
        """The time in ticks."""
        return current().now >> TICK_BITS


def shown_value(fields: Mapping[str, str], value: Any) -> Any:
    """A map's value for users: one, or its fields by name."""
    if list(fields) == [""]:
        return show(fields[""], value)
    return {name: show(kind, value[name]) for name, kind in fields.items()}


def given_value(fields: Mapping[str, str], given: Any) -> Any:
    """A map's value as users give it (fields that are left out are 0). Raises ValueError."""
    if list(fields) == [""]:
        return read(fields[""], given)
    if not isinstance(given, dict):
        raise ValueError(f"{json.dumps(given, default=str)[:60]} is no record; {_example(fields)}")
    if unknown := [name for name in given if name not in fields]:
        raise ValueError(f"a value has no {', '.join(map(str, unknown))}; {_example(fields)}")
    found = {}
    for name, kind in fields.items():
        try:
            found[name] = read(kind, given.get(name, 0))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _example(fields: Mapping[str, str]) -> str:
    return "write {" + ", ".join(f'"{name}": {kind}' for name, kind in fields.items()) + "}"
