# SPDX-License-Identifier: Apache-2.0
"""Where machine code is kept, by which name, and who is believed: known without importing the
compiler.

Used by jit, parts, `byway doctor`, and for what is built of network functions. Uses nothing.

Theory of operation
-------------------
Whoever can write what is found here runs code in the switch. So nothing is read or written where
others than root and the switch's own user may write, be it into the directory or into the one
around it, where they could put another in its place. A file begins with a digest of what follows:
one that is damaged (a full disk, a machine that died) is as good as none, and is made anew.

What is made of authors' functions, which are edited again and again, is forgotten when there is
too much of it: what nobody has asked for the longest.
"""

import contextlib
import functools
import hashlib
import os
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
# The packages whose sources end up in the switch's machine code. Control, client and CLI do not.
COMPILED_PACKAGES = ("machine", "packet", "virtio", "ports", "switch", "worker")
TESTING = "testing"  # its kernels use those of all the others; none of theirs uses it
FUNCTIONS = "functions"  # likewise: chains of network functions
CHAIN = f"byway.{FUNCTIONS}.chain_"  # and a digest: the module of a chain, whose source is made
_DIGITS = 64  # of the digest that a file begins with
_MOST = 1 << 28  # bytes of a file
_DAY = 86400.0  # seconds


@functools.cache
def sources_digest(packages: tuple[str, ...] = COMPILED_PACKAGES) -> str:
    """A digest of everything that machine code depends on: sources, versions, the machine."""
    digest = hashlib.sha256()
    for text in (version("numba"), version("llvmlite"), sys.version, platform.machine()):
        digest.update(text.encode() + b"\0")
    for package in packages:
        for path in sorted((PACKAGE / package).rglob("*.py")):
            digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:24]


def cache_root() -> Path:
    """Where machine code is kept: $BYWAY_CACHE, /var/cache/byway (root) or ~/.cache/byway."""
    if chosen := os.environ.get("BYWAY_CACHE"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/cache/byway")
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "byway"


def private(directory: Path) -> None:
    """Make a directory of the cache, if there is none. PermissionError: others may write to it, or
    to the one around it; OSError: there is none, and none can be made."""
    for each in (directory.parent, directory):
        if not each.is_dir():
            each.parent.mkdir(parents=True, exist_ok=True)
            each.mkdir(mode=0o700, exist_ok=True)
        found = each.stat()
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(
                f"{each}: others may write here; set BYWAY_CACHE to a private directory")


def keep(path: Path, data: bytes) -> None:
    """Put a file into the cache: it is there as a whole, or not at all. OSError: it is not kept."""
    private(path.parent)
    handle, fresh = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        Path(fresh).replace(path)
    except OSError:
        Path(fresh).unlink(missing_ok=True)
        raise


def kept(path: Path) -> bytes | None:
    """What was put there; None: nothing, it is damaged, or it may be another's."""
    try:
        private(path.parent)
        found = read_file(path, _MOST)
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)
    except OSError:
        return None
    digest, data = found[:_DIGITS], found[_DIGITS + 1:]
    return data if hashlib.sha256(data).hexdigest().encode() == digest else None


def read_file(path: Path, most: int) -> bytes:
    """A file's bytes. OSError: there is none, it is no ordinary file (which one could wait for), or
    it has more bytes than ``most``."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path}: no ordinary file")
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"{path}: more than {most} bytes")
    return data


def forget(directory: Path, prefixes: tuple[str, ...], most: int) -> None:
    """Of the files whose names begin so, leave those that were asked for last, ``most`` of them."""
    found = []
    for entry in _entries(directory):
        if entry.name.startswith(prefixes):
            with contextlib.suppress(FileNotFoundError):  # another process forgets it as well
                found.append((entry.stat().st_mtime, entry.path))
    for _, path in sorted(found, reverse=True)[most:]:
        Path(path).unlink(missing_ok=True)


def _entries(directory: Path) -> Iterator["os.DirEntry[str]"]:
    if directory.is_dir():
        with os.scandir(directory) as entries:
            yield from entries
