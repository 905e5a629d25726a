# SPDX-License-Identifier: Apache-2.0
"""Where the API socket of a switch is when nobody says otherwise.

Used by the daemon, which creates it, and by the client, which looks for it. Uses nothing.
"""

import os
from pathlib import Path

SYSTEM_DIRECTORY = Path("/run/byway")


def run_directories() -> list[Path]:
    """The directories that may hold API sockets: the user's own first, then the system's."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    return [Path(own) / "byway", SYSTEM_DIRECTORY] if own else [SYSTEM_DIRECTORY]


def default_socket(name: str) -> Path:
    """The API socket of the switch `name`: $XDG_RUNTIME_DIR/byway/NAME.sock or /run/byway/..."""
    return run_directories()[0] / f"{name}.sock"
