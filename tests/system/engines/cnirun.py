# SPDX-License-Identifier: Apache-2.0
"""A CNI runtime that does nothing else: ADD, CHECK and DEL for namespaces of the test's own.

Used by the tests of containers. The program `cnirun` is built from cnirun.go with Debian's
compiler and libcni, and kept in the peers' folder under the digest of its source.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests import peers
from tests.system.engines import image
from tests.system.engines.containerd import Cni
from tests.system.engines.namespace import Namespace, checked
from tests.system.engines.place import Place
from tests.system.engines.station import INTERFACE, Host
from tests.system.peers.process import Process

SOURCE = Path(__file__).with_name("cnirun.go")
LIBRARIES = Path("/usr/share/gocode")  # where Debian puts the sources of Go libraries


def program() -> Path:
    """The program, built where it is not there yet; ends the test where it cannot be."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    built = peers.PEERS / f"cnirun-{digest}"
    if built.exists():
        return built
    compiler = peers.find_program("go")
    if not (LIBRARIES / "src/github.com/containernetworking/cni/libcni").is_dir():
        peers.need_peer("libcni", "no golang-github-appc-cni-dev")
    peers.PEERS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=peers.PEERS) as folder:
        new = Path(folder) / "cnirun"
        subprocess.run(
            [compiler, "build", "-o", new, SOURCE], check=True, timeout=300,
            env={**os.environ, "GO111MODULE": "off", "GOPATH": str(LIBRARIES),
                 "GOCACHE": f"{folder}/cache", "CGO_ENABLED": "0", "GOFLAGS": ""},
        )
        new.rename(built)
    return built


class CniRun:
    """The runtime on one network. `close` removes the namespaces that are left."""

    def __init__(self, place: Place, cni: Cni, network: str) -> None:
        self.program = program()
        self.place = place
        self.cni = cni
        self.list = cni.networks / f"10-{network}.conflist"
        self.cache = place.folder / "cnirun"
        self.stations: list[Attached] = []

    def command(self, verb: str, namespace: Path | str, container: str,
                interface: str = INTERFACE, **capabilities: Any) -> str:
        """Run one of cnirun's commands; what it printed. PeerError where it fails."""
        argv = ["env", f"CNI_PATH={self.cni.plugins}", f"CNI_CACHE={self.cache}"]
        argv += [str(self.program), verb, str(self.list), str(namespace), container, interface]
        argv += [json.dumps(capabilities)] if capabilities else []
        return checked([*self.place.namespace.prefix, *argv])

    def close(self) -> None:
        """Take away every attached namespace that nobody has removed; DEL may come twice."""
        with ExitStack() as stack:  # each of them, also where one cannot be
            for station in self.stations:
                stack.callback(station.remove)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Attached(Host):
    """A namespace of the test's own, attached to the network; it serves like a container."""

    def __init__(self, runtime: CniRun, name: str, **capabilities: Any) -> None:
        self.namespace = Namespace(name)
        super().__init__(name, self.namespace.prefix)
        self.runtime = runtime
        self.capabilities = capabilities
        log = runtime.place.folder / f"{name}.log"
        file = runtime.place.folder / "file"
        file.write_bytes(image.FILE)
        serve = ["nc", "-ll", "-p", str(image.SERVED), "-e", "cat", str(file)]
        argv = [*self.namespace.prefix, str(image.BUSYBOX), *serve]
        self.server = Process(f"{name}'s server", argv, log)
        listen = [*self.namespace.prefix, peers.find_program("iperf3"), "-s"]
        self.listener = Process(f"{name}'s iperf3", listen, log.with_suffix(".iperf3"))
        runtime.stations.append(self)
        self.result: dict[str, Any] = json.loads(self._command("add"))

    def _command(self, verb: str) -> str:
        path = self.namespace.path
        return self.runtime.command(verb, path, self.name, **self.capabilities)

    def check(self) -> None:
        """CHECK; PeerError where the plugin finds something wrong."""
        self._command("check")

    def delete(self) -> None:
        """DEL."""
        self._command("del")

    def close(self) -> None:
        """Remove the namespace, attached or not."""
        self.runtime.stations.remove(self)
        self.server.stop()
        self.listener.stop()
        self.namespace.close()

    def remove(self) -> None:
        """Take it off the network, and remove the namespace."""
        try:
            self.delete()
        finally:
            self.close()
