# SPDX-License-Identifier: Apache-2.0
"""podman with CNI networks, runc and storage of its own.

Used by the tests of containers. podman has no daemon: each command works on the state below the
test's folder. Its networks are those of CNI's folder (`containerd.Cni`).
"""

from pathlib import Path

from tests import peers
from tests.system.engines import image
from tests.system.engines.containerd import Cni
from tests.system.engines.namespace import checked
from tests.system.engines.place import Place
from tests.system.engines.station import Station

# podman's own limits for containers may be above a machine's, where it may not set them.
CONFIGURATION = """
[network]
network_backend = "cni"
network_config_dir = "{networks}"
cni_plugin_dirs = ["{plugins}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
tmp_dir = "{folder}/tmp"
volume_path = "{folder}/volumes"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
"""


class Podman:
    """podman's commands on one state; `clear` ends its containers."""

    def __init__(self, place: Place, cni: Cni) -> None:
        self.program = peers.find_program("podman")
        self.folder = place.folder / "podman"
        self.folder.mkdir(exist_ok=True)
        self.namespace = place.namespace
        self.group = place.group
        self.file = self.folder / "containers.conf"
        self.file.write_text(CONFIGURATION.format(
            networks=cni.networks, plugins=cni.plugins, folder=self.folder))

    def command(self, *words: str, timeout: float = 60.0) -> str:
        """Run `podman WORDS`; what it printed. PeerError where it fails."""
        state = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run"]
        argv = ["env", f"CONTAINERS_CONF={self.file}", f"HOME={self.folder}", self.program]
        return checked([*self.namespace.prefix, *argv, *state, *words], timeout).strip()

    def load(self, archive: Path) -> None:
        """Load the image of the tests."""
        self.command("load", "--quiet", "--input", str(archive))

    def run(self, name: str, network: str, *options: str) -> "PodmanContainer":
        """Start a container on a network."""
        words = ["run", "--detach", "--name", name, "--network", network]
        words += ["--cgroup-parent", f"/{self.group}", *options, image.NAME]
        self.command(*words)
        return PodmanContainer(self, name)

    def clear(self) -> None:
        """Remove every container."""
        self.command("rm", "--all", "--force", "--time", "0")


class PodmanContainer(Station):
    """A container of podman's."""

    def __init__(self, podman: Podman, name: str) -> None:
        self.podman = podman
        self.name = name

    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command in it; its output. PeerError where it fails."""
        return self.podman.command("exec", self.name, "/bin/sh", "-c", command, timeout=timeout)

    def remove(self) -> None:
        """Remove it, running or not."""
        self.podman.command("rm", "--force", "--time", "5", self.name)
