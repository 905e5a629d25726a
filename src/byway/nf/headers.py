# SPDX-License-Identifier: Apache-2.0
"""The headers of a frame by name, in plain Python: what ``frame``, ``frame.inner`` and
``frame.quoted`` have in common.

Used by frame.py, and by whoever writes a network function: each name below is what it may read and
set. byway.functions has the same as kernels, and is held against this.

A number that the frame has no header for is 0, and to set it does nothing. What is set is cut to
the bits that the header has for it. Only headers that lie whole in the frame's first 128 bytes are
there. Checksums are kept right by what has changed (RFC 1624), so a wrong one stays wrong; a UDP
checksum of 0, none, stays 0; one that the frame's sender left to be completed stays so.
"""

from typing import Any, overload

from byway.nf.layers import HEAD, NOTHING, VXLAN_PORT, Layers


class _Number:
    """``bits`` bits, ``shift`` from the right, of the ``size`` bytes at ``at`` of a header."""

    def __init__(self, header: str, at: int, size: int, shift: int = 0, bits: int = 0) -> None:
        self._header, self._at, self._size = header, at, size
        self._shift, self._mask = shift, (1 << (bits or 8 * size)) - 1

    def read(self, headers: "Headers") -> int:
        """The number; 0 where there is no such header."""
        start = headers.start(self._header)
        if start < 0:
            return 0
        return headers.number(start + self._at, self._size) >> self._shift & self._mask

    def write(self, headers: "Headers", value: int) -> None:
        """Set it, where there is such a header."""
        start = headers.start(self._header)
        if start < 0:
            return
        at = start + self._at
        kept = headers.number(at, self._size) & ~(self._mask << self._shift)
        word = kept | (int(value) & self._mask) << self._shift
        headers.change(at, word.to_bytes(self._size, "big"))


class Fixed:
    """A number that can be read. Several ``places``: it is the first one's whose header is there.
    """

    def __init__(self, *places: _Number) -> None:
        self._places = places

    @overload
    def __get__(self, headers: None, owner: Any) -> "Fixed": ...
    @overload
    def __get__(self, headers: "Headers", owner: Any) -> int: ...
    def __get__(self, headers: "Headers | None", owner: Any) -> "int | Fixed":
        return self if headers is None else sum(place.read(headers) for place in self._places)

    def __set__(self, headers: "Headers", value: int) -> None:
        raise AttributeError("this number of a frame can be read only")


class Number(Fixed):
    """A number that can be set as well. ``shape``: it says how long a header is."""

    def __init__(self, *places: _Number, shape: bool = False) -> None:
        super().__init__(*places)
        self._shape = shape

    def __set__(self, headers: "Headers", value: int) -> None:
        headers.allow_change()
        for place in self._places:
            place.write(headers, value)
        if self._shape:
            headers.reshaped()


