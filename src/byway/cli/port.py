# SPDX-License-Identifier: Apache-2.0
"""`byway port list|add|remove|show`.

Used by main. Uses byway.client through reach; the sentences of drop reasons from packet.reason.
"""

import os
from typing import Annotated, Any

import typer

from byway.cli.output import Column, column, print_json, print_table, text
from byway.cli.reach import Api, Json, reach
from byway.packet.reason import Reason

app = typer.Typer(no_args_is_help=True, help="The ports of a running switch.")

_COLUMNS = [
    column("name"), column("network"), column("kind"), column("state"),
    column("rx_frames", "rx frames", right=True), column("tx_frames", "tx frames", right=True),
    Column("drops", lambda port: str(sum(port["drops"].values())), right=True),
    column("reason"),
]


@app.command("list")
def list_ports(api: Api = None, as_json: Json = False) -> None:
    """List the ports with state and counters."""
    with reach(api) as client:
        ports = client.ports()
    if as_json:
        print_json(ports)
    else:
        print_table(_COLUMNS, ports)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The port.")], api: Api = None, as_json: Json = False
) -> None:
    """Show all there is to know about one port."""
    with reach(api) as client:
        port = client.port(name)
    if as_json:
        print_json(port)
    else:
        print("\n".join(_description(port)))


def _description(port: dict[str, Any]) -> list[str]:
    keys = ["name", "network", "kind", "state", "reason", "peer", "mac", "mtu", "queues"]
    lines = [f"{key:<10}  {text(port[key])}" for key in keys]
    if trouble := port.get("last_trouble"):
        lines.insert(5, f"{'last down':<10}  {trouble}")
    for key in ("offered", "acked"):
        lines.append(f"{key:<10}  {text(port['features'][key])}")
    for way in ("rx", "tx"):
        lines.append(
            f"{way:<10}  {port[f'{way}_frames']} frames, {port[f'{way}_bytes']} bytes")
    lines.append(f"{'drops':<10}  {sum(port['drops'].values())}")
    for reason, count in port["drops"].items():
        lines.append(f"  {reason}  {count}  {_sentence(reason)}".rstrip())
    return lines


def _sentence(name: str) -> str:
    """Why frames are dropped for this reason; empty for one of a newer switch."""
    reason = Reason.__members__.get(name.upper())
    return f"{reason.sentence} {reason.fix}" if reason else ""


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The new port's name.")],
    network: Annotated[str, typer.Option(help="The network it belongs to.")],
    kind: Annotated[
        str, typer.Option(help="vhost-user, virtio-user, null or pcap.")
    ] = "vhost-user",
    socket: Annotated[str | None, typer.Option(metavar="PATH", help="The Unix socket.")] = None,
    mode: Annotated[
        str | None, typer.Option(help='"server": Byway listens on the socket; "client": the peer.')
    ] = None,
    mac: Annotated[str | None, typer.Option(help="The guest's address.")] = None,
    read: Annotated[
        str | None, typer.Option(metavar="FILE", help="pcap: frames that come in.")] = None,
    write: Annotated[
        str | None, typer.Option(metavar="FILE", help="pcap: where frames go.")] = None,
    feature_off: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A virtio feature not to offer.")
    ] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Add a port, or replace the one of that name. No worker pauses, no other port notices."""
    wanted = {
        "name": name, "network": network, "kind": kind, "mode": mode, "mac": mac,
        # The switch has another working directory.
        "socket": _absolute(socket), "read": _absolute(read), "write": _absolute(write),
        "features_off": feature_off,
    }
    with reach(api) as client:
        port = client.add_port({key: value for key, value in wanted.items() if value})
    if as_json:
        print_json(port)
    else:
        print(f"port {name} is {port['state']}" + (f": {port['reason']}" if port["reason"] else ""))


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The ports to remove.")],
    api: Api = None,
) -> None:
    """Remove ports, all of them or, where one does not exist, none."""
    with reach(api) as client:
        client.change(remove_ports=dict.fromkeys(names))
