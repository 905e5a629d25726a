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
    LOCAL_MAC = (
        24, "A frame from a tunnel has the source address of a guest of this host.",
        "Look on the remote host for who uses the address, or for a guest that was moved.")
    UNKNOWN_VNI = (
        25, "A frame from a tunnel is of a network (VNI) that this host does not have.",
        "Nothing to do where it is rare; else compare the networks of the two hosts.")
    UNKNOWN_TUNNEL = (
        26, "A tunnelled frame came from an address that is no known host's.",
        "Add the host, or look for who sends there.")
    BAD_TUNNEL = (
        27, "What came in the tunnel is malformed: its outer headers, VXLAN's, or their lengths.",
        "Look at the sender.")
    UNKNOWN_UNICAST = (
        28, "Nobody with the destination address is known, and the network does not flood then.",
        'Look for the destination in `byway population list`, or set unknown = "flood".')
    VLAN_TAG = (
        29, "The trunk port has no network with this VLAN tag; or a frame of its native network, "
        "which goes out untagged, has one.", "Add the tag to the port's vlans.")
    SPOOFED_MAC = (
        30, "The source address is not one that the port may use.",
        "Add it to the port's allowed_address_pairs, or look at the guest.")
    SPOOFED_IP = (
        31, "The source IP address is not one that the port may use.",
        "Add it to the port's ips or allowed_address_pairs, or look at the guest.")
    SPOOFED_ARP = (
        32, "ARP or neighbour discovery speaks of an address that the port may not use.",
        "Add it to the port's ips or allowed_address_pairs, or look at the guest.")
    DHCP_SERVER = (
        33, "The port answers as a DHCP server and is not trusted to.",
        'Put "dhcp" into the port\'s trusted, or look at the guest.')
    ROUTER_ADVERT = (
        34, "The port advertises itself as an IPv6 router and is not trusted to.",
        'Put "ra" into the port\'s trusted, or look at the guest.')
    NOT_ALLOWED = (
        35, "No rule of the port's security groups allows the connection.",
        "Add a rule, where it is wanted.")
    BAD_STATE = (
        36, "The frame belongs to no known connection, or does not fit its state.",
        "Nothing to do where it is rare: the connection was closed or has aged out.")
    CONNECTIONS = (
        37, "The port has as many connections as it may have.",
        "Look for who opens so many, or raise the limit.")
    RATE = (38, "The port's rate limit is used up.", "Raise the port's limit, where it is wanted.")
    BROADCAST_RATE = (
        39, "The port's limit for broadcast and multicast frames is used up.",
        "Look for who sends so many, or raise the port's limit.")
    NO_ROUTE = (40, "The router has no route to the destination.", "Add a route.")
    TTL_EXPIRED = (
        41, "The frame's time to live (hop limit) ended at the router.",
        "Nothing to do for traceroute; else look for a loop of routes.")
    NO_NEIGHBOUR = (
        42, "The router does not know the MAC address of the next hop yet, and asked for it.",
        "Nothing to do for the first frames; else see whether the next hop is there.")
    TOO_BIG = (
        43, "The frame does not fit into the way out, and may not be cut.",
        "Lower the network's mtu, or raise that of the underlay.")
    SEND_REFUSED = (
        44, "The Linux kernel would not send the tunnelled frame.",
        "See `ip route get` for the remote host's address.")
    TO_GATEWAY = (
        45, "The frame was for the gateway itself, and ended there.",
        "Nothing to do: answers to the router's own ARP and ND requests end so.")
    BAD_IP = (
        46, "The IP or ND headers of a frame to the gateway are malformed, or a checksum is wrong.",
        "Look at the sender.")
    MARTIAN = (
        47, "The packet's IP addresses are not ones that a router forwards (loopback, link-local,"
        " multicast, a subnet's broadcast), or it is source-routed.",
        "Look at the sender.")
    CONGESTED = (
        48, "A router on the tunnel's way was congested, and the frame cannot say so (RFC 6040).",
        "Nothing to do where it is rare; else relieve the underlay.")
    TO_UPLINK = (
        49, "The frame was for the switch's own address on its uplink, and ended there.",
        "Nothing to do: answers to its ARP and ND requests end so, and what it does not speak.")
    HIDDEN_HEADER = (
        50, "The frame hides what it is from port security: behind many VLAN tags, LLC/SNAP, a long"
        " chain of extension headers, or the end of a fragment.",
        "Look at the guest.")
    FUNCTION = (
        51, "A network function dropped it; the function's instance counts its reasons.",
        "See `byway nf show`.")
    FUNCTION_FAULT = (
        52, "A network function went wrong with it: a division by zero, an index out of range, more"
        " work than its budget.",
        "See `byway nf show` for the line, and mend the function.")
    SERVICE_DOWN = (
        53, "No appliance of a service that the frame has to pass works.",
        "See `byway service show` for what each of them lacks.")
    SERVICE_ADDRESS = (
        54, "A port with services sent the frame from an address that is not the port's, or was to"
        " get one that is not for it.",
        "Add the address to the port's allowed_address_pairs, or look at the guest.")
    SERVICE_STRAY = (
        55, "An appliance sent the frame from or to an address that no port with its service has.",
        "Nothing to do where it is rare: it is the appliance's own, or came late.")
    SERVICE_PROBE = (
        56, "The switch's own question whether an appliance works came back.", "Nothing to do.")


REASONS = 64  # room in the counters; more than there are reasons
