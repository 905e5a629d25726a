# SPDX-License-Identifier: Apache-2.0
"""Functions that come with Byway in front of Linux: its TCP, its DHCP client and its tunnels judge.

One switch with a network for each; stations are namespaces behind tap ports.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from byway.functions.builtin.metadata_tables import ALL, amazon, tables
from tests.system.peers.kernel import BUSYBOX
from tests.system.peers.process import wait_until
from tests.system.peers.switch import Switch
from tests.system.peers.tapped import Tapped
from tests.system.peers.veth import transfer

pytestmark = [pytest.mark.system, pytest.mark.compiled_only, pytest.mark.timeout(600)]

DATA = Random(4).randbytes(4 << 20)
USER_DATA = Random(5).randbytes(16_000).hex()
CHAINS = {"guarded": "", "trusting": "", "routed": '["router"]', "lan": '["dhcp", "metadata"]',
          "tunnelled": ""}
STATIONS = {
    "client": ("guarded", "10.9.0.1", "[]"),
    "server": ("guarded", "10.9.0.2", '["byway.syn_guard"]'),
    "client2": ("trusting", "10.9.0.1", "[]"),
    "server2": ("trusting", "10.9.0.2", """["byway.syn_guard(mode='authenticate')"]"""),
    "here": ("routed", "10.9.0.1", "[]"),
    "there": ("routed", "10.9.1.1", "[]"),
    "guest": ("lan", "", "[]"),
    "sender": ("tunnelled", "10.9.0.1", '["byway.decap"]'),
    "receiver": ("tunnelled", "10.9.0.2", "[]"),
}
FUNCTIONS = """
[[function]]
name = "router"
use = "byway.router"
parameters = { address = "10.9.0.254", address6 = "fd09::fe", mtu = 1400 }
tables.routes = { "10.9.0.0/16" = 0 }

[[function]]
name = "dhcp"
use = "byway.dhcp"
parameters = { first = "10.0.0.50", last = "10.0.0.50", metadata = true, lease = 600 }

[[function]]
name = "metadata"
use = "byway.metadata"
"""


@dataclass(frozen=True)
class Lab:
    """The switch and its stations, by name."""

    switch: Switch
    stations: dict[str, Tapped]

    def __getitem__(self, name: str) -> Tapped:
        return self.stations[name]

    def counter(self, instance: str, name: str) -> int:
        """What a counter of an instance says."""
        [entry] = self.switch.client.function_table(instance, name)
        return int(entry["value"])


def configuration(folder: Path, stations: dict[str, Tapped]) -> str:
    """The switch's file."""
    text = f'[switch]\napi = "{folder}/api.sock"\n{FUNCTIONS}'
    for name, chain in CHAINS.items():
        text += f'\n[[network]]\nname = "{name}"\nchain = {chain or "[]"}\n'
    for name, (network, address, chain) in STATIONS.items():
        text += f"""
[[port]]
name = "{name}"
network = "{network}"
kind = "tap"
ifname = "eth0"
netns = "{stations[name].name}"
address = {[f"{address}/24"] if address else []}
chain = {chain}
"""
    return text


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        stations = {name: stack.enter_context(Tapped(address))
                    for name, (_, address, _) in STATIONS.items()}
        switch = stack.enter_context(Switch(folder, [], text=configuration(folder, stations)))
        wait_until(lambda: {port["state"] for port in switch.client.ports()} == {"up"},
                   "the chains are built", 300)
        yield Lab(switch, stations)


def greeting(server: Tapped, client: Tapped) -> bytes:
    """What a client receives of a server that speaks first."""
    with closing(server.opened(socket.SOCK_STREAM)) as listener:
        listener.bind((server.address, 0))
        listener.listen()

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 ready\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        with closing(client.opened(socket.SOCK_STREAM)) as sender:
            sender.connect(listener.getsockname())
            got = sender.recv(100)
        greeter.join(10)
    return got


def talk_to_nobody(client: Tapped, server: Tapped) -> None:
    """Connect to a port where nobody listens; a proxy may say yes before the server says no."""
    with closing(client.opened(socket.SOCK_STREAM)) as made:
        made.connect((server.address, 9))
        made.recv(1)


