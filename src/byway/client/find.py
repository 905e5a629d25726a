# SPDX-License-Identifier: Apache-2.0
"""Which API socket is meant when a command or program does not say.

Used by the commands and through byway.client. Uses machine.rundir and machine.unixsocket.
"""

import os
import stat
from pathlib import Path

from byway.client.client import NotReachable, SeveralSwitches
from byway.machine import unixsocket
from byway.machine.rundir import run_directories


def find_socket(path: str | None = None) -> str:
    """The API socket: `path`, else $BYWAY_API, else that of the only switch that is running.

    The user's own directory is looked at before the system's. Raises NotReachable where no switch
    is running, SeveralSwitches where a choice is needed.
    """
    if chosen := path or os.environ.get("BYWAY_API"):
        return chosen
    directories = run_directories()
    for directory in directories:
        running = [str(socket) for socket in _sockets(directory) if _answers(str(socket))]
        if len(running) == 1:
            return running[0]
        if running:
            raise SeveralSwitches(
                f"several switches are running: {', '.join(running)}",
                "choose one with --api PATH or the environment variable BYWAY_API")
    places = " or ".join(str(directory) for directory in directories)
    raise NotReachable(f"no switch is running: nobody listens in {places}",
                       "start one with: byway run FILE, or name its socket with --api PATH")


def _sockets(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir()
                      if path.suffix == ".sock" and stat.S_ISSOCK(path.stat().st_mode))
    except OSError:
        # No such directory, or one of another user: no switch of ours.
        return []


def _answers(path: str) -> bool:
    """Whether a process listens there: the file of a killed switch stays behind."""
    try:
        unixsocket.connect(path, timeout=1.0).close()
    except OSError:
        return False
    return True
