# SPDX-License-Identifier: Apache-2.0
"""`byway connection list`: the connections that security groups keep track of.

Used by main. Uses byway.client through reach.
"""

from typing import Annotated

import typer

from byway.cli.output import Column, Row, column, print_json, print_table
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="The connections that a running switch tracks.")

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}


def _seconds(key: str) -> Column:
    return Column(f"{key} (s)", lambda row: f"{row[key]:.0f}", right=True)


def _protocol(row: Row) -> str:
    return _PROTOCOLS.get(row["protocol"], str(row["protocol"]))


_COLUMNS = [
    column("port"), column("direction"), Column("protocol", _protocol), column("source"),
    column("destination"), column("state"), _seconds("idle"), _seconds("left"),
]


@app.callback()
def group() -> None:
    """The connections that a running switch tracks."""


@app.command("list")
def list_connections(
    port: Annotated[str | None, typer.Option(help="Only this port.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 1000,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """List connections of ports with security groups: who, in what state, for how long."""
    with reach(api) as client:
        connections = client.connections(port, limit)
    if as_json:
        print_json(connections)
    else:
        print_table(_COLUMNS, connections)