class Headers:
    """Named numbers of the headers in one frame."""

    # ------------------------------------------------------------ Ethernet
    eth_dst = Number(_Number("eth", 0, 6))
    """MAC address that the frame is for, 48 bits."""
    eth_src = Number(_Number("eth", 6, 6))
    """MAC address that it is from, 48 bits."""
    vlan_id = Number(_Number("vlan", 2, 2, 0, 12))
    """VLAN of the outer tag (IEEE 802.1Q), 12 bits."""
    vlan_pcp = Number(_Number("vlan", 2, 2, 13, 3))
    """Priority of the outer tag, 3 bits."""

    # ------------------------------------------------------------ ARP (RFC 826)
    arp_op = Number(_Number("arp", 6, 2))
    """1 request, 2 reply."""
    arp_sender_mac = Number(_Number("arp", 8, 6))
    """Sender's MAC address."""
    arp_sender_ip = Number(_Number("arp", 14, 4))
    """Sender's IPv4 address."""
    arp_target_mac = Number(_Number("arp", 18, 6))
    """Target's MAC address."""
    arp_target_ip = Number(_Number("arp", 24, 4))
    """Target's IPv4 address."""

    # ------------------------------------------------------------ IP (RFC 791, RFC 8200)
    ip_ttl = Number(_Number("ipv4", 8, 1), _Number("ipv6", 7, 1))
    """Time to live, or hop limit, 8 bits."""
    ip_dscp = Number(_Number("ipv4", 1, 1, 2, 6), _Number("ipv6", 0, 2, 6, 6))
    """Differentiated services code point (RFC 2474), 6 bits."""
    ip_ecn = Number(_Number("ipv4", 1, 1, 0, 2), _Number("ipv6", 0, 2, 4, 2))
    """Explicit congestion notification (RFC 3168): 0 not capable, 1, 2 capable, 3 congestion."""
    ipv4_src = Number(_Number("ipv4", 12, 4))
    """IPv4 source address, 32 bits."""
    ipv4_dst = Number(_Number("ipv4", 16, 4))
    """IPv4 destination address, 32 bits."""
    ipv4_id = Number(_Number("ipv4", 4, 2))
    """IPv4 identification, 16 bits."""
    ipv4_length = Fixed(_Number("ipv4", 2, 2))
    """IPv4 total length in bytes; may be 0 where the frame is to be cut (``is_gso``)."""
    ipv6_src = Number(_Number("ipv6", 8, 16))
    """IPv6 source address, 128 bits."""
    ipv6_dst = Number(_Number("ipv6", 24, 16))
    """IPv6 destination address, 128 bits."""
    ipv6_flow_label = Number(_Number("ipv6", 0, 4, 0, 20))
    """IPv6 flow label, 20 bits."""

    # ------------------------------------------------------------ TCP and UDP (RFC 9293, RFC 768)
    l4_src = Number(_Number("ports", 0, 2))
    """Source port of TCP or UDP; 0 in all fragments but the first."""
    l4_dst = Number(_Number("ports", 2, 2))
    """Destination port of TCP or UDP."""
    tcp_seq = Number(_Number("tcp", 4, 4))
    """TCP sequence number, 32 bits."""
    tcp_ack = Number(_Number("tcp", 8, 4))
    """TCP acknowledgment number, 32 bits."""
    tcp_flags = Number(_Number("tcp", 13, 1))
    """TCP flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128."""
    tcp_window = Number(_Number("tcp", 14, 2))
    """TCP window, not scaled, 16 bits."""
    tcp_data_offset = Number(_Number("tcp", 12, 1, 4, 4), shape=True)
    """TCP header's length in words of 4 bytes, 4 bits."""
    udp_length = Fixed(_Number("udp", 4, 2))
    """UDP length in bytes, header included."""

    # ------------------------------------------------------------ ICMP (RFC 792, RFC 4443)
    icmp_type = Number(_Number("icmp", 0, 1), _Number("icmpv6", 0, 1))
    """Type of an ICMP or ICMPv6 message."""
    icmp_code = Number(_Number("icmp", 1, 1), _Number("icmpv6", 1, 1))
    """Code of an ICMP or ICMPv6 message."""
    icmp_id = Number(_Number("icmp", 4, 2), _Number("icmpv6", 4, 2))
    """Identifier of an echo message (bytes 4 and 5 of any), 16 bits."""
    icmp_seq = Number(_Number("icmp", 6, 2), _Number("icmpv6", 6, 2))
    """Sequence number of an echo message (bytes 6 and 7 of any), 16 bits."""
    icmp_mtu = Number(_Number("too_big", 6, 2), _Number("too_big6", 4, 4))
    """MTU that ICMP's "fragmentation needed" (type 3, code 4) or ICMPv6's "too big" (type 2) tells.
    """

    # ------------------------------------------------------------ VXLAN (RFC 7348)
    vxlan_vni = Number(_Number("vxlan", 4, 3))
    """VXLAN network identifier, 24 bits."""

    # ------------------------------------------------------------ what there is
    @property
    def layers(self) -> Layers:
        """Where each header begins."""
        return NOTHING

    @property
    def eth_type(self) -> int:
        """Ethernet type behind the tags (two at the most), 16 bits. Where it is set the headers
        behind it are looked at anew."""
        return self.number(self.layers.l3 - 2, 2) if self.layers.has("eth") else 0

    @eth_type.setter
    def eth_type(self, value: int) -> None:
        self.allow_change()
        if self.layers.has("eth"):
            self.change(self.layers.l3 - 2, (int(value) & 0xFFFF).to_bytes(2, "big"))
        self.reshaped()

    @property
    def has_vlan(self) -> bool:
        """Does it have a VLAN tag?"""
        return self.layers.has("vlan")

    @property
    def is_arp(self) -> bool:
        """Is it ARP for IPv4 over Ethernet?"""
        return self.layers.has("arp")

    @property
    def is_ip(self) -> bool:
        """Is it IPv4 or IPv6?"""
        return self.layers.version != 0

    @property
    def is_ipv4(self) -> bool:
        """Is it IPv4?"""
        return self.layers.version == 4

    @property
    def is_ipv6(self) -> bool:
        """Is it IPv6?"""
        return self.layers.version == 6

    @property
    def ip_protocol(self) -> int:
        """The protocol in IP, behind IPv6's extension headers; 255 where they do not end in the
        frame's first 128 bytes."""
        return self.layers.protocol

    @property
    def is_fragment(self) -> bool:
        """Is it a piece of a datagram? All but the first have no TCP, UDP or ICMP header."""
        return self.layers.fragment

    @property
    def is_first_fragment(self) -> bool:
        """Is it the first piece of a datagram?"""
        return self.layers.fragment and not self.layers.later

    @property
    def is_tcp(self) -> bool:
        """Is there a TCP header? (In ``quoted``, its first 8 bytes.)"""
        return self.layers.has("tcp_ports")

    @property
    def is_udp(self) -> bool:
        """Is there a UDP header?"""
        return self.layers.has("udp")

    @property
    def is_icmp(self) -> bool:
        """Is there an ICMP header?"""
        return self.layers.has("icmp")

    @property
    def is_icmpv6(self) -> bool:
        """Is there an ICMPv6 header?"""
        return self.layers.has("icmpv6")

    @property
    def is_tcp_syn(self) -> bool:
        """Does it open a TCP connection: SYN without ACK?"""
        return self.tcp_flags & 0x12 == 0x02

    @property
    def is_tcp_fin(self) -> bool:
        """Does its sender end a TCP connection?"""
        return self.tcp_flags & 0x01 != 0

    @property
    def is_tcp_rst(self) -> bool:
        """Does it reset a TCP connection?"""
        return self.tcp_flags & 0x04 != 0

    @property
    def is_vxlan(self) -> bool:
        """Is it VXLAN: UDP to port 4789, with a VNI?"""
        return self.start("vxlan") >= 0

    @property
    def l3_offset(self) -> int:
        """Where the header behind Ethernet's and its tags begins, in bytes from the frame's start.
        """
        return self.layers.l3

    @property
    def l4_offset(self) -> int:
        """Where what IP holds begins; 0 where it is not IP."""
        return self.layers.l4

    @property
    def payload_offset(self) -> int:
        """Where what TCP, UDP or ICMP holds begins; with none of them, what IP holds; without IP,
        what Ethernet holds."""
        found, length = self.layers, self.frame_length
        if found.has("tcp_ports"):
            header = 4 * self.tcp_data_offset if found.has("tcp") else 0
            return min(found.l4 + max(header, 20), length)
        if found.has("udp") or found.has("icmp") or found.has("icmpv6"):
            return found.l4 + 8
        return found.l4 or found.l3

    # ------------------------------------------------------------ for frame.py
    def start(self, header: str) -> int:
        """Where a header begins, in bytes from the frame's start; -1 where it is not there. Of some
        its contents tell what it is."""
        found = self.layers
        if header == "too_big":
            return found.start("icmp") if (self.icmp_type, self.icmp_code) == (3, 4) else -1
        if header == "too_big6":
            return found.start("icmpv6") if self.icmp_type == 2 else -1
        if header == "vxlan":
            at = found.start("udp") + 8
            there = found.has("udp") and at + 8 <= min(self.frame_length, HEAD)
            marked = there and self.number(at, 1) & 0x08 and self.l4_dst == VXLAN_PORT
            return at if marked else -1
        return found.start(header)

    @property
    def frame_length(self) -> int:
        """Bytes of the whole frame."""
        raise NotImplementedError

    def number(self, at: int, size: int) -> int:
        """``size`` bytes of the frame as a number."""
        raise NotImplementedError

    def change(self, at: int, new: bytes) -> None:
        """Put other bytes there, and keep the checksums right."""
        raise NotImplementedError

    def reshaped(self) -> None:
        """The headers are others from here on."""
        raise NotImplementedError

    def allow_change(self) -> None:
        """AttributeError where nothing can be set."""


