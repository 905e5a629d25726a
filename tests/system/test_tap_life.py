# SPDX-License-Identifier: Apache-2.0
"""What becomes of tap ports: interfaces and namespaces that come, go, move and come back; taps that
outlive the switch.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byway.control.actions import AddPort, RemovePort
from byway.control.model import Route
from byway.control.problem import EngineError
from tests.running import RunningSwitch
from tests.system.engines.namespace import checked
from tests.system.peers.process import wait_until
from tests.system.peers.switch import Switch
from tests.system.peers.tapped import Tapped

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LEFT, RIGHT = "10.9.0.1", "10.9.0.2"
SECONDS = 20.0


@pytest.fixture
def switch(folder: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(folder) as made:
        made.network()
        yield made


@pytest.fixture
def left() -> Iterator[Tapped]:
    with Tapped(LEFT) as made:
        yield made


@pytest.fixture
def right() -> Iterator[Tapped]:
    with Tapped(RIGHT) as made:
        yield made


@pytest.fixture
def both(switch: RunningSwitch, left: Tapped, right: Tapped) -> tuple[Tapped, Tapped]:
    """Two stations that reach each other."""
    switch.add("tap", "left", **left.port)
    switch.add("tap", "right", **right.port)
    assert left.ping(RIGHT) == 5
    return left, right


def state(switch: RunningSwitch, name: str) -> tuple[str, str]:
    port = switch.port(name)
    return port["state"], port["reason"]


def links(station: Tapped) -> set[str]:
    return station.namespace.links()


# ---------------------------------------------------------------- gone, and back
def test_an_interface_that_somebody_removes(switch: RunningSwitch,
                                            both: tuple[Tapped, Tapped]) -> None:
    left, _ = both
    left.run("ip", "link", "del", "eth0")
    switch.until(lambda: switch.port("left")["last_trouble"] == "the interface was removed")
    switch.until(lambda: switch.port("left")["state"] == "up")
    assert left.ping(RIGHT) == 5


def test_a_namespace_that_goes_and_comes(switch: RunningSwitch,
                                         both: tuple[Tapped, Tapped]) -> None:
    """The port lets go of it, so that it does go; the other one is reached as before."""
    left, right = both
    before = len(os.listdir("/proc/self/fd"))
    left.remove()
    gone = f'there is no network namespace "{left.name}"'
    switch.until(lambda: state(switch, "left") == ("waiting", gone))
    assert switch.port("left")["last_trouble"] == \
        f'the network namespace "{left.name}" was removed'
    assert len(os.listdir("/proc/self/fd")) == before - 1
    left.make_again()
    switch.until(lambda: switch.port("left")["state"] == "up")
    assert right.ping(LEFT) == 5


def test_a_namespace_that_is_not_there_yet(switch: RunningSwitch, left: Tapped,
                                           right: Tapped) -> None:
    right.remove()
    switch.add("tap", "left", **left.port)
    switch.add("tap", "right", **right.port)
    assert state(switch, "right") == ("waiting", f'there is no network namespace "{right.name}"')
    assert switch.port("left")["state"] == "up"
    right.make_again()
    switch.until(lambda: switch.port("right")["state"] == "up")
    assert left.ping(RIGHT) == 5
    switch.remove("right")
    assert links(right) == set()


def test_a_namespace_named_after_a_process(switch: RunningSwitch, left: Tapped) -> None:
    """With the process it is gone for good: the number may be another one's next."""
    with subprocess.Popen([*left.namespace.prefix, "sleep", "100"]) as process:
        path = f"/proc/{process.pid}/ns/net"
        home = os.stat(left.namespace.path).st_ino
        switch.until(lambda: os.stat(path).st_ino == home)
        switch.add("tap", "left", **{**left.port, "netns": path})
        assert switch.port("left")["peer"] == f"eth0 in {path}"
        process.kill()
        process.wait()
        switch.until(lambda: state(switch, "left") == (
            "down", f"process {process.pid} has ended"))
    switch.until(lambda: links(left) == set())


@pytest.mark.parametrize(("keys", "problem"), [
    ({"netns": "/proc/4000000/ns/net"}, "netns: there is no process 4000000"),
    ({"netns": "/etc/passwd"}, "netns: /etc/passwd is no network namespace"),
    ({"ifname": "lo"}, "ifname: there is an interface of this name already"),
    ({"ifname": "lo", "persistent": True}, "ifname: there is an interface of this name already"),
    ({"address": ("10.9.0.1/24", "10.9.0.1/24")}, "address: the interface cannot be configured"),
    ({"routes": ({"to": "default", "via": "10.8.0.1"},)},
     "routes: the interface cannot be configured")])
