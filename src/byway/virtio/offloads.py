# SPDX-License-Identifier: Apache-2.0
"""What a peer takes unfinished, from the features that it has acknowledged.

Used by ports: the masks are those of packet.offload. VIRTIO 1.2, 5.1.3.
"""

from byway.packet import offload
from byway.virtio.features import Feature, has

_GUEST = {
    Feature.GUEST_CSUM: offload.TAKES_CSUM | offload.TAKES_VALID,
    Feature.GUEST_TSO4: offload.TAKES_TSO4,
    Feature.GUEST_TSO6: offload.TAKES_TSO6,
    Feature.GUEST_UFO: offload.TAKES_UFO,
    Feature.GUEST_USO4: offload.TAKES_USO4,
    Feature.GUEST_USO6: offload.TAKES_USO6,
    Feature.GUEST_ECN: offload.TAKES_ECN,
}
_HOST = {
    Feature.CSUM: offload.TAKES_CSUM,
    Feature.HOST_TSO4: offload.TAKES_TSO4,
    Feature.HOST_TSO6: offload.TAKES_TSO6,
    Feature.HOST_UFO: offload.TAKES_UFO,
    Feature.HOST_USO: offload.TAKES_USO4 | offload.TAKES_USO6,
    Feature.HOST_ECN: offload.TAKES_ECN,
}


def guest_takes(features: int) -> int:
    """What a driver with these features takes: frames on their way into a guest."""
    return sum(bit for feature, bit in _GUEST.items() if has(features, feature))


def host_takes(features: int) -> int:
    """What a device with these features takes: frames on their way out of a guest."""
    return sum(bit for feature, bit in _HOST.items() if has(features, feature))
