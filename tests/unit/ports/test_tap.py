# SPDX-License-Identifier: Apache-2.0
"""The tap, in a network namespace of its own: made, configured, removed; what cannot be made."""

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute, netns

from byway.ports import tap as tap_module
from byway.ports.tap import Interface, Tap, TapError, usual_mac
from byway.virtio.features import Feature, has, mask
from tests.peers import need_peer

NO_FEATURES = 0
SECONDS = 5


def inside(name: str, work: Callable[[], Any]) -> Any:
    """The result of ``work`` in the namespace ``name``."""
    made: list[Any] = []

    def run() -> None:
        netns.setns(name, flags=0)
        made.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]


@pytest.fixture
def namespace() -> Iterator[str]:
    """An empty network namespace."""
    name = f"byway-{os.getpid()}"
    try:
        netns.create(name)
    except PermissionError as error:
        need_peer("CAP_SYS_ADMIN", f"no network namespace can be made: {error}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        need_peer("/dev/net/tun", "it cannot be opened")
    yield name
    netns.remove(name)


@pytest.fixture
def make(namespace: str) -> Iterator[Callable[..., Tap]]:
    """Makes taps in the namespace; closes them; nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    made: list[Tap] = []

    def tap(name: str = "t0", **wanted: Any) -> Tap:
        made.append(Tap(Interface(name, namespace=namespace, **wanted)))
        return made[-1]

    yield tap
    for one in made:
        one.close()
        one.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def links(name: str) -> dict[str, Any]:
    """The interfaces of a namespace by name."""
    def work() -> dict[str, Any]:
        with IPRoute() as netlink:
            return {link.get("ifname"): link for link in netlink.get_links()}

    found: dict[str, Any] = inside(name, work)
    return found


def test_the_interface_is_as_wanted(namespace: str, make: Callable[..., Tap]) -> None:
    tap = make(addresses=["10.9.0.1/24", "fd00::1/64"], mac="02:00:00:00:00:09", mtu=1400,
               queues=3)
    assert len(tap.files) == 3
    link = links(namespace)["t0"]
    assert (link.get("address"), link.get("mtu")) == ("02:00:00:00:00:09", 1400)
    assert link["flags"] & 1  # IFF_UP

    def addresses() -> list[str]:
        with IPRoute() as netlink:
            return [a.get("address") for a in netlink.get_addr(index=link["index"])]

    assert {"10.9.0.1", "fd00::1"} <= set(inside(namespace, addresses))
    assert "t0" not in {name for _, name in socket.if_nameindex()}
    tap.close()
    assert "t0" not in links(namespace)


@pytest.mark.parametrize("header", [10, 12])
def test_frames_carry_a_header(namespace: str, make: Callable[..., Tap], header: int) -> None:
    """The kernel leaves the checksum to us where we take that, else completes it."""
    tap = make(addresses=["10.9.0.1/24"])

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(b"hello", ("10.9.0.255", 9))

    for features, flags in ((NO_FEATURES, 0), (mask(Feature.GUEST_CSUM), 1)):
        tap.set_up(features, header)
        inside(namespace, send)
        frame = read_ipv4(tap.files[0], header)
        assert frame[0] == flags, "NEEDS_CSUM or not"
        assert frame[header + 42 : header + 47] == b"hello"


def read_ipv4(file: int, header: int) -> bytes:
    """The next IPv4 frame with its virtio header."""
    while select.select([file], [], [], SECONDS)[0]:
        frame = os.read(file, 4096)
        if frame[header + 12 : header + 14] == b"\x08\x00":
            return frame
    raise AssertionError("no frame came")


def test_what_a_tap_can(make: Callable[..., Tap]) -> None:
    tap = make()
    features = tap.features()
    assert features & mask(Feature.CSUM, Feature.HOST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_ECN)
    uso = {has(features, f) for f in (Feature.GUEST_USO4, Feature.GUEST_USO6, Feature.HOST_USO)}
    assert len(uso) == 1
    tap.set_up(features, 12)
    with pytest.raises(OSError, match="Invalid argument"):
        tap.set_up(mask(Feature.GUEST_TSO4), 12)  # without the checksum


def test_an_interface_that_somebody_removes(namespace: str, make: Callable[..., Tap]) -> None:
    tap = make(news=True)
    assert not tap.removed()
    index = links(namespace)["t0"]["index"]

    def remove() -> None:
        with IPRoute() as netlink:
            netlink.link("del", index=index)

    inside(namespace, remove)
    assert select.select([tap], [], [], SECONDS)[0]
    assert tap.removed()


def test_what_cannot_be_made(namespace: str, make: Callable[..., Tap]) -> None:
    make()
    before = len(os.listdir("/proc/self/fd"))
    for wanted, key, says in (
            ({}, "ifname", "an interface of this name already"),
            ({"name": "t1", "mtu": 1 << 20}, "address", "cannot be configured"),
            ({"name": "t1", "mtu": 1000, "addresses": ["fd00::1/64"]}, "address", "cannot be")):
        with pytest.raises(TapError, match=says) as caught:
            make(**wanted)
        assert caught.value.key == key
    with pytest.raises(TapError, match='no network namespace "nowhere"') as caught:
        Tap(Interface("t1", namespace="nowhere"))
    assert caught.value.fix == "ip netns add nowhere"
    assert len(os.listdir("/proc/self/fd")) <= before
    assert set(links(namespace)) == {"lo", "t0"}




def test_an_interface_that_is_made_again_has_the_same_address(
        namespace: str, make: Callable[..., Tap], monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path) -> None:
    """And so has no other one, and none on another machine."""
    (tmp_path / "machine-id").write_text("0123\n")
    monkeypatch.setattr(tap_module, "MACHINE_ID", tmp_path / "machine-id")
    first = make()
    address = first.mac()
    assert links(namespace)["t0"].get("address") == address
    first.close()
    assert make().mac() == address
    assert make("t1").mac() != address
    assert usual_mac("t0", (1, 2)) != usual_mac("t0", (1, 3))
    before = usual_mac("t0", (1, 2))
    (tmp_path / "machine-id").write_text("4567\n")
    assert usual_mac("t0", (1, 2)) != before
    (tmp_path / "machine-id").unlink()
    assert usual_mac("t0", (1, 2)) is None
    assert make("t2").mac() != address
