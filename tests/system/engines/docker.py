# SPDX-License-Identifier: Apache-2.0
"""dockerd on a containerd of its own, and its containers through the `docker` command.

Used by the tests of containers. dockerd makes no bridge and no firewall rules; it runs with
--live-restore, so that containers outlive it. `kill` and `start` it, or its containerd, as often
as a test likes. Network plugins have their sockets in PLUGINS.
"""

import json
import signal
from pathlib import Path
from typing import Any, Self

from tests import peers
from tests.system.engines import image
from tests.system.engines.containerd import Containerd
from tests.system.engines.namespace import checked
from tests.system.engines.place import Place
from tests.system.engines.station import Station
from tests.system.peers.process import PeerError, Process, wait_until

PROGRAM = "/usr/bin/docker"  # Debian's: another client may be found first
PLUGINS = Path("/run/docker/plugins")
SPACE = "moby"  # containerd's namespace for dockerd's containers


class Docker:
    """A running dockerd with its containerd."""

    def __init__(self, place: Place) -> None:
        if not Path(PROGRAM).exists():
            peers.need_peer("docker", f"no {PROGRAM} (package docker.io)")
        self.program = peers.find_program("dockerd")
        self.folder = place.folder / "docker"
        self.folder.mkdir(exist_ok=True)
        self.namespace = place.namespace
        self.group = place.group
        self.socket = self.folder / "d.sock"
        self.starts = 0
        self.containerd = Containerd(place)
        try:
            self.process = self.start()
        except BaseException:
            self.containerd.stop()
            raise

    def _arguments(self) -> list[str]:
        """dockerd's arguments."""
        return [
            *("--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
            *("--pidfile", f"{self.folder}/pid", "--host", f"unix://{self.socket}"),
            *("--config-file", f"{self.folder}/none.json"),
            *("--containerd", str(self.containerd.socket), "--cgroup-parent", f"/{self.group}"),
            *("--storage-driver", "overlay2", "--bridge=none", "--live-restore"),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            *("--userland-proxy=false", "--shutdown-timeout=5"),
        ]

    def start(self) -> Process:
        """Start dockerd and wait until it answers."""
        self.begin()
        self.ready()
        return self.process

    def begin(self) -> Process:
        """Start dockerd; `ready` waits for it."""
        self.starts += 1
        (self.folder / "none.json").write_text("{}")
        argv = [*self.namespace.prefix, self.program, *self._arguments()]
        log = self.folder / f"dockerd-{self.starts}.log"
        self.process = Process("dockerd", argv, log)
        return self.process

    def ready(self, timeout: float = 60.0) -> None:
        """Wait until dockerd answers."""
        try:
            wait_until(self._answers, "dockerd answers", timeout)
        except BaseException as error:
            self.process.stop()
            raise self.process.error(str(error)) from error

    def _answers(self) -> bool:
        if not self.process.running:
            raise self.process.error("ended")
        try:
            self.command("version", timeout=20)
        except PeerError:
            return False
        return True

    def command(self, *words: str, timeout: float = 60.0) -> str:
        """Run `docker WORDS`; what it printed. PeerError where it fails."""
        argv = [PROGRAM, "--host", f"unix://{self.socket}", *words]
        return checked([*self.namespace.prefix, *argv], timeout).strip()

    def version(self) -> str:
        """dockerd's version, as in "20.10.24+dfsg1"."""
        return self.command("version", "--format", "{{.Server.Version}}")

    def load(self, archive: Path) -> None:
        """Load the image of the tests."""
        self.command("load", "--quiet", "--input", str(archive))

    def create(self, network: str, driver: str, *options: str) -> None:
        """Make a network."""
        self.command("network", "create", "--driver", driver, *options, network)

    def run(self, name: str, network: str, *options: str) -> "DockerContainer":
        """Start a container on a network."""
        words = ["run", "--detach", "--name", name, "--network", network, *options, image.NAME]
        self.command(*words)
        return DockerContainer(self, name)

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What `docker inspect` says of a network or container."""
        found: list[dict[str, Any]] = json.loads(self.command(kind, "inspect", name))
        return found[0]

    def endpoints(self, network: str) -> dict[str, dict[str, str]]:
        """{container: its endpoint} of a network, as dockerd knows them; keys are EndpointID,
        IPv4Address, IPv6Address, MacAddress."""
        containers = self.inspect("network", network)["Containers"]
        return {given["Name"]: given for given in containers.values()}

    def running(self) -> set[str]:
        """The names of the containers that run."""
        return set(self.command("ps", "--format", "{{.Names}}").split())

    def clear(self) -> None:
        """Remove every container and every network that a test made."""
        if found := self.command("ps", "--all", "--quiet").split():
            self.command("rm", "--force", *found)
        words = ["network", "ls", "--filter", "type=custom", "--quiet"]
        if networks := self.command(*words).split():
            self.command("network", "rm", *networks)

    def kill(self) -> None:
        """SIGKILL to dockerd; the containers go on."""
        self.process.stop(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM to dockerd and then to its containerd; the containers go on."""
        self.process.stop()
        self.containerd.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class DockerContainer(Station):
    """A container of dockerd's."""

    def __init__(self, docker: Docker, name: str) -> None:
        self.docker = docker
        self.name = name

    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command in it; its output. PeerError where it fails."""
        return self.docker.command("exec", self.name, "/bin/sh", "-c", command, timeout=timeout)

    @property
    def pid(self) -> int:
        """The process id of its first process; 0 where it does not run."""
        pid: int = self.docker.inspect("container", self.name)["State"]["Pid"]
        return pid

    def remove(self) -> None:
        """Remove it, running or not."""
        self.docker.command("rm", "--force", self.name)
