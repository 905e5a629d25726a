# SPDX-License-Identifier: Apache-2.0
"""The UDP sockets of an underlay, on the loopback interface."""

import socket

import pytest

from byway.ports.underlay_sockets import dropped, receiving, sending
from byway.testing.frames import BROADCAST, ethernet
from tests.unit.ports.tunnel_bench import HEADER, Wanted, free_port


def test_several_queues_share_what_comes() -> None:
    wanted = Wanted(port=free_port("127.0.0.1"))
    sockets = receiving(wanted, 3)
    peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(32)]
    try:
        for peer in peers:
            peer.sendto(HEADER, ("127.0.0.1", wanted.port))
        heard = []
        for sock in sockets:
            count = 0
            while True:
                try:
                    sock.recv(100)
                except BlockingIOError:
                    break
                count += 1
            heard.append(count)
        assert sum(heard) == 32
        assert min(heard) > 0
    finally:
        for sock in sockets + peers:
            sock.close()


def test_what_there_was_no_room_for_is_counted() -> None:
    wanted = Wanted(port=free_port("127.0.0.1"))
    (sock,) = receiving(wanted, 1)
    with sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(20):
            peer.sendto(bytes(1000), ("127.0.0.1", wanted.port))
        assert 0 < dropped(sock) < 20


def test_source_ports_are_for_flows() -> None:
    sockets = sending(Wanted())
    ports = {sock.getsockname()[1] for sock in sockets}
    assert len(ports) == len(sockets)
    assert min(ports) >= 49152
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("checksum", ["auto", "no", "yes"])
def test_datagrams_without_checksums_over_ipv6(checksum: str) -> None:
    """RFC 6936: taken, unless it is said that they must have one."""
    wanted = Wanted("::1", free_port("::1"), checksum)
    (sock,) = receiving(wanted, 1)
    with sock, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.setsockopt(17, 101, 1)  # UDP_NO_CHECK6_TX
        peer.sendto(HEADER + ethernet(BROADCAST, BROADCAST, 1, b""), ("::1", wanted.port))
        if checksum == "yes":
            with pytest.raises(BlockingIOError):
                sock.recv(100)
        else:
            assert len(sock.recv(100)) == 68
