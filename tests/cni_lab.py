# SPDX-License-Identifier: Apache-2.0
"""Network namespaces, a fake switch and a runtime: what the tests of byway-cni work with.

Used by the tests; a machine on which namespaces cannot be made lacks a peer.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import peers
from tests.cni_runtime import Runtime
from tests.cni_switch import CniSwitch

PLUGIN = Path(sys.executable).with_name("byway-cni")
OTHERS = Path("/usr/lib/cni")  # Debian's containernetworking-plugins
SUBNETS = [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]
OWN_IPAM: dict[str, Any] = {"type": "byway", "ranges": SUBNETS, "routes": [{"dst": "0.0.0.0/0"}]}
CAPABILITIES = {"mac": True, "ips": True, "ipRanges": True, "portMappings": True,
                "bandwidth": True, "dns": True}


class Lab:
    """A folder with the plugin in `bin`, a state file, and the API's socket."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        self.api = api
        self.state = folder / "cni.db"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("byway-cni", "byway"):
            (self.bin / name).symlink_to(PLUGIN)
        self.prefix: list[str] = []
        self.namespaces: list[str] = []
        self._numbers = itertools.count()

    def namespace(self, name: str = "c") -> str:
        """A new network namespace; -> its path."""
        full = f"byw-cni-{os.getpid()}-{name}{next(self._numbers)}"
        subprocess.run(["ip", "netns", "add", full], check=True)
        self.namespaces.append(full)
        return f"/run/netns/{full}"

    def remove_namespace(self, path: str) -> None:
        """Remove one before the end."""
        name = Path(path).name
        subprocess.run(["ip", "netns", "del", name], check=True)
        self.namespaces.remove(name)

    def plugin(self, **keys: Any) -> dict[str, Any]:
        """The plugin's entry in a network's configuration."""
        return {"type": "byway-cni", "network": "blue", "api": self.api, "state": str(self.state),
                "ipam": OWN_IPAM, "capabilities": CAPABILITIES, **keys}

    def runtime(self, version: str = "1.1.0", name: str = "net",
                others: tuple[Mapping[str, Any], ...] = (), **keys: Any) -> Runtime:
        """A runtime with a network of this plugin."""
        network = {"cniVersion": version, "name": name,
                   "plugins": [self.plugin(**keys), *others]}
        return Runtime(network, [self.bin, OTHERS], self.prefix)

    def close(self) -> None:
        """Remove the namespaces."""
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], check=True)


class FakeLab(Lab):
    """A lab with a fake switch."""

    def __init__(self, folder: Path) -> None:
        self.switch = CniSwitch(folder / "api.sock")
        super().__init__(folder, self.switch.path)

    def close(self) -> None:
        self.switch.stop()
        super().close()


def need_namespaces() -> None:
    """End the test where none can be made."""
    peers.find_program("ip")
    if os.geteuid() != 0:
        peers.need_peer("root", "network namespaces are made by root")
    if not PLUGIN.exists():
        peers.need_peer("byway-cni", f"no {PLUGIN}: install the project (make setup)")


@contextmanager
def fake_lab() -> Iterator[FakeLab]:
    """A lab with a fake switch, in a folder with a short path."""
    need_namespaces()
    folder = Path(tempfile.mkdtemp(prefix="byway-cni-"))
    lab = FakeLab(folder)
    try:
        yield lab
    finally:
        lab.close()
        shutil.rmtree(folder)


def inside(path: str, *command: str) -> str:
    """What a command prints in a namespace."""
    done = subprocess.run(["nsenter", f"--net={path}", *command], text=True, check=True,
                          capture_output=True)
    return done.stdout


def addresses(path: str, ifname: str = "eth0") -> set[str]:
    """The addresses of an interface in a namespace, link-local ones left out."""
    found = json.loads(inside(path, "ip", "-j", "addr", "show", ifname))
    return {f"{entry['local']}/{entry['prefixlen']}" for entry in found[0]["addr_info"]
            if entry["scope"] == "global"}


def interfaces(path: str) -> set[str]:
    """The names of the interfaces in a namespace, but lo."""
    return {link["ifname"] for link in json.loads(inside(path, "ip", "-j", "link"))} - {"lo"}
