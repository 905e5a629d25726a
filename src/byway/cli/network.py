# SPDX-License-Identifier: Apache-2.0
"""`byway network list|add|remove`.

Used by main. Uses byway.client through reach.
"""

from typing import Annotated

import typer

from byway.cli.output import Column, column, print_json, print_table
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="The networks of a running switch.")

_COLUMNS = [
    column("name"), column("vni", right=True), column("mtu", right=True),
    Column("ports", lambda network: str(len(network["ports"])), right=True),
    column("fdb_entries", "fdb entries", right=True), column("fdb_limit", "fdb limit", right=True),
]


@app.command("list")
def list_networks(api: Api = None, as_json: Json = False) -> None:
    """List the networks."""
    with reach(api) as client:
        networks = client.networks()
    if as_json:
        print_json(networks)
    else:
        print_table(_COLUMNS, networks)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The new network's name.")],
    vni: Annotated[int | None, typer.Option(help="Its number between hosts.")] = None,
    mtu: Annotated[int | None, typer.Option(help="Largest payload, in bytes.")] = None,
    fdb_limit: Annotated[int | None, typer.Option(help="How many addresses it may learn.")] = None,
    ageing: Annotated[
        int | None, typer.Option(help="Seconds until an address is forgotten.")] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Add a network, or replace the one of that name and open its ports again."""
    wanted = {"name": name, "vni": vni, "mtu": mtu, "fdb_limit": fdb_limit, "ageing": ageing}
    with reach(api) as client:
        network = client.add_network({k: v for k, v in wanted.items() if v is not None})
    if as_json:
        print_json(network)
    else:
        print(f"network {name} is there, mtu {network['mtu']}")


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The networks to remove.")],
    api: Api = None,
) -> None:
    """Remove networks that have no ports, all of them or none."""
    with reach(api) as client:
        client.change(remove_networks=dict.fromkeys(names))
