# SPDX-License-Identifier: Apache-2.0
"""Options and arguments that hold a key and a value, as in --vlan 10=blue.

Used by the commands that have such ones.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import typer


def split_pair(written: str, option: str, shape: str) -> tuple[str, str]:
    """ "10=blue" -> ("10", "blue"). Ends the command (status 2) where there is no "="."""
    key, equals, value = written.partition("=")
    if not (key and equals and value):
        raise typer.BadParameter(f'"{written}" is not of the shape {shape}', param_hint=option)
    return key, value


def split_pairs(written: Iterable[str] | None, option: str, shape: str) -> dict[str, str]:
    """All of an option that may be repeated; a key that is there twice ends the command."""
    found: dict[str, str] = {}
    for one in written or ():
        key, value = split_pair(one, option, shape)
        if key in found:
            raise typer.BadParameter(f'"{key}" is there twice', param_hint=option)
        found[key] = value
    return found


def value_of(written: str) -> Any:
    """A value of the command line: JSON where it is that, else text."""
    try:
        return json.loads(written)
    except ValueError:
        return written


def pairs_text(pairs: Mapping[str, Any]) -> str:
    """{"limit": 50, "mode": "all"} -> "limit=50 mode=all"; "-" where there are none."""
    return " ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}"
                    for name, value in pairs.items()) or "-"
