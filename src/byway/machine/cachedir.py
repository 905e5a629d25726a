# SPDX-License-Identifier: Apache-2.0
"""Where machine code is kept, and by which name: known without importing the compiler.

Used by jit and by `byway doctor`. Uses nothing.
"""

import functools
import hashlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
# The packages whose sources end up in the switch's machine code. Control, client and CLI do not.
COMPILED_PACKAGES = ("machine", "packet", "virtio", "ports", "switch", "worker")
TESTING = "testing"  # its kernels use those of all the others; none of theirs uses it
FUNCTIONS = "functions"  # likewise: chains of network functions


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
