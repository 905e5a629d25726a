# SPDX-License-Identifier: Apache-2.0
"""`byway service list|show|add|remove`: machines that frames of ports have to pass.

Used by main. Uses byway.client through reach.
"""

from typing import Annotated, Any

import typer

from byway.cli.output import Column, column, print_json, print_table
from byway.cli.pairs import split_pair
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="The services of a running switch.")

_COLUMNS = [
    column("name"),
    Column("appliances", lambda one: str(len(one["appliances"]))),
    Column("up", lambda one: str(sum(a["state"] == "up" for a in one["appliances"]))),
    column("down"), column("spread"), column("bypassed"), column("blocked"),
]
_APPLIANCES = [column("left"), column("right"), column("state"), column("slots"),
               Column("reason", lambda one: one["reason"] or "-")]


@app.command("list")
def list_services(api: Api = None, as_json: Json = False) -> None:
    """List the services."""
    with reach(api) as client:
        services = client.services()
    if as_json:
        print_json(services)
    else:
        print_table(_COLUMNS, services)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The service's name.")],
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Show the appliances of a service: which of them work, and why others do not."""
    with reach(api) as client:
        service = client.service(name)
    if as_json:
        print_json(service)
    else:
        print_table(_APPLIANCES, service["appliances"])


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The service's name.")],
    appliance: Annotated[
        list[str], typer.Option(metavar="LEFT=RIGHT", help="The two ports of one that does it.")],
    down: Annotated[
        str, typer.Option(help='What becomes of frames while none works: "block" or "bypass".')
    ] = "block",
    spread: Annotated[
        str, typer.Option(help='Flows are told apart by "flow" or by "addresses".')] = "flow",
    probe: Annotated[
        int, typer.Option(help="Seconds between probes; 0: ports that are up will do.")] = 1,
    misses: Annotated[
        int, typer.Option(help="So many probes without an answer, and it does not work.")] = 3,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Add a service, or change the one of that name; the ports that have it go on."""
    pairs = [split_pair(one, "--appliance", "LEFT=RIGHT") for one in appliance]
    body: dict[str, Any] = {
        "name": name, "appliances": [{"left": left, "right": right} for left, right in pairs],
        "down": down, "spread": spread, "probe": probe, "misses": misses}
    with reach(api) as client:
        service = client.add_service(body)
    if as_json:
        print_json(service)
    else:
        print(f"service {name} is done by {len(service['appliances'])} appliances")


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The services to remove.")],
    api: Api = None,
) -> None:
    """Remove services, all of them or none. No port may have them."""
    with reach(api) as client:
        client.change(remove_services=dict.fromkeys(names))
