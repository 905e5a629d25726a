# SPDX-License-Identifier: Apache-2.0
"""CHECK and STATUS: is a container's network as ADD left it; could a container be added now?

Used by main. Source: CNI specification 1.1.0, "CHECK" and "STATUS". Only what this plugin made is
compared: other plugins of the chain may have added to it.
"""

from byway_cni import addresses, delegate, namespace, result, shaping
from byway_cni.attachments import Attachments
from byway_cni.call import Call
from byway_cni.problem import CniError, Code
from byway_cni.settings import Settings
from byway_cni.switch import Switch


def check(call: Call, settings: Settings, kept: Attachments, switch: Switch) -> None:
    """CniError where something is not as prevResult says."""
    expected = result.attached(call)
    namespace.check(call.netns)
    link = namespace.inside(call.netns, lambda: namespace.look(call.ifname))
    if link is None:
        raise _changed(call, "the interface is gone")
    if not link.up:
        raise _changed(call, "the interface is down")
    if expected.mac and link.mac != expected.mac:
        raise _changed(call, f"its MAC is {link.mac}, not {expected.mac}")
    for address in expected.addresses:
        if address not in link.addresses:
            raise _changed(call, f"the address {address} is gone")
    for route in expected.routes:
        if not any(destination == route["dst"] and route["gw"] in ("", gateway)
                   for destination, gateway in link.routes):
            raise _changed(call, f"the route to {route['dst']} is gone")
    shaping.check(call, settings.bandwidth)
    row = kept.find(call.network, call.container, call.ifname)
    if row is None:
        raise _changed(call, f"it is not recorded in {settings.state}")
    port = switch.get(f"/v1/ports/{row.port}")
    if port is None:
        raise _changed(call, f"the switch has no port {row.port}")
    if port.get("state") != "up":
        raise _changed(call, f"port {row.port} is {port.get('state')}: {port.get('reason')}")
    if settings.own_ipam:
        lost = addresses.missing(kept.pools, call.network, call.owner, expected.addresses)
        if lost:
            raise _changed(call, f"the address {lost[0]} is not the container's any more")
    elif settings.ipam:
        delegate.run(call, settings.ipam["type"], "CHECK")


def _changed(call: Call, problem: str) -> CniError:
    return CniError(Code.CHANGED, f"{call.ifname} of container {call.container}: {problem}",
                    "delete the attachment and add it again")


def status(call: Call, settings: Settings, kept: Attachments, switch: Switch) -> None:
    """CniError with code 50 where ADD would fail now. `kept` is open: that is one half of it."""
    try:
        found = switch.get("/v1/switch")
        if found is None:
            raise CniError(Code.REFUSED, "what answers at the API's socket is no switch",
                           "correct the key api")
        if settings.ipam and not settings.own_ipam:
            delegate.run(call, settings.ipam["type"], "STATUS")
    except CniError as error:
        raise CniError(Code.NOT_AVAILABLE, error.problem, error.fix, error.details) from None