@pytest.mark.parametrize(("client", "server", "proven"), [
    ("client", "server", 2), ("client2", "server2", 1)])
def test_tcp_goes_through_the_syn_guard(lab: Lab, client: str, server: str, proven: int) -> None:
    one, other = lab[client], lab[server]
    assert transfer(one, other, DATA) == DATA
    assert greeting(other, one) == b"220 ready\r\n"
    assert transfer(other, one, DATA) == DATA  # the server's own connections are not guarded
    assert lab.counter(f"{server}/syn_guard", "proven") == proven
    assert one.checksum_errors() == other.checksum_errors() == {}
    refusal = ConnectionResetError if client == "client" else ConnectionRefusedError
    with pytest.raises(refusal):
        talk_to_nobody(one, other)


def test_pings_are_routed_and_long_packets_refused(lab: Lab) -> None:
    here, there = lab["here"], lab["there"]
    here.run("ip", "route", "add", "10.9.1.0/24", "via", "10.9.0.254")
    there.run("ip", "route", "add", "10.9.0.0/24", "via", "10.9.0.254", "dev", "eth0", "onlink")
    assert here.ping("10.9.0.254", size=56) == 5
    here.ping(there.address, count=2, size=56, wait=2)  # until both neighbours are known
    assert here.ping(there.address, size=56) == 5
    assert transfer(here, there, DATA) == DATA
    assert here.ping(there.address, count=1, size=1450, wait=2) == 0
    assert lab.counter("router", "too_big") > 0
    said = here.run("/bin/sh", "-c", f"{BUSYBOX} traceroute -n -m 1 -q 1 {there.address} || true")
    assert "10.9.0.254" in said
    assert here.checksum_errors() == there.checksum_errors() == {}


def test_a_guest_gets_its_address_and_its_metadata(lab: Lab) -> None:
    guest = lab["guest"]
    guest.run("ip", "link", "set", "eth0", "up")
    said = guest.run("/bin/sh", "-c", f"{BUSYBOX} udhcpc -i eth0 -n -q -f -s /bin/true 2>&1")
    assert "lease of 10.0.0.50 obtained from 10.0.0.1" in said
    made = tables({ALL: amazon({"instance-id": "i-1"}, user_data=USER_DATA)})
    for table in ("text", "documents"):
        lab.switch.client.put_function_table("metadata", table, made[table], whole=True)
    guest.run("ip", "address", "add", "10.0.0.50/24", "dev", "eth0")
    guest.run("ip", "route", "add", "169.254.169.254/32", "dev", "eth0")
    for path, body in (("user-data", USER_DATA), ("meta-data/", "instance-id"),
                       ("meta-data/instance-id", "i-1")):
        assert guest.run(str(BUSYBOX), "wget", "-q", "-O", "-",
                         f"http://169.254.169.254/latest/{path}") == body
    assert guest.checksum_errors() == {}


def test_what_linux_puts_into_vxlan_comes_out(lab: Lab) -> None:
    sender, receiver = lab["sender"], lab["receiver"]
    sender.run("ip", "link", "add", "t0", "type", "vxlan", "id", "7", "dstport", "4789",
               "local", sender.address, "remote", receiver.address)
    sender.run("ip", "address", "add", "10.8.0.1/24", "dev", "t0")
    sender.run("ip", "link", "set", "t0", "up")
    sender.run("ip", "neighbour", "add", "10.8.0.2", "lladdr", receiver.mac.hex(":"), "dev", "t0")
    receiver.run("ip", "address", "replace", "10.8.0.2/24", "dev", "eth0")
    with closing(receiver.opened(socket.SOCK_DGRAM)) as listener, \
            closing(sender.opened(socket.SOCK_DGRAM)) as speaker:
        listener.bind(("10.8.0.2", 0))
        for size in (1, 100, 1300):
            speaker.sendto(bytes(size), listener.getsockname())
            assert listener.recv(2000) == bytes(size)
    assert receiver.checksum_errors() == {}
