# SPDX-License-Identifier: Apache-2.0
"""The tap port without its interface: it waits, asks again less and less often, and hastens when
there is news. What it does with one is seen in tests/system/test_tap.py and test_tap_life.py.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from byway.control.model import TapPort as TapConfig
from byway.ports.namespaces import Namespaces
from byway.ports.port import Port, PortError
from byway.ports.tap_port import FIRST_RETRY, LAST_RETRY, SOON, TapPort
from byway.testing.loop import ManualLoop


class Alone:
    """A host without workers."""

    alarm = -1

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.namespaces = Namespaces(self.loop)  # type: ignore[arg-type]

    def attach(self, port: Port) -> None:
        raise AssertionError("there is nothing to serve")

    def detach(self, port: Port) -> None:
        """Nobody serves it."""

    def close_files(self, files: Sequence[int]) -> None:
        assert list(files) == []


@pytest.fixture
def host() -> Iterator[Alone]:
    before = len(os.listdir("/proc/self/fd"))
    made = Alone()
    yield made
    assert made.loop.idle
    assert len(os.listdir("/proc/self/fd")) <= before


def tap(host: Alone, netns: Path | str, **keys: object) -> TapPort:
    config = TapConfig.model_validate({
        "name": "c1", "network": "blue", "kind": "tap", "ifname": "eth0", "netns": str(netns),
        "address": ["10.0.0.1/24"], **keys})
    return TapPort(config, 3, host, 1500)  # type: ignore[arg-type]


def next_try(host: Alone) -> float:
    """Let time pass until the port tries again; -> how long that took."""
    (timer,) = host.loop.timers
    pause = timer.when - host.loop.time()
    host.loop.advance(pause)
    return round(pause, 3)


def test_it_waits_for_its_namespace(host: Alone, tmp_path: Path) -> None:
    port = tap(host, tmp_path / "later")
    port.open()
    assert (port.state, port.reason) == (
        "waiting", f'there is no network namespace "{tmp_path}/later"')
    pauses = [next_try(host) for _ in range(8)]
    assert pauses == [FIRST_RETRY * 2**k for k in range(6)] + [LAST_RETRY] * 2
    port.close()
    port.close()


def test_news_of_the_name_hasten_it(host: Alone, tmp_path: Path) -> None:
    """What was made there is no namespace yet; the next try may find one, or say what it is."""
    path = tmp_path / "later"
    port = tap(host, path)
    port.open()
    for _ in range(5):
        next_try(host)
    path.touch()
    host.loop.run()
    assert next_try(host) == SOON
    assert (port.state, port.reason) == ("down", f"{path} is no network namespace")
    path.unlink()
    host.loop.run()
    assert next_try(host) == SOON
    assert port.state == "waiting"
    assert next_try(host) == 2 * SOON
    port.remove()


def test_what_it_shows_without_its_interface(host: Alone, tmp_path: Path) -> None:
    port = tap(host, tmp_path / "later", queues=3, persistent=True,
               features={"off": ["guest_csum"]})
    port.open()
    status = port.status()
    assert status["peer"] == f"eth0 in {tmp_path}/later"
    assert (status["ifname"], status["address"]) == ("eth0", ["10.0.0.1/24"])
    assert (status["carrier"], status["persistent"], status["queues_enabled"]) == (False, True, 0)
    assert status["features"]["acked"] == []
    off = status["features"]["off"]
    assert off["guest_csum"] == "features.off"
    assert off["guest_tso4"] == "needs guest_csum, which is off"
    assert "host_tso4" not in off
    port.close()


@pytest.mark.parametrize(("netns", "message"), [
    ("/proc/4000000/ns/net", "netns: there is no process 4000000; name one that runs"),
    ("/etc/passwd", "netns: /etc/passwd is no network namespace")])
def test_what_cannot_become_a_namespace(host: Alone, netns: str, message: str) -> None:
    with pytest.raises(PortError, match=message):
        tap(host, netns).open()
