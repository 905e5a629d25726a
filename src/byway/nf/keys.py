# SPDX-License-Identifier: Apache-2.0
"""Types of keys and values of a state: how many bits, how users write them, how keys are packed.

Used by states.py, maps.py and events.py, and by byway.functions, whose kernels hold the same keys
as words. Uses Python's ipaddress.

    u8 u16 u32 u64    numbers without a sign; a u64 is read as a signed number, as all numbers are
    mac ipv4 ipv6     addresses, as numbers of 48, 32 and 128 bits
    flow              addresses, protocol and ports of a packet, of IPv4 or IPv6

Packing: a key of several parts takes as few 64-bit words as its parts allow. Each part goes into
the first word with room for it; in a word the first part has the highest bits, the last one the
lowest. An IPv6 address takes two words for itself (high, low), a flow five (``flow_words``).
"""

import ipaddress
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

BITS = {"u8": 8, "u16": 16, "u32": 32, "u64": 64, "mac": 48, "ipv4": 32, "ipv6": 128}
FLOW, FLOW_WORDS = "flow", 5
MOST_WORDS = 8  # of a key
WORD = (1 << 64) - 1
_MAPPED = 0xFFFF << 32  # ::ffff:a.b.c.d, RFC 4291 2.5.5.2
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_WRITTEN = {"ipv4": "an address, as 10.0.0.1", "ipv6": "an address, as 2001:db8::1",
            "mac": "an address, as 02:00:00:00:00:01", FLOW: "a flow, as tcp 10.0.0.1 1024 10.0.0.2"
            " 80", **{f"u{bits}": f"a number from 0 to {(1 << bits) - 1}"
                      for bits in (8, 16, 32, 64)}}
T = TypeVar("T")


class Flow(NamedTuple):
    """What a packet belongs to. ``version``: 4, 6, or 0 for what is no IP packet (all is 0 then).
    Ports: of TCP and UDP, 0 for other protocols and for all fragments."""

    version: int = 0
    src: int = 0
    dst: int = 0
    src_port: int = 0
    dst_port: int = 0
    protocol: int = 0

    def __str__(self) -> str:
        address = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        name = _PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        return f"{name} {address(self.src)} {self.src_port} {address(self.dst)} {self.dst_port}"


Key: TypeAlias = "int | Flow | tuple[int | Flow, ...]"


def signed(value: int) -> int:
    """The low 64 bits of a number, as a signed number."""
    value &= WORD
    return value - (1 << 64) if value >> 63 else value


def word_of(kind: str, value: int) -> int:
    """A number as a field of this type keeps it: what is too large loses its high bits."""
    bits = BITS[kind]
    return signed(value) if bits == 64 else value & (1 << bits) - 1


def part_of(kind: str, value: Any) -> Any:
    """A part of a key as it is kept. Raises TypeError."""
    if kind != FLOW:
        return word_of(kind, int(value))
    if not isinstance(value, Flow):
        raise TypeError(f"{value!r} is no flow: write frame.flow")
    return value


def flow_words(flow: Flow) -> tuple[int, ...]:
    """A flow as words: source and destination (high, low; IPv4 as ::ffff:a.b.c.d), then version,
    protocol and ports."""
    mapped = _MAPPED if flow.version == 4 else 0
    last = flow.version << 40 | flow.protocol << 32 | flow.src_port << 16 | flow.dst_port
    return (signed(flow.src >> 64), signed(flow.src | mapped),
            signed(flow.dst >> 64), signed(flow.dst | mapped), last)


def flow_of(words: Sequence[int]) -> Flow:
    """The flow of ``flow_words``."""
    src, dst = ((high & WORD) << 64 | low & WORD for high, low in (words[:2], words[2:4]))
    version = words[4] >> 40 & 0xFF
    if version == 4:
        src, dst = src & 0xFFFFFFFF, dst & 0xFFFFFFFF
    return Flow(version, src, dst, words[4] >> 16 & 0xFFFF, words[4] & 0xFFFF,
                words[4] >> 32 & 0xFF)


# ---------------------------------------------------------------- as users write them
def show(kind: str, value: Any) -> Any:
    """A part or value for users: addresses and flows as text, numbers as they are."""
    if kind == "ipv4":
        return socket.inet_ntoa(int(value).to_bytes(4, "big"))
    if kind == "ipv6":
        return str(ipaddress.IPv6Address(value))
    if kind == "mac":
        return ":".join(f"{byte:02x}" for byte in int(value).to_bytes(6, "big"))
    if kind == FLOW:
        return str(value)
    return int(value) & WORD if kind == "u64" else int(value)


def read(kind: str, given: Any) -> Any:
    """A part or value as a user gave it: a number, or an address or flow as text. Raises ValueError
    with a sentence."""
    value = given
    if isinstance(given, str) and kind in _TEXTS:
        try:
            value = _TEXTS[kind](given)
        except (ValueError, OSError):
            raise _no(kind, given) from None
    if isinstance(value, Flow):
        if kind != FLOW:
            raise _no(kind, given)
        return value
    if kind == FLOW or isinstance(value, bool) or not isinstance(value, int):
        raise _no(kind, given)
    if not -(1 << 63 if kind == "u64" else 0) <= value < 1 << BITS[kind]:
        raise _no(kind, given)
    return word_of(kind, value)


def read_part(kind: str, given: Any) -> Any:
    """A part of a key as a user gave it. Keys are text in JSON and TOML, so a number may be its
    digits. Raises ValueError with a sentence."""
    if isinstance(given, str) and kind not in _TEXTS:
        try:
            return read(kind, int(given, 0))
        except ValueError:
            raise _no(kind, given) from None
    return read(kind, given)


