# SPDX-License-Identifier: Apache-2.0
"""An rx queue and a tx queue of tunnels on sockets of the loopback interface, and a plain socket at
the other end of both. For tests of the kernels of tunnels.
"""

import ctypes
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.packet.segment import Finisher
from byway.packet.tunnels import Remotes, Vnis
from byway.ports.tunnel import ECN
from byway.ports.tunnel_send import MOST, SENDER
from byway.ports.underlay import Received
from byway.ports.underlay_sockets import name_of, receiving, sending
from byway.testing.frame_batch import Frame, FrameBatch, Unfinished
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE
from byway.testing.tunnel_kernels import tunnel_receive, tunnel_send

VNI, NETWORK, TUNNEL = 0xABCDE, 5, 0xC001
HEADER = b"\x08\0\0\0" + VNI.to_bytes(3, "big") + b"\0"
LONGEST = 14 + 1450
_UDP_SEGMENT = 103


@dataclass(frozen=True)
class Wanted:
    address: str = "127.0.0.1"
    port: int = 0
    checksum: str = "auto"
    dont_fragment: bool = True
    ttl: int = 64


def frame(n: int, k: int = 0) -> bytes:
    """A frame of n bytes, all different."""
    payload = bytes((j * 7 + n + k) & 0xFF for j in range(n - 14))
    return (BROADCAST + b"\x02\0\0\0\0\x01" + TEST_ETHERTYPE.to_bytes(2, "big") + payload)[:n]


def free_port(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET,
                       socket.SOCK_DGRAM) as found:
        found.bind((address, 0))
        return int(found.getsockname()[1])


class Bench:
    """A batch, an rx queue on a socket, a tx queue to a plain socket; and that plain socket."""

    def __init__(self, address: str) -> None:
        self.wanted = Wanted(address, free_port(address))
        (self.socket,) = receiving(self.wanted, 1)
        self.peer = socket.socket(self.socket.family, socket.SOCK_DGRAM)
        self.peer.bind((address, 0))
        self.peer.settimeout(10)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sources = sending(self.wanted)
        self.frames = FrameBatch()
        self.finisher = Finisher()
        self.frames.batch.record["finisher"] = self.finisher.address
        self.frames.batch.record["vni"] = VNI
        self.rx, self.tx, self.host = (alloc(COUNTERS, 1) for _ in range(3))
        self.vnis, self.remotes = Vnis(), Remotes(lambda: None)
        self.vnis.set(VNI, NETWORK, LONGEST)
        self.remotes.set(ipaddress.ip_address(address).packed, TUNNEL, address_of(self.host))
        self.queue = Received()
        row = self.queue.record[0]
        row["rx"], row["origin"] = address_of(self.rx), 0xC000
        row["vnis"], row["remotes"] = self.vnis.address, self.remotes.address
        self.queue.use(self.socket.fileno())
        self.sender = alloc(SENDER, 1)
        self.point_at(self.peer.getsockname()[1])

    def point_at(self, port: int, longest: int = LONGEST, most: int = MOST) -> None:
        self.name = ctypes.create_string_buffer(name_of(self.wanted.address, port))
        row = self.sender[0]
        row["fd"], row["tx"] = self.sources[0].fileno(), address_of(self.tx)
        row["name"], row["name_bytes"] = ctypes.addressof(self.name), len(self.name) - 1
        row["ecn"] = ECN[6 if ":" in self.wanted.address else 4]
        row["longest"], row["most"] = longest, most
        self.tx[:], self.rx[:], self.host[:] = 0, 0, 0

    def send(self, frames: Sequence[Frame], pieces: int = 1) -> int:
        n = self.frames.place(frames, (pieces,))
        return int(tunnel_send(address_of(self.sender), self.frames.address,
                               self.frames.selected, n))

    def arrived(self, n: int) -> list[bytes]:
        return [self.peer.recv(65536) for _ in range(n)]

    def tell(self, data: bytes, size: int = 0, ecn: int = 0) -> None:
        """The plain socket sends something, in datagrams of ``size`` bytes where that is not 0."""
        say = []
        if size:
            say.append((17, _UDP_SEGMENT, size.to_bytes(2, "little")))
        if ecn:
            v6 = self.peer.family == socket.AF_INET6
            say.append((41, 67, ecn.to_bytes(4, "little")) if v6 else
                       (0, 1, ecn.to_bytes(4, "little")))
        self.peer.sendmsg([data], say, 0, (self.wanted.address, self.wanted.port))

    def receive(self) -> list[tuple[Unfinished, bytes] | Reason]:
        n = int(tunnel_receive(self.queue.address, self.frames.address))
        self.origins = [divmod(int(word), 1 << 32) for word in
                        (ctypes.c_int64 * ROWS).from_address(
                            int(self.frames.batch.record["origins"][0]))[:n]]
        return self.frames.content(n)

    def drops(self) -> dict[str, int]:
        return drops_by_name(self.tx[0], self.rx[0])

    def close(self) -> None:
        for sock in (self.socket, self.peer, *self.sources):
            sock.close()
