# SPDX-License-Identifier: Apache-2.0
"""Ports that wait: those that must not be opened yet, and those that could not be."""

from typing import Any

from byway.control.opening import TRIES, Unopened
from byway.ports.port import PortError

WHY = "its chain is being built"


class PlainPort:
    """A port that opens, or not."""

    def __init__(self, name: str, works: bool = True) -> None:
        self.name, self.works = name, works
        self.state, self.reason, self.config = "down", "", None

    def open(self) -> None:
        if not self.works:
            raise PortError("socket", "is taken", "take another one")
        self.state = "up"


def test_all_that_waited_open_at_once() -> None:
    shut = {"why": WHY}
    waiting: Any = Unopened(lambda port: shut["why"])
    ports = [PlainPort(f"p{k}") for k in range(10 * TRIES)]
    for port in ports:
        waiting.open(port, patient=True)
    waiting.open_held()
    assert {(port.state, port.reason) for port in ports} == {("down", WHY)}
    assert list(waiting.again(None)) == []
    shut["why"] = ""
    waiting.open_held()
    assert {port.state for port in ports} == {"up"}
    assert list(waiting.again(None)) == []


def test_one_that_cannot_be_opened_then_is_tried_in_turn() -> None:
    shut = {"why": WHY}
    waiting: Any = Unopened(lambda port: shut["why"])
    bad, good = PlainPort("bad", works=False), PlainPort("good")
    for port in (bad, good):
        waiting.open(port, patient=True)
    shut["why"] = ""
    waiting.open_held()
    assert (good.state, bad.state) == ("up", "down")
    assert "is taken" in bad.reason
    assert len(list(waiting.again(None))) == 1
    waiting.discard("bad")
    assert list(waiting.again(None)) == []
