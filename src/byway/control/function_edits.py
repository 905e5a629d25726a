# SPDX-License-Identifier: Apache-2.0
"""Changes of what is wanted of network functions: passive data in, passive data out.

Used by the API. Uses parts, the model, chains and function_steps.

An instance is wanted by a [[function]] of its name, or by a step of a port's or network's chain.
To give it other parameters, or to have it no more, is to change that.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from byway.control.chains import parse_step, short_name, with_parameters
from byway.control.diff import Change
from byway.control.function_steps import of_network, of_port
from byway.control.model import FunctionConfig, NetworkConfig
from byway.control.parts import Key, Kind, Part, Parts
from byway.control.problem import NotThere
from byway.control.tables import PARSERS


class Stand(NamedTuple):
    """Where a chain says that an instance is wanted: key ``where`` of a part, its place there."""

    part: Any
    where: str
    place: int


def stands(parts: Parts, name: str) -> list[Stand]:
    """Every place of chains where an instance stands."""
    def use_of(function: str) -> str:
        return str(parts.all("function")[function].use)

    found = []
    for network in parts.all("network").values():
        lists = {"chain": of_network(network, use_of)} if network.chain else {}
        found += _places(network, lists, name)
    for port in parts.all("port").values():
        if port.chain or port.chain_tx:
            found += _places(port, dict(zip(("chain", "chain_tx"), of_port(port, use_of),
                                            strict=True)), name)
    return found


def _places(part: Any, lists: Mapping[str, Any], name: str) -> list[Stand]:
    return [Stand(part, where, at) for where, placed in lists.items()
            for at, one in enumerate(placed) if one.name == name]


def alike(parts: Parts, name: str) -> list[str]:
    """The steps, as written, that an instance is told apart from by its place among them: as long
    as they are the same, its name means the same one. Empty: it has a name of its own, or stands
    nowhere."""
    if parts.get(Key("function", name)):
        return []
    for part, where, at in stands(parts, name):
        steps = [*part.chain, *getattr(part, "chain_tx", ())]
        short = _short(getattr(part, where)[at])
        return [step for step in steps if _short(step) == short]
    return []


def _short(step: str) -> str:
    return short_name(parse_step(step).use)


def with_given(parts: Parts, name: str, given: Mapping[str, Any]) -> Change:
    """The change after which an instance has other values of these parameters. NotThere: there
    is none."""
    function = parts.get(Key("function", name))
    if isinstance(function, FunctionConfig):
        return put(function, parameters={**dict(function.parameters), **given})
    for part, where, at in stands(parts, name):
        step = parse_step(getattr(part, where)[at])
        written = with_parameters(step, {**step.parameters, **given})
        return put(part, **{where: _replaced(getattr(part, where), at, written)})
    raise NotThere(f'there is no network function "{name}"', "see `byway nf list`")


def without(parts: Parts, name: str) -> Change:
    """The change after which an instance stands nowhere; one with a name of its own is removed.
    NotThere: there is none."""
    left: dict[Key, Part] = {}
    # From the end: places before one that goes stay what they are.
    for part, where, at in reversed(stands(parts, name)):
        key = Key("network" if isinstance(part, NetworkConfig) else "port", part.name)
        now = left.get(key, part)
        left[key] = _with(now, **{where: _replaced(getattr(now, where), at, None)})
    function = name if parts.get(Key("function", name)) else None
    if not left and function is None:
        raise NotThere(f'there is no network function "{name}"', "see `byway nf list`")
    networks = [part for key, part in left.items() if key.kind == "network"]
    ports = [part for key, part in left.items() if key.kind == "port"]
    return Change(add_networks=networks, add_ports=ports,  # type: ignore[arg-type]
                  remove_functions=(function,) if function else ())


def put(part: Any, **values: Any) -> Change:
    """The change after which a part has these values. ConfigError: it cannot have them."""
    made: Any = _with(part, **values)
    field = ("add_functions" if isinstance(part, FunctionConfig) else
             "add_networks" if isinstance(part, NetworkConfig) else "add_ports")
    fields: dict[str, Any] = {field: (made,)}
    return Change(**fields)


def _with(part: Any, **values: Any) -> Part:
    kind: Kind = ("function" if isinstance(part, FunctionConfig) else
            "network" if isinstance(part, NetworkConfig) else "port")
    table = part.model_dump(mode="json", exclude_unset=True) | values
    made: Part = PARSERS[kind](table, str(Key(kind, part.name)))
    return made


def _replaced(chain: tuple[str, ...], index: int, written: str | None) -> list[str]:
    return [*chain[:index], *([] if written is None else [written]), *chain[index + 1:]]
