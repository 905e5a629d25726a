# SPDX-License-Identifier: Apache-2.0
"""containerd, and its containers by `ctr run --cni`.

Used by the tests of containers, by `docker.py`, whose dockerd runs on it, and by `cri.py`. Its
state lies below the test's folder; the control groups of its containers have the test's name.
`ctr` looks for CNI's files in two fixed places: it gets mounts of its own there.
"""

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests import peers
from tests.system.engines import image
from tests.system.engines.namespace import checked
from tests.system.engines.place import Place
from tests.system.engines.station import Station
from tests.system.peers.process import PeerError, Process, wait_until

# The two places that `ctr run --cni` knows, and where libcni remembers results.
CTR_MOUNTS = """
set -e
mount -t overlay -o lowerdir={over}:/opt overlay /opt
mount --bind {networks} /etc/cni/net.d
exec ctr "$@"
"""


@dataclass(frozen=True)
class Cni:
    """CNI's folders: a network's configuration list is in ``networks``, programs in ``plugins``.

    `write` puts one there. libcni remembers results in CACHE.
    """

    networks: Path
    plugins: Path
    CACHE: Path = field(default=Path("/var/lib/cni"), init=False)

    @classmethod
    def make(cls, folder: Path, programs: Mapping[str, Path]) -> "Cni":
        """Both folders below ``folder``, with links to the programs by name."""
        made = cls(folder / "net.d", folder / "bin")
        made.networks.mkdir(parents=True)
        made.plugins.mkdir()
        for name, program in programs.items():
            (made.plugins / name).symlink_to(program)
        return made

    def write(self, network: Mapping[str, Any]) -> Path:
        """Write a network's configuration list (CNI specification 1.0, section 1). -> its path."""
        path = self.networks / f"10-{network['name']}.conflist"
        path.write_text(json.dumps(network, indent=1))
        return path

    def remembered(self, network: str) -> list[str]:
        """The results of this network's attachments that libcni keeps for their DEL."""
        return [path.name for path in (self.CACHE / "results").glob(f"{network}-*")]

    def forget(self, network: str) -> None:
        """Remove what libcni remembers of attachments that nobody deleted."""
        for name in self.remembered(network):
            (self.CACHE / "results" / name).unlink(missing_ok=True)


class Containerd:
    """A running containerd; with CNI's folders it has `ctr run --cni` and the CRI."""

    def __init__(self, place: Place, cni: Cni | None = None) -> None:
        self.folder = place.folder / "containerd"
        self.folder.mkdir(exist_ok=True)
        self.namespace = place.namespace
        self.group = place.group
        self.cni = cni
        self.socket = self.folder / "c.sock"
        self.program = peers.find_program("containerd")
        self.file = self.folder / "config.toml"
        self.file.write_text(self._configuration())
        self.starts = 0
        self.process = self.start()

    def _configuration(self) -> str:
        """Its configuration file; without CNI's folders it has no CRI."""
        text = f'version = 2\nroot = "{self.folder}/root"\nstate = "{self.folder}/state"\n'
        plugins = 'plugins."io.containerd'
        if self.cni is None:
            text += 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        text += f'[grpc]\naddress = "{self.socket}"\n'
        text += f'[{plugins}.internal.v1.opt"]\npath = "{self.folder}/opt"\n'
        if self.cni is not None:
            cri = f'{plugins}.grpc.v1.cri"'
            text += f'[{cri}]\nsandbox_image = "{image.PAUSE}"\nrestrict_oom_score_adj = true\n'
            text += f'[{cri}.cni]\nbin_dir = "{self.cni.plugins}"\n'
            text += f'conf_dir = "{self.cni.networks}"\nmax_conf_num = 1\n'
        return text

    def start(self) -> Process:
        """Start it and wait until it answers."""
        self.starts += 1
        argv = [*self.namespace.prefix, self.program, "--config", str(self.file)]
        log = self.folder / f"containerd-{self.starts}.log"
        self.process = Process("containerd", argv, log)
        try:
            wait_until(self._answers, "containerd answers", 60)
        except BaseException as error:
            self.process.stop()
            raise self.process.error(str(error)) from error
        return self.process

    def _answers(self) -> bool:
        if not self.process.running:
            raise self.process.error("ended")
        try:
            self.ctr("version", timeout=5)
        except PeerError:
            return False
        return True

    def ctr(self, *words: str, timeout: float = 60.0, space: str = "") -> str:
        """Run `ctr WORDS` in a namespace of containerd's, normally the test's own."""
        argv = ["ctr", "--address", str(self.socket), "--namespace", space or self.group, *words]
        return checked([*self.namespace.prefix, *argv], timeout)

    def load(self, archive: Path, space: str = "") -> None:
        """Load the image of the tests."""
        self.ctr("images", "import", str(archive), space=space)

    def over_opt(self) -> Path:
        """A folder to lay over /opt: CNI's programs are in cni/bin there."""
        assert self.cni is not None
        over = self.folder / "over-opt"
        if not over.exists():
            (over / "cni").mkdir(parents=True)
            (over / "cni" / "bin").symlink_to(self.cni.plugins)
        return over

    def kill(self) -> None:
        """SIGKILL; the containers go on."""
        self.process.stop(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; the containers go on."""
        self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Ctr:
    """Containers run by `ctr run --cni`; `close` removes those that are left."""

    def __init__(self, engine: Containerd) -> None:
        self.engine = engine
        self.containers: list[CtrContainer] = []

    def run(self, name: str) -> "CtrContainer":
        """Start a container."""
        made = CtrContainer(self.engine, name)
        self.containers.append(made)
        return made

    def close(self) -> None:
        """End the containers that nobody has removed."""
        for container in self.containers:
            if container.process.running:
                container.remove()


class CtrContainer(Station):
    """A container run by `ctr run --cni`; it is attached to the network while that runs."""

    def __init__(self, engine: Containerd, name: str) -> None:
        assert engine.cni is not None
        self.engine = engine
        self.name = name
        self.commands = 0
        mounts = CTR_MOUNTS.format(over=engine.over_opt(), networks=engine.cni.networks)
        run = ["run", "--rm", "--cni", "--cgroup", f"/{engine.group}/{name}", image.NAME, name]
        argv = [*engine.namespace.prefix, "unshare", "--mount", "sh", "-c", mounts, "ctr"]
        argv += ["--address", str(engine.socket), "--namespace", engine.group]
        argv += [*run, *image.COMMAND]
        self.process = Process(f"ctr run {name}", argv, engine.folder / f"ctr-{name}.log")
        wait_until(self._runs, f"container {name} runs", 60)

    def _runs(self) -> bool:
        if not self.process.running:
            raise self.process.error("ended")
        try:
            return "eth0" in self.interfaces()
        except PeerError:
            return False

    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command in it; its output. PeerError where it fails."""
        self.commands += 1
        words = ["tasks", "exec", "--exec-id", f"e{self.commands}", self.name]
        return self.engine.ctr(*words, "/bin/sh", "-c", command, timeout=timeout).strip()

    def remove(self) -> None:
        """End it: `ctr run` takes it off the network, and removes it."""
        self.engine.ctr("tasks", "kill", "--signal", "SIGTERM", self.name)
        status = self.process.child.wait(20)
        if status:
            raise self.process.error(f"ended with {status}")
