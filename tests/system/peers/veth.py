# SPDX-License-Identifier: Apache-2.0
"""A station of the Linux kernel at one end of a veth; the other end is for a switch.

    with Wire("10.9.0.1") as wire:
        switch.add("af-packet", "p", ifname=wire.ifname, netns=wire.outer)
        wire.run("/bin/busybox ping -c 1 10.9.0.2")

Both ends are in namespaces of their own, made here and removed at the end. Sockets of the station
are opened in its namespace and used from this process.
"""

import os
import secrets
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from byway.machine.netns import inside
from byway.testing.frames import mac
from tests.peers import find_program, need_peer
from tests.system.peers.kernel import BUSYBOX, checksum_errors

SECONDS = 20.0
SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR = 263, 8, 15
ETH_P_ALL = 3


def shell(command: str) -> str:
    """Run a command that must succeed; -> what it said."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False,
                          timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Wire:
    """``station``: the namespace of e0, which has ``address`` (/24); ``outer``: that of e1."""

    device, ifname = "e0", "e1"

    def __init__(self, address: str, queues: int = 1) -> None:
        find_program("ip")
        if os.geteuid() != 0:
            need_peer("root", "network namespaces need privileges")
        if not BUSYBOX.exists():
            need_peer("busybox", f"no {BUSYBOX} (package busybox-static)")
        self.address, self.queues = address, queues
        name = f"byway-{secrets.token_hex(3)}"
        self.station, self.outer = f"{name}-s", f"{name}-o"
        shell(f"ip netns add {self.station}")
        shell(f"ip netns add {self.outer}")
        self.plug_in()

    def plug_in(self) -> None:
        """Make the veth, both ends up."""
        count = f"numtxqueues {self.queues} numrxqueues {self.queues}"
        shell(f"ip -n {self.station} link add {self.device} {count} type veth"
              f" peer name {self.ifname} netns {self.outer} {count}")
        shell(f"ip -n {self.station} address add {self.address}/24 dev {self.device}")
        for namespace, device in ((self.outer, self.ifname), (self.station, self.device)):
            shell(f"ip -n {namespace} link set {device} up")

    @property
    def mac(self) -> bytes:
        """The station's address."""
        return mac(self.run(f"cat /sys/class/net/{self.device}/address").strip())

    def checksum_errors(self) -> dict[str, int]:
        """What the station's kernel counted of wrong checksums (kernel.checksum_errors)."""
        text = inside(self.station, lambda: "".join(
            Path(f"/proc/thread-self/net/{name}").read_text()
            for name in ("snmp", "netstat", "snmp6")))
        return checksum_errors(text)

    def run(self, command: str) -> str:
        """Run a command in the station's namespace."""
        return shell(f"ip netns exec {self.station} {command}")

    def ping(self, to: str, count: int = 5, size: int = 1472) -> str:
        """Ping, with payloads that fill a frame; -> what ping says in the end."""
        done = self.run(f"{BUSYBOX} ping -q -c {count} -i 0.05 -s {size} {to} || true")
        return done.split("---")[-1]

    def opened(self, kind: int, family: int = socket.AF_INET, protocol: int = 0) -> socket.socket:
        """A socket of the station."""
        made = inside(self.station, lambda: socket.socket(family, kind, protocol))
        made.settimeout(SECONDS)
        return made

    def raw(self) -> socket.socket:
        """A packet socket at the station's device, whose frames begin with a virtio header, and
        which tells of VLAN tags (AUXDATA)."""
        made = self.opened(socket.SOCK_RAW, socket.AF_PACKET, 0)
        made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        made.bind((self.device, ETH_P_ALL))
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for name in (self.station, self.outer):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def tag_of(control: Sequence[tuple[int, int, bytes]]) -> int:
    """The tag control word in what recvmsg says besides a frame, -1 where it had no tag."""
    for level, kind, data in control:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, tci = struct.unpack_from("=I12xH", data)
            return int(tci) if status & 0x10 else -1
    return -1


def transfer(source: Wire, to: Wire, data: bytes) -> bytes:
    """Send ``data`` over TCP from one station to another; -> what arrived."""
    got = bytearray()
    with closing(to.opened(socket.SOCK_STREAM)) as listener:
        listener.bind((to.address, 0))
        listener.listen()

        def take() -> None:
            connection, _ = listener.accept()
            connection.settimeout(SECONDS)
            with connection:
                while piece := connection.recv(1 << 20):
                    got.extend(piece)

        taker = threading.Thread(target=take)
        taker.start()
        with closing(source.opened(socket.SOCK_STREAM)) as sender:
            sender.connect(listener.getsockname())
            sender.sendall(data)
        taker.join(SECONDS * 3)
    return bytes(got)
