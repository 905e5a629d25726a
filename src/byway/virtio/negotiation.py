# SPDX-License-Identifier: Apache-2.0
"""What a feature needs, which bits may stand together, and why a feature is off: pure functions.

Used by the ports (before they offer or take features, and for what they show) and by
control.model (the names that a configuration may switch off). Uses features.
VIRTIO 1.2: 2.2 (a driver must not accept a feature that requires another one which it did not
accept), 5.1.3.1 (network), 2.8, 2.9 and 6 (rings).
"""

from collections.abc import Mapping

from byway.virtio.features import Feature

F = Feature
# A feature needs one of each group: (a, b) means a or b.
_GROUPS: tuple[tuple[tuple[Feature, ...], tuple[Feature, ...]], ...] = (
    ((F.CSUM,), (F.GSO, F.HOST_TSO4, F.HOST_TSO6, F.HOST_UFO, F.HOST_USO)),
    ((F.HOST_TSO4, F.HOST_TSO6), (F.HOST_ECN,)),
    ((F.GUEST_CSUM,), (F.GUEST_TSO4, F.GUEST_TSO6, F.GUEST_UFO, F.GUEST_USO4, F.GUEST_USO6)),
    ((F.GUEST_TSO4, F.GUEST_TSO6), (F.GUEST_ECN,)),
    ((F.CTRL_VQ,), (F.CTRL_GUEST_OFFLOADS, F.CTRL_RX, F.CTRL_VLAN, F.CTRL_RX_EXTRA,
                    F.GUEST_ANNOUNCE, F.MQ, F.CTRL_MAC_ADDR, F.HASH_REPORT, F.RSS)),
    ((F.VERSION_1,), (F.ACCESS_PLATFORM, F.RING_PACKED, F.IN_ORDER, F.ORDER_PLATFORM,
                      F.NOTIFICATION_DATA, F.RING_RESET)),
)
REQUIRES: dict[Feature, tuple[Feature, ...]] = {
    feature: needed for needed, features in _GROUPS for feature in features}
# Every name that a configuration may use; "packed" is what guests' options call it.
BY_NAME: dict[str, Feature] = {f.name.lower(): f for f in Feature} | {"packed": F.RING_PACKED}

BY_CONFIGURATION = "features.off"
NOT_OFFERED = "not offered by the back end"
NOT_TAKEN = "the guest did not take it"
NOT_SUPPORTED = "not supported"
_ONLY_MIGRATING = "the front end takes it while the guest migrates"


def closure(bits: int) -> int:
    """The features of ``bits`` without those that need one that is not there, and so on."""
    while True:
        kept = bits & ~sum(
            1 << f for f, needed in REQUIRES.items()
            if bits >> f & 1 and not any(bits >> n & 1 for n in needed))
        if kept == bits:
            return bits
        bits = kept


def explain(supported: int, switched_off: int, offered: int, acked: int | None, *,
            unsupported: Mapping[Feature, str] | None = None,
            not_taken: str = NOT_TAKEN) -> dict[str, str]:
    """Why features are off: {name: reason}, in the order of their bits; those that are on are not
    in it.

    supported: what this kind of port can do; switched_off: by its configuration; offered: what the
    back end offers (a vhost-user port: itself); acked: what was agreed, None before anything was.
    ``unsupported``: why the kind cannot do a feature; ``not_taken``: what to say of one that was
    offered and not agreed.
    """
    wanted = closure(supported & ~switched_off)
    possible = closure(wanted & offered)
    why = {}
    for f in Feature:
        if not supported >> f & 1:
            reason = (unsupported or {}).get(f, NOT_SUPPORTED)
        elif switched_off >> f & 1:
            reason = BY_CONFIGURATION
        elif not wanted >> f & 1:
            reason = _needs(f)
        elif not offered >> f & 1:
            reason = NOT_OFFERED
        elif not possible >> f & 1:
            reason = _needs(f)
        elif acked is not None and not acked >> f & 1:
            reason = _ONLY_MIGRATING if f == F.LOG_ALL else not_taken
        else:
            continue
        why[f.name.lower()] = reason
    return why


def _needs(feature: Feature) -> str:
    needed = [n.name.lower() for n in REQUIRES[feature]]
    return f"needs {' or '.join(needed)}, which {'is' if len(needed) == 1 else 'are'} off"
