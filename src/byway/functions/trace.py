# SPDX-License-Identifier: Apache-2.0
"""What a chain did with some frames, function by function.

Used by control (`byway nf trace`). Uses trace_kernels and memory, and the frame of the author's
page, which knows all headers by name.

A traced chain is another chain of the same instances: it takes the place of the usual one for as
long as somebody looks, so a chain that nobody traces pays nothing for it.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from byway.functions.compose import Direction
from byway.functions.trace_kernels import NOTE, TRACE, WENT_WRONG
from byway.functions.verdicts import DROP
from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.nf.frame import Frame
from byway.nf.verdicts import KINDS

_PORTS = ("redirect", "mirror", "clone")
_SHOWN = (
    "eth_src", "eth_dst", "vlan_id", "eth_type", "arp_op", "arp_sender_mac", "arp_sender_ip",
    "arp_target_mac", "arp_target_ip", "ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst",
    "ip_protocol", "ip_ttl", "ip_dscp", "ip_ecn", "l4_src", "l4_dst", "tcp_flags", "tcp_seq",
    "tcp_ack", "icmp_type", "icmp_code", "icmp_id", "icmp_seq", "vxlan_vni")


@dataclass(frozen=True)
class Step:
    """What one function made of a frame. ``verdict``: as users read it; ``changed``: headers that
    are others now, by name: before, after."""

    function: str
    verdict: str
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Traced:
    """A frame: its ``length``, its ``headers`` by name, and what became of it, step by step."""

    length: int
    headers: dict[str, Any]
    steps: list[Step]


class Trace:
    """Room for the notes about ``frames`` frames in a chain of ``functions`` functions."""

    def __init__(self, frames: int, functions: int) -> None:
        room = frames * (functions + 1)
        self._notes = alloc(NOTE, room, CACHE_LINE)
        self.record = alloc(TRACE, 1, CACHE_LINE)
        self.record["left"], self.record["room"] = frames, room
        self.record["list"] = address_of(self._notes)
        self.address = address_of(self.record)
        self._frames = frames

    @property
    def complete(self) -> bool:
        """Have all frames come that there is room for?"""
        return int(self.record[0]["left"]) <= 0

    def frames(self, names: list[str], reasons: list[tuple[str, ...]], direction: Direction
               ) -> Iterator[Traced]:
        """The frames that came, in their order. ``names``, ``reasons``: the chain's instances, and
        their drop reasons."""
        current: Traced | None = None
        before: dict[str, Any] = {}
        for one in self._notes[:int(self.record[0]["notes"])]:
            headers = headers_of(bytes(one["head"]), int(one["length"]), direction)
            step, word = int(one["step"]), int(one["word"])
            if step < 0:
                if current:
                    yield current
                current = Traced(int(one["length"]), headers, [])
            elif current:
                changed = {name: (before.get(name), headers.get(name))
                           for name in {**before, **headers}
                           if before.get(name) != headers.get(name)}
                current.steps.append(Step(names[step], said(word, reasons[step]), changed))
            before = headers
        if current:
            yield current


def said(word: int, reasons: tuple[str, ...]) -> str:
    """A verdict word as users read it."""
    if word == WENT_WRONG:
        return "fault"
    kind, value = word & 0xFF, word >> 8
    if kind == DROP:
        return f"drop: {reasons[value]}"
    name = KINDS[kind]
    return f"{name} port {value}" if name in _PORTS else name


def headers_of(head: bytes, length: int, direction: Direction) -> dict[str, Any]:
    """The header fields that a frame has, by their names on the author's page; addresses as text.
    """
    frame = Frame(head[:length].ljust(length, b"\0"), direction=direction)
    found = {name: getattr(frame, name) for name in _SHOWN}
    return {name: _text(name, value) for name, value in found.items() if value}


def _text(name: str, value: int) -> Any:
    if name in ("eth_src", "eth_dst") or name.endswith("_mac"):
        return value.to_bytes(6, "big").hex(":")
    if name.startswith("ipv4_") or name.endswith("_ip"):
        return str(ipaddress.IPv4Address(value))
    if name.startswith("ipv6_"):
        return str(ipaddress.IPv6Address(value))
    return f"0x{value:04x}" if name == "eth_type" else value
