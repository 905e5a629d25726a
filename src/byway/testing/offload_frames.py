# SPDX-License-Identifier: Apache-2.0
"""TCP and UDP frames of every shape, with their checksum left to do or completed. Plain Python.

    frame = Shape(version=6, tags=(5,), payload=bytes(9000))
    frame.build()                        # the checksum field holds the pseudo-header's sum
    frame.header(GSO_TCPV6, 1400)        # its virtio_net_hdr
    frame.build(complete=True)           # as it would be on the wire

Used by tests of offloads. RFC 791, 8200, 9293, 768; IEEE 802.1Q.
"""

import struct
from dataclasses import dataclass

from byway.testing.finishing import net_header
from byway.testing.frames import checksum

VLAN, SERVICE_VLAN, IPV4, IPV6 = 0x8100, 0x88A8, 0x0800, 0x86DD
TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << k for k in range(8))
_CSUM_OFFSET = {TCP: 16, UDP: 6}


@dataclass(frozen=True)
class Shape:
    """A frame. ``options``: IPv4's, ``tcp_options``: both of a length that is a multiple of 4.

    ``extensions``: IPv6 extension headers in order, (number, what follows the first two bytes; its
    length is 6 and a multiple of 8). ``tags``: tag control words, outermost first.
    """

    version: int = 4
    protocol: int = TCP
    tags: tuple[int, ...] = ()
    options: bytes = b""
    extensions: tuple[tuple[int, bytes], ...] = ()
    tcp_options: bytes = b""
    flags: int = ACK
    ident: int = 1
    sequence: int = 1
    payload: bytes = b""
    source: bytes = b"\x0a\0\0\x01"
    destination: bytes = b"\x0a\0\0\x02"
    ports: tuple[int, int] = (40000, 5001)
    macs: bytes = bytes.fromhex("020000000002" "020000000001")
    dont_fragment: bool = True

    # ------------------------------------------------------------ places
    @property
    def l3(self) -> int:
        """Where IP begins."""
        return 14 + 4 * len(self.tags)

    @property
    def l4(self) -> int:
        """Where TCP or UDP begins."""
        fixed = 20 + len(self.options) if self.version == 4 else 40
        return self.l3 + fixed + sum(2 + len(data) for _, data in self.extensions)

    @property
    def header_bytes(self) -> int:
        """Where the payload begins."""
        return self.l4 + (20 + len(self.tcp_options) if self.protocol == TCP else 8)

    def header(self, gso: int = 0, size: int = 0, flags: int = 1) -> bytes:
        """The virtio_net_hdr with NEEDS_CSUM (or other ``flags``), and GSO where asked for."""
        return net_header(flags, gso, size, self.l4, _CSUM_OFFSET[self.protocol],
                          self.header_bytes)

    # ------------------------------------------------------------ bytes
    def ethernet(self) -> bytes:
        """Addresses, tags and type."""
        made = self.macs
        for k, tag in enumerate(self.tags):
            kind = SERVICE_VLAN if k + 1 < len(self.tags) else VLAN
            made += struct.pack(">HH", kind, tag)
        return made + struct.pack(">H", IPV4 if self.version == 4 else IPV6)

    def ip(self, length: int, *, fragment: int = 0, protocol: int = -1) -> bytes:
        """The IP header in front of ``length`` bytes of payload, its own checksum completed.

        ``fragment``: IPv4's word of flags and offset (0: none, but DF as the shape says).
        ``protocol``: what follows all headers (default: the shape's).
        """
        protocol = self.protocol if protocol < 0 else protocol
        if self.version == 6:
            kinds = [kind for kind, _ in self.extensions] + [protocol]
            chain = b"".join(
                struct.pack("BB", kinds[k + 1], len(data) // 8) + data
                for k, (_, data) in enumerate(self.extensions))
            return struct.pack(">IHBB", 6 << 28 | 0x12345, len(chain) + length, kinds[0], 64) \
                + self._address(self.source) + self._address(self.destination) + chain
        size = 20 + len(self.options)
        word = fragment or (0x4000 if self.dont_fragment else 0)
        made = struct.pack(">BBHHHBBH", 0x40 | size // 4, 0, (size + length) & 0xFFFF,
                           self.ident & 0xFFFF, word, 64, protocol, 0) \
            + self.source + self.destination + self.options
        return made[:10] + struct.pack(">H", checksum(made)) + made[12:]

    def _address(self, short: bytes) -> bytes:
        return short if self.version == 4 else short.rjust(16, b"\xfd")

    def transport(self, complete: bool) -> bytes:
        """TCP's or UDP's header and the payload."""
        if self.protocol == TCP:
            made = struct.pack(">HHIIBBHHH", *self.ports, self.sequence & 0xFFFFFFFF, 77,
                               (20 + len(self.tcp_options)) // 4 << 4, self.flags, 512, 0, 0) \
                + self.tcp_options + self.payload
        else:
            made = struct.pack(">HHHH", *self.ports, (8 + len(self.payload)) & 0xFFFF, 0) \
                + self.payload
        pseudo = self._address(self.source) + self._address(self.destination) \
            + struct.pack(">HH", self.protocol, len(made) & 0xFFFF)
        found = checksum(pseudo + made) if complete else checksum(pseudo) ^ 0xFFFF
        if complete and found == 0 and self.protocol == UDP:
            found = 0xFFFF
        at = _CSUM_OFFSET[self.protocol]
        return made[:at] + struct.pack(">H", found) + made[at + 2 :]

    def build(self, complete: bool = False) -> bytes:
        """The frame. ``complete``: with its checksum, else with the pseudo-header's sum there."""
        transport = self.transport(complete)
        return self.ethernet() + self.ip(len(transport)) + transport
