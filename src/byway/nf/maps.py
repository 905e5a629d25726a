# SPDX-License-Identifier: Apache-2.0
"""Maps: entries by key, with a capacity and an age; and tables of prefixes.

Part of the author's page. Used by authors; by byway.functions, which has the same as kernels over
memory; and as the oracle of those. Uses keys.py, states.py.

Capacity is a promise: so many entries find room. One more is refused, and counted (``full``). Where
entries age, large maps that are compiled may have room for some more: they do not look at all
entries to know how many are still young.
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from byway.nf.keys import BITS, Flow, Key, pack, part_of, read, read_key, word_of
from byway.nf.state import State
from byway.nf.states import (
    MOST,
    Ages,
    Level,
    Table,
    age_spec,
    declared,
    given_value,
    word_type,
)

MOST_FIELDS = 32  # words of a record


class Record:
    """What a map of records holds for one key: ``r = self.flows.make(key)``, ``r.packets += 1``.

    Its truth says whether there is one: find and make answer one in any case, which is harmless.
    """

    __slots__ = ("_fields", "_there", "_values")

    _fields: Mapping[str, str]
    _there: bool
    _values: dict[str, int]

    def __init__(self, fields: Mapping[str, str], there: bool = True) -> None:
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "_values", dict.fromkeys(fields, 0))
        object.__setattr__(self, "_there", there)

    def __bool__(self) -> bool:
        return self._there

    def __getattr__(self, name: str) -> int:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(_unknown(name, self._fields))
        return self._values[name]

    def __setattr__(self, name: str, value: int) -> None:
        if name not in self._values:
            raise AttributeError(_unknown(name, self._fields))
        self._values[name] = word_of(self._fields[name], value)


def _unknown(name: str, fields: Mapping[str, str]) -> str:
    return f"the record has no field {name}; it has {', '.join(fields)}"


class _Entry:
    """A key's: its tick (when it was made or last used), and what it holds."""

    __slots__ = ("held", "tick")

    def __init__(self, tick: int, held: Any) -> None:
        self.tick, self.held = tick, held


class _Entries:
    """Entries by key that age out, at most so many."""

    def __init__(self, capacity: int, ages: Ages, used: bool) -> None:
        self._kept: dict[Any, _Entry] = {}
        self._capacity, self._ages, self._used = capacity, ages, used
        self.full = 0

    def find(self, key: Any, use: bool = False) -> _Entry | None:
        """What is there under a key; ``use``: this counts as use."""
        entry = self._kept.get(key)
        if entry is None or self._ages.out(entry.tick):
            return None
        if use and self._used:
            entry.tick = self._ages.tick()
        return entry

    def make(self, key: Any, held: Any) -> _Entry | None:
        """What is there, or a new one that holds ``held``; None: there is no room."""
        entry = self.find(key, use=True)
        if entry is None:
            self._kept.pop(key, None)
            if len(self._kept) >= self._capacity:
                self._kept = {k: e for k, e in self._kept.items() if not self._ages.out(e.tick)}
            if len(self._kept) >= self._capacity:
                self.full += 1
                return None
            entry = self._kept[key] = _Entry(self._ages.tick(), held)
        return entry

    def remove(self, key: Any) -> bool:
        """-> was there one?"""
        there = self.find(key) is not None
        self._kept.pop(key, None)
        return there

    def clear(self) -> None:
        self._kept.clear()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter([(key, entry.held) for key, entry in self._kept.items()
                     if not self._ages.out(entry.tick)])


class Keyed:
    """What states with keys have in common: how keys are written."""

    def __init__(self, key: str | Sequence[str]) -> None:
        self.key_types = (key,) if isinstance(key, str) else tuple(key)
        self.packing = pack(self.key_types)

    def kept(self, key: Key) -> Any:
        """A key that a function gives, each part cut to its type. Raises TypeError."""
        parts = key if isinstance(key, tuple) and not isinstance(key, Flow) else (key,)
        if len(parts) != len(self.key_types):
            raise TypeError(f"a key of {len(parts)} parts; it needs {', '.join(self.key_types)}")
        made = tuple(part_of(kind, part) for kind, part in zip(self.key_types, parts, strict=True))
        return made[0] if len(made) == 1 else made


