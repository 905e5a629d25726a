# SPDX-License-Identifier: Apache-2.0
"""Rules: which frames are meant, said from outside; a function asks which rule matches first.

    rules = nf.Rules(capacity=10000, values=("drop", "pass"))
    ...
    if self.rules.match(frame, default=0) == 0:
        return nf.DROP("no rule lets it pass")

Part of the author's page. Here a match walks through the rules, one after the other; the compiled
state (byway.functions.rules) finds the same answer by look-ups, and is built from the same Rule.
Uses states.py.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from byway.nf.states import Table

if TYPE_CHECKING:
    from byway.nf.frame import Frame

MOST = 16000  # rules that one table can have
FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
_NAMES = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "icmpv6": ICMPV6, "sctp": 132, "gre": 47}
_KEYS = ("value", "source", "destination", "protocol", "source_ports", "destination_ports",
         "icmp_type", "icmp_code", "tcp_flags", "eth_type")
IPV4, IPV6 = 0x0800, 0x86DD

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Span: TypeAlias = tuple[int, int]


class RuleError(ValueError):
    """A rule cannot be; the message names the key, what is wrong, and what to write."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which frames are meant, and the ``value`` that the function gets for them. None: any.

    ``source``, ``destination``: networks, both of one IP version. ``source_ports``,
    ``destination_ports``: lowest and highest, of TCP and UDP; a piece of a datagram that does not
    bring the header has no ports. ``tcp_flags``: (wanted, looked at), as bits. ``eth_type``: the
    type behind VLAN tags; with it goes nothing of IP.
    """

    value: int = 1
    source: Network | None = None
    destination: Network | None = None
    protocol: int | None = None
    source_ports: Span | None = None
    destination_ports: Span | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    tcp_flags: Span | None = None
    eth_type: int | None = None

    @property
    def version(self) -> int:
        """The IP version that the rule's addresses or protocol have; 0: either."""
        for network in (self.source, self.destination):
            if network is not None:
                return network.version
        if self.icmp_type is not None and self.protocol is not None:
            return 4 if self.protocol == ICMP else 6
        return 0

    @property
    def has_ports(self) -> bool:
        """Does it speak of TCP's or UDP's header?"""
        return self.source_ports is not None or self.destination_ports is not None \
            or self.tcp_flags is not None

    @property
    def of_ip(self) -> bool:
        """Can it match IP frames only?"""
        return self.has_ports or self.icmp_type is not None or self.protocol is not None \
            or self.version != 0

    @classmethod
    def given(cls, row: Mapping[str, Any], values: Sequence[str] = ()) -> Self:
        """The rule that a user writes as JSON or TOML. Raises RuleError."""
        if not isinstance(row, Mapping):
            raise RuleError(f"{row!r} is no rule; a rule is written {{value = ..., source = ...}}")
        for key in row:
            if key == "hits":  # what a list of rules shows may be given back
                continue
            if key not in _KEYS:
                raise RuleError(f"a rule has no {key!r}; it has {', '.join(_KEYS)}")
        rule = cls(
            _value(row.get("value", 1), values),
            _network("source", row.get("source")),
            _network("destination", row.get("destination")),
            _protocol(row.get("protocol")),
            _span("source_ports", row.get("source_ports")),
            _span("destination_ports", row.get("destination_ports")),
            _number("icmp_type", row.get("icmp_type"), 0xFF),
            _number("icmp_code", row.get("icmp_code"), 0xFF),
            _flags(row.get("tcp_flags")),
            _number("eth_type", row.get("eth_type"), 0xFFFF))
        rule._check()
        return rule

    def _check(self) -> None:
        """Refuse what no frame can be."""
        if self.source is not None and self.destination is not None \
                and self.source.version != self.destination.version:
            raise RuleError("source and destination are not of one IP version; make two rules")
        if self.has_ports and self.protocol not in (None, TCP, UDP):
            raise RuleError("ports and tcp_flags go with protocol tcp or udp")
        if self.tcp_flags is not None and self.protocol != TCP:
            raise RuleError('tcp_flags goes with protocol = "tcp"')
        if self.icmp_type is not None and self.protocol not in (ICMP, ICMPV6):
            raise RuleError('icmp_type goes with protocol = "icmp" or "icmpv6"')
        if self.icmp_code is not None and self.icmp_type is None:
            raise RuleError("icmp_code goes with icmp_type")
        if self.icmp_type is not None and self.version != (4 if self.protocol == ICMP else 6):
            raise RuleError("icmp goes with IPv4 addresses, icmpv6 with IPv6 ones")
        if self.eth_type is not None and self.of_ip:
            raise RuleError("eth_type goes with nothing of IP; a rule with addresses, protocol or "
                            "ports is about IP already")

    def shown(self, values: Sequence[str] = ()) -> dict[str, Any]:
        """The rule as its user would write it."""
        row: dict[str, Any] = {
            "value": values[self.value] if self.value < len(values) else self.value}
        for key in ("source", "destination"):
            if (network := getattr(self, key)) is not None:
                row[key] = str(network)
        for key in ("source_ports", "destination_ports"):
            if (span := getattr(self, key)) is not None:
                row[key] = span[0] if span[0] == span[1] else f"{span[0]}-{span[1]}"
        for key in ("icmp_type", "icmp_code", "eth_type"):
            if (number := getattr(self, key)) is not None:
                row[key] = number
        if self.protocol is not None:
            names = {number: name for name, number in _NAMES.items()}
            row["protocol"] = names.get(self.protocol, self.protocol)
        if self.tcp_flags is not None:
            row["tcp_flags"] = "/".join(_flag_names(bits) for bits in self.tcp_flags)
        return row

    def matches(self, frame: "Frame") -> bool:
        """Is this frame meant?"""
        if self.eth_type is not None and frame.eth_type != self.eth_type:
            return False
        if not self.of_ip:
            return True
        return self._is_from_and_to(frame) and self._is_service(frame)

    def _is_from_and_to(self, frame: "Frame") -> bool:
        if not frame.is_ip or self.version not in (0, 4 if frame.is_ipv4 else 6):
            return False
        source, destination = (frame.ipv4_src, frame.ipv4_dst) if frame.is_ipv4 else \
            (frame.ipv6_src, frame.ipv6_dst)
        return _within(source, self.source) and _within(destination, self.destination)

    def _is_service(self, frame: "Frame") -> bool:
        if self.protocol not in (None, frame.ip_protocol):
            return False
        if self.has_ports:
            if not (frame.is_tcp or frame.is_udp):
                return False
            if not _between(frame.l4_src, self.source_ports):
                return False
            if not _between(frame.l4_dst, self.destination_ports):
                return False
        if self.tcp_flags is not None:
            wanted, looked_at = self.tcp_flags
            if not frame.is_tcp or frame.tcp_flags & looked_at != wanted:
                return False
        if self.icmp_type is not None:
            return (frame.is_icmp or frame.is_icmpv6) and frame.icmp_type == self.icmp_type \
                and self.icmp_code in (None, frame.icmp_code)
        return True


