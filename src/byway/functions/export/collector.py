# SPDX-License-Identifier: Apache-2.0
"""Where datagrams for a collector go: an address and a port number, as users write them.

Used by the listeners of byway.flow_export and byway.sampler. Uses nothing.
"""

import socket
from typing import Any, Self


class Collector:
    """"10.0.0.1:4739", "[fd00::1]:4739" or "name:4739". Raises OSError where it has no address,
    ValueError where it is no such text."""

    def __init__(self, place: str) -> None:
        host, colon, port = place.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f'collector: "{place}" is no address with a port number; write'
                             ' "10.0.0.1:4739"')
        family, kind, protocol, _, to = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        self._to: tuple[Any, ...] = to
        self._socket = socket.socket(family, kind, protocol)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, datagram: bytes) -> None:
        """Send one; that nobody may be there is no error with UDP."""
        self._socket.sendto(datagram, self._to)
