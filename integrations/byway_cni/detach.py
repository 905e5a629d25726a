# SPDX-License-Identifier: Apache-2.0
"""DEL and GC: everything that ADD made for a container is gone, however much of it there was.

Used by main, and by attach to undo. Source: CNI specification 1.1.0, "DEL" and "GC".

What is not there is no error. A switch that does not answer is none either: the container must be
able to go. Its addresses are free then, and the row is kept as `leaving`, until a call that meets
the switch removes the port.
"""

import sys
from typing import Any

from byway_cni import addresses, delegate, published
from byway_cni.attachments import Attachment, Attachments, port_name
from byway_cni.call import Call, valid_container, valid_ifname
from byway_cni.problem import CniError, Code
from byway_cni.settings import Settings, wrong
from byway_cni.switch import NotReachable, Switch

VALID = "cni.dev/valid-attachments"


def delete(call: Call, settings: Settings, kept: Attachments, switch: Switch) -> None:
    """DEL. Idempotent; with or without a namespace, a prevResult, an ADD before it."""
    row = kept.find(call.network, call.container, call.ifname)
    if row is None:
        name = port_name(call.network, call.container, call.ifname)
        row = Attachment(call.network, call.container, call.ifname, name, "", 0)
    detach(call, settings, kept, switch, row)
    sweep(kept, switch)


def detach(call: Call, settings: Settings, kept: Attachments, switch: Switch,
           row: Attachment) -> None:
    """Remove one attachment: published ports, port, addresses, row."""
    recorded = kept.find(row.network, row.container, row.ifname)
    published.withdraw(kept, recorded)
    there = _remove_port(switch, row)
    if recorded and call.verb == "DEL" and call.netns:
        _remove_interface(call)
    if settings.bandwidth:
        from byway_cni import shaping

        shaping.remove(call, settings.bandwidth)
    # Only now: an address is given to the next one when nobody uses it any more.
    if settings.ipam and not settings.own_ipam and call.verb in ("ADD", "DEL"):
        delegate.run(call, settings.ipam["type"], "DEL")
    if there or recorded is None:
        kept.remove(row)
    else:
        kept.leave(row)


def _remove_port(switch: Switch, row: Attachment) -> bool:
    """Remove a port; -> whether the switch was there to do it."""
    try:
        switch.delete(f"/v1/ports/{row.port}")
    except NotReachable as error:
        sys.stderr.write(f"byway-cni: port {row.port} is removed later: {error}\n")
        return False
    return True


def _remove_interface(call: Call) -> None:
    """Remove the interface of a port that the switch does not know, or is not there to remove."""
    from byway_cni import namespace

    try:
        namespace.check(call.netns)
    except CniError:
        return  # with the namespace it is gone
    namespace.inside(call.netns, lambda: namespace.remove(call.ifname))


def sweep(kept: Attachments, switch: Switch) -> None:
    """Remove the ports that were left while the switch was not there."""
    for row in kept.leaving():
        if not _remove_port(switch, row):
            return
        kept.remove(row)


def collect(call: Call, settings: Settings, kept: Attachments, switch: Switch) -> None:
    """GC: remove all attachments of this network that the runtime does not list as valid.

    Goes on after an error; raises one CniError with all of them at the end."""
    valid = read_valid(call)
    problems: list[CniError] = []
    for row in kept.of_network(call.network):
        if (row.container, row.ifname) in valid or row.leaving:
            continue
        try:
            detach(call, settings, kept, switch, row)
        except CniError as error:
            problems.append(error)
    try:
        sweep(kept, switch)
        if settings.own_ipam:
            addresses.release_others(kept.pools, call.network,
                                     {f"{container}/{ifname}" for container, ifname in valid})
        elif settings.ipam:
            delegate.run(call, settings.ipam["type"], "GC")
    except CniError as error:
        problems.append(error)
    if problems:
        raise CniError(problems[0].code, "; ".join(error.problem for error in problems),
                       problems[0].fix, problems[0].details)


def read_valid(call: Call) -> set[tuple[str, str]]:
    """The attachments that stay."""
    entries: Any = call.config.get(VALID)
    if not isinstance(entries, list):
        raise wrong(VALID, entries, "send the list of valid attachments, which may be empty")
    found = set()
    for entry in entries:
        if (not isinstance(entry, dict) or not valid_container(entry.get("containerID"))
                or not valid_ifname(entry.get("ifname"))):
            # To take it for nothing would remove a container's network.
            raise CniError(Code.CONFIGURATION, f"{VALID} has {str(entry)[:60]!r}",
                           "send objects with containerID and ifname")
        found.add((entry["containerID"], entry["ifname"]))
    return found