class Map(Keyed, Table):
    """Entries by key, in memory of a fixed size.

        seen = nf.Map(key="ipv4", value="u32", capacity=65536, age=1.0)
        flows = nf.Map(key="flow", value={"packets": "u64", "port": "u16"}, capacity=1000, idle=60)

    ``key``: a type or a tuple of types (u8 u16 u32 u64 mac ipv4 ipv6 flow). ``value``: a type of
    one word (then get, set, add), or fields by name (then find, peek, make). ``age``: seconds from
    when an entry was made until it is gone. ``idle``: seconds since the last set, add, find or
    make. Either is a number or the name of an nf.Seconds parameter; a map has one of them or none.
    """

    kind: ClassVar[str] = "map"

    def __init__(self, key: str | Sequence[str], value: str | Mapping[str, str], capacity: int, *,
                 age: float | str | None = None, idle: float | str | None = None,
                 owner: object = None) -> None:
        super().__init__(key)
        if age is not None and idle is not None:
            raise ValueError("a map has an age or an idle time; write one of them")
        self.fields: dict[str, str] = {"": word_type(value)} if isinstance(value, str) else dict(
            value)
        unknown = [name for name, kind in self.fields.items()
                   if kind not in BITS or (name and (not name.isidentifier() or name[0] == "_"))]
        if unknown or not self.fields:
            raise ValueError(f"value={value!r}: write a type, or names with types: "
                             f"{{'packets': 'u64'}}; types are {', '.join(BITS)}")
        if sum(1 + (kind == "ipv6") for kind in self.fields.values()) > MOST_FIELDS:
            raise ValueError(f"a value of more than {MOST_FIELDS} words")
        self.capacity = declared("capacity", capacity, MOST)
        self.age, self.idle = age_spec(age), age_spec(idle)
        self._entries = _Entries(self.capacity, Ages(owner, self.age or self.idle),
                                 self.idle is not None)
        self._spare = Record(self.fields, there=False)

    def fresh(self, owner: object) -> Self:
        value = self.fields[""] if self.is_word else self.fields
        return type(self)(self.key_types, value, self.capacity, age=self.age, idle=self.idle,
                          owner=owner)

    @property
    def is_word(self) -> bool:
        """Is its value one number (and no record)?"""
        return "" in self.fields

    @property
    def full(self) -> int:
        """How often there was no room."""
        return self._entries.full

    def __len__(self) -> int:
        return len(list(self._entries))

    # ------------------------------------------------------------ numbers
    def get(self, key: Key, default: int = 0) -> int:
        """The number under a key; ``default`` where there is none."""
        entry = self._entries.find(self.kept(key))
        return default if entry is None else int(entry.held)

    def set(self, key: Key, value: int) -> bool:
        """Put a number under a key; -> False where there is no room."""
        entry = self._entries.make(self.kept(key), 0)
        if entry is not None:
            entry.held = word_of(self.fields[""], value)
        return entry is not None

    def add(self, key: Key, n: int = 1) -> int:
        """Add n to the number under a key (0 where there is none yet); -> the sum. Where there is
        no room for a new one: n."""
        entry = self._entries.make(self.kept(key), 0)
        if entry is None:
            return word_of(self.fields[""], n)
        entry.held = word_of(self.fields[""], entry.held + n)
        return int(entry.held)

    # ------------------------------------------------------------ records
    def find(self, key: Key) -> Record:
        """The record under a key; a false one where there is none."""
        return self._record(self._entries.find(self.kept(key), use=True))

    def peek(self, key: Key) -> Record:
        """As ``find``, but it does not count as use: the record stays as idle as it was."""
        return self._record(self._entries.find(self.kept(key)))

    def make(self, key: Key) -> Record:
        """The record under a key, a new one of zeros where there is none; a false one where there
        is no room for it."""
        return self._record(self._entries.make(self.kept(key), Record(self.fields)))

    def _record(self, entry: _Entry | None) -> Record:
        if entry is None:
            self._spare._values.update(dict.fromkeys(self.fields, 0))
            return self._spare
        record: Record = entry.held
        return record

    # ------------------------------------------------------------ both
    def delete(self, key: Key) -> bool:
        """Remove what is under a key; -> was there something?"""
        return self._entries.remove(self.kept(key))

    def __contains__(self, key: Key) -> bool:
        return self._entries.find(self.kept(key)) is not None

    # ------------------------------------------------------------ from outside
    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "key": list(self.key_types), "value": self.fields,
                "capacity": self.capacity, "age": self.age, "idle": self.idle}

    def entries(self) -> list[tuple[Any, Any]]:
        return [(key, dict(held._values) if isinstance(held, Record) else held)
                for key, held in self._entries]

    def put(self, key: Any, value: Any) -> bool:
        kept, given = read_key(self.key_types, key), given_value(self.fields, value)
        if self.is_word:
            return self.set(kept, given)
        record = self.make(kept)
        for name, number in given.items() if record else ():
            setattr(record, name, number)
        return bool(record)

    def remove(self, key: Any) -> bool:
        return self.delete(read_key(self.key_types, key))

    def clear(self) -> None:
        self._entries.clear()