def _within(address: int, network: Network | None) -> bool:
    return network is None or address & int(network.netmask) == int(network.network_address)


def _between(number: int, span: Span | None) -> bool:
    return span is None or span[0] <= number <= span[1]


# ---------------------------------------------------------------- what users write
def _value(given: Any, values: Sequence[str]) -> int:
    if isinstance(given, str):
        if given not in values:
            raise RuleError(f"value: {given!r} is unknown; write "
                            + (" or ".join(map(repr, values)) if values else "a number"))
        return values.index(given)
    number = _number("value", given, len(values) - 1 if values else 0xFFFFFFFF)
    assert number is not None
    return number


def _network(key: str, given: Any) -> Network | None:
    if given is None or given == "any":
        return None
    try:
        return ipaddress.ip_network(given if isinstance(given, str) else str(given))
    except ValueError as error:
        raise RuleError(f"{key}: {error}; write a network like 10.0.0.0/8 or 2001:db8::/32, an "
                        "address, or any") from None


def _protocol(given: Any) -> int | None:
    if isinstance(given, str) and given in _NAMES:
        return _NAMES[given]
    if isinstance(given, str):
        raise RuleError(f"protocol: {given!r} is unknown; write {', '.join(_NAMES)} or a number")
    return _number("protocol", given, 0xFF)


