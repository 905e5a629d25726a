# SPDX-License-Identifier: Apache-2.0
"""How a command reaches the switch: the --api option, and the exit status of what goes wrong.

Used by every command that asks a switch. Uses byway.client.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import typer

from byway.client import Client, ClientError, SeveralSwitches, find_socket

Api: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--api", metavar="PATH",
        help="The switch's API socket; default: $BYWAY_API, or that of the only running switch.",
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# HTTP statuses that mean that the call itself was wrong.
_WRONG_CALL = (400, 413, 422)


@contextlib.contextmanager
def reach(api: str | None) -> Iterator[Client]:
    """A client of the switch; what it refuses becomes a message on stderr and an exit status."""
    try:
        with Client(find_socket(api)) as client:
            yield client
    except ClientError as error:
        for problem in error.problems:
            print(f"byway: {problem}", file=sys.stderr)
        wrong = isinstance(error, SeveralSwitches) or error.status in _WRONG_CALL
        raise typer.Exit(2 if wrong else 1) from None
