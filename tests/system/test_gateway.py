# SPDX-License-Identifier: Apache-2.0
"""A gateway port of a running switch: what a container sends leaves behind the host's address.

    c1 -- [port c1] switch [port gw] -- host [wan] -- outside

The switch runs in the namespace `host`. It is asked for the ports by its API, and has a state file.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from byway.client import Client, ClientError
from byway.nat import Table
from tests import peers
from tests.system.engines.namespace import Namespace
from tests.system.peers import calls
from tests.system.peers.process import Process, wait_until
from tests.system.peers.switch import BYWAY, START

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
OUTSIDE, HOST = "10.90.0.2", "10.90.0.1"
GATEWAY = {"name": "gw", "network": "blue", "kind": "tap", "ifname": "byw-blue",
           "address": ["10.10.0.1/24"], "masquerade": True,
           "mac": "02:00:00:00:10:01"}  # its neighbours remember it while it is away


class Lab:
    """The namespaces, and a switch that can be killed and started again."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.host, self.outside, self.c1 = (
            stack.enter_context(Namespace(name)) for name in ("host", "outside", "c1"))
        self.folder = folder
        self.starts = 0
        self.api = Client(str(folder / "api.sock"), timeout=START)
        self.host.run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "eth0",
                      "netns", self.outside.name)
        for place, name, address in ((self.host, "wan", HOST), (self.outside, "eth0", OUTSIDE)):
            place.run("ip", "address", "add", f"{address}/24", "dev", name)
            place.run("ip", "link", "set", name, "up")
        (folder / "lab.toml").write_text(
            f'[switch]\nname = "lab"\napi = "{folder}/api.sock"\nstate = "{folder}/lab.db"\n'
            '[[network]]\nname = "blue"\n')
        stack.callback(lambda: self.process.stop())
        self.start()

    def start(self) -> None:
        """`byway run`, and its API answers."""
        self.starts += 1
        words = [*self.host.prefix, str(BYWAY), "run", str(self.folder / "lab.toml")]
        self.process = Process("byway", words, self.folder / f"byway-{self.starts}.log")
        wait_until(self._answers, "the API answers", START)

    def _answers(self) -> bool:
        try:
            return bool(self.api.switch())
        except ClientError:
            if not self.process.running:
                raise self.process.error("ended") from None
            return False

    @property
    def table(self) -> Table:
        """The switch's table of address translation."""
        return Table("byway-lab", str(self.host.path))

    def seen(self) -> str:
        """As whom outside sees the container."""
        with calls.server(str(self.outside.path), OUTSIDE, 7000) as listening:
            return calls.seen(listening, str(self.c1.path), OUTSIDE, 7000)


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    peers.find_program("nft")
    if os.geteuid():
        peers.need_peer("network namespaces", "they need root")
    with ExitStack() as stack:
        made = Lab(stack, folder)
        container: dict[str, Any] = {
            "name": "c1", "network": "blue", "kind": "tap", "ifname": "eth0",
            "netns": str(made.c1.path), "address": ["10.10.0.2/24"],
            "routes": [{"to": "default", "via": "10.10.0.1"}]}
        made.api.change(add_ports=[GATEWAY, container])
        yield made


def test_outside_sees_the_host(lab: Lab) -> None:
    assert lab.seen() == HOST
    assert lab.table.content().subnets == {"10.10.0.0/24"}


def test_a_killed_switch_finds_ports_and_rules_again(lab: Lab) -> None:
    lab.process.stop(signal.SIGKILL)
    lab.start()
    assert {port["name"]: port["state"] for port in lab.api.ports()} == {"gw": "up", "c1": "up"}
    assert lab.seen() == HOST


def test_the_rules_go_with_the_port_and_come_with_it(lab: Lab) -> None:
    lab.api.remove_port("gw")
    assert lab.table.content().subnets == frozenset()
    lab.api.add_port(GATEWAY)
    assert lab.seen() == HOST


def test_no_rules_are_left_when_the_switch_ends(lab: Lab) -> None:
    assert lab.process.stop() == 0
    assert lab.host.run("nft", "list", "ruleset") == ""
    lab.start()
    assert lab.seen() == HOST
