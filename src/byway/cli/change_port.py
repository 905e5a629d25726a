# SPDX-License-Identifier: Apache-2.0
"""`byway port add|remove`.

Used by port. Uses byway.client through reach.
"""

import os
from typing import Annotated, Any

import typer

from byway.cli.output import print_json
from byway.cli.pairs import split_pairs
from byway.cli.reach import Api, Json, reach

_Text = str | None
_Texts = list[str] | None
_Name = Annotated[str, typer.Argument(help="The new port's name.")]
_Network = Annotated[str, typer.Option(help="The network it belongs to.")]
_Kind = Annotated[
    str, typer.Option(help="vhost-user, tap, af-packet, ...: see the configuration.")]
_Socket = Annotated[_Text, typer.Option(metavar="PATH", help="The Unix socket.")]
_Mode = Annotated[
    _Text, typer.Option(help='"server": Byway listens on the socket; "client": the peer.')]
_Mac = Annotated[_Text, typer.Option(help="The guest's address.")]
_Ip = Annotated[_Texts, typer.Option(
    metavar="ADDRESS", help="The guest's IP address; repeat it. With --host: or auto.")]
_Queues = Annotated[int | None, typer.Option(help="Queue pairs.")]
_Ifname = Annotated[_Text, typer.Option(metavar="NAME", help="The interface, where it is one.")]
_Netns = Annotated[_Text, typer.Option(metavar="NAME", help="Its network namespace.")]
_Address = Annotated[_Texts, typer.Option(metavar="ADDRESS", help="As 10.0.0.2/24, set on it.")]
_Persistent = Annotated[
    bool, typer.Option("--persistent", help="tap: it stays when the switch ends.")]
_Local = Annotated[_Text, typer.Option(metavar="ENDPOINT", help="udp: as 127.0.0.1:4000.")]
_Remote = Annotated[_Text, typer.Option(metavar="ENDPOINT", help="udp: the peer.")]
_Read = Annotated[_Text, typer.Option(metavar="FILE", help="pcap: frames that come in.")]
_Write = Annotated[_Text, typer.Option(metavar="FILE", help="pcap: where frames go.")]
_FeatureOff = Annotated[
    _Texts, typer.Option(metavar="NAME", help="A virtio feature not to offer.")]
_Security = Annotated[
    bool, typer.Option("--port-security", help="Only its mac and addresses may be used.")]
_Allowed = Annotated[_Texts, typer.Option(
    "--allowed-address-pair", metavar="[MAC,]IP", help="What may be used besides; repeat it.")]
_Trusted = Annotated[
    _Texts, typer.Option(metavar="dhcp|ra", help="It may be a DHCP server, or a router.")]
_Group = Annotated[_Texts, typer.Option(metavar="NAME", help="A security group; repeat it.")]
_Limit = Annotated[_Texts, typer.Option(
    metavar="KEY=N", help="As rx_bits=1000000 (a second); repeat it.")]
_Vlan = Annotated[
    _Texts, typer.Option(metavar="TAG=NETWORK", help="A trunk's VLAN; repeat it.")]
_Mirror = Annotated[
    _Text, typer.Option(metavar="PORT[:rx|tx]", help="Where copies of its frames go.")]
_Service = Annotated[_Texts, typer.Option(
    metavar="NAME", help="A service that its frames have to pass; repeat it.")]
_Host = Annotated[_Text, typer.Option(help="The host of the cluster that is to have it.")]


def add(
    name: _Name, network: _Network, kind: _Kind = "vhost-user", socket: _Socket = None,
    mode: _Mode = None, mac: _Mac = None, ip: _Ip = None, queues: _Queues = None,
    ifname: _Ifname = None, netns: _Netns = None, address: _Address = None,
    persistent: _Persistent = False, local: _Local = None, remote: _Remote = None,
    read: _Read = None, write: _Write = None, feature_off: _FeatureOff = None,
    port_security: _Security = False, allowed: _Allowed = None,
    trusted: _Trusted = None, security_group: _Group = None, limit: _Limit = None,
    vlan: _Vlan = None, mirror: _Mirror = None, service: _Service = None,
    host: _Host = None, api: Api = None, as_json: Json = False,
) -> None:
    """Add a port, or change the one of that name. No worker pauses, no other port notices."""
    wanted = {
        "name": name, "network": network, "kind": kind, "mode": mode, "mac": mac,
        "ips": "auto" if ip == ["auto"] else ip,
        # The switch has another working directory.
        "socket": _absolute(socket), "read": _absolute(read), "write": _absolute(write),
        "queues": queues, "ifname": ifname, "netns": netns, "address": address,
        "persistent": persistent or None, "local": local, "remote": remote,
        "features": {"off": feature_off} if feature_off else None,
        "port_security": port_security or None, "trusted": trusted,
        "allowed_address_pairs": [_pair(one) for one in allowed or ()],
        "security_groups": security_group, "mirror": _mirror(mirror),
        "services": service, "limit": _limits(limit),
        "vlans": split_pairs(vlan, "--vlan", "TAG=NETWORK"),
    }
    table = {key: value for key, value in wanted.items() if value not in (None, "", [], {})}
    with reach(api) as client:
        port = client.add_cluster_port(host, table) if host else client.add_port(table)
    if as_json:
        print_json(port)
    elif host:
        print(f"port {name} is for host {host}"
              + (f", {' '.join(port['ips'])}" if port.get("ips") else ""))
    else:
        print(f"port {name} is {port['state']}" + (f": {port['reason']}" if port["reason"] else ""))


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None


def _pair(written: str) -> dict[str, str]:
    mac, comma, ip = written.rpartition(",")
    return {"ip": ip, **({"mac": mac} if comma else {})}


def _mirror(written: str | None) -> dict[str, str] | None:
    to, _, direction = (written or "").partition(":")
    return {"to": to, **({"direction": direction} if direction else {})} if to else None


def _limits(written: list[str] | None) -> dict[str, Any]:
    return {key: int(value) if value.isdecimal() else value
            for key, value in split_pairs(written, "--limit", "KEY=N").items()}


def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The ports to remove.")],
    host: _Host = None,
    api: Api = None,
) -> None:
    """Remove ports, all of them or, where one does not exist, none."""
    with reach(api) as client:
        if host is None:
            client.change(remove_ports=dict.fromkeys(names))
            return
        for name in dict.fromkeys(names):
            client.remove_cluster_port(host, name)
