# SPDX-License-Identifier: Apache-2.0
"""`byway network list|add|create|remove`.

Used by main. Uses byway.client through reach.
"""

from typing import Annotated, Any

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


_Name = Annotated[str, typer.Argument(help="The network's name.")]
_Vni = Annotated[str | None, typer.Option(metavar="N", help="Its number between hosts.")]
_VniOrAuto = Annotated[
    str | None, typer.Option(metavar="N|auto", help="Its number between hosts; auto: a free one.")]
_Mtu = Annotated[int | None, typer.Option(help="Largest payload, in bytes.")]
_FdbLimit = Annotated[int | None, typer.Option(help="How many addresses it may learn.")]
_Ageing = Annotated[int | None, typer.Option(help="Seconds until an address is forgotten.")]
_Subnet = Annotated[
    list[str] | None, typer.Option(metavar="SUBNET", help="Of its ports' addresses; repeat it.")]
_Gateway = Annotated[
    list[str] | None, typer.Option(metavar="ADDRESS", help="As 10.0.0.1/24, on every host.")]
_GatewayMac = Annotated[str | None, typer.Option(metavar="MAC", help="The gateway's address.")]
_Unknown = Annotated[
    str | None, typer.Option(help='"flood" or "drop" what goes to an unknown address.')]
_Learning = Annotated[
    bool | None, typer.Option("--learning/--no-learning", help="Learn addresses from tunnels.")]
_Responder = Annotated[
    bool | None, typer.Option("--responder/--no-responder", help="Answer ARP for the guests.")]


@app.command()
def add(
    name: _Name, vni: _Vni = None, mtu: _Mtu = None, fdb_limit: _FdbLimit = None,
    ageing: _Ageing = None, subnet: _Subnet = None, gateway: _Gateway = None,
    gateway_mac: _GatewayMac = None, unknown: _Unknown = None, learning: _Learning = None,
    responder: _Responder = None, api: Api = None, as_json: Json = False,
) -> None:
    """Add a network to this switch, or change the one of that name.

    With another vni, mtu or fdb limit, its ports are opened again.
    """
    table = _table(name=name, vni=_number(vni), mtu=mtu, fdb_limit=fdb_limit, ageing=ageing,
                   subnets=subnet, gateway=gateway, gateway_mac=gateway_mac, unknown=unknown,
                   learning=learning, responder=responder)
    with reach(api) as client:
        network = client.add_network(table)
    if as_json:
        print_json(network)
    else:
        print(f"network {name} is there, mtu {network['mtu']}")


@app.command()
def create(
    name: _Name, vni: _VniOrAuto = None, mtu: _Mtu = None, fdb_limit: _FdbLimit = None,
    ageing: _Ageing = None, subnet: _Subnet = None, gateway: _Gateway = None,
    gateway_mac: _GatewayMac = None, unknown: _Unknown = None, learning: _Learning = None,
    responder: _Responder = None, api: Api = None, as_json: Json = False,
) -> None:
    """Add a network to all hosts of the cluster, or change the one of that name there.

    Where the switch is in no cluster, it is added to this switch.
    """
    table = _table(name=name, vni=_number(vni), mtu=mtu, fdb_limit=fdb_limit, ageing=ageing,
                   subnets=subnet, gateway=gateway, gateway_mac=gateway_mac, unknown=unknown,
                   learning=learning, responder=responder)
    with reach(api) as client:
        if client.switch()["cluster"]:
            network = client.add_cluster_network(table)
        elif vni == "auto":
            raise typer.BadParameter(
                'only a cluster knows which numbers are free, and the switch is in none; write a'
                " number, or run the switch with --cluster", param_hint="--vni")
        else:
            network = client.add_network(table)
    if as_json:
        print_json(network)
    else:
        number = network.get("vni")
        print(f"network {name} is there" + (f", vni {number}" if number else ""))


def _table(**keys: Any) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None and value != []}


def _number(vni: str | None) -> int | str | None:
    return int(vni) if vni is not None and vni.isdecimal() else vni


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The networks to remove.")],
    cluster: Annotated[
        bool, typer.Option("--cluster", help="From the cluster: on all hosts.")] = False,
    api: Api = None,
) -> None:
    """Remove networks that nothing speaks of, all of them or none."""
    with reach(api) as client:
        if not cluster:
            client.change(remove_networks=dict.fromkeys(names))
            return
        for name in dict.fromkeys(names):
            client.remove_cluster_network(name)