def test_what_cannot_be_made(switch: RunningSwitch, left: Tapped, keys: dict[str, Any],
                             problem: str) -> None:
    """The configuration is refused, and nothing stays behind."""
    changed = {**keys, "routes": tuple(Route(**route) for route in keys.get("routes", ()))}
    config = switch.config("tap", "left", **left.port).model_copy(update=changed)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(EngineError, match=f'port "left": {problem}'):
        switch.call(switch.engine.add_port, config)
    assert switch.call(switch.engine.ports) == []
    assert links(left) == set()
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------- changed by others
def test_an_interface_that_is_renamed_and_moved(switch: RunningSwitch,
                                                both: tuple[Tapped, Tapped]) -> None:
    """As container engines do it. Even when the namespace that it came from is removed."""
    left, right = both
    with Tapped("10.9.0.3") as other:
        left.run("ip", "link", "set", "eth0", "down")
        left.run("ip", "link", "set", "eth0", "name", "moved")
        checked(["ip", "-n", left.name, "link", "set", "moved", "netns", other.name])
        other.run("ip", "address", "add", f"{LEFT}/24", "dev", "moved")
        other.run("ip", "link", "set", "moved", "up")
        assert right.ping(LEFT) == 5
        number = os.stat(other.namespace.path).st_ino
        assert switch.port("left")["peer"] == f"moved in net:[{number}]"
        left.remove()
        assert right.ping(LEFT) == 5
        assert state(switch, "left") == ("up", "")
        other.remove()  # it keeps only the one alive in which it was made
        switch.until(lambda: switch.port("left")["state"] == "waiting")
        assert switch.port("left")["last_trouble"] == "the interface was removed"


def test_an_interface_that_is_set_down(switch: RunningSwitch, both: tuple[Tapped, Tapped]) -> None:
    left, right = both
    left.run("ip", "link", "set", "eth0", "down")
    right.ping(LEFT, count=1, wait=2)
    assert state(switch, "left") == ("up", "")
    assert switch.port("left")["drops"]["interface_down"] > 0
    left.run("ip", "link", "set", "eth0", "up")
    assert left.ping(RIGHT) == 5


# ---------------------------------------------------------------- persistent
def attached(station: Tapped) -> dict[str, Any]:
    """What `ip` says of the interface."""
    found: dict[str, Any] = json.loads(station.run("ip", "-json", "-details", "address"))[-1]
    return found


def test_a_persistent_tap_stays_until_its_port_is_removed(folder: Path, left: Tapped) -> None:
    keys = {**left.port, "persistent": True, "mac": "02:00:00:00:00:01"}
    with RunningSwitch(folder) as first:
        first.network()
        first.add("tap", "left", **keys)
        left.run("ip", "address", "add", "10.10.0.1/24", "dev", "eth0")
        index = attached(left)["ifindex"]
    assert not left.carrier()
    with RunningSwitch(folder) as second:
        second.network()
        second.add("tap", "left", **keys)
        assert left.carrier()
        found = attached(left)
        assert found["ifindex"] == index
        assert {a["local"] for a in found["addr_info"] if a["family"] == "inet"} == {
            LEFT, "10.10.0.1"}
        old, new = (second.config("tap", "left", **keys, queues=1, features={"off": off})
                    for off in ((), ("csum",)))
        second.apply([RemovePort("left"), AddPort(new)])  # it changes, it is not removed
        assert attached(left)["ifindex"] == index
        second.remove("left")
        assert links(left) == set()
        second.add("tap", "left", **keys)
        with pytest.raises(EngineError, match="interface of this name"):
            second.add("tap", "again", **keys)
        assert old.persistent
    checked(["ip", "-n", left.name, "link", "del", "eth0"])


def test_a_tap_that_is_found_and_cannot_be_set_up_stays(folder: Path, left: Tapped) -> None:
    keys = {**left.port, "persistent": True}
    with RunningSwitch(folder) as first:
        first.network()
        first.add("tap", "left", **keys)
    with RunningSwitch(folder) as second:
        second.network()
        with pytest.raises(EngineError, match="routes"):
            second.add("tap", "left", **keys, routes=({"to": "default", "via": "10.8.0.1"},))
        assert links(left) == {"eth0"}
    checked(["ip", "-n", left.name, "link", "del", "eth0"])


@pytest.mark.compiled_only
def test_a_switch_that_is_killed(own_folder: Path, left: Tapped, right: Tapped) -> None:
    """The interfaces stay in their namespaces, and go on with the next switch."""
    with Switch(own_folder, []) as switch:
        file = switch.file.read_text()
        for station in (left, right):
            file += (f'\n[[port]]\nname = "p-{station.address}"\nnetwork = "blue"\nkind = "tap"\n'
                     f'ifname = "eth0"\nnetns = "{station.name}"\npersistent = true\n'
                     f'address = ["{station.address}/24"]\n')
        switch.file.write_text(file)
        switch.process.child.send_signal(signal.SIGHUP)
        switch.client.close()
        wait_until(lambda: links(left) == links(right) == {"eth0"}, "there are taps", SECONDS)
        assert left.ping(RIGHT) == 5
        indices = [attached(station)["ifindex"] for station in (left, right)]
        switch.kill()
        wait_until(lambda: not left.carrier() and not right.carrier(), "nobody is there", SECONDS)
        switch.start()
        switch.wait_up()
        assert left.ping(RIGHT) == 5
        assert [attached(station)["ifindex"] for station in (left, right)] == indices
        file = file[: file.index("\n[[port]]")]
        switch.file.write_text(file)
        switch.process.child.send_signal(signal.SIGHUP)
        wait_until(lambda: links(left) == links(right) == set(), "the taps are gone", SECONDS)


# ---------------------------------------------------------------- what a port costs
def test_files_of_a_port(switch: RunningSwitch, left: Tapped) -> None:
    """One file for each queue, and one for all ports together."""
    switch.add("tap", "first", **left.port)
    before = len(os.listdir("/proc/self/fd"))
    for k in range(20):
        switch.add("tap", f"p{k}", ifname=f"p{k}", netns=left.name)
    assert len(os.listdir("/proc/self/fd")) == before + 20
    for k in range(20):
        switch.remove(f"p{k}")
    assert len(os.listdir("/proc/self/fd")) == before
