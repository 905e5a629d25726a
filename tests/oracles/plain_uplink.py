# SPDX-License-Identifier: Apache-2.0
"""What an uplink does with a frame that may hold VXLAN, in plain Python. RFC 791, 768, 7348, 6040.

Only what it does with tunnels: answers to questions are tested elsewhere.
"""

from dataclasses import dataclass

from byway.packet.reason import Reason
from byway.testing.frames import checksum


@dataclass(frozen=True)
class PlainUplink:
    """An uplink: its addresses, hosts (address: tunnel), networks (VNI: number)."""

    mac: bytes
    ip: bytes
    hosts: dict[bytes, int]
    vnis: dict[int, int]
    port: int = 4789

    def take(self, frame: bytes) -> tuple[int, int, bytes] | Reason | None:
        """(network, tunnel, inner frame), why it is dropped, None where it is left as it is."""
        if len(frame) < 14 or frame[:6] != self.mac:
            return None
        kind = frame[12:14]
        if kind == b"\x08\x00":
            return self._ipv4(frame[14:])
        if kind == b"\x86\xdd":
            return self._ipv6(frame[14:])
        return Reason.TO_UPLINK

    def _ipv4(self, packet: bytes) -> tuple[int, int, bytes] | Reason:
        if len(packet) < 20:
            return Reason.BAD_TUNNEL
        header, total = 4 * (packet[0] & 15), int.from_bytes(packet[2:4], "big")
        if packet[0] >> 4 != 4 or header < 20 or not header + 8 <= total <= len(packet):
            return Reason.BAD_TUNNEL
        if checksum(packet[:header]) != 0 or int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return Reason.BAD_TUNNEL
        if packet[16:20] != self.ip or packet[9] != 17:
            return Reason.TO_UPLINK
        return self._udp(packet[header:total], packet[12:16], packet[12:20], packet[1] & 3)

    def _ipv6(self, packet: bytes) -> tuple[int, int, bytes] | Reason:
        if len(packet) < 40 or packet[0] >> 4 != 6:
            return Reason.BAD_TUNNEL
        length = int.from_bytes(packet[4:6], "big")
        if length < 8 or 40 + length > len(packet):
            return Reason.BAD_TUNNEL
        if packet[24:40] != self.ip or packet[6] != 17:
            return Reason.TO_UPLINK
        return self._udp(packet[40 : 40 + length], packet[8:24], packet[8:40], packet[1] >> 4 & 3)

    def _udp(self, datagram: bytes, source: bytes, addresses: bytes,
             ecn: int) -> tuple[int, int, bytes] | Reason:
        port, length, found = (int.from_bytes(datagram[k : k + 2], "big") for k in (2, 4, 6))
        if port != self.port:
            return Reason.TO_UPLINK
        if not 30 <= length <= len(datagram):
            return Reason.BAD_TUNNEL
        datagram = datagram[:length]
        pseudo = addresses + b"\0\x11" + length.to_bytes(2, "big")
        if found and checksum(pseudo + datagram) != 0:
            return Reason.BAD_TUNNEL
        if source not in self.hosts:
            return Reason.UNKNOWN_TUNNEL
        if not datagram[8] & 8:
            return Reason.BAD_TUNNEL
        vni = int.from_bytes(datagram[12:15], "big")
        if vni not in self.vnis:
            return Reason.UNKNOWN_VNI
        inner = _with_ecn(bytearray(datagram[16:]), ecn)
        if inner is None:
            return Reason.CONGESTED
        return self.vnis[vni], self.hosts[source], inner


def _with_ecn(frame: bytearray, outer: int) -> bytes | None:
    """The inner frame (plain IPv4 or no IP) with the bits of RFC 6040, figure 4."""
    if frame[12:14] != b"\x08\x00" or len(frame) < 34 or frame[14] >> 4 != 4 or not outer & 1:
        return bytes(frame)
    inner = frame[15] & 3
    if inner == 0:
        return None if outer == 3 else bytes(frame)
    if outer == 3 or (outer == 1 and inner == 2):
        old = int.from_bytes(frame[14:16], "big")
        frame[15] = frame[15] & 0xFC | outer
        new = int.from_bytes(frame[14:16], "big")
        if new != old:
            total = (int.from_bytes(frame[24:26], "big") ^ 0xFFFF) + (old ^ 0xFFFF) + new
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            frame[24:26] = (total ^ 0xFFFF).to_bytes(2, "big")
    return bytes(frame)
