# SPDX-License-Identifier: Apache-2.0
"""Results: made in the version that the configuration speaks, and read back from a prevResult.

Used by the verbs. Source: CNI specification 1.1.0, "Success" and the older ones' "Result".
"""

import ipaddress
from typing import Any, NamedTuple

from byway_cni.call import Call
from byway_cni.problem import CniError, Code


class Attached(NamedTuple):
    """What a result says of one interface."""

    mac: str
    addresses: list[str]  # with prefix length
    routes: list[dict[str, Any]]


def chain(call: Call) -> dict[str, Any]:
    """The result of the plugins before this one; empty where it is the first."""
    found = call.config.get("prevResult")
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(
            isinstance(found.get(key), list | None) for key in ("interfaces", "ips", "routes")):
        raise CniError(Code.CONFIGURATION, "prevResult is no result", "pass on what ADD answered")
    return found


def make(call: Call, interface: dict[str, Any], leased: dict[str, Any],
         dns: dict[str, Any]) -> dict[str, Any]:
    """The result of ADD: what was there before, and the new interface with its addresses."""
    before = chain(call)
    interfaces = [*(before.get("interfaces") or []), interface]
    if call.version != "1.1.0":  # "mtu" came with 1.1.0
        interfaces[-1] = {k: v for k, v in interface.items() if k != "mtu"}
    ips = [{**entry, "interface": len(interfaces) - 1} for entry in leased.get("ips") or []]
    routes = [*(before.get("routes") or []), *(leased.get("routes") or [])]
    return finish(call.version, {
        "interfaces": interfaces,
        "ips": [*(before.get("ips") or []), *ips],
        "routes": routes,
        "dns": dns or leased.get("dns") or before.get("dns") or {},
    })


def finish(version: str, found: dict[str, Any]) -> dict[str, Any]:
    """A result with its version; before 1.0.0 every address says its own ("4" or "6")."""
    if version < "1.0.0":
        found["ips"] = [{"version": str(ipaddress.ip_interface(entry["address"]).version), **entry}
                        for entry in found["ips"]]
    return {"cniVersion": version, **found}


def read_lease(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """The parts of an IPAM plugin's result that are used, checked."""
    try:
        ips = [{key: str(entry[key]) for key in ("address", "gateway") if entry.get(key)}
               for entry in found.get("ips") or []]
        for entry in ips:
            ipaddress.ip_interface(entry["address"])
            ipaddress.ip_address(entry.get("gateway", "0.0.0.0"))
        routes = [dict(route) for route in found.get("routes") or []]
        for route in routes:
            route["dst"] = str(ipaddress.ip_network(str(route["dst"]), strict=False))
            ipaddress.ip_address(str(route.get("gw") or "0.0.0.0"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CniError(Code.DECODE, f"the IPAM plugin {kind} answers what is no result: {error!r}",
                       "see its configuration in the key ipam") from None
    dns = found.get("dns")
    return {"ips": ips, "routes": routes, "dns": dns if isinstance(dns, dict) else {}}


def attached(call: Call) -> Attached:
    """What a prevResult says of this call's interface, for CHECK."""
    before = chain(call)
    if not before:
        raise CniError(Code.CONFIGURATION, "prevResult is missing", "CHECK needs what ADD answered")
    try:
        places = [(index, entry) for index, entry in enumerate(before.get("interfaces") or [])
                  if entry["name"] == call.ifname and entry.get("sandbox")]
        if not places:
            raise CniError(Code.CONFIGURATION, f"prevResult knows no interface {call.ifname}",
                           "pass on what ADD answered")
        index, interface = places[-1]
        addresses = [str(ipaddress.ip_interface(str(entry["address"])))
                     for entry in before.get("ips") or [] if entry.get("interface") == index]
        routes = [{"dst": str(ipaddress.ip_network(str(route["dst"]), strict=False)),
                   "gw": str(route.get("gw") or "")} for route in before.get("routes") or []]
        return Attached(str(interface.get("mac") or "").lower(), addresses, routes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CniError(Code.CONFIGURATION, f"prevResult is no result: {error!r}",
                       "pass on what ADD answered") from None
