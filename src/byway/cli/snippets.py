# SPDX-License-Identifier: Apache-2.0
"""The text that a user pastes to connect a port, or to get into its network.

Used by `byway port show --snippet`. Pure functions of what the API says about the port.

A guest's snippet (qemu, libvirt) belongs to one vhost-user port. A container's (docker, cni) is
about the network of the port, which its engine will give ports of its own: any port will do.
"""

import hashlib
import ipaddress
import json
import shlex
from collections.abc import Callable
from enum import StrEnum
from typing import Any
from xml.sax.saxutils import quoteattr

Row = dict[str, Any]
MEMORY = 512  # MiB; the user's guest has its own


class Snippet(StrEnum):
    """For whom a snippet is."""

    QEMU = "qemu"
    LIBVIRT = "libvirt"
    DOCKER = "docker"
    CNI = "cni"


class NoSnippet(Exception):
    """There is none for this kind of port: the problem and the fix."""


def make_snippet(kind: Snippet, port: Row, api: str) -> str:
    """The text for one port, as the API shows it; ``api``: the path of that API's socket.

    NoSnippet where a port of this kind cannot be connected that way.
    """
    return _MAKERS[kind](port, api)


def _qemu(port: Row, api: str) -> str:
    _must_be_vhost_user(port, "QEMU")
    name = port["name"]
    pairs = port["queues"]
    chardev = f"socket,id=c-{name},path={_comma(port['peer'])}"
    chardev += ",server=on,wait=off" if _peer_listens(port) else ",reconnect=1"
    netdev = f"vhost-user,id=n-{name},chardev=c-{name}" + (f",queues={pairs}" if pairs > 1 else "")
    device = f"virtio-net-pci,netdev=n-{name},mac={_mac(port)}"
    device += ",mq=on" if pairs > 1 else ""
    device += ",packed=on" if _offered(port, "ring_packed", "packed") else ""
    device += f",host_mtu={port['mtu']}" if _mtu_is_told(port) else ""
    memory = f"memory-backend-memfd,id=m0,size={MEMORY}M,share=on"
    arguments = [("-smp", str(pairs))] if pairs > 1 else []  # a guest uses a pair for each CPU
    arguments += [("-m", str(MEMORY)), ("-object", memory), ("-machine", "memory-backend=m0"),
                  ("-chardev", chardev), ("-netdev", netdev), ("-device", device)]
    lines = ["qemu-system-x86_64 -M q35 -enable-kvm -cpu host",
             *(f"    {option} {shlex.quote(value)}" for option, value in arguments)]
    notes = [f"# The memory is shared with the switch; -m and size are equal ({MEMORY} MiB here)."]
    if not _peer_listens(port):
        notes.append("# QEMU 9.2 and newer write reconnect-ms=1000 for reconnect=1.")
    return "\n".join(notes) + "\n" + " \\\n".join(lines)


def _libvirt(port: Row, api: str) -> str:
    _must_be_vhost_user(port, "libvirt")
    mode = "server" if _peer_listens(port) else "client"
    source = f"<source type='unix' path={quoteattr(port['peer'])} mode='{mode}'"
    driver = f" queues='{port['queues']}'" if port["queues"] > 1 else ""
    driver += " packed='on'" if _offered(port, "ring_packed", "packed") else ""
    lines = [
        "<!-- in <domain>: the memory is shared with the switch -->",
        "<memoryBacking>",
        "  <source type='memfd'/>",
        "  <access mode='shared'/>",
        "</memoryBacking>",
        "<!-- in <devices> -->",
        "<interface type='vhostuser'>",
        f"  <mac address='{_mac(port)}'/>",
    ]
    if mode == "client":
        lines += [f"  {source}>", "    <reconnect enabled='yes' timeout='1'/>", "  </source>"]
    else:
        lines.append(f"  {source}/>")
    lines += [f"  <mtu size='{port['mtu']}'/>"] if _mtu_is_told(port) else []
    lines += ["  <model type='virtio'/>"]
    lines += [f"  <driver{driver}/>"] if driver else []
    return "\n".join([*lines, "</interface>"])


def _docker(port: Row, api: str) -> str:
    network = port["network"]
    subnets = _subnets(port)
    words = ["docker", "network", "create", "-d", "byway", "--ipam-driver", "byway",
             "-o", f"byway.network={network}"]
    words += ["--ipv6"] if any(subnet.version == 6 for subnet in subnets) else []
    words += [f"--subnet={subnet}" for subnet in subnets]
    words += [f"--aux-address={port['name']}-{k}={address.ip}"
              for k, address in enumerate(_addresses(port), 1)]
    notes = ["# Needs `byway docker-plugin`."]
    if not subnets:
        notes.append("# Where others in this network have addresses: add --subnet, and"
                     " --aux-address for each of them.")
    return "\n".join([*notes, shlex.join([*words, network]),
                      f"docker run --rm -it --network {network} busybox"])


def _cni(port: Row, api: str) -> str:
    ranges = [[{"subnet": str(subnet)}] for subnet in _subnets(port)]
    plugin = {
        "type": "byway-cni",
        "api": api,
        "network": port["network"],
        "ipam": {"type": "byway", **({"ranges": ranges} if ranges else {})},
        "capabilities": {"mac": True, "ips": True, "portMappings": True, "bandwidth": True},
    }
    return json.dumps({"cniVersion": "1.0.0", "name": port["network"], "plugins": [plugin]},
                      indent=2)


_MAKERS: dict[Snippet, Callable[[Row, str], str]] = {
    Snippet.QEMU: _qemu, Snippet.LIBVIRT: _libvirt, Snippet.DOCKER: _docker, Snippet.CNI: _cni,
}


def _must_be_vhost_user(port: Row, who: str) -> None:
    if port["kind"] != "vhost-user":
        raise NoSnippet(
            f'port "{port["name"]}" is of kind {port["kind"]}, and {who} connects to vhost-user'
            f" ports; add one: byway port add NAME --network {port['network']}"
            " --kind vhost-user --socket PATH")


def _peer_listens(port: Row) -> bool:
    """Byway is the socket's client, so the VMM is its server."""
    return port.get("mode") == "client"


def _offered(port: Row, *names: str) -> bool:
    return any(name in port["features"]["offered"] for name in names)


def _mtu_is_told(port: Row) -> bool:
    return port["mtu"] != 1500 and _offered(port, "mtu")


def _mac(port: Row) -> str:
    """The port's own address, or one that is made of its name: the same one each time."""
    if port["mac"]:
        return str(port["mac"])
    digest = hashlib.sha256(f"{port['network']}/{port['name']}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (2, *digest[:5]))


def _comma(path: str) -> str:
    """A path in an option of QEMU, where a comma ends a value and two are one."""
    return path.replace(",", ",,")


def _addresses(port: Row) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    return [ipaddress.ip_interface(text) for text in port.get("address") or []]


def _subnets(port: Row) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return list(dict.fromkeys(address.network for address in _addresses(port)))
