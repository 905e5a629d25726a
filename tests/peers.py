# SPDX-License-Identifier: Apache-2.0
"""What a test needs from outside the project: programs, kernels, privileges.

Used by the tests and by `conftest.py`. A missing peer is a skip with its reason on an ordinary
machine and a failure where REQUIRE_PEERS=1 says that the peers were installed (`.ci/run`).
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

PEERS = Path(os.environ.get("BYWAY_PEERS", "/var/cache/byway-peers"))


def required() -> bool:
    """True where a missing peer is a failure."""
    return os.environ.get("REQUIRE_PEERS", "") not in ("", "0")


def need_peer(name: str, reason: str) -> NoReturn:
    """End the test: peer `name` is missing, and why. A skip, or a failure where required."""
    text = f"peer missing: {name}: {reason}"
    if required():
        fix = "scripts/install-peers installs what REQUIRE_PEERS asks for"
        pytest.fail(f"{text}; {fix}", pytrace=False)
    pytest.skip(text)


def find_program(name: str) -> str:
    """The path of an installed program; ends the test where there is none."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        need_peer(name, "not on the PATH")
    return path


def find_kernel() -> tuple[Path, Path]:
    """(vmlinuz, modules folder) of the newest guest kernel; ends the test where there is none."""
    images = sorted((PEERS / "kernel" / "boot").glob("vmlinuz-*"))
    for image in reversed(images):
        modules = PEERS / "kernel" / "lib" / "modules" / image.name.removeprefix("vmlinuz-")
        if modules.is_dir():
            return image, modules
    need_peer("guest kernel", f"no vmlinuz with modules under {PEERS}/kernel")
