# SPDX-License-Identifier: Apache-2.0
"""`byway population list|add|remove`: who is known to be where.

Used by main. Uses byway.client through reach.
"""

from typing import Annotated

import typer

from byway.cli.output import column, print_json, print_table
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="Who is known to be where, on all hosts.")

_COLUMNS = [column("network"), column("mac"), column("host"), column("port"), column("ips")]


@app.command("list")
def list_population(
    network: Annotated[str | None, typer.Option(help="Only this network.")] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """List who is known to be where: at a port of this switch, or behind another host."""
    with reach(api) as client:
        entries = client.population(network)
    if as_json:
        print_json(entries)
    else:
        print_table(_COLUMNS, entries)


@app.command()
def add(
    mac: Annotated[str, typer.Argument(help="The guest's address.")],
    network: Annotated[str, typer.Option(help="Its network.")],
    host: Annotated[str, typer.Option(help="The host that it is behind.")],
    ip: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="An IP address of it.")] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Say what is behind another host, in a network whose hosts are in no cluster."""
    with reach(api) as client:
        entry = client.add_entry({"network": network, "mac": mac, "host": host, "ips": ip or []})
    if as_json:
        print_json(entry)
    else:
        print(f"{entry['mac']} of network {network} is behind host {host}")


@app.command()
def remove(
    macs: Annotated[list[str], typer.Argument(metavar="MAC...", help="The guests' addresses.")],
    network: Annotated[str, typer.Option(help="Their network.")],
    api: Api = None,
) -> None:
    """Say it no longer, of all of them or of none."""
    with reach(api) as client:
        client.change(
            remove_entries=dict.fromkeys(f"{network}/{mac.lower()}" for mac in macs))
