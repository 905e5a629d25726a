# SPDX-License-Identifier: Apache-2.0
"""A network function run as it stands and translated, side by side: they must say the same.

Used by the tests of functions that come with Byway, and of the translation. Also: are a frame's
checksums right?
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from byway import nf
from byway.functions.harness import Harness, same
from byway.nf.keys import show, show_key
from byway.nf.outcome import Outcome
from byway.nf.states import shown_value
from byway.testing.frames import checksum

ETHERNET = 14
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58


class Both:
    """One function, twice. What ``run`` answers is what both say."""

    def __init__(self, function: type, *, ports: Mapping[str, int] | None = None,
                 **parameters: Any) -> None:
        self.plain = nf.Plain(function, ports=ports, **parameters)
        self.harness = Harness(function, ports=ports, **parameters)

    def put(self, table: str, rows: Iterable[tuple[Any, Any]]) -> None:
        """Fill a table, as a user does."""
        for key, value in rows:
            assert getattr(self.plain.instances[0], table).put(key, value)
            assert self.harness.instances[0].states[table].put(key, value)

    def set(self, parameter: str, value: Any) -> None:
        """Change a parameter, as a user does."""
        setattr(self.plain.instances[0], parameter, value)
        self.harness.instances[0].set({parameter: value})

    def run(self, frames: Iterable[bytes], **where: Any) -> list[Outcome]:
        """What becomes of the frames. ``where``: as nf.Plain.run."""
        frames = list(frames)
        plain = self.plain.run(frames, **where)
        compiled = self.harness.run(frames, **where)
        for frame, one, other in zip(frames, compiled, plain, strict=True):
            assert same(one, other), f"{frame.hex()}\ntranslated: {one}\nplain: {other}"
        return plain

    def one(self, frame: bytes, **where: Any) -> Outcome:
        """What becomes of one frame."""
        return self.run([frame], **where)[0]

    def value(self, counter: str) -> int:
        """What a counter says, in both."""
        value: int = getattr(self.plain.instances[0], counter).value
        [entry] = self.harness.instances[0].states[counter].dump()
        assert entry["value"] == value
        return value


def tables(harness: Harness, plain: nf.Plain, names: Iterable[str],
           number: int = 0) -> tuple[Any, Any]:
    """What is in tables of a function of a chain, as users see it: translated, and plain."""
    states, thing = harness.instances[number].states, plain.instances[number]
    return ({name: {str(row["key"]): row["value"] for row in states[name].dump()}
             for name in names}, {name: _shown(getattr(thing, name)) for name in names})


def _shown(state: Any) -> dict[str, Any]:
    if isinstance(state, nf.Map):
        return {str(show_key(state.key_types, key)): shown_value(state.fields, value)
                for key, value in state.entries()}
    kind = getattr(state, "type", "u64")
    return {str(key): show(kind, value) for key, value in state.entries()}


def has_right_sums(frame: bytes) -> bool:
    """Are the checksums of IPv4, TCP, UDP, ICMP and ICMPv6 right in an untagged frame, whole, with
    no IPv6 extension headers?"""
    kind = struct.unpack_from(">H", frame, 12)[0]
    if kind == 0x0800:
        length = 4 * (frame[ETHERNET] & 15)
        packet = frame[ETHERNET:ETHERNET + struct.unpack_from(">H", frame, 16)[0]]
        if checksum(packet[:length]) != 0:
            return False
        protocol, addresses, body = packet[9], packet[12:20], packet[length:]
    elif kind == 0x86DD:
        packet = frame[ETHERNET:ETHERNET + 40 + struct.unpack_from(">H", frame, 18)[0]]
        protocol, addresses, body = packet[6], packet[8:40], packet[40:]
    else:
        return True
    if protocol == ICMP:
        return checksum(body) == 0
    if protocol not in (TCP, UDP, ICMPV6):
        return True
    if protocol == UDP and kind == 0x0800 and body[6:8] == b"\0\0":
        return True
    return checksum(addresses + struct.pack(">II", len(body), protocol) + body) == 0
