# SPDX-License-Identifier: Apache-2.0
"""A switch for the tests of byway-cni: the part of the API that it uses, and no data path.

Used by the tests. Ports of kind "tap" get a real interface in their namespace, made with ip(8), so
that ADD and CHECK find what they would find with the real switch; no frame goes anywhere. With
`refuse` set every PUT of a port is answered with that problem.
"""

import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any, Self


class CniSwitch:
    """The fake; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.networks: dict[str, dict[str, Any]] = {}
        self.ports: dict[str, dict[str, Any]] = {}
        self.refuse = ""
        self.lock = threading.Lock()
        self._server: _Server | None = None
        self.start()

    def start(self) -> None:
        """Listen, as the only one, at the path."""
        Path(self.path).unlink(missing_ok=True)
        self._server = _Server(self.path, self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be dead: the socket's file stays, as after a SIGKILL."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """One call of the API."""
        kind, _, name = path.removeprefix("/v1/").partition("/")
        if kind == "switch":
            return 200, {"name": "lab"}
        rows = self.ports if kind == "ports" else self.networks
        if method == "PUT":
            return self._put(kind, name, body)
        if name not in rows:
            return 404, _problem("not-found", f"there is no {kind} {name}")
        if method == "DELETE":
            row = rows.pop(name)
            if kind == "ports":
                _ip(row["netns"], f"link del {row['ifname']}\n", force=True)
            return 204, None
        return 200, rows[name]

    def _put(self, kind: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        if kind == "networks":
            self.networks[name] = {"name": name, "vni": None, "mtu": 1500, **body}
            return 200, self.networks[name]
        if self.refuse:
            return 409, _problem("refused", self.refuse)
        if body["network"] not in self.networks:
            return 422, _problem("invalid", f"there is no network {body['network']}")
        row = {"netns": None, **body, "name": name, "state": "up", "reason": ""}
        if self.ports.get(name) != row:
            if name in self.ports:
                _ip(row["netns"], f"link del {row['ifname']}\n", force=True)
            try:
                self._make(row)
            except subprocess.CalledProcessError as error:
                return 409, _problem("refused", error.stderr)
            self.ports[name] = row
        return 200, row

    def _make(self, row: dict[str, Any]) -> None:
        name, mtu = row["ifname"], self.networks[row["network"]]["mtu"]
        mac = f" address {row['mac']}" if row.get("mac") else ""
        lines = [f"tuntap add dev {name} mode tap", f"link set {name} mtu {mtu}{mac}",
                 *(f"addr add {address} dev {name}" + (" nodad" if ":" in address else "")
                   for address in row["address"]),
                 f"link set {name} up",
                 *(f"route append {route['to']} via {route['via']} dev {name}"
                   for route in row.get("routes", []))]
        _ip(row["netns"], "".join(f"{line}\n" for line in lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _ip(netns: str | None, batch: str, force: bool = False) -> None:
    if netns and not os.path.exists(netns):
        return
    enter = ["nsenter", f"--net={netns}"] if netns else []
    # With IPv6 addresses of it, a family has to be named for routes.
    batch = re.sub(r"^route append (\S*:)", r"-6 route append \1", batch, flags=re.MULTILINE)
    for line in batch.splitlines():
        subprocess.run([*enter, "ip", *line.split()], text=True, check=not force,
                       capture_output=True)


def _problem(error: str, problem: str) -> dict[str, str]:
    return {"error": error, "problem": problem, "fix": "mend it"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else {}
        with self.server.switch.lock:
            status, answer = self.server.switch.answer(self.command, self.path, body)
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_DELETE = _serve

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is logged: a Unix socket's client has no address to log."""

    def address_string(self) -> str:
        return "unix"


class _Server(ThreadingHTTPServer):
    address_family = UnixStreamServer.address_family
    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, path: str, switch: CniSwitch) -> None:
        self.switch = switch
        super().__init__(path, _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        UnixStreamServer.server_bind(self)  # type: ignore[arg-type]
