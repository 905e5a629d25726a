# SPDX-License-Identifier: Apache-2.0
"""Byway in a guest whose kernel has vhost-net: interfaces in three namespaces on one network.

Two of them take unfinished frames, one has two queue pairs; the third takes none, so that Byway
finishes them. TCP between the kernel's own stacks is the judge: identical bytes, no bad checksum.
"""

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.peers import find_program
from tests.system.peers import inside
from tests.system.peers.kernel import checksum_errors
from tests.system.peers.process import PeerError

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

API = "/run/api.sock"
BYWAY = Path(sys.executable).with_name("byway")
PLACES = {"red": "10.0.0.1", "green": "10.0.0.2", "plain": "10.0.0.3"}
OPTIONS = {"red": "", "green": "queues = 2", "plain": 'features.off = ["guest_csum", "csum"]'}
PORT = """
[[port]]
name = "{name}"
network = "blue"
kind = "vhost-kernel"
ifname = "t-{name}"
netns = "{name}"
address = ["{address}/24"]
{options}
"""
DATA = Random(4).randbytes(3 << 20)
PINGS = 20


class Lab:
    """A guest in which `byway run` serves the three interfaces."""

    def __init__(self, vm: inside.Inside) -> None:
        self.vm = vm
        vm.ready()
        for name in PLACES:
            vm.here(f"ip netns add {name} && ip -n {name} link set lo up")
        log = "</dev/null >/run/byway.log 2>&1 &"
        vm.here(f"{BYWAY} run {vm.folder}/lab.toml {log}")
        end = time.monotonic() + 300
        while {port["state"] for port in self.ports().values()} != {"up"}:
            if time.monotonic() > end:
                log = vm.here("cat /run/byway.log")
                raise PeerError(f"the switch is not up: {self.ports()}, it said {log!r}")
            time.sleep(1)

    def ports(self) -> dict[str, Any]:
        """The ports by name, none while nothing answers."""
        return {port["name"]: port for port in self.vm.ask(API, "/v1/ports") or []}

    def inside(self, place: str, command: str, timeout: float = 60.0) -> str:
        """Run a command in a namespace."""
        return self.vm.here(f"ip netns exec {place} {command}", timeout)

    def ping(self, place: str, to: str) -> str:
        """Ping, with payloads that fill a frame; -> what ping says in the end."""
        text = self.inside(place, f"/bin/busybox ping -q -c {PINGS} -i 0.05 -s 1472 {PLACES[to]}")
        return text.split("---")[-1]

    def send(self, place: str, to: str) -> str:
        """Send DATA over TCP from one namespace to another; -> the MD5 sum of what arrived."""
        self.vm.here(f"ip netns exec {place} /bin/busybox nc -l -p 5000 -e /bin/cat"
                     f" {self.vm.folder}/data </dev/null >/dev/null 2>&1 &")
        fetch = f"/bin/busybox nc {PLACES[place]} 5000 </dev/null >/run/got 2>/dev/null"
        loop = f"until {fetch}; do sleep 0.2; done; md5sum </run/got"
        return self.inside(to, f"/bin/sh -c \"{loop}\"", 120).split()[0]


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    find_program("qemu-system-x86_64")
    find_program("ip")
    system = inside.build(folder)
    inside.compile_for(folder / "cache")
    ports = "".join(PORT.format(name=name, address=address, options=OPTIONS[name])
                    for name, address in PLACES.items())
    text = f'[switch]\nname = "lab"\napi = "{API}"\n\n[[network]]\nname = "blue"\n{ports}'
    (folder / "lab.toml").write_text(text)
    (folder / "data").write_bytes(DATA)
    with inside.Inside("inside", folder, system) as vm:
        yield Lab(vm)


def test_features(lab: Lab) -> None:
    """vhost-net's rings and the tap's offloads, less what is switched off."""
    ports = lab.ports()
    for name, port in ports.items():
        acked, off = set(port["features"]["acked"]), port["features"]["off"]
        assert {"version_1", "mrg_rxbuf", "event_idx"} <= acked
        assert ("guest_tso4" in acked, "host_tso4" in acked) == (name != "plain",) * 2
        assert off["ring_packed"] == "not offered by the back end"
        assert port["peer"] == f"t-{name} in {name}"
    assert ports["plain"]["features"]["off"]["guest_tso4"] == "needs guest_csum, which is off"
    assert [ports[name]["queues_enabled"] for name in PLACES] == [1, 2, 1]


@pytest.mark.parametrize(("place", "to"), [("red", "green"), ("green", "plain"), ("plain", "red")])
def test_ping(lab: Lab, place: str, to: str) -> None:
    before = lab.ports()
    assert f"{PINGS} packets received" in lab.ping(place, to)
    after = lab.ports()
    for name in (place, to):
        for way in ("rx_frames", "tx_frames"):
            assert after[name][way] - before[name][way] >= PINGS


@pytest.mark.parametrize(("place", "to"), [("red", "green"), ("green", "red"), ("red", "plain"),
                                           ("plain", "red")])
def test_tcp(lab: Lab, place: str, to: str) -> None:
    """Large frames pass whole where the receiver takes them, in segments where it does not."""
    before = lab.ports()
    assert lab.send(place, to) == hashlib.md5(DATA).hexdigest()
    after = lab.ports()
    came = after[place]["rx_frames"] - before[place]["rx_frames"]
    went = after[to]["tx_frames"] - before[to]["tx_frames"]
    # Frames, were each as long as the MTU allows. After a loss, and to a receiver that is late,
    # TCP sends shorter ones than it could.
    smallest = len(DATA) / 1460
    if place == "plain":
        assert came > smallest
    else:
        assert came < 0.8 * smallest, "the kernel left the segments to us"
    if "plain" in (place, to):
        assert went > smallest
    else:
        assert went < 0.8 * smallest, "and we to the receiver"


def test_nothing_was_dropped_and_no_checksum_was_wrong(lab: Lab) -> None:
    for name, port in lab.ports().items():
        assert port["drops"] == {}, name
        text = lab.inside(name, "cat /proc/net/snmp /proc/net/netstat /proc/net/snmp6")
        assert checksum_errors(text) == {}


def test_an_interface_that_somebody_removes(lab: Lab) -> None:
    lab.vm.here("ip -n green link del t-green")
    end = time.monotonic() + 30
    while (port := lab.ports()["green"])["state"] == "up":
        assert time.monotonic() < end
        time.sleep(0.2)
    assert (port["state"], port["reason"]) == ("down", "the interface was removed")
    assert f"{PINGS} packets received" in lab.ping("red", "plain")
