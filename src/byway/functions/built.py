# SPDX-License-Identifier: Apache-2.0
"""Blueprints that were made before: in the cache, as long as the files they came from are the same.

Used by build.py (``keep``) and control (``known``, in a thread of its own), which need not start a
process then. Uses machine's cache, and blueprints.

An author who goes back to what he had finds that again, too: the file's digest is in the name. They
lie beside the machine code, in the directory that is named by the digest of all sources that go
into it; so what other sources of Byway have made is never found.
"""

import hashlib
import sys
from pathlib import Path

from byway.functions.blueprint import Blueprint
from byway.functions.finding import digest_of, file_and_name, is_builtin
from byway.machine import cachedir
from byway.machine.cachedir import COMPILED_PACKAGES, FUNCTIONS, cache_root, sources_digest

# The process that builds (build.py).
COMMAND = (sys.executable, "-c", "from byway.functions.build import main; main()")
_PACKAGES = (*COMPILED_PACKAGES, FUNCTIONS, "nf")
_FILES = ("function_", "chain ", "made_")  # how names begin of what is made of authors' functions
_MOST = 4000  # of them


def keep(blueprint: Blueprint, folder: str) -> None:
    """Have it found again, unless its files are no longer those that it was made of. A cache that
    cannot be written to is none: it is built each time."""
    if not _same(blueprint):
        return
    try:
        cachedir.keep(_place(blueprint.use, folder), blueprint.to_json().encode())
    except OSError as error:
        print(f"byway: {blueprint.use} is not kept ({error})", file=sys.stderr)


def known(use: str, folder: str) -> Blueprint | None:
    """The blueprint of what ``use`` names, files relative to ``folder``, if it was made before, of
    files that are the same still. It reads those files: no switch's control thread does that."""
    found = cachedir.kept(_place(use, folder))
    if found is None:
        return None
    try:
        blueprint = Blueprint.from_json(found.decode())
    except (ValueError, KeyError, TypeError):  # of another version, made by hand
        return None
    return blueprint if _same(blueprint) else None


def sources() -> str:
    """A digest of all sources that have a say in what is built."""
    return sources_digest(_PACKAGES)


def forget_old() -> None:
    """Of what was made of functions, leave what was asked for last."""
    for digest in (sources(), sources_digest(_PACKAGES[:-1])):
        cachedir.forget(cache_root() / digest, _FILES, _MOST)


def _same(blueprint: Blueprint) -> bool:
    """Are its files what they were?"""
    return all(digest and digest_of(Path(path)) == digest
               for path, digest in blueprint.files.items())


def _place(use: str, folder: str) -> Path:
    file = "" if is_builtin(use) else digest_of(Path(folder) / file_and_name(use)[0])
    name = hashlib.sha256(f"{folder}\0{use}\0{file}".encode()).hexdigest()[:24]
    return cache_root() / sources() / f"function_{name}.json"
