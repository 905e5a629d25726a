# SPDX-License-Identifier: Apache-2.0
"""Calls between network namespaces by TCP and UDP: who is reached, and as whom one is seen.

Used by the tests of address translation. A socket is opened in a namespace (a name of ip-netns(8),
or a path) by a thread that enters it; everything else happens in the test.
"""

import socket

from byway.machine.netns import inside

SECONDS = 20.0
SOON = 0.4  # what was refused does not come within this time


def family(address: str) -> socket.AddressFamily:
    """IPv6 or IPv4."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def server(place: str, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket in a namespace that waits for calls."""
    def work() -> socket.socket:
        made = socket.socket(family(address), kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(SECONDS)
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made
    return inside(place, work)


def caller(place: str, target: str, port: int, kind: int = socket.SOCK_STREAM,
           timeout: float = SECONDS) -> socket.socket:
    """A socket in a namespace, connected to a target."""
    def work() -> socket.socket:
        made = socket.socket(family(target), kind)
        made.settimeout(timeout)
        try:
            made.connect((target, port))
        except OSError:
            made.close()
            raise
        return made
    return inside(place, work)


def seen(listening: socket.socket, place: str, target: str, port: int) -> str:
    """Call ``target`` by TCP, have both ends speak; -> the address that the server saw."""
    with caller(place, target, port) as calling:
        answering, peer = listening.accept()
        with answering:
            answering.sendall(b"hello")
            assert calling.recv(5) == b"hello"
    return str(peer[0])


def unreachable(place: str, target: str, port: int) -> bool:
    """Is there no way to ``target`` by TCP?"""
    try:
        caller(place, target, port, timeout=SOON).close()
    except OSError:
        return True
    return False
