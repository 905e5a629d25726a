# SPDX-License-Identifier: Apache-2.0
"""Verdicts: what a network function says of a frame.

Part of the author's page (byway.nf). Used by functions as they stand, in plain Python, and by
byway.functions, which has the same kinds as numbers. Uses nothing.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

MOST_PORTS = 0xFFFE  # that a switch can have; their numbers are below
Kind: TypeAlias = Literal["pass", "drop", "redirect", "mirror", "reply", "clone"]
# By number, as compiled functions answer them.
KINDS: tuple[Kind, ...] = ("pass", "drop", "redirect", "mirror", "reply", "clone")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a frame. ``reason``: why it is dropped; ``port``: the number of a port."""

    kind: Kind
    reason: str = ""
    port: int = -1


PASS = Verdict("pass")
"""The frame goes on: to the next function of the chain, then to where it is for."""

REPLY = Verdict("reply")
"""The frame goes back to where it came from, its MAC addresses swapped. No further function sees
it."""


def DROP(reason: str) -> Verdict:
    """The frame ends here, counted at the instance under ``reason`` (a string as it stands)."""
    return Verdict("drop", reason=reason)


def REDIRECT(port: int) -> Verdict:
    """The frame goes to the port with this number (a parameter of type nf.Port), and no further
    function sees it. A port that is not there, or is down, drops it."""
    return Verdict("redirect", port=port)


def MIRROR(port: int) -> Verdict:
    """The frame goes on, and the port gets a copy of it as it leaves the chain."""
    return Verdict("mirror", port=port)


def CLONE(port: int) -> Verdict:
    """The frame goes on, and the port gets a copy of it as it is now."""
    return Verdict("clone", port=port)
