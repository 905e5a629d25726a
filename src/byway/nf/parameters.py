# SPDX-License-Identifier: Apache-2.0
"""Parameters of network functions: annotated class attributes, checked, and as words.

Used by function.py, by byway.functions (which puts them into an instance's record) and by control
(which changes them while frames flow). Uses addresses.py.

A value has three forms: as its user *gives* it (JSON: a number, a boolean, text), as a function
*sees* it (``value``), and as the *words* of the instance's record (``words``, int64 each).
"""

import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from byway.nf.addresses import IPv4, IPv6, Mac, Port, Prefix4, Prefix6, Seconds, Text
from byway.nf.problem import ParameterError, nearest

Kind: TypeAlias = Literal[
    "int", "bool", "choice", "ipv4", "ipv6", "mac", "prefix4", "prefix6", "seconds", "port",
    "text"]
Given: TypeAlias = int | float | str
_TYPES: dict[Any, Kind] = {
    int: "int", bool: "bool", IPv4: "ipv4", IPv6: "ipv6", Mac: "mac", Prefix4: "prefix4",
    Prefix6: "prefix6", Seconds: "seconds", Port: "port", Text: "text"}
_CLASSES: dict[Kind, Callable[[Any], Any]] = {
    "ipv4": IPv4, "ipv6": IPv6, "mac": Mac, "prefix4": Prefix4, "prefix6": Prefix6,
    "seconds": Seconds, "port": Port, "text": Text}
_WORDS: dict[Kind, int] = {"ipv6": 2, "prefix4": 2, "prefix6": 4, "text": 0}
_WANTED: dict[Kind, str] = {
    "ipv4": 'an IPv4 address like "10.0.0.1"', "ipv6": 'an IPv6 address like "2001:db8::1"',
    "mac": 'a MAC address like "02:00:00:00:00:01"',
    "prefix4": 'an IPv4 network like "10.0.0.0/8"',
    "prefix6": 'an IPv6 network like "2001:db8::/32"',
    "seconds": "a number of seconds like 1.5", "port": "the name of a port, or nothing",
    "text": "text"}
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
_LOW = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Range:
    """Limits of a number: ``limit: Annotated[int, nf.Range(1, 1000)] = 100``; for nf.Seconds in
    seconds. Both limits are allowed values."""

    lowest: float
    highest: float


class _Required:
    """Stands for the default of a parameter that has none."""

    def __repr__(self) -> str:
        return "(must be given)"


REQUIRED = _Required()


