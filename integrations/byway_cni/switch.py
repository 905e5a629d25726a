# SPDX-License-Identifier: Apache-2.0
"""The running switch, asked over its API: HTTP/1.1 with JSON on a Unix socket.

Used by the verbs. A client of forty lines, because the real one (byway.client) loads an HTTP
library, which takes longer than the whole call may. Of byway.client only the search for the socket
is used, and only where the configuration names none.

The C module below `socket` is used for the same reason: it is the same socket class without the
enumerations and the selectors around it.
"""

import _socket as socket
import json
import os
from typing import Any

from byway_cni.problem import CniError, Code

TIMEOUT = 30.0  # seconds
MAX_ANSWER = 1 << 26  # bytes: some ten thousand ports
_END = b"\r\n\r\n"


class Refused(CniError):
    """The switch refuses a call; `status` is HTTP's."""

    def __init__(self, status: int, problem: str, fix: str) -> None:
        super().__init__(Code.REFUSED, f"the switch refuses: {problem}", fix)
        self.status = status


class NotReachable(CniError):
    """No switch answers."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(Code.LATER, f"no switch answers at {path}: {reason}",
                         "start it (byway run FILE), or correct the key api")


class Switch:
    """The switch whose API socket is `path`; empty: the one that is running. One thread."""

    def __init__(self, path: str) -> None:
        self._path = path or os.environ.get("BYWAY_API", "")
        self._connection: socket.socket | None = None
        self._rest = b""

    def get(self, path: str) -> dict[str, Any] | None:
        """An object of the API; None where there is none of that name."""
        status, body = self._call("GET", path, None)
        if status == 404:
            return None
        return _checked(status, body)

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Add or replace an object; -> it."""
        return _checked(*self._call("PUT", path, body))

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is removed."""
        status, body = self._call("DELETE", path, None)
        if status != 404:
            _checked(status, body)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        head = (f"{method} {path} HTTP/1.1\r\nHost: byway\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n\r\n")
        used = self._connection is not None
        try:
            return self._exchange(head.encode() + data)
        except NotReachable:
            if not used:
                raise
        # The switch closes what is quiet for some seconds. Every call may be made twice.
        return self._exchange(head.encode() + data)

    def _exchange(self, request: bytes) -> tuple[int, Any]:
        try:
            connection = self._connection or self._connect()
            connection.sendall(request)
            return self._answer(connection)
        except OSError as error:
            self.close()
            raise NotReachable(self._path, error.strerror or str(error)) from None
        except (ValueError, IndexError, RecursionError) as error:
            self.close()
            raise NotReachable(self._path, f"what answers there is no switch ({error})") from None

    def _connect(self) -> socket.socket:
        if not self._path:
            self._path = _running()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection = connection
        self._rest = b""
        connection.settimeout(TIMEOUT)
        connection.connect(self._path)
        return connection

    def _answer(self, connection: socket.socket) -> tuple[int, Any]:
        while _END not in self._rest:
            self._more(connection)
        head, _, self._rest = self._rest.partition(_END)
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        fields = {name.strip().lower(): value.strip()
                  for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(fields.get("content-length", "0"))
        if not 0 <= length <= MAX_ANSWER:
            raise ValueError(f"an answer of {length} bytes")
        while len(self._rest) < length:
            self._more(connection)
        body, self._rest = self._rest[:length], self._rest[length:]
        return status, json.loads(body) if body else None

    def _more(self, connection: socket.socket) -> None:
        data = connection.recv(1 << 18)
        if not data:
            raise ConnectionResetError(0, "it closed the connection")
        self._rest += data
        if len(self._rest) > MAX_ANSWER:
            raise ValueError(f"an answer of more than {MAX_ANSWER} bytes")


def _checked(status: int, body: Any) -> dict[str, Any]:
    if 200 <= status < 300:
        return body if isinstance(body, dict) else {}
    if isinstance(body, dict) and isinstance(body.get("problem"), str):
        problems = body.get("problems")
        text = "; ".join(map(str, problems)) if problems else body["problem"]
        raise Refused(status, text, str(body.get("fix", "")))
    raise Refused(status, f"HTTP {status}", "check that the key api is a switch's socket")


def _running() -> str:
    """The socket of the only switch that is running."""
    from byway.client.client import ClientError
    from byway.client.find import find_socket

    try:
        return find_socket()
    except ClientError as error:
        raise CniError(Code.LATER, error.problem,
                       "start one with byway run FILE, or name its socket with the key api"
                       ) from None