def rows_as(rows: Iterable[tuple[Any, Any]], reading: Callable[[Any, Any], T]) -> Iterator[T]:
    """What ``reading`` makes of each row's key and value. Its ValueError says of which row."""
    for key, value in rows:
        try:
            yield reading(key, value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def _no(kind: str, given: Any) -> ValueError:
    """What is said of a value that is none of its type."""
    kinds: dict[type, str] = {list: "a list", dict: "a table", Flow: "a flow"}
    said = kinds.get(type(given)) or json.dumps(given, default=str, ensure_ascii=False)[:60]
    return ValueError(f"{said} is no {kind}; write {_WRITTEN[kind]}")


def _read_ipv4(given: str) -> int:
    return int.from_bytes(socket.inet_pton(socket.AF_INET, given), "big")


def _read_mac(given: str) -> int:
    if len(octets := given.replace("-", ":").split(":")) != 6:
        raise ValueError(given)
    return int.from_bytes(bytes(int(octet, 16) for octet in octets), "big")


def _read_flow(given: str) -> Flow:
    protocol, source, source_port, target, target_port = given.split()
    addresses = ipaddress.ip_address(source), ipaddress.ip_address(target)
    if addresses[0].version != addresses[1].version:
        raise ValueError(given)
    return Flow(addresses[0].version, int(addresses[0]), int(addresses[1]),
                read_part("u16", source_port), read_part("u16", target_port),
                _PROTOCOLS.get(protocol) or read_part("u8", protocol))


_TEXTS: dict[str, Callable[[str], Any]] = {
    "ipv4": _read_ipv4, "ipv6": lambda given: int(ipaddress.IPv6Address(given)), "mac": _read_mac,
    FLOW: _read_flow}


def show_key(types: Sequence[str], key: Any) -> str | int:
    """A key for users: its parts with commas between (flows: as they are)."""
    parts = key if len(types) > 1 else (key,)
    shown = [show(kind, part) for kind, part in zip(types, parts, strict=True)]
    return shown[0] if len(shown) == 1 else ",".join(map(str, shown))


def read_key(types: Sequence[str], given: Any) -> Any:
    """A key as a user gave it: text with commas, a list of parts, or the one part. Raises
    ValueError with a sentence."""
    if isinstance(given, Flow):
        parts: list[Any] = [given]
    elif isinstance(given, (list, tuple)):
        parts = list(given)
    else:
        parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else [given]
    if len(parts) != len(types):
        raise ValueError(f"a key of {len(parts)} part{'s' * (len(parts) > 1)}; "
                         f"write {len(types)}: {','.join(types)}")
    made = tuple(read_part(kind, part) for kind, part in zip(types, parts, strict=True))
    return made[0] if len(made) == 1 else made


# ---------------------------------------------------------------- as words
@dataclass(frozen=True)
class Place:
    """Where (a half of) a part lies: in which word, how far from its lowest bit, how many bits."""

    word: int
    shift: int
    bits: int


@dataclass(frozen=True)
class Packing:
    """How keys of these types are packed. ``places``: of each part; one, two for an IPv6 address
    (high, low), FLOW_WORDS for a flow."""

    types: tuple[str, ...]
    places: tuple[tuple[Place, ...], ...]
    words: int

    def words_of(self, key: Any) -> list[int]:
        """A key as signed words."""
        made = [0] * self.words
        for kind, places, part in zip(self.types, self.places,
                                      key if len(self.types) > 1 else (key,), strict=True):
            if kind == FLOW:
                values: Iterable[int] = flow_words(part)
            else:
                values = (part >> 64, part) if kind == "ipv6" else (part,)
            for place, value in zip(places, values, strict=True):
                made[place.word] |= (value & (1 << place.bits) - 1) << place.shift
        return [signed(word) for word in made]

    def key_of(self, words: Sequence[int]) -> Any:
        """The key of ``words_of``."""
        parts: list[Any] = []
        for kind, places in zip(self.types, self.places, strict=True):
            found = [words[p.word] >> p.shift & (1 << p.bits) - 1 for p in places]
            if kind == FLOW:
                parts.append(flow_of(found))
            else:
                parts.append(found[0] << 64 | found[1] if kind == "ipv6"
                             else word_of(kind, found[0]))
        return parts[0] if len(parts) == 1 else tuple(parts)


def pack(types: Sequence[str]) -> Packing:
    """The packing of a key of these types. Raises ValueError with a sentence."""
    unknown = [kind for kind in types if kind != FLOW and kind not in BITS]
    if unknown or not types:
        raise ValueError(f"{', '.join(unknown) or 'nothing'} is no type of a key; "
                         f"write one of {', '.join(BITS)}, flow, or a tuple of them")
    used: list[int] = []  # bits of each word
    taken: list[list[tuple[int, int, int]]] = []  # of each part: word, bits before it, bits
    for kind in types:
        if kind == FLOW or kind == "ipv6":
            count = FLOW_WORDS if kind == FLOW else 2
            taken.append([(len(used) + k, 0, 64) for k in range(count)])
            used += [64] * count
            continue
        bits = BITS[kind]
        word = next((k for k, full in enumerate(used) if full + bits <= 64), len(used))
        if word == len(used):
            used.append(0)
        taken.append([(word, used[word], bits)])
        used[word] += bits
    if len(used) > MOST_WORDS:
        raise ValueError(f"a key of {len(used)} words; {MOST_WORDS} at the most")
    places = tuple(tuple(Place(word, used[word] - before - bits, bits)
                         for word, before, bits in part) for part in taken)
    return Packing(tuple(types), places, len(used))