def signed(word: int) -> int:
    """64 bits as a signed number."""
    word &= _LOW
    return word - (1 << 64) if word >> 63 else word


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. ``default``: as the function sees it, or REQUIRED."""

    name: str
    kind: Kind
    default: Any
    limits: Range | None = None
    choices: tuple[str, ...] = ()

    @property
    def described(self) -> dict[str, Any]:
        """As JSON, for those who do not have the author's class."""
        limits = [self.limits.lowest, self.limits.highest] if self.limits else None
        default = None if self.default is REQUIRED else self.shown(self.default)
        return {"kind": self.kind, "default": default, "limits": limits,
                "choices": list(self.choices), "words": self.size}

    @property
    def size(self) -> int:
        """Words that it takes in an instance's record."""
        return _WORDS.get(self.kind, 1)

    def value(self, given: Any) -> Any:
        """As the function sees it. Raises ParameterError: no such value can be."""
        made = self._made(given)
        if self.limits is not None:
            shown = made.seconds if self.kind == "seconds" else made
            if not self.limits.lowest <= shown <= self.limits.highest:
                raise self._error(given, f"a number from {self.limits.lowest:g} to "
                                         f"{self.limits.highest:g}")
        return made

    def _made(self, given: Any) -> Any:
        if self.kind == "bool":
            if not isinstance(given, bool):
                raise self._error(given, "true or false")
            return given
        if self.kind == "choice":
            if given not in self.choices:
                raise self._error(given, "one of " + ", ".join(map(repr, self.choices)))
            return given
        if isinstance(given, bool):
            raise self._error(given, _WANTED.get(self.kind, "a whole number"))
        if self.kind == "int":
            if not isinstance(given, int) or not _LOWEST <= given <= _HIGHEST:
                raise self._error(given, "a whole number of 64 bits with sign")
            return int(given)
        if self.kind in ("port", "text") and not isinstance(given, str | Port):
            raise self._error(given, _WANTED[self.kind])
        try:
            return _CLASSES[self.kind](given)
        except (ValueError, TypeError, OverflowError):
            raise self._error(given, _WANTED[self.kind]) from None

    def _error(self, given: Any, wanted: str) -> ParameterError:
        return ParameterError(f"parameter {self.name}: {given!r} cannot be; give {wanted}")

    def shown(self, value: Any) -> Given:
        """A value as its user would give it: what the API and the CLI show."""
        if self.kind == "seconds":
            return float(value.seconds)
        if self.kind == "port":
            return str(value.name)
        if self.kind in ("int", "bool", "choice"):
            return typing.cast(Given, value)
        return str(value)

    def words(self, value: Any, number: Callable[[str], int]) -> tuple[int, ...]:
        """A value as words of an instance's record; ``number`` says which port has a name (-1:
        none)."""
        if self.kind == "text":
            return ()
        if self.kind == "choice":
            return (self.choices.index(value),)
        if self.kind == "port":
            return (number(value.name) if value.name else -1,)
        if self.kind == "ipv6":
            return signed(value >> 64), signed(value)
        if self.kind == "prefix4":
            return value.network, value.mask
        if self.kind == "prefix6":
            return (signed(value.network >> 64), signed(value.network),
                    signed(value.mask >> 64), signed(value.mask))
        return (int(value),)


def from_description(name: str, described: typing.Mapping[str, Any]) -> Parameter:
    """The parameter that ``described`` tells of."""
    limits = Range(*described["limits"]) if described["limits"] else None
    made = Parameter(name, described["kind"], REQUIRED, limits, tuple(described["choices"]))
    if described["default"] is None:
        return made
    return Parameter(name, made.kind, made.value(described["default"]), limits, made.choices)


def parameter(name: str, annotation: Any, default: Any) -> Parameter:
    """The parameter that ``name: annotation = default`` declares. Raises TypeError: no parameter
    can be of this type; ParameterError: the default is none of its values."""
    limits = None
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *more = typing.get_args(annotation)
        for each in more:
            if isinstance(each, Range):
                limits = each
    made = _declared(name, annotation, limits)
    if default is REQUIRED:
        return made
    return Parameter(name, made.kind, made.value(default), limits, made.choices)


def _declared(name: str, annotation: Any, limits: Range | None) -> Parameter:
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        if all(isinstance(choice, str) for choice in choices) and limits is None:
            return Parameter(name, "choice", REQUIRED, None, choices)
    elif not isinstance(annotation, types.GenericAlias) and annotation in _TYPES:
        kind = _TYPES[annotation]
        if limits is None or kind in ("int", "seconds"):
            return Parameter(name, kind, REQUIRED, limits)
    raise TypeError(name)


def values(parameters: typing.Iterable[Parameter], given: dict[str, Any]) -> dict[str, Any]:
    """What the function sees of all its parameters. Raises ParameterError for an unknown name, a
    missing value or one that cannot be."""
    known = {each.name: each for each in parameters}
    for name in given:
        if name not in known:
            fix = nearest(name, known) or (
                f"there are {', '.join(known)}" if known else
                "there are none: a parameter is declared with its type, as in limit: int = 50")
            raise ParameterError(f"there is no parameter {name!r}; {fix}")
    made = {}
    for name, each in known.items():
        if name not in given and each.default is REQUIRED:
            raise ParameterError(f"parameter {name} has no default; give it a value")
        made[name] = each.value(given[name]) if name in given else each.default
    return made
