# SPDX-License-Identifier: Apache-2.0
"""Byway's addresses for other plugins: `byway-cni` run as the IPAM plugin of, say, `bridge`.

Used by main, when the configuration's `type` is another plugin's and its `ipam.type` is ours. An
IPAM plugin's result has no interfaces.
"""

from typing import Any

from byway_cni import addresses, result
from byway_cni.attachments import Attachments, space
from byway_cni.call import Call
from byway_cni.detach import read_valid
from byway_cni.problem import CniError, Code
from byway_cni.settings import Settings


def add(call: Call, settings: Settings, kept: Attachments) -> dict[str, Any]:
    """Addresses for an attachment; asked again, the same ones."""
    leased = addresses.allocate(kept.pools, call.network, call.owner, settings.ipam,
                                call.config.get("runtimeConfig") or {}, settings.ips)
    return result.finish(call.version, leased)


def run(call: Call, settings: Settings, kept: Attachments) -> dict[str, Any] | None:
    """One call as an IPAM plugin; -> the result of ADD."""
    if call.verb == "ADD":
        return add(call, settings, kept)
    if call.verb == "DEL":
        kept.pools.release_owner(space(call.network), call.owner)
    elif call.verb == "CHECK":
        if not kept.pools.owned(space(call.network), call.owner):
            raise CniError(Code.CHANGED, f"{call.owner} has no address of {call.network}",
                           "delete the attachment and add it again")
    elif call.verb == "GC":
        addresses.release_others(kept.pools, call.network,
                                 {"/".join(one) for one in read_valid(call)})
    return None
