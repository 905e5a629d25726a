# SPDX-License-Identifier: Apache-2.0
"""Blueprints that were made before: in the cache, as long as the files they came from are the same.

Used by build.py (``keep``) and control (``known``), which need not start a process then. Uses
machine's cache, and blueprints.

An author who goes back to what he had finds that again, too: the file's digest is in the name. They
lie beside the machine code, in the directory that is named by the digest of all sources that go
into it; so what other sources of Byway have made is never found.
"""

import hashlib
import os
import sys
from pathlib import Path

from byway.functions.blueprint import Blueprint
from byway.functions.finding import digest_of, is_builtin
from byway.machine.cachedir import COMPILED_PACKAGES, FUNCTIONS, cache_root, sources_digest

# The process that builds (build.py).
COMMAND = (sys.executable, "-c", "from byway.functions.build import main; main()")


def keep(blueprint: Blueprint, folder: str) -> None:
    """Have it found again. A cache that cannot be written to is none: it is built each time."""
    place = _place(blueprint.use, folder)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = place.with_suffix(f".{os.getpid()}")
        fresh.write_text(blueprint.to_json())
        fresh.replace(place)
    except OSError:
        return


def known(use: str, folder: str) -> Blueprint | None:
    """The blueprint of what ``use`` names, files relative to ``folder``, if it was made before, of
    files that are the same still."""
    try:
        text = _place(use, folder).read_text()
    except OSError:
        return None
    blueprint = Blueprint.from_json(text)
    same = all(digest_of(Path(path)) == digest for path, digest in blueprint.files.items())
    return blueprint if same else None


def _place(use: str, folder: str) -> Path:
    file = "" if is_builtin(use) else digest_of(Path(folder) / use.partition(":")[0])
    name = hashlib.sha256(f"{folder}\0{use}\0{file}".encode()).hexdigest()[:24]
    digest = sources_digest((*COMPILED_PACKAGES, FUNCTIONS, "nf"))
    return cache_root() / digest / f"function_{name}.json"
