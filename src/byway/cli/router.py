# SPDX-License-Identifier: Apache-2.0
"""`byway router list|add|remove`: what joins networks.

Used by main. Uses byway.client through reach.
"""

from typing import Annotated

import typer

from byway.cli.output import Column, column, print_json, print_table
from byway.cli.pairs import split_pair
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="The routers of a running switch.")

_COLUMNS = [
    column("name"), column("networks"),
    Column("routes", lambda router: " ".join(
        f"{route['to']}={route['via']}" for route in router["routes"]) or "-"),
]


@app.command("list")
def list_routers(api: Api = None, as_json: Json = False) -> None:
    """List the routers."""
    with reach(api) as client:
        routers = client.routers()
    if as_json:
        print_json(routers)
    else:
        print_table(_COLUMNS, routers)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The router's name.")],
    network: Annotated[list[str], typer.Option(metavar="NAME", help="A network that it joins.")],
    route: Annotated[
        list[str] | None,
        typer.Option(metavar="TO=VIA", help="As 10.9.0.0/16=10.0.0.9, or default=10.0.0.9.")
    ] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Add a router, or change the one of that name. Its networks need gateways."""
    routes = [dict(zip(("to", "via"), split_pair(one, "--route", "TO=VIA"), strict=True))
              for one in route or []]
    with reach(api) as client:
        router = client.add_router({"name": name, "networks": network, "routes": routes})
    if as_json:
        print_json(router)
    else:
        print(f"router {name} joins {', '.join(router['networks'])}")


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The routers to remove.")],
    api: Api = None,
) -> None:
    """Remove routers, all of them or none."""
    with reach(api) as client:
        client.change(remove_routers=dict.fromkeys(names))
