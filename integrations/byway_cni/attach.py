# SPDX-License-Identifier: Apache-2.0
"""ADD: a container's interface, made by the switch, and everything around it.

Used by main. Uses all the other modules.

Order, and what a death after each step leaves:

1. The row of the attachment, with its addresses: DEL and GC find it from here on.
2. The switch's network and gateway: shared by all containers, they stay.
3. The port: the switch makes the interface in the container's namespace, with its addresses and
   routes, and answers when it is there.
4. Published ports, written into the row before they are made.

Whatever fails is undone in the opposite order, as DEL would do it.
"""

import ipaddress
import os
import sys
from typing import Any

from byway_cni import addresses, delegate, namespace, published, result
from byway_cni.attachments import Attachment, Attachments
from byway_cni.call import Call
from byway_cni.detach import detach, sweep
from byway_cni.problem import CniError, Code
from byway_cni.settings import Settings
from byway_cni.switch import Switch

_ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


def add(call: Call, settings: Settings, kept: Attachments, switch: Switch) -> dict[str, Any]:
    """Attach a container; -> the result. CniError: nothing of it is left."""
    result.chain(call)
    _check_wishes(settings)
    namespace.check(call.netns)
    if namespace.inside(call.netns, lambda: namespace.exists(call.ifname)):
        raise CniError(Code.PRESENT, f"{call.netns} has an interface {call.ifname} already",
                       "take another interface name, or delete that attachment first")
    sweep(kept, switch)
    row, leased = _record(call, settings, kept)
    try:
        if settings.ipam and not settings.own_ipam:
            kind = settings.ipam["type"]
            leased = result.read_lease(delegate.run(call, kind, "ADD"), kind)
        return _make(call, settings, kept, switch, row, leased)
    except BaseException:
        _undo(call, settings, kept, switch, row)
        raise


def _check_wishes(settings: Settings) -> None:
    if settings.mappings and not settings.gateway:
        raise CniError(Code.CONFIGURATION, "portMappings need an interface of the host",
                       "add isGateway: true to the network's configuration")


def _record(call: Call, settings: Settings, kept: Attachments,
            ) -> tuple[Attachment, dict[str, Any]]:
    """The row and Byway's own addresses, both on the disk or none."""
    with kept.pools.transaction():
        row = kept.add(call)
        if not settings.own_ipam:
            return row, {}
        return row, addresses.allocate(kept.pools, call.network, call.owner, settings.ipam,
                                       call.config.get("runtimeConfig") or {}, settings.ips)


def _make(call: Call, settings: Settings, kept: Attachments, switch: Switch, row: Attachment,
          leased: dict[str, Any]) -> dict[str, Any]:
    ips = leased.get("ips") or []
    _add_gateways(leased, settings)
    mtu = ensure_network(switch, settings)
    if settings.gateway:
        _ensure_gateway(settings, kept, switch, ips)
    mac = settings.mac or _mac(ips)
    switch.put(f"/v1/ports/{row.port}", {
        "network": settings.network, "kind": "tap", "ifname": call.ifname,
        "netns": os.path.abspath(call.netns), "mac": mac, "persistent": True,
        "address": [entry["address"] for entry in ips],
        "routes": [{"to": route["dst"], **({"via": route["gw"]} if route.get("gw") else {})}
                   for route in leased.get("routes") or []],
    })
    if settings.bandwidth:
        from byway_cni import shaping

        shaping.apply(call, settings.bandwidth)
    if settings.mappings:
        published.publish(kept, row, settings, [entry["address"] for entry in ips])
    if kept.find(row.network, row.container, row.ifname) is None:
        raise CniError(Code.LATER, "the attachment was deleted while it was made", "add it again")
    interface = {"name": call.ifname, "mac": mac, "mtu": mtu, "sandbox": call.netns}
    return result.make(call, interface, leased, settings.dns)


def ensure_network(switch: Switch, settings: Settings) -> int:
    """The network of the switch is there; -> its MTU in bytes."""
    path = f"/v1/networks/{settings.network}"
    wanted = {"vni": settings.vni, "mtu": settings.mtu}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    found = switch.get(path)
    if found is None:
        found = switch.put(path, wanted)
    for key, value in wanted.items():
        if found.get(key) != value:
            raise CniError(
                Code.CONFIGURATION,
                f"the switch's network {settings.network} has the {key} {found.get(key)},"
                f" not {value}", f"correct {key}, or name another network")
    mtu = found.get("mtu")
    if not isinstance(mtu, int):
        raise CniError(Code.REFUSED, "the network that the switch answers with has no mtu",
                       "check that the key api is a switch's socket")
    return mtu


def _add_gateways(leased: dict[str, Any], settings: Settings) -> None:
    """Every route without a gateway goes over that of its family's first address."""
    via: dict[int, str] = {}
    for entry in leased.get("ips") or []:
        if entry.get("gateway"):
            via.setdefault(_version(entry["address"]), entry["gateway"])
    routes = list(leased.get("routes") or [])
    if settings.default_route:
        present = {route["dst"] for route in routes}
        routes += [{"dst": _ANYWHERE[version]} for version in via
                   if _ANYWHERE[version] not in present]
    for route in routes:
        gateway = via.get(_version(route["dst"]))
        if not route.get("gw") and gateway:
            route["gw"] = gateway
    if leased:
        leased["routes"] = routes


def _version(text: str) -> int:
    return ipaddress.ip_interface(text).version


def _ensure_gateway(settings: Settings, kept: Attachments, switch: Switch,
                    ips: list[dict[str, str]]) -> None:
    """The host's interface in the network, which has the gateways' addresses."""
    name = f"gw-{settings.network}"[:63]
    own = [f"{entry['gateway']}/{entry['address'].rpartition('/')[2]}"
           for entry in ips if entry.get("gateway")]
    if not own:
        raise CniError(Code.CONFIGURATION, "isGateway is set, and no address has a gateway",
                       "give the network addresses with the key ipam")
    switch.put(f"/v1/ports/{name}", {
        "network": settings.network, "kind": "tap", "ifname": settings.gateway_interface,
        "address": kept.gateway(name, own), "persistent": True,
        **({"masquerade": True} if settings.masquerade else {}),
    })


def _mac(ips: list[dict[str, str]]) -> str:
    """A local unicast address: made of the IPv4 address, so that neighbours who remember the last
    container with that address are right about this one; else random."""
    for entry in ips:
        address = ipaddress.ip_interface(entry["address"]).ip
        if address.version == 4:
            return ":".join(f"{byte:02x}" for byte in b"\x02\x62" + address.packed)
    return ":".join(f"{byte:02x}" for byte in b"\x02" + os.urandom(5))


def _undo(call: Call, settings: Settings, kept: Attachments, switch: Switch,
          row: Attachment) -> None:
    """Take back what ADD has done; what cannot be stays in the row, for DEL."""
    try:
        detach(call, settings, kept, switch, row)
    except CniError as error:
        sys.stderr.write(f"byway-cni: not everything could be undone: {error}\n")
