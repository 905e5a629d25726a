# SPDX-License-Identifier: Apache-2.0
"""Why a frame was dropped: no frame vanishes uncounted, and each reason has a sentence.

Used by every kernel that drops (virtio, ports, switch, worker) and by control to explain them.
The numbers index the ``drops`` array of packet.counters.
"""

from enum import IntEnum


class Reason(IntEnum):
    """A drop reason. The value is stable within a release; its name is what the API shows."""

    sentence: str
    fix: str

    def __new__(cls, value: int, sentence: str = "", fix: str = "") -> "Reason":
        made = int.__new__(cls, value)
        made._value_ = value
        made.sentence = sentence
        made.fix = fix
        return made

    RUNT = 1, "The frame is shorter than an Ethernet header (14 bytes).", "Look at the sender."
    OVER_MTU = (
        2, "The frame is longer than the network's MTU allows.",
        "Raise the network's mtu, or lower the sender's.")
    BAD_SOURCE = (
        3, "The source address is zero or a multicast address.", "Look at the sender.")
    RESERVED = (
        4, "The destination is a link-local group that bridges never forward (IEEE 802.1Q, 8.6.3).",
        "Nothing to do: such frames end at the first bridge.")
    SAME_PORT = (
        5, "The destination was learned on the port that the frame came from.",
        "Look for a loop or a duplicate MAC address behind the port.")
    NO_DESTINATION = (
        6, "The network has no other port to send to.", "Add a port to the network.")
    PORT_DOWN = (
        7, "The destination port is not up.", "See the port's reason in `byway port show`.")
    NO_BUFFERS = (
        8, "The receiver had no free receive buffers.",
        "Give the receiver more CPU time or a larger ring.")
    SMALL_BUFFER = (
        9, "The receiver's buffer is smaller than the frame and buffers cannot be merged.",
        "Negotiate mergeable buffers, or larger ones.")
    BAD_ADDRESS = (
        10, "A descriptor points outside the memory that the peer shares.",
        "The peer's driver is broken or hostile.")
    BAD_CHAIN = (
        11, "A descriptor chain is malformed: index out of range, or a bad indirect table.",
        "The peer's driver is broken or hostile.")
    BAD_DIRECTION = (
        12, "A descriptor is writable where it must be readable, or the other way round.",
        "The peer's driver is broken or hostile.")
    LONG_CHAIN = (
        13, "A descriptor chain has too many segments, or loops.",
        "The peer's driver is broken or hostile.")
    RING_DISABLED = (
        14, "The virtqueue is started but disabled, so what it sends is discarded.",
        "The front end enables it when its driver is ready.")
    FILE_BACKLOG = (
        15, "The capture file could not be written as fast as frames came.",
        "Write to a faster disk.")
    BAD_LENGTH = (
        16, "The peer says that it wrote more or fewer bytes than a buffer can hold.",
        "The peer's device is broken or hostile.")
    BAD_OFFLOAD = (
        17, "What the virtio header says of checksum or segments does not fit the frame.",
        "The sender's driver is broken or hostile.")
    NO_TRANSLATION = (
        18, "The receiver's IOMMU has not told where its buffer lies.",
        "Nothing to do where it is rare; else give the guest's driver fixed mappings (iommu=pt).")
    INTERFACE_DOWN = (
        19, "The interface is down, so the Linux kernel takes no frames for it.",
        "Set it up: ip link set NAME up, in its network namespace.")
    REFUSED = (
        20, "The Linux kernel refused the frame.",
        "Look at the sender: the frame is not one that the interface can have.")
    TRUNCATED = (
        21, "The Linux kernel handed over only the beginning of the frame.",
        "Give Byway more CPU time, or switch GRO of packets over 64 KiB (BIG TCP) off.")
    RING_FULL = (
        22, "The Linux kernel had a frame for the port and no room left for it.",
        "Give Byway more CPU time.")
    FLOOD_BACKLOG = (
        23, "The frame was for all ports of a large network; its source had too many such waiting.",
        "Look for who sends so many broadcasts, or a loop behind the port.")


REASONS = 32  # room in the counters; more than there are reasons
