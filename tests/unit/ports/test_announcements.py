# SPDX-License-Identifier: Apache-2.0
"""SEND_RARP at moments when the guest's rings are not served, or not all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.vhost.frontend import PROTOCOL_FEATURES, FrontEnd, protocol_mask
from byway.vhost.messages import ProtocolFeature
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch, mac

MOVED = bytes.fromhex("0200000000aa")
RARP = protocol_mask(ProtocolFeature.RARP)


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    """With a worker thread."""
    with RunningSwitch(tmp_path) as made:
        made.network()
        yield made


def known(switch: RunningSwitch, network: str = "blue") -> set[str]:
    return {entry["mac"] for entry in switch.call(switch.engine.fdb, network)}


def announced(frames: list[bytes]) -> list[bytes]:
    return [frame[6:12] for frame in frames if frame[12:14] == b"\x80\x35"]


def test_before_there_are_rings(switch: RunningSwitch) -> None:
    """Nothing is sent, and nothing is learned for a port that is not served."""
    switch.vhost("vm1", "vm2")
    other = switch.guest("vm2", 2)
    front = FrontEnd.connect(switch.socket("vm1"))
    front.negotiate(mask(Feature.VERSION_1), RARP)
    front.send_rarp(MOVED)
    front.look(RARP)  # it has heard all before
    assert known(switch) == set()
    assert other.receive() == []
    front.close()
    other.close()


def test_while_another_pair_is_served(switch: RunningSwitch) -> None:
    """The first pair is stopped: the frame goes out in the name of one that runs."""
    switch.add("vhost-user", "vm1", queues=2)
    switch.vhost("vm2")
    moved = switch.guest("vm1", 1, pairs=2)
    other = switch.guest("vm2", 2)
    moved.front.negotiate(moved.features, PROTOCOL_FEATURES | RARP)
    for ring in (0, 1):
        moved.front.stop_ring(ring)
    moved.front.send_rarp(MOVED)
    assert announced(other.receive_until(1)) == [MOVED]
    moved.close()
    other.close()


def test_a_port_that_is_gone_leaves_no_address(switch: RunningSwitch) -> None:
    """Its number is given again, to a port of another network."""
    switch.network("red")
    switch.vhost("vm1", "vm2")
    other = switch.guest("vm2", 2)
    front = FrontEnd.connect(switch.socket("vm1"))
    front.negotiate(mask(Feature.VERSION_1), RARP)
    front.send_rarp(MOVED)
    front.look(RARP)  # it has heard all before
    switch.remove("vm1")
    front.close()
    switch.vhost("vm3", network="red")
    elsewhere = switch.guest("vm3", 3)
    other.send([MOVED + bytes.fromhex(mac(2).replace(":", "")) + bytes(48)])
    switch.until(lambda: switch.drops().get("vm2"))
    assert switch.drops()["vm2"] == {"no_destination": 1}
    assert elsewhere.receive() == []
    for guest in (other, elsewhere):
        guest.close()
