# SPDX-License-Identifier: Apache-2.0
"""What a user pastes to connect a port: read back by the parsers of those who will read it."""

import json
import shlex
from typing import Any
from xml.etree import ElementTree

import pytest

from byway.cli.snippets import NoSnippet, Snippet, make_snippet

API = "/run/byway/lab.sock"
VM1: dict[str, Any] = {
    "name": "vm1", "network": "blue", "kind": "vhost-user", "state": "waiting", "mac": None,
    "queues": 1, "mtu": 1500, "peer": "/tmp/vm1.sock", "mode": "server",
    "features": {"offered": ["mrg_rxbuf", "mq", "mtu", "ring_packed", "version_1"], "acked": []},
}
BIG = {**VM1, "queues": 4, "mtu": 9000, "mac": "02:00:00:00:00:01"}
C1 = {**VM1, "name": "c1", "kind": "tap", "address": ["10.0.0.2/24", "fd00::2/64"]}


def options(port: dict[str, Any]) -> dict[str, list[str]]:
    """The options of the QEMU command, each with its values."""
    text = make_snippet(Snippet.QEMU, port, API).replace("\\\n", " ")
    words = shlex.split(text, comments=True)
    found: dict[str, list[str]] = {}
    for option, value in zip(words, words[1:] + [""], strict=True):
        if option.startswith("-"):
            found.setdefault(option, []).append(value)
    return found


def libvirt(port: dict[str, Any]) -> ElementTree.Element:
    """The libvirt snippet as a document."""
    text = make_snippet(Snippet.LIBVIRT, port, API)
    return ElementTree.fromstring(f"<domain>{text}</domain>")


def test_a_plain_port_for_qemu() -> None:
    assert make_snippet(Snippet.QEMU, {**VM1, "mac": "02:00:00:00:00:01"}, API) == """\
# The memory is shared with the switch; -m and size are equal (512 MiB here).
# QEMU 9.2 and newer write reconnect-ms=1000 for reconnect=1.
qemu-system-x86_64 -M q35 -enable-kvm -cpu host \\
    -m 512 \\
    -object memory-backend-memfd,id=m0,size=512M,share=on \\
    -machine memory-backend=m0 \\
    -chardev socket,id=c-vm1,path=/tmp/vm1.sock,reconnect=1 \\
    -netdev vhost-user,id=n-vm1,chardev=c-vm1 \\
    -device virtio-net-pci,netdev=n-vm1,mac=02:00:00:00:00:01,packed=on"""


def test_queues_and_mtu_reach_the_guest() -> None:
    found = options(BIG)
    assert found["-smp"] == ["4"]  # a guest's kernel uses no more pairs than it has CPUs
    assert found["-netdev"] == ["vhost-user,id=n-vm1,chardev=c-vm1,queues=4"]
    assert found["-device"] == [
        "virtio-net-pci,netdev=n-vm1,mac=02:00:00:00:00:01,mq=on,packed=on,host_mtu=9000"]


def test_what_is_not_offered_is_not_asked_for() -> None:
    plain = {**BIG, "features": {"offered": ["version_1"], "acked": []}}
    assert "packed" not in options(plain)["-device"][0]
    assert "host_mtu" not in options(plain)["-device"][0]
    assert "packed" not in libvirt(plain).find("interface/driver").attrib  # type: ignore[union-attr]


def test_the_peer_listens_where_byway_does_not() -> None:
    client = {**VM1, "mode": "client"}
    assert options(client)["-chardev"] == [
        "socket,id=c-vm1,path=/tmp/vm1.sock,server=on,wait=off"]
    source = libvirt(client).find("interface/source")
    assert source is not None
    assert source.attrib["mode"] == "server"
    assert source.find("reconnect") is None


def test_a_path_that_needs_quotes() -> None:
    odd = {**VM1, "peer": "/tmp/it's <a>, b.sock"}
    assert options(odd)["-chardev"] == [
        "socket,id=c-vm1,path=/tmp/it's <a>,, b.sock,reconnect=1"]  # QEMU's double comma
    source = libvirt(odd).find("interface/source")
    assert source is not None
    assert source.attrib["path"] == odd["peer"]


def test_a_port_for_libvirt() -> None:
    domain = libvirt(BIG)
    interface = domain.find("interface")
    assert interface is not None
    assert interface.attrib == {"type": "vhostuser"}
    assert {child.tag: child.attrib for child in interface} == {
        "mac": {"address": "02:00:00:00:00:01"},
        "source": {"type": "unix", "path": "/tmp/vm1.sock", "mode": "client"},
        "mtu": {"size": "9000"},
        "model": {"type": "virtio"},
        "driver": {"queues": "4", "packed": "on"},
    }
    assert {child.tag: child.attrib for child in domain.find("memoryBacking") or []} == {
        "source": {"type": "memfd"}, "access": {"mode": "shared"}}


def test_each_port_has_an_address_of_its_own_and_keeps_it() -> None:
    macs = {options({**VM1, "name": name})["-device"][0].split("mac=")[1][:17]
            for name in ("vm1", "vm2", "vm1")}
    assert len(macs) == 2
    assert all(mac.startswith("02:") for mac in macs)


def test_a_network_for_docker() -> None:
    text = make_snippet(Snippet.DOCKER, C1, API)
    commands = [shlex.split(line) for line in text.splitlines() if not line.startswith("#")]
    assert commands == [
        ["docker", "network", "create", "-d", "byway", "--ipam-driver", "byway",
         "-o", "byway.network=blue", "--ipv6", "--subnet=10.0.0.0/24", "--subnet=fd00::/64",
         "--aux-address=c1-1=10.0.0.2", "--aux-address=c1-2=fd00::2", "blue"],
        ["docker", "run", "--rm", "-it", "--network", "blue", "busybox"],
    ]
    assert "add --subnet" in make_snippet(Snippet.DOCKER, VM1, API)


def test_a_network_for_cni() -> None:
    made = json.loads(make_snippet(Snippet.CNI, C1, API))
    assert (made["cniVersion"], made["name"]) == ("1.0.0", "blue")
    assert made["plugins"][0] == {
        "type": "byway-cni", "api": API, "network": "blue",
        "ipam": {"type": "byway",
                 "ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]},
        "capabilities": {"mac": True, "ips": True, "portMappings": True, "bandwidth": True},
    }
    assert json.loads(make_snippet(Snippet.CNI, VM1, API))["plugins"][0]["ipam"] == {
        "type": "byway"}


@pytest.mark.parametrize("kind", [Snippet.QEMU, Snippet.LIBVIRT])
def test_a_guest_cannot_be_connected_to_a_tap(kind: Snippet) -> None:
    with pytest.raises(NoSnippet, match=r'port "c1" is of kind tap, and .* connects to vhost-user'
                                        " ports; add one: byway port add NAME --network blue"):
        make_snippet(kind, C1, API)
