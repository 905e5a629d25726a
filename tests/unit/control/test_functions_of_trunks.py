# SPDX-License-Identifier: Apache-2.0
"""Network functions of a port with several networks: what is told of it is about its own."""

import pytest

from byway.control.model import Config, NetworkConfig
from byway.control.problem import EngineError
from tests.running import mac
from tests.unit.control.test_functions import Lab, lab

__all__ = ["lab"]
WHERE = {"port": 0, "network": 1, "vni": 0}
FRAME = b"\xff" * 60


def start(lab: Lab, green: tuple[str, ...]) -> None:
    """A port of network green, which has this chain, and with a tag of blue, which has a guard."""
    lab.switch.call(lab.wanted.change, Config(
        networks=(NetworkConfig(name="blue", chain=(lab.use,)),
                  NetworkConfig(name="green", chain=green)),
        ports=(lab.port("trunk", network="green", vlans={"10": "blue"}, mac=mac(1)),)))
    lab.wait(lab.switch.engine.functions.settled())


def test_nothing_is_told_of_another_network(lab: Lab) -> None:
    start(lab, ())
    functions = lab.switch.engine.functions
    with pytest.raises(EngineError, match='port "trunk" has no chain for frames that go in'):
        lab.wait(functions.trace("trunk", FRAME, "rx", WHERE))
    with pytest.raises(EngineError, match='port "trunk" has no chain for frames that go in'):
        lab.wait(functions.watch("trunk", "rx", 1, 0.01))


def test_its_own_network_is_told_of(lab: Lab) -> None:
    start(lab, (lab.use,))
    functions = lab.switch.engine.functions
    found = lab.wait(functions.trace("trunk", FRAME, "rx", WHERE))
    assert [one["name"] for one in found["steps"]] == ["net:green/Guard"]
    assert lab.wait(functions.watch("trunk", "rx", 1, 0.01)) == []
    lab.alter(remove_ports=["trunk"])
    with pytest.raises(EngineError, match="has no chain"):
        lab.wait(functions.trace("trunk", FRAME, "rx", WHERE))
