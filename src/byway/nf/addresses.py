# SPDX-License-Identifier: Apache-2.0
"""Types of parameters that are numbers to a function and text to its user.

Part of the author's page. Used by parameters.py. Uses Python's ipaddress.

Each is an int (a prefix: a pair of them), so that a function compares and computes with it; its
constructor takes what a user writes:

    gateway: nf.IPv4 = nf.IPv4("10.0.0.1")
    mine: nf.Prefix4 = nf.Prefix4("10.0.0.0/8")        frame.ipv4_src in self.mine
    timeout: nf.Seconds = nf.Seconds(30)               nanoseconds, as nf.now()
"""

import ipaddress
import math
import re
from dataclasses import dataclass, field
from typing import Self

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_LONGEST = 2**62 // 10**9  # seconds: some 146 years


class IPv4(int):
    """An IPv4 address, as a 32-bit number."""

    def __new__(cls, given: "str | int") -> Self:
        given = int(given) if isinstance(given, int) else given
        return super().__new__(cls, int(ipaddress.IPv4Address(given)))

    def __str__(self) -> str:
        return str(ipaddress.IPv4Address(int(self)))


class IPv6(int):
    """An IPv6 address, as a 128-bit number."""

    def __new__(cls, given: "str | int") -> Self:
        given = int(given) if isinstance(given, int) else given
        return super().__new__(cls, int(ipaddress.IPv6Address(given)))

    def __str__(self) -> str:
        return str(ipaddress.IPv6Address(int(self)))


class Mac(int):
    """A MAC address, as a 48-bit number."""

    def __new__(cls, given: "str | int") -> Self:
        if isinstance(given, str):
            if not _MAC.fullmatch(given):
                raise ValueError(f"{given!r} is no MAC address like 02:00:00:00:00:01")
            given = int(given.replace(":", "").replace("-", ""), 16)
        if not 0 <= given < 1 << 48:
            raise ValueError(f"{given} is no 48-bit number")
        return super().__new__(cls, given)

    def __str__(self) -> str:
        return ":".join(f"{byte:02x}" for byte in int(self).to_bytes(6, "big"))


class Seconds(int):
    """A time span: seconds to the user, a number of nanoseconds to the function."""

    def __new__(cls, given: "float | str") -> Self:
        if isinstance(given, Seconds):
            return super().__new__(cls, int(given))
        seconds = float(given)
        if not math.isfinite(seconds) or not 0 <= seconds <= _LONGEST:
            raise ValueError(f"{given} is no number of seconds from 0 to {_LONGEST}")
        return super().__new__(cls, round(seconds * 1e9))

    @property
    def seconds(self) -> float:
        """As the user gave it."""
        return int(self) / 1e9


class Text(str):
    """Text that only the function's listener reads (a file's name, a collector's address): it can
    be no part of what is compiled."""


class Port(int):
    """A port of the switch: its name to the user, its number to the function (-1: there is no such
    port now, or none was named)."""

    name: str

    def __new__(cls, name: "str | Port" = "", number: int = -1) -> Self:
        made = super().__new__(cls, number)
        made.name = name if isinstance(name, str) else name.name
        return made


@dataclass(frozen=True, init=False)
class Prefix4:
    """An IPv4 network: ``address in prefix``."""

    network: int
    mask: int
    text: str = field(compare=False)

    def __init__(self, given: "str | Prefix4") -> None:
        _fill(self, ipaddress.IPv4Network(str(given)))

    def __contains__(self, address: int) -> bool:
        return address & self.mask == self.network

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, init=False)
class Prefix6:
    """An IPv6 network: ``address in prefix``."""

    network: int
    mask: int
    text: str = field(compare=False)

    def __init__(self, given: "str | Prefix6") -> None:
        _fill(self, ipaddress.IPv6Network(str(given)))

    def __contains__(self, address: int) -> bool:
        return address & self.mask == self.network

    def __str__(self) -> str:
        return self.text


def _fill(prefix: Prefix4 | Prefix6,
          network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    object.__setattr__(prefix, "network", int(network.network_address))
    object.__setattr__(prefix, "mask", int(network.netmask))
    object.__setattr__(prefix, "text", str(network))
