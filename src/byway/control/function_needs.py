# SPDX-License-Identifier: Apache-2.0
"""Which code a change needs: pure functions over what there is and what becomes of it.

Used by wanted (before a change) and functions. Uses parts, the model and function_steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from byway.control.chains import Values, parse_step
from byway.control.function_steps import Order, of_network, of_port, ways
from byway.control.model import FunctionConfig, NetworkConfig
from byway.control.parts import Key, Part, Parts


@dataclass(frozen=True)
class Needs:
    """``orders``: chains that there will be. ``fresh``: uses that the change names and did not name
    before: their files are read again. ``given``: (who says so, use, parameters) of what is said
    in another way than before."""

    orders: frozenset[Order] = frozenset()
    fresh: frozenset[str] = frozenset()
    given: tuple[tuple[str, str, Values], ...] = ()


NONE = Needs()


class _After:
    """The parts after a change."""

    def __init__(self, parts: Parts, after: Mapping[Key, Part | None]) -> None:
        self._parts = parts
        self._after = after

    def get(self, key: Key) -> Any:
        return self._after[key] if key in self._after else self._parts.get(key)

    def use_of(self, name: str) -> str:
        found = self.get(Key("function", name))
        return found.use if isinstance(found, FunctionConfig) else ""

    def users(self, key: Key) -> Iterator[Key]:
        """Ports and networks that speak of one, as before or after the change."""
        yield from self._parts.users(key)
        yield from self._after


def needs(parts: Parts, after: Mapping[Key, Part | None]) -> Needs:
    """What a change of ``parts`` to ``after`` needs. Costs what it changes where no chain does."""
    view = _After(parts, after)
    changed = {key: part for key, part in after.items()
               if part is not None and parts.get(key) != part and _says(part, parts.get(key))}
    if not changed:
        return NONE
    ports = {key for key in after if key.kind == "port"}
    for key in changed:
        if key.kind == "function":
            for user in [*view.users(key)]:
                ports |= {user} if user.kind == "port" else _members(view, user)
        elif key.kind == "network":
            ports |= _members(view, key)
    orders = {way.order for key in ports for way in _ways(view, key) if way.placed}
    fresh: set[str] = set()
    given: list[tuple[str, str, Values]] = []
    for key, part in changed.items():
        fresh |= _uses(part, view) - _uses(parts.get(key), _After(parts, {}))
        given += _given(key, part, view)
    return Needs(frozenset(orders), frozenset(fresh - {""}), tuple(given))


def _says(part: Part, old: Part | None) -> bool:
    """Does it say something of functions, or did it?"""
    return isinstance(part, FunctionConfig) or any(
        getattr(one, name, ()) for one in (part, old) for name in ("chain", "chain_tx")) or (
        hasattr(part, "networks") and hasattr(part, "chain"))  # a port: its networks may


def _members(view: _After, network: Key) -> set[Key]:
    if network.kind != "network":
        return set()
    return {key for key in view.users(network) if key.kind == "port"}


def _ways(view: _After, key: Key) -> Iterator[Any]:
    port = view.get(key)
    for name in port.networks if port is not None else ():
        network = view.get(Key("network", name))
        if isinstance(network, NetworkConfig):
            yield from ways(port, network, view.use_of)


def _uses(part: Part | None, view: _After) -> set[str]:
    """The code that a part speaks of, by itself or by names."""
    if isinstance(part, FunctionConfig):
        return {part.use}
    written = (*getattr(part, "chain", ()), *getattr(part, "chain_tx", ()))
    steps = [parse_step(one) for one in written]
    return {step.use or view.use_of(step.name) for step in steps}


def _given(key: Key, part: Part, view: _After) -> Iterator[tuple[str, str, Values]]:
    """The parameters that a part gives to functions."""
    if isinstance(part, FunctionConfig):
        yield f"{key}: parameters", part.use, dict(part.parameters)
        return
    if isinstance(part, NetworkConfig):
        lists = {"chain": of_network(part, view.use_of)}
    else:
        chain, chain_tx = of_port(part, view.use_of)  # type: ignore[arg-type]
        lists = {"chain": chain, "chain_tx": chain_tx}
    for where, placed in lists.items():
        for number, one in enumerate(placed, 1):
            if one.given is not None:
                yield f"{key}: {where}[{number}]", one.use, one.given
