# SPDX-License-Identifier: Apache-2.0
"""A guest that sees the files of this machine, to run programs of ours with a kernel of its own.

Used by the tests of what the machine's own kernel may lack (vhost_net). The guest mounts this
machine's root read-only over 9p, puts a memory file system over /tmp and /run, and changes its
root to that: the same Python, the same virtual environment, the same sources. Machine code comes
along in the folder of the test, compiled for the plain processor that every emulated guest has.

An emulated guest takes half a minute to import what the commands import; so the switch's API is
asked by a program of the standard library alone.

Its kernel is Debian's ordinary one: the small one has no 9p.
"""

import json
import lzma
import os
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import peers
from tests.system.peers.kernel import build_initramfs
from tests.system.peers.qemu import Card, Machine, Vm

MODULES = ["virtio_pci", "9p", "9pnet_virtio", "tun", "vhost_net"]
KERNEL = peers.PEERS / "full-kernel"
PROJECT = Path(__file__).resolve().parents[3]
XZ = b"\xfd7zXZ"
MEMORY_MIB = 1024
SLOW = 240  # seconds for an answer of a switch that is still importing
ROOT = "/h"  # where this machine's root is in the guest, before it becomes its own
# What code must be compiled for, so that a guest on any machine runs it.
PLAIN_PROCESSOR = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
SHOWN = "/shown"  # and without what is mounted in it
HIDDEN = ("/tmp", "/run")  # of this machine: memory file systems lie over them
SETTLE = f"""mkdir {ROOT} {SHOWN} && \
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host {ROOT} && \
mount -o bind {ROOT} {SHOWN} && mount -t proc p {ROOT}/proc && \
mount -t sysfs s {ROOT}/sys && mount -o bind /dev {ROOT}/dev && \
for d in {" ".join(HIDDEN)}; do mount -t tmpfs t {ROOT}$d; done && \
mkdir -p {ROOT}/run/netns && ip link set lo up"""

ASK = f"""import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout({SLOW})
    sock.connect(sys.argv[1])
    sock.sendall(f"GET {{sys.argv[2]}} HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n".encode())
    answer = b"".join(iter(lambda: sock.recv(65536), b""))
print("ANSWER", answer.partition(b"\\r\\n\\r\\n")[2].decode())
"""


def find_kernel() -> tuple[Path, Path]:
    """(vmlinuz, modules folder) of the ordinary kernel; ends the test where there is none."""
    for image in sorted((KERNEL / "boot").glob("vmlinuz-*"), reverse=True):
        modules = KERNEL / "lib" / "modules" / image.name.removeprefix("vmlinuz-")
        if modules.is_dir():
            return image, modules
    return peers.need_peer("ordinary guest kernel", f"no vmlinuz with modules under {KERNEL}")


def extract_elf(image: Path, target: Path) -> Path:
    """Unpack the ELF kernel (XZ) of a bzImage, which starts sooner; see peers.kernel."""
    data = image.read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = ((data[0x1F1] or 4) + 1) * 512 + offset
    payload = data[start : start + length]
    if not payload.startswith(XZ):
        return image
    target.write_bytes(lzma.LZMADecompressor().decompress(payload))
    return target


def build(folder: Path, more: Sequence[str] = ()) -> tuple[Path, Path]:
    """(kernel, initramfs), made in `folder`. `more` modules are loaded as well."""
    image, modules = find_kernel()
    return (extract_elf(image, folder / "vmlinux-full"),
            build_initramfs(modules, [*MODULES, *more], folder / "initramfs-full"))


class _Files:
    """This machine's files as a device of the guest, read-only."""

    def arguments(self, index: int) -> list[str]:
        """QEMU's arguments for it."""
        return ["-fsdev", f"local,id=f{index},path=/,security_model=none,readonly=on,"
                "multidevs=remap", "-device", f"virtio-9p-pci,fsdev=f{index},mount_tag=host"]


class Inside(Vm):
    """A guest with this machine's files. `run` is its own shell, `here` what runs among them."""

    def __init__(
        self, name: str, folder: Path, system: tuple[Path, Path], cards: Sequence[Card] = (),
        iommu: bool = False,
    ) -> None:
        machine = Machine(memory=MEMORY_MIB, cpus=2, iommu=iommu)
        super().__init__(name, folder, *system, [*cards, _Files()], machine=machine)
        self.folder, self.cache = folder, folder / "cache"
        (folder / "ask.py").write_text(ASK)

    def ready(self, timeout: float = 120.0) -> None:
        """Wait for the shell, and mount everything."""
        super().ready(timeout)
        self.run(SETTLE)
        for path in {str(p) for p in (self.folder, PROJECT, sys.prefix)}:
            if path.startswith(HIDDEN):
                self.run(f"mkdir -p {ROOT}{path} && mount -o bind {SHOWN}{path} {ROOT}{path}")

    def here(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command among this machine's files; its output. PeerError if it fails.

        There are no single quotes in it.
        """
        words = {key: os.environ.get(key, "") for key in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")}
        words |= {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", "BYWAY_CACHE": str(self.cache)}
        words |= PLAIN_PROCESSOR
        variables = " ".join(f"{key}={value}" for key, value in words.items())
        return self.run(f"env {variables} chroot {ROOT} /bin/sh -c '{command}'", timeout)

    def ask(self, api: str, path: str) -> Any:
        """What the API at the socket `api` answers; None where nothing answers there."""
        text = self.here(f"python3 -I -S {self.folder}/ask.py {api} {path} 2>&1 || true",
                         SLOW + 60)
        answer = re.search(r"^ANSWER (.*)", text, re.MULTILINE)
        return json.loads(answer.group(1)) if answer else None


def compile_for(cache: Path) -> None:
    """Fill `cache` with the switch's machine code for the plain processor."""
    program = "from byway.control.data_path import prepare; prepare(print)"
    env = {**os.environ, **PLAIN_PROCESSOR, "BYWAY_CACHE": str(cache)}
    subprocess.run([sys.executable, "-c", program], check=True, env=env, capture_output=True)