def _number(key: str, given: Any, highest: int) -> int | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= highest:
        raise RuleError(f"{key}: {given!r} is no number from 0 to {highest}")
    return given


def _span(key: str, given: Any) -> Span | None:
    if given is None:
        return None
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 0xFFFF:
        return given, given
    parts = given.split("-") if isinstance(given, str) else []
    if len(parts) in (1, 2) and all(part.strip().isdecimal() for part in parts):
        low, high = int(parts[0]), int(parts[-1])
        if low <= high <= 0xFFFF:
            return low, high
    raise RuleError(f'{key}: {given!r} is no port like 80 and no range like "1024-65535"')


def _flags(given: Any) -> Span | None:
    if given is None:
        return None
    parts = given.split("/") if isinstance(given, str) else []
    bits = []
    for part in parts:
        names = [name.strip().upper() for name in part.split(",") if name.strip()]
        if all(name in FLAGS for name in names):
            bits.append(sum(1 << FLAGS.index(name) for name in set(names)))
    if len(bits) != 2 or len(parts) != 2 or bits[0] & ~bits[1] or not bits[1]:
        raise RuleError(f'tcp_flags: {given!r} is not like "SYN/SYN,ACK": the flags that are set, '
                        "of those that are looked at")
    return bits[0], bits[1]


def _flag_names(bits: int) -> str:
    return ",".join(name for k, name in enumerate(FLAGS) if bits >> k & 1)


# ---------------------------------------------------------------- the state
class Rules(Table):
    """A list of rules, filled from outside and asked by a function. ``capacity``: the most that
    there can be; ``values``: names for the values 0, 1, ..., for who writes rules."""

    kind = "rules"

    def __init__(self, capacity: int = 10000, values: Sequence[str] = ()) -> None:
        if not 1 <= capacity <= MOST:
            raise ValueError(f"capacity={capacity}: write a number from 1 to {MOST}")
        self.capacity = capacity
        self.values = tuple(values)
        self._rules: dict[int, Rule] = {}
        self._hits: dict[int, int] = {}

    def fresh(self, owner: object) -> Self:
        return type(self)(self.capacity, self.values)

    def match(self, frame: "Frame", default: int = 0) -> int:
        """The value of the first rule (the one at the lowest place) that matches the frame."""
        for place in sorted(self._rules):
            if self._rules[place].matches(frame):
                self._hits[place] = self._hits.get(place, 0) + 1
                return self._rules[place].value
        return default

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "capacity": self.capacity, "values": list(self.values)}

    def entries(self) -> list[tuple[Any, Any]]:
        """Place and rule, as users write it, with how often it was the first that matched."""
        return [(place, {**rule.shown(self.values), "hits": self._hits.get(place, 0)})
                for place, rule in sorted(self._rules.items())]

    def put(self, key: Any, value: Any) -> bool:
        """Put a rule, as its user writes it, at a place. Raises RuleError."""
        place, rule = read_place(key), Rule.given(value, self.values)
        if place not in self._rules and len(self._rules) >= self.capacity:
            return False
        self._rules[place] = rule
        self._hits.pop(place, None)
        return True

    def remove(self, key: Any) -> bool:
        place = read_place(key)
        self._hits.pop(place, None)
        return self._rules.pop(place, None) is not None

    def clear(self) -> None:
        self._rules.clear()
        self._hits.clear()


def read_place(given: Any) -> int:
    """A rule's place as its user writes it: a number, or its digits. Raises RuleError."""
    if isinstance(given, str) and given.isdecimal():
        given = int(given)
    place = _number("place", given, (1 << 31) - 1)
    if place is None:
        raise RuleError("a rule has a place: write a number; rules are asked from the lowest on")
    return place
