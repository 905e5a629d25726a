# SPDX-License-Identifier: Apache-2.0
"""UDP flows that the kernel goes on leading where they led: forgotten when a port changes hands.

Used by table. Uses netlink (ctnetlink: linux/netfilter/nfnetlink_conntrack.h) and machine.netns.

Rules of address translation are asked for the first packet of a flow only; for the rest conntrack
remembers. A TCP connection ends, a UDP flow does not: a client that goes on sending from one port
would reach the container that is gone, or the host itself, for as long as it sends.
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from byway.machine.netns import inside
from byway.nat.publication import Address, Publication

_NETFILTER = 12  # NETLINK_NETFILTER
_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_...
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_GENERIC = struct.Struct("=BBH")  # nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")
_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_...
_IP, _PROTOCOL = 1, 2  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)  # CTA_IP_V4_..., CTA_IP_V6_...
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_...
_NESTED = 0x8000
_TYPE = 0x3FFF
_BUFFER = 1 << 16

Ports = dict[tuple[int, int], Publication]  # by the host's port and the IP version


class Flow(NamedTuple):
    """A UDP flow: the address and port that its client called, and who answers."""

    called: tuple[Address, int]
    answers: tuple[Address, int]
    original: bytes  # by which the kernel finds it again

    @property
    def translated(self) -> bool:
        """Is it led to somebody else than was called?"""
        return self.called != self.answers


def forget(namespace: str | None, publications: Iterable[Publication], withdrawn: bool) -> str:
    """Forget the UDP flows of these ports that are led where they no longer are to be led.

    ``withdrawn``: those to their containers; otherwise those to anybody else. -> why they cannot
    be forgotten; "" where they are.
    """
    ports: Ports = {(p.host_port, p.container_address.version): p
                    for publication in publications if publication.protocol == "udp"
                    for p in publication.single()}
    if not ports:
        return ""
    try:
        inside(namespace, lambda: _forget(ports, withdrawn))
    except OSError as error:
        return f"UDP flows that there are go on as they did ({error.strerror})"
    return ""


def _forget(ports: Ports, withdrawn: bool) -> None:
    for version in {version for _, version in ports}:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
            netlink.settimeout(10)
            for flow in list(_flows(netlink, family)):
                wanted = ports.get((flow.called[1], version))
                if wanted and _is_stale(flow, wanted, withdrawn):
                    _remove(netlink, family, flow)


def _is_stale(flow: Flow, port: Publication, withdrawn: bool) -> bool:
    ours = flow.answers == (port.container_address, port.container_port)
    if port.host_address not in (None, flow.called[0]):
        return False
    return ours if withdrawn else not ours and (flow.translated or _is_local(flow.called[0]))


def _is_local(address: Address) -> bool:
    """Is it one of this host's? To other hosts the same port number means nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def _flows(netlink: socket.socket, family: int) -> Iterator[Flow]:
    """Every UDP flow that the kernel knows of. OSError: it does not tell."""
    netlink.send(_message(_GET, _REQUEST | _DUMP, family, b""))
    while True:
        data = netlink.recv(_BUFFER)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size:length], data[(length + 3) & ~3:]
            if kind == _DONE:
                return
            if kind == _ERROR:
                _raise(body)
            elif flow := read_flow(body[_GENERIC.size:]):
                yield flow


def read_flow(attributes: bytes) -> Flow | None:
    """The flow of one message; None where it is not one of UDP."""
    found = dict(_attributes(attributes))
    called = _tuple(found[_ORIGINAL], _DESTINATIONS, _DESTINATION_PORT)
    answers = _tuple(found[_REPLY], _SOURCES, _SOURCE_PORT)
    return Flow(called, answers, found[_ORIGINAL]) if called and answers else None


def _tuple(data: bytes, addresses: tuple[int, int], port: int) -> tuple[Address, int] | None:
    parts = dict(_attributes(data))
    protocol = dict(_attributes(parts[_PROTOCOL]))
    if protocol[_NUMBER][0] != socket.IPPROTO_UDP:
        return None
    ip = dict(_attributes(parts[_IP]))
    (address,) = (ip[kind] for kind in addresses if kind in ip)
    return ipaddress.ip_address(address), int.from_bytes(protocol[port], "big")


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _TYPE, data[_ATTRIBUTE.size:length]
        data = data[(length + 3) & ~3:]


def _remove(netlink: socket.socket, family: int, flow: Flow) -> None:
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(flow.original), _ORIGINAL | _NESTED)
    netlink.send(_message(_DELETE, _REQUEST | _ACK, family, attribute + flow.original))
    answer = netlink.recv(_BUFFER)
    try:
        _raise(answer[_HEADER.size:])
    except FileNotFoundError:
        return  # it ended in the meantime


def _message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    body = _GENERIC.pack(family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _raise(body: bytes) -> None:
    """The error of an answer, where it is one."""
    (number,) = struct.unpack_from("=i", body)
    if number:
        raise OSError(-number, os.strerror(-number))
