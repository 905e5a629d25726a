# SPDX-License-Identifier: Apache-2.0
"""Rows of a map: as users and functions write them, and as they lie in its entries.

Used by map_memory.py. Uses nf (keys and values) and NumPy, which reads many entries at once.

An entry is a key as words (nf.keys.pack), then the fields of its value, long ones first, so that
all are aligned and nothing is between them.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from byway.nf.keys import FLOW, WORD, flow_of, pack, read_key, show, signed
from byway.nf.states import given_value

_CODES = {1: "B", 2: "H", 4: "I", 8: "q", 16: "qq"}  # of struct
_TYPES = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<i8", 16: "<2i8"}  # of NumPy
_WORDED = ("ipv4", "ipv6", "mac", "u64", FLOW)  # kinds that users see in another way


def field_bytes(kind: str) -> int:
    """What a field of a record takes (an IPv6 address: two words, high and low)."""
    return {"u8": 1, "u16": 2, "u32": 4, "ipv4": 4, "ipv6": 16}.get(kind, 8)


def value_words(fields: Mapping[str, str]) -> int:
    """How many words a value of these fields has."""
    return -(-sum(map(field_bytes, fields.values())) // 8)


def offsets(fields: Mapping[str, str]) -> dict[str, int]:
    """Where each field of a record is: bytes from its beginning."""
    made, at = {}, 0
    for name in sorted(fields, key=lambda name: -field_bytes(fields[name])):
        made[name] = at
        at += field_bytes(fields[name])
    return made


class Rows:
    """How the entries of a map with these types of keys and fields of values are written."""

    def __init__(self, key: Sequence[str], fields: Mapping[str, str]) -> None:
        self.packing = pack(key)
        self.fields = dict(fields)
        places = offsets(self.fields)
        # The one number of a map of numbers takes a whole word.
        sizes = {name: field_bytes(self.fields[name]) if name else 8 for name in places}
        words = self.packing.words + value_words(self.fields)
        self.entry = 8 * words
        codes = "q" * self.packing.words + "".join(_CODES[size] for size in sizes.values())
        self._struct = struct.Struct(f"<{codes}{self.entry - struct.calcsize(f'<{codes}')}x")
        self._order = [(name, sizes[name] == 16) for name in places]
        self._value = np.dtype({
            "names": [f".{name}" for name in places],  # (one may have no name)
            "formats": [_TYPES[size] for size in sizes.values()],
            "offsets": [8 * self.packing.words + at for at in places.values()],
            "itemsize": self.entry})

    # ------------------------------------------------------------ into entries
    def key(self, key: Any) -> bytes:
        """An entry with this key, as its user wrote it, and zeros. Raises ValueError."""
        words = self.packing.words_of(read_key(self.packing.types, key))
        return struct.pack(f"<{len(words)}q", *words).ljust(self.entry, b"\0")

    def packed(self, key: Any, value: Any) -> bytes:
        """An entry, of a row as its user wrote it. Raises ValueError."""
        words = self.packing.words_of(read_key(self.packing.types, key))
        given = given_value(self.fields, value)
        for name, wide in self._order:
            number = given[name] if isinstance(given, dict) else given
            words += (signed(number >> 64), signed(number)) if wide else (number,)
        return self._struct.pack(*words)

    # ------------------------------------------------------------ out of entries
    def decoded(self, entries: Any) -> list[tuple[Any, Any]]:
        """Keys and values as functions see them. ``entries``: words, a row for each."""
        columns = self._columns(entries)
        values = columns[""] if "" in columns else [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        parts = self._parts(entries)
        keys = parts[0] if len(parts) == 1 else zip(*parts, strict=True)
        return list(zip(keys, values, strict=True))

    def shown(self, entries: Any) -> list[dict[str, Any]]:
        """As users see them: {"key", "value"} each."""
        columns = {name: _shown(self.fields[name], column)
                   for name, column in self._columns(entries).items()}
        parts = [_shown(kind, part)
                 for kind, part in zip(self.packing.types, self._parts(entries), strict=True)]
        keys = parts[0] if len(parts) == 1 else [
            ",".join(map(str, row)) for row in zip(*parts, strict=True)]
        if "" in columns:
            return [{"key": key, "value": value}
                    for key, value in zip(keys, columns[""], strict=True)]
        return [{"key": key, "value": dict(zip(columns, row, strict=True))}
                for key, *row in zip(keys, *columns.values(), strict=True)]

    def _columns(self, entries: Any) -> dict[str, list[Any]]:
        """The values of each field, in the order that they were declared."""
        records = np.ascontiguousarray(entries).view(self._value).reshape(-1)
        return {name: _wide(records[f".{name}"]) if kind == "ipv6" else
                records[f".{name}"].tolist() for name, kind in self.fields.items()}

    def _parts(self, entries: Any) -> list[list[Any]]:
        """The parts of the keys."""
        words, made = np.ascontiguousarray(entries).view(np.uint64), list[list[Any]]()
        for kind, places in zip(self.packing.types, self.packing.places, strict=True):
            found = [words[:, one.word] >> np.uint64(one.shift) & np.uint64((1 << one.bits) - 1)
                     for one in places]
            if kind == FLOW:
                made.append([flow_of(row) for row in np.stack(found, axis=1).tolist()])
            elif kind == "ipv6":
                made.append(_wide(np.stack(found, axis=1)))
            else:
                made.append(found[0].view(np.int64).tolist())
        return made


def _wide(halves: Any) -> list[int]:
    """Numbers of 128 bits, of their halves: high, low."""
    return [(high & WORD) << 64 | low & WORD for high, low in halves.tolist()]


def _shown(kind: str, column: list[Any]) -> list[Any]:
    return [show(kind, one) for one in column] if kind in _WORDED else column
