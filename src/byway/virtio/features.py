# SPDX-License-Identifier: Apache-2.0
"""Feature bits of virtio, virtio-net and vhost-user, by name.

Used by vhost (negotiation), ports (what is offered, and why) and control (what is shown).
VIRTIO 1.2: 6 (ring and transport bits), 5.1.3 (network bits).
"""

from enum import IntEnum


class Feature(IntEnum):
    """Bit numbers. Those from 24 to 40 belong to rings and transports, the others to networks."""

    CSUM = 0
    GUEST_CSUM = 1
    CTRL_GUEST_OFFLOADS = 2
    MTU = 3
    MAC = 5
    GSO = 6
    GUEST_TSO4 = 7
    GUEST_TSO6 = 8
    GUEST_ECN = 9
    GUEST_UFO = 10
    HOST_TSO4 = 11
    HOST_TSO6 = 12
    HOST_ECN = 13
    HOST_UFO = 14
    MRG_RXBUF = 15
    STATUS = 16
    CTRL_VQ = 17
    CTRL_RX = 18
    CTRL_VLAN = 19
    CTRL_RX_EXTRA = 20
    GUEST_ANNOUNCE = 21
    MQ = 22
    CTRL_MAC_ADDR = 23
    NOTIFY_ON_EMPTY = 24
    LOG_ALL = 26  # vhost-user: dirty logging
    ANY_LAYOUT = 27
    INDIRECT_DESC = 28
    EVENT_IDX = 29
    PROTOCOL_FEATURES = 30  # vhost-user
    VERSION_1 = 32
    ACCESS_PLATFORM = 33
    RING_PACKED = 34
    IN_ORDER = 35
    ORDER_PLATFORM = 36
    NOTIFICATION_DATA = 38
    RING_RESET = 40
    GUEST_USO4 = 54
    GUEST_USO6 = 55
    HOST_USO = 56
    HASH_REPORT = 57
    GUEST_HDRLEN = 59
    RSS = 60
    STANDBY = 62
    SPEED_DUPLEX = 63


def mask(*features: Feature) -> int:
    """The 64-bit word with the bits of ``features``."""
    return sum(1 << f for f in features)


def has(bits: int, feature: Feature) -> bool:
    """Is the feature's bit set?"""
    return bool(bits >> feature & 1)


def names(bits: int) -> list[str]:
    """The names of the bits set, in order; bits without a name as ``bit41``."""
    known = {int(f): f.name.lower() for f in Feature}
    return [known.get(k, f"bit{k}") for k in range(64) if bits >> k & 1]


def header_length(features: int) -> int:
    """Bytes of virtio_net_hdr for negotiated ``features`` (5.1.6; legacy: 5.1.6.1).

    20 with HASH_REPORT, 12 with num_buffers (VERSION_1 or MRG_RXBUF), else the legacy 10.
    """
    if has(features, Feature.HASH_REPORT):
        return 20
    with_buffers = mask(Feature.VERSION_1, Feature.MRG_RXBUF)
    return 12 if features & with_buffers else 10