class Buckets(Keyed, State):
    """Token buckets by key: ``limits = nf.Buckets(key="ipv4", capacity=65536, idle=10)``.

    A bucket that nobody took from for ``idle`` seconds is forgotten; a new one is full. Where there
    is no room for a new one nothing can be taken.
    """

    kind: ClassVar[str] = "buckets"

    def __init__(self, key: str | Sequence[str], capacity: int, idle: float | str, *,
                 owner: object = None) -> None:
        super().__init__(key)
        self.capacity = declared("capacity", capacity, MOST)
        self.idle = age_spec(idle)
        self._entries = _Entries(self.capacity, Ages(owner, self.idle), used=True)

    def fresh(self, owner: object) -> Self:
        assert self.idle is not None
        return type(self)(self.key_types, self.capacity, self.idle, owner=owner)

    @property
    def full(self) -> int:
        """How often there was no room."""
        return self._entries.full

    def take(self, key: Key, n: int, rate: int, burst: int) -> bool:
        """As nf.Bucket's, from the bucket of a key."""
        entry = self._entries.make(self.kept(key), Level())
        return entry is not None and bool(entry.held.take(n, rate, burst))

    def spec(self) -> dict[str, Any]:
        """What it is like, as JSON."""
        return {"kind": self.kind, "key": list(self.key_types), "capacity": self.capacity,
                "idle": self.idle}


class Lpm(Table):
    """Values by prefix, filled from outside: ``routes = nf.Lpm(value="u32", capacity=1000)``.

    ``key``: "ipv4" or "ipv6". What counts is the longest prefix that an address lies in.
    """

    kind = "lpm"

    def __init__(self, value: str = "u32", *, capacity: int, key: str = "ipv4") -> None:
        if key not in ("ipv4", "ipv6"):
            raise ValueError(f'key={key!r}: write "ipv4" or "ipv6"')
        self.key, self.type = key, word_type(value)
        self.capacity = declared("capacity", capacity, MOST >> 4)
        self.full = 0
        self._prefixes: dict[tuple[int, int], int] = {}

    def fresh(self, owner: object) -> Self:
        return type(self)(self.type, capacity=self.capacity, key=self.key)

    def lookup(self, ip: int, default: int = -1) -> int:
        """The value of the longest prefix that an address lies in; ``default`` where there is
        none."""
        width = BITS[self.key]
        ip &= (1 << width) - 1
        for bits in range(width, -1, -1):
            value = self._prefixes.get((ip >> width - bits << width - bits, bits))
            if value is not None:
                return value
        return default

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "key": self.key, "value": self.type, "capacity": self.capacity}

    def entries(self) -> list[tuple[Any, Any]]:
        return sorted(self._prefixes.items())

    def put(self, key: Any, value: Any) -> bool:
        """``key``: text, or a pair of address and bits."""
        prefix, number = read_prefix(self.key, key), read(self.type, value)
        if prefix not in self._prefixes and len(self._prefixes) >= self.capacity:
            self.full += 1
            return False
        self._prefixes[prefix] = number
        return True

    def remove(self, key: Any) -> bool:
        return self._prefixes.pop(read_prefix(self.key, key), None) is not None

    def clear(self) -> None:
        self._prefixes.clear()


def read_prefix(kind: str, given: Any) -> tuple[int, int]:
    """A prefix as a user gave it -> address, bits. Raises ValueError with a sentence."""
    network = ipaddress.IPv4Network if kind == "ipv4" else ipaddress.IPv6Network
    try:
        if isinstance(given, int):
            raise TypeError(given)
        nearest = network(given, strict=False)
    except (ValueError, TypeError):
        example = "10.0.0.0/8" if kind == "ipv4" else "2001:db8::/32"
        raise ValueError(f"{given!r} is no {kind} prefix; write one as {example}") from None
    try:
        made = network(given)
    except ValueError:
        raise ValueError(f"{given!r} is no {kind} prefix: it has bits beyond its length; "
                         f"write {nearest}") from None
    return int(made.network_address), made.prefixlen


def show_prefix(kind: str, prefix: tuple[int, int]) -> str:
    """A prefix for users."""
    network = ipaddress.IPv4Network if kind == "ipv4" else ipaddress.IPv6Network
    return str(network(prefix))

