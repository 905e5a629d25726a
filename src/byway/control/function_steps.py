# SPDX-License-Identifier: Apache-2.0
"""Which network functions a port's frames go through, in what order, and what each is called.

Used by functions. Uses the model; passive, like it.

Into the switch a frame goes through the port's chain, then through that of its network. Out of it,
the same in the opposite order, as far as the functions have a ``tx`` method of their own, and last
the port's ``chain_tx``. So a function with both methods stands once in a chain, and sees both
directions with one state.

A function that has no name of its own is called after whose chain it is in: "vm1/RateGuard", or
"net:blue/RateGuard"; where there are several of one name, the second is "vm1/RateGuard.2". It keeps
its state as long as it stands in that chain, also where another one goes or comes before it, and
its name becomes another one.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from byway.control.chains import Values, parse_step, short_name
from byway.control.model import NetworkConfig, PortConfig

Direction: TypeAlias = Literal["rx", "tx"]
UseOf: TypeAlias = Callable[[str], str]


class Placed(NamedTuple):
    """A function at its place. ``name``: of the instance; ``given``: parameters that stand in the
    chain, None where it has a table of its own; ``own``: only a method that is of the direction
    alone counts."""

    name: str
    use: str
    given: Values | None
    own: bool = False


class Order(NamedTuple):
    """What one piece of machine code is made of: the direction, and for each function its use and
    ``own`` (see Placed). ``traced``: it notes what each does."""

    direction: Direction
    steps: tuple[tuple[str, bool], ...]
    traced: bool = False


class Way(NamedTuple):
    """The functions of a direction."""

    direction: Direction
    placed: tuple[Placed, ...]

    @property
    def order(self) -> Order:
        """What its code is made of."""
        return Order(self.direction, tuple((one.use, one.own) for one in self.placed))


def network_owner(name: str) -> str:
    """What the instances in a network's chain are called after."""
    return f"net:{name}"


def of_port(port: PortConfig, use_of: UseOf) -> tuple[list[Placed], list[Placed]]:
    """The functions of a port's chain, and of its chain_tx. ``use_of``: the code of a function with
    a name."""
    every = list(_placed(port.name, (*port.chain, *port.chain_tx), use_of))
    return every[:len(port.chain)], every[len(port.chain):]


def of_network(network: NetworkConfig, use_of: UseOf) -> list[Placed]:
    """The functions of a network's chain."""
    return list(_placed(network_owner(network.name), network.chain, use_of))


def _placed(owner: str, chain: tuple[str, ...], use_of: UseOf) -> Iterator[Placed]:
    times: dict[str, int] = {}
    for written in chain:
        step = parse_step(written)
        if step.name:
            yield Placed(step.name, use_of(step.name), None)
            continue
        name = f"{owner}/{short_name(step.use)}"
        times[name] = times.get(name, 0) + 1
        yield Placed(name if times[name] == 1 else f"{name}.{times[name]}", step.use,
                     step.parameters)


def ways(port: PortConfig, network: NetworkConfig, use_of: UseOf) -> tuple[Way, Way]:
    """What frames of a port go through that are of this network: into the switch, and out of it."""
    if not (port.chain or port.chain_tx or network.chain):
        return Way("rx", ()), Way("tx", ())
    chain, chain_tx = of_port(port, use_of)
    common = of_network(network, use_of)
    back = [one._replace(own=True) for one in reversed([*chain, *common])]
    return Way("rx", (*chain, *common)), Way("tx", (*back, *chain_tx))


def own_of(owner: str, wanted: tuple[Way, Way]) -> tuple[Placed, ...]:
    """Those that are called after a port or network, in the order that its chains say."""
    rx, tx = wanted
    every = (*rx.placed, *(one for one in tx.placed if not one.own))
    return tuple(one for one in every
                 if one.given is not None and one.name.rpartition("/")[0] == owner)


def renamed(before: Sequence[Placed], after: Sequence[Placed],
            going: Collection[str] = ()) -> dict[str, str]:
    """Which of those that were in a chain has which name in the chain that it has become: one
    function may stand there several times. It is the one at the same place with the same
    parameters, else one with the same parameters, else one of the same function. ``going``: those
    that are none of the new ones."""
    old = {number: one for number, one in enumerate(before) if one.name not in going}
    new = dict(enumerate(after))
    found: dict[str, str] = {}

    def pair(alike: Callable[[int, int], bool]) -> None:
        for n in list(new):
            k = next((k for k in old if alike(k, n)), None)
            if k is not None:
                found[old.pop(k).name] = new.pop(n).name

    pair(lambda k, n: k == n and _said(old[k]) == _said(new[n]))
    pair(lambda k, n: _said(old[k]) == _said(new[n]))
    pair(lambda k, n: old[k].use == new[n].use)
    return {name: other for name, other in found.items() if name != other}


def _said(one: Placed) -> tuple[str, Values | None]:
    return one.use, one.given


class Owned:
    """Those that are called after a port or network, in the order that its chains say."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Placed, ...]] = {}
        self._changes: dict[str, list[tuple[tuple[Placed, ...], dict[str, str]]]] = {}

    def put(self, owner: str, after: tuple[Placed, ...],
            going: Collection[str]) -> dict[str, str]:
        """Note who is called after an owner now; -> who of those before is called how (see
        renamed). Where a change is taken back before ``accept``, each has exactly the name again
        that it had: of two that are alike nothing else tells which was which."""
        before = self._of.get(owner, ())
        if after == before:
            return {}
        self._of[owner] = after
        changes = self._changes.setdefault(owner, [])
        if changes and changes[-1][0] == after:
            _, names = changes.pop()
            return {new: old for old, new in names.items()}
        names = renamed(before, after, going)
        changes.append((before, names))
        return names

    def accept(self) -> None:
        """What was put is not taken back any more."""
        self._changes.clear()

    def forget(self, owner: str, stands: Callable[[str], bool]) -> None:
        """Some of an owner's may not be wanted any more."""
        if left := tuple(one for one in self._of.pop(owner, ()) if stands(one.name)):
            self._of[owner] = left
