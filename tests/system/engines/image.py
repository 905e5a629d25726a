# SPDX-License-Identifier: Apache-2.0
"""The image that all containers of the tests run: busybox, iperf3 and a file to send.

Used by the engines; nothing is fetched. It is a `docker save` archive (one layer, its
configuration, a manifest; image specification v1.2), which Docker, podman and containerd load.
Its command serves the file to everybody who connects, answers iperf3, and ends at SIGTERM; where
it cannot serve, it fails.

The same layer has a second name, whose command sleeps: a pod's first container, which holds the
pod's network for the others. It must not serve: the ports are taken then, in a container whose
files nobody may write.
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from random import Random

from tests import peers

NAME = "localhost/station:1"
PAUSE = "localhost/pause:1"
BUSYBOX = Path("/bin/busybox")
FILE = Random(7).randbytes(8 << 20)
SUM = hashlib.md5(FILE).hexdigest()
SERVED = 80  # the TCP port where every container sends the file
COMMAND = ["/bin/station"]
COMMANDS = {NAME: COMMAND, PAUSE: ["/bin/sleep", "infinity"]}
STATION = f"""#!/bin/sh
trap 'exit 0' TERM
nc -ll -p {SERVED} -e cat /srv/file &
iperf3 -s >/dev/null 2>&1 &
wait
exit 1
"""
ACCOUNTS = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}


class Layer:
    """A tar file in memory; every file in it belongs to root."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.TarFile(fileobj=self.buffer, mode="w")

    def folder(self, *names: str) -> None:
        """Add folders."""
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            self.tar.addfile(entry)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), mode
        self.tar.addfile(entry, io.BytesIO(content))

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self.tar.addfile(entry)

    def content(self) -> bytes:
        """The tar file."""
        self.tar.close()
        return self.buffer.getvalue()


def libraries(program: str) -> list[str]:
    """The shared libraries that a program needs, and its loader (ldd(1))."""
    text = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(/\S+) \(0x", text)


def filesystem() -> bytes:
    """The image's files as a tar file."""
    layer = Layer()
    layer.folder("bin", "dev", "etc", "proc", "run", "srv", "sys", "tmp", "usr", "usr/bin", "var")
    layer.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            layer.link(f"bin/{applet}", "busybox")
    for name, content in ACCOUNTS.items():
        layer.file(name, content.encode())
    program = peers.find_program("iperf3")
    layer.file("bin/iperf3", Path(program).read_bytes(), 0o755)
    for library in libraries(program):
        layer.file(library.lstrip("/"), Path(library).read_bytes(), 0o755)
    layer.file("bin/station", STATION.encode(), 0o755)
    layer.file("srv/file", FILE)
    return layer.content()


def configuration(digest: str, command: list[str]) -> bytes:
    """The configuration of an image of one layer, which has this SHA-256 sum."""
    return json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": "2020-01-01T00:00:00Z"}],
    }).encode()


def build(archive: Path) -> Path:
    """Write both images to ``archive``; ends the test where busybox is missing. -> ``archive``."""
    if not BUSYBOX.exists():
        peers.need_peer("busybox", f"no {BUSYBOX} (package busybox-static)")
    files = filesystem()
    digest = hashlib.sha256(files).hexdigest()
    layer = f"{digest}/layer.tar"
    whole = Layer()
    whole.file(layer, files)
    parts = []
    for name, command in COMMANDS.items():
        text = configuration(digest, command)
        identity = f"{hashlib.sha256(text).hexdigest()}.json"
        whole.file(identity, text)
        parts.append({"Config": identity, "RepoTags": [name], "Layers": [layer]})
    whole.file("manifest.json", json.dumps(parts).encode())
    archive.write_bytes(whole.content())
    return archive
