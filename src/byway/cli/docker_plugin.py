# SPDX-License-Identifier: Apache-2.0
"""`byway docker-plugin`: Docker's remote network and IPAM driver, in the foreground.

Used by main. Uses machine.unixsocket for its socket, byway.client to find the switch, and the
package byway_docker, which is imported when the command is called.
"""

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from byway.cli.reach import Api
from byway.client import ClientError, find_socket

_FIRST_FILE = 3  # sd_listen_fds(3)


def docker_plugin(
    path: Annotated[
        str, typer.Option("--socket", metavar="PATH", help="Where dockerd finds the plugin."),
    ] = "/run/docker/plugins/byway.sock",
    api: Api = None,
    state: Annotated[
        str, typer.Option(metavar="PATH", help="What it knows, an SQLite file."),
    ] = "/var/lib/byway/docker.db",
    netns: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="dockerd's network namespace; default: the switch's."),
    ] = None,
) -> None:
    """Serve Docker's networks by a running switch, until SIGTERM or Ctrl-C."""
    from byway.machine import unixsocket
    from byway_docker.model import Refused
    from byway_docker.service import Settings, main

    logging.basicConfig(level=logging.INFO, format="byway: %(message)s", stream=sys.stderr)
    for library in ("httpx", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        if netns is not None and not os.path.isabs(netns):
            raise Refused(f"--netns {netns} is no absolute path", f"write /run/netns/{netns}")
        listener, own = _listener(path)
    except (unixsocket.SocketError, Refused) as error:
        print(f"byway: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    try:
        with listener.dup() as copy:  # the server closes what it is given
            main(Settings(_api(api), state, netns), copy)
    except Refused as error:
        print(f"byway: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    finally:
        if own:
            unixsocket.close(listener)


def _api(api: str | None) -> str:
    """The switch's socket; the switch itself may come later, then its socket must be named."""
    try:
        return find_socket(api)
    except ClientError as error:
        print(f"byway: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def _listener(path: str) -> tuple[socket.socket, bool]:
    """The listening socket, and whether it is ours to remove: systemd may hold it for us, so that
    dockerd can call before we are there."""
    from byway.machine import unixsocket

    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        listener = socket.socket(fileno=_FIRST_FILE)
        listener.setblocking(False)
        os.set_inheritable(_FIRST_FILE, False)
        return listener, False
    if path.startswith("/run/docker/plugins/"):
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    return unixsocket.listen(path), True
