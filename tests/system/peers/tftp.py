# SPDX-License-Identifier: Apache-2.0
"""A TFTP server (RFC 1350) at a guest of the test: UDP whose checksums somebody looks at.

Used by test_tso.py. It takes no offloads, so each datagram must come with a complete checksum, and
it sends each with one, which the client's kernel verifies. It answers ARP for its address. One
transfer at a time; the client's mode and options are ignored: blocks have 512 bytes.
"""

import socket
import struct
import time

from byway.testing.frames import ARP_REPLY, ARP_REQUEST, IPV4, Arp, checksum, ethernet
from byway.testing.guest import Guest

UDP, PORT = 17, 69
READ, WRITE, DATA, ACK = 1, 2, 3, 4
BLOCK = 512


class Tftp:
    """One file for those who read, `received` from those who write; `datagrams` were checked."""

    def __init__(self, guest: Guest, address: str, file: bytes = b"") -> None:
        self.guest = guest
        self.address = socket.inet_aton(address)
        self.file = file
        self.received = b""
        self.datagrams = 0
        self.done = False

    def serve(self, seconds: float) -> None:
        """Serve one transfer. AssertionError on a wrong checksum, or when the time is up."""
        end = time.monotonic() + seconds
        while not self.done:
            left = end - time.monotonic()
            assert left > 0, f"no end of the transfer within {seconds} s"
            self.guest.wait(left)
            for frame in self.guest.receive():
                self._take(frame)

    def _take(self, frame: bytes) -> None:
        arp = Arp.parse(frame)
        if arp and arp.operation == ARP_REQUEST and socket.inet_aton(arp.target_ip) == self.address:
            reply = Arp(ARP_REPLY, self.guest.mac, arp.target_ip, arp.sender_mac, arp.sender_ip)
            self.guest.send([reply.frame(arp.sender_mac)])
        elif frame[12:14] == b"\x08\0" and frame[23] == UDP and frame[30:34] == self.address:
            self._datagram(frame)

    def _datagram(self, frame: bytes) -> None:
        """Check a datagram's checksum, which must be there, and answer it."""
        source, target, length, given = struct.unpack_from(">HHHH", frame, 34)
        pseudo = frame[26:34] + struct.pack(">BBH", 0, UDP, length)
        assert given != 0, "a datagram without a checksum"
        assert checksum(pseudo + frame[34 : 34 + length]) == 0, f"a wrong checksum in {frame!r}"
        self.datagrams += 1
        operation, block = struct.unpack_from(">HH", frame, 42)
        answer = self._answer(operation, block, frame[46 : 34 + length])
        if answer:
            self._send(frame, source, target, answer)

    def _answer(self, operation: int, block: int, data: bytes) -> bytes:
        """The message that answers one, nothing at the end."""
        if operation == WRITE:
            return struct.pack(">HH", ACK, 0)
        if operation == DATA:
            if block == (len(self.received) // BLOCK + 1) & 0xFFFF:  # not one that came before
                self.received += data
            self.done = len(data) < BLOCK
            return struct.pack(">HH", ACK, block)
        at = 0 if operation == READ else block * BLOCK
        if operation == ACK and at > len(self.file):
            self.done = True
            return b""
        return struct.pack(">HH", DATA, at // BLOCK + 1) + self.file[at : at + BLOCK]

    def _send(self, asked: bytes, to: int, source: int, message: bytes) -> None:
        """Send a datagram back to where `asked` came from."""
        length = 8 + len(message)
        pseudo = asked[30:34] + asked[26:30] + struct.pack(">BBH", 0, UDP, length)
        whole = struct.pack(">HHHH", source, to, length, 0) + message
        whole = struct.pack(">HHHH", source, to, length, checksum(pseudo + whole) or 0xFFFF)
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0)
        head += asked[30:34] + asked[26:30]
        head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
        payload = head + whole + message
        self.guest.send([ethernet(asked[6:12], self.guest.mac, IPV4, payload)])
