# SPDX-License-Identifier: Apache-2.0
"""Dispatch: ports in trouble are left alone, and what is meant for them is counted."""

import pytest

from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from tests.running import RunningSwitch


@pytest.fixture
def guests(switch: RunningSwitch) -> tuple[Guest, Guest]:
    switch.vhost("vm1", "vm2")
    return switch.guest("vm1", 1), switch.guest("vm2", 2)


@pytest.mark.parametrize("flag", ["fault", "error"])
def test_in_trouble(switch: RunningSwitch, guests: tuple[Guest, Guest], flag: str) -> None:
    """Between the trouble and the moment that control hears of it."""
    one, two = guests
    frame = ethernet(BROADCAST, one.mac, TEST_ETHERTYPE, b"")
    back = ethernet(BROADCAST, two.mac, TEST_ETHERTYPE, b"")
    switch.settle()
    one.send([frame] * 3)
    two.send([back])

    def step() -> None:
        switch.engine._ports["vm2"].record[flag] = 1
        for worker in switch.engine._workers:
            worker.step()

    switch.call(step)
    assert one.receive() == []
    assert switch.drops() == {"vm2": {"port_down": 3}}
    switch.settle()
    assert switch.port("vm2")["state"] == "down"
    assert (switch.port("vm2")["rx_frames"], switch.port("vm2")["tx_frames"]) == (0, 0)


def test_a_shared_port_is_locked_and_let_go(switch: RunningSwitch,
                                            guests: tuple[Guest, Guest]) -> None:
    """Where several workers serve a switch, delivery takes the port's lock, one after the other."""
    one, two = guests
    frame = ethernet(BROADCAST, one.mac, TEST_ETHERTYPE, b"")
    port = switch.engine._ports["vm2"]
    port.record["shared"] = 1
    for _ in range(3):
        one.send([frame])
        switch.settle()
        assert two.receive() == [frame]
        assert port.txqs["lock"][0] == 0
