# SPDX-License-Identifier: Apache-2.0
"""DPDK's virtio_user guests talk through the switch, with every option their driver has for it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.peers.process import wait_until
from tests.system.peers.switch import Port, Switch
from tests.system.peers.testpmd import BURST, Guest, VirtioUser, balanced

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("dpdk")]


@pytest.fixture(scope="module")
def switch(folder: Path, cpus: tuple[int, int]) -> Iterator[Switch]:
    """One switch for all guests, which come and go: it listens for vm1, vm2; dials vm3, vm4."""
    ports = [Port(name, folder / f"{name}.sock") for name in ("vm1", "vm2")]
    ports += [Port(n, folder / f"{n}.sock", "client", "green") for n in ("vm3", "vm4")]
    with Switch(folder, ports, workers=[cpus[0]]) as running:
        yield running


def play(switch: Switch, guest: Guest, names: tuple[str, str], macs: tuple[str, str]) -> None:
    """Ping-pong, for a second at least, then account for every frame on both sides."""
    with guest:
        guest.ready()
        switch.wait_up(*names)
        before = switch.ports()
        guest.ping_pong(bursts=2)
        time.sleep(1)
        wait_until(lambda: guest.stats()[0].rx > 20 * BURST, "frames went back and forth", 20)
        entries = {row["mac"]: row["port"] for row in switch.command("fdb", "list")}
        stats = guest.drain()
        after = switch.ports()
    assert balanced(stats), "each frame sent by one guest arrived at the other"
    assert {mac: entries.get(mac) for mac in macs} == dict(zip(macs, names, strict=True))
    assert switch.drops() == {}
    for name, seen in zip(names, stats, strict=True):
        counted = {key: after[name][key] - before[name][key] for key in ("rx_frames", "tx_frames")}
        assert counted == {"rx_frames": seen.tx, "tx_frames": seen.rx}, name


@pytest.mark.parametrize("frame", [64, 1514])
@pytest.mark.parametrize("mrg_rxbuf", [True, False], ids=["mrg", "nomrg"])
@pytest.mark.parametrize("in_order", [True, False], ids=["inorder", "noorder"])
@pytest.mark.parametrize("queue_size", [256, 1024])
def test_ping_pong(
    switch: Switch,
    folder: Path,
    cpus: tuple[int, int],
    frame: int,
    mrg_rxbuf: bool,
    in_order: bool,
    queue_size: int,
) -> None:
    # Addresses that no other case used: what the table says was learned here.
    case = f"{frame & 0xFF:02x}:{mrg_rxbuf << 4 | in_order:02x}:{queue_size >> 8:02x}"
    macs = (f"02:00:{case}:01", f"02:00:{case}:02")
    options = {"mrg_rxbuf": mrg_rxbuf, "in_order": in_order, "queue_size": queue_size}
    sockets = (folder / "vm1.sock", folder / "vm2.sock")
    ports = tuple(VirtioUser(s, m, **options) for s, m in zip(sockets, macs, strict=True))
    guest = Guest(folder, (ports[0], ports[1]), cpu=cpus[1], frame=frame)
    play(switch, guest, ("vm1", "vm2"), macs)


@pytest.mark.parametrize("frame", [64, 1514])
def test_ping_pong_where_the_guest_listens(
    switch: Switch, folder: Path, cpus: tuple[int, int], frame: int
) -> None:
    macs = (f"02:00:00:{frame & 0xFF:02x}:00:03", f"02:00:00:{frame & 0xFF:02x}:00:04")
    sockets = (folder / "vm3.sock", folder / "vm4.sock")
    ports = tuple(VirtioUser(s, m, server=True) for s, m in zip(sockets, macs, strict=True))
    guest = Guest(folder, (ports[0], ports[1]), cpu=cpus[1], frame=frame)
    play(switch, guest, ("vm3", "vm4"), macs)
    for socket in sockets:
        socket.unlink(missing_ok=True)  # testpmd leaves them
