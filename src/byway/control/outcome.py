# SPDX-License-Identifier: Apache-2.0
"""What actions make of the parts that they touch.

Used by inventory (which keeps it in memory) and store (which keeps it in a file). Uses the actions
and parts.
"""

from collections.abc import Iterator, Sequence

from byway.control.actions import (
    Action,
    AddEntry,
    AddFunction,
    AddGroup,
    AddHost,
    AddNetwork,
    AddPort,
    AddRouter,
    AddService,
    ChangeFunction,
    ChangeGroup,
    ChangeNetwork,
    ChangePort,
    ChangeService,
    RemoveEntry,
    RemoveFunction,
    RemoveGroup,
    RemoveHost,
    RemoveNetwork,
    RemovePort,
    RemoveRouter,
    RemoveService,
    SetUnderlay,
)
from byway.control.model import entry_name
from byway.control.parts import UNDERLAY, Key, Part


def outcome(made: Sequence[Action]) -> dict[Key, Part | None]:
    """What the actions, all of them, make of each part that they touch; None: nothing."""
    found: dict[Key, Part | None] = {}
    for action in made:
        for key, part in _outcome(action):
            found.pop(key, None)  # in the order of the last word
            found[key] = part
    return found


def _outcome(action: Action) -> Iterator[tuple[Key, Part | None]]:
    match action:
        case SetUnderlay(underlay):
            yield UNDERLAY, underlay
        case AddGroup(group) | ChangeGroup(_, group):
            yield Key("group", group.name), group
        case AddFunction(function) | ChangeFunction(_, function):
            yield Key("function", function.name), function
        case AddService(service) | ChangeService(_, service):
            yield Key("service", service.name), service
        case AddNetwork(network) | ChangeNetwork(_, network):
            yield Key("network", network.name), network
        case AddHost(host):
            yield Key("host", host.name), host
        case AddEntry(one):
            yield Key("entry", one.name), one
        case AddRouter(router):
            yield Key("router", router.name), router
        case AddPort(port) | ChangePort(_, port):
            yield Key("port", port.name), port
        case RemoveEntry(name, mac):
            yield Key("entry", entry_name(name, mac)), None
        case gone:
            yield _removed(gone), None


def _removed(
    action: RemoveGroup | RemoveFunction | RemoveService | RemoveNetwork | RemoveHost | RemoveRouter
    | RemovePort
) -> Key:
    match action:
        case RemoveGroup(name):
            return Key("group", name)
        case RemoveFunction(name):
            return Key("function", name)
        case RemoveService(name):
            return Key("service", name)
        case RemoveNetwork(name):
            return Key("network", name)
        case RemoveHost(name):
            return Key("host", name)
        case RemoveRouter(name):
            return Key("router", name)
        case RemovePort(name):
            return Key("port", name)
