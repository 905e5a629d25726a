# SPDX-License-Identifier: Apache-2.0
"""`byway host list|add|remove`: the other hosts of an overlay.

Used by main. Uses byway.client through reach.
"""

from typing import Annotated

import typer

from byway.cli.output import Column, column, print_json, print_table, text
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="The other hosts of a running switch.")

_COLUMNS = [
    column("name"), column("address"),
    Column("rx frames", lambda host: text(host.get("rx_frames")), right=True),
    Column("tx frames", lambda host: text(host.get("tx_frames")), right=True),
    Column("drops", lambda host: str(sum(host.get("drops", {}).values())), right=True),
    column("networks"),
]


@app.command("list")
def list_hosts(api: Api = None, as_json: Json = False) -> None:
    """List the other hosts, those of the configuration and those of the cluster."""
    with reach(api) as client:
        hosts = client.hosts()
    if as_json:
        print_json(hosts)
    else:
        print_table(_COLUMNS, hosts)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The host's name.")],
    address: Annotated[str, typer.Option(help="Where its tunnels end.")],
    network: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A network that it takes part in.")
    ] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Add another host, or change the one of that name."""
    with reach(api) as client:
        host = client.add_host({"name": name, "address": address, "networks": network or []})
    if as_json:
        print_json(host)
    else:
        print(f"host {name} is at {host['address']}")


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The hosts to remove.")],
    api: Api = None,
) -> None:
    """Remove hosts that no entry speaks of, all of them or none."""
    with reach(api) as client:
        client.change(remove_hosts=dict.fromkeys(names))
