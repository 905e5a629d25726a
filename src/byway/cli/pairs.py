# SPDX-License-Identifier: Apache-2.0
"""Options that hold a key and a value, as in --vlan 10=blue.

Used by the commands that have such options.
"""

from collections.abc import Iterable

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
