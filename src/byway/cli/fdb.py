# SPDX-License-Identifier: Apache-2.0
"""`byway fdb list`: the addresses that the switch has learned.

Used by main. Uses byway.client through reach.
"""

from typing import Annotated

import typer

from byway.cli.output import Column, column, print_json, print_table
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="The learned addresses of a running switch.")

_COLUMNS = [
    column("network"), column("mac"),
    Column("port", lambda entry: entry["port"] or f"host {entry['host']}"),
    Column("age (s)", lambda entry: f"{entry['age']:.0f}", right=True),
]


@app.callback()
def group() -> None:
    """The learned addresses of a running switch."""


@app.command("list")
def list_fdb(
    network: Annotated[str | None, typer.Option(help="Only this network.")] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """List the fdb entries: which address is behind which port."""
    with reach(api) as client:
        entries = client.fdb(network)
    if as_json:
        print_json(entries)
    else:
        print_table(_COLUMNS, entries)
