# SPDX-License-Identifier: Apache-2.0
"""A Linux kernel and a small root file system for guests.

Used by the QEMU tests. The kernel is Debian's, unpacked by `scripts/install-peers`; its ELF image
is taken out of the bzImage, because QEMU starts that a second faster under emulation (PVH entry).
The root file system is busybox, the modules named and what they depend on, and `/init`, written as
a "newc" cpio archive.
"""

import itertools
import re
import stat
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
LZ4_LEGACY = b"\x02\x21\x4c\x18"  # first bytes of the payload of Debian's kernels

INIT = """#!/bin/sh
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for m in $(cat /modules.list); do insmod /m/$m.ko || echo "insmod $m failed"; done
for a in $(cat /proc/cmdline); do case $a in
  address=*) ip link set eth0 up; ip addr add ${a#address=} dev eth0;;
esac; done
read up idle < /proc/uptime; echo "SHELL-UP $up"
export PS1=
while :; do setsid sh -c 'stty -echo 2>/dev/null; exec sh <>/dev/console >&0 2>&1'; done
"""


def extract_elf(image: Path, target: Path) -> Path:
    """Unpack the ELF kernel in a bzImage to `target`; the bzImage itself if that cannot be done.

    Source: the kernel's Documentation/arch/x86/boot.rst, fields setup_sects (0x1f1), payload_offset
    and payload_length (0x248). QEMU starts either.
    """
    data = image.read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = ((data[0x1F1] or 4) + 1) * 512 + offset
    payload = data[start : start + length - 4]  # the last four bytes are the unpacked size
    if not payload.startswith(LZ4_LEGACY):
        return image
    try:
        with target.open("wb") as out:
            subprocess.run(["lz4", "-dc", "-"], input=payload, stdout=out, check=True)
    except FileNotFoundError:
        return image
    return target


@dataclass(frozen=True)
class Entry:
    """One file of the archive."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: list[Entry]) -> bytes:
    """The entries as a "newc" archive (the kernel's early-userspace/buffer-format.rst)."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        fields = (
            number,
            entry.mode,
            0,
            0,
            1,
            0,
            len(entry.data),
            0,
            0,
            *entry.device,
            len(name),
            0,
        )
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += bytes(-len(out) % 4) + entry.data
        out += bytes(-len(out) % 4)
    return bytes(out)


def module_order(folder: Path, wanted: list[str]) -> list[Path]:
    """The wanted modules, each after those its .modinfo needs; built-in ones are left out."""
    files = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    order: list[Path] = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        found = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for need in found.group(1).decode().split(",") if found else []:
            visit(need)
        order.append(path)

    for name in wanted:
        visit(name)
    return order


def build_initramfs(modules: Path, wanted: list[str], target: Path) -> Path:
    """Write a root file system with busybox and the modules in `wanted` to `target`."""
    folders = ("bin", "dev", "m", "proc", "sys", "tmp")
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in folders]
    entries.append(Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(Entry("bin/busybox", stat.S_IFREG | 0o755, BUSYBOX.read_bytes()))
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout
    link = stat.S_IFLNK | 0o777
    entries += [Entry(f"bin/{a}", link, b"busybox") for a in applets.split() if a != "busybox"]
    order = module_order(modules, wanted)
    entries += [Entry(f"m/{p.name}", stat.S_IFREG | 0o644, p.read_bytes()) for p in order]
    names = " ".join(path.stem for path in order) + "\n"
    entries.append(Entry("modules.list", stat.S_IFREG | 0o644, names.encode()))
    entries.append(Entry("init", stat.S_IFREG | 0o755, INIT.encode()))
    target.write_bytes(cpio(entries))
    return target


def with_files(initramfs: Path, files: Mapping[str, bytes], target: Path) -> Path:
    """Write a root file system with more files in it: archives may follow each other."""
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in sorted(folders)]
    entries += [Entry(name, stat.S_IFREG | 0o755, data) for name, data in files.items()]
    target.write_bytes(initramfs.read_bytes() + cpio(entries))
    return target


def program(path: str) -> dict[str, bytes]:
    """A program of this machine with its libraries, as files for a guest."""
    told = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"(/\S+) \(0x", told)
    return {name.lstrip("/"): Path(name).read_bytes() for name in [path, *needed]}


def checksum_errors(text: str) -> dict[str, int]:
    """The counters of bad checksums above zero, from /proc/net/snmp, netstat and snmp6 (proc(5)).

    The first two name a line's values in the line before it, the third each value in front of it.
    """
    found = {}
    lines = [line.split() for line in text.splitlines() if line.strip()]
    for names, values in itertools.pairwise(lines):
        if names[0] == values[0] and names[0].endswith(":"):
            found |= {names[0] + n: v for n, v in zip(names[1:], values[1:], strict=True)}
    found |= {words[0]: words[1] for words in lines if len(words) == 2}
    return {name: int(v) for name, v in found.items() if "CsumErrors" in name and int(v)}
