# SPDX-License-Identifier: Apache-2.0
"""Functions at work in tests, both ways: frames, time, and what is in their state."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from byway import nf
from byway.testing.builders import tcp, udp

if TYPE_CHECKING:
    from byway.testing.function_fixtures import AtWork

pytest_plugins = ["byway.testing.function_fixtures"]


@nf.function
class Guard:
    """Some of everything."""

    limit: int = 2
    way: nf.Port = nf.Port("")
    table = nf.Map(key=("ipv4", "u16"), value="u32", capacity=100, age=1.0)
    closed = nf.Map(key="ipv4", value="u8", capacity=100)
    dropped = nf.Counter()
    noisy = nf.Event(source="ipv4")

    def process(self, frame: nf.Frame) -> nf.Verdict:
        """Called for each frame."""
        if frame.ipv4_src in self.closed:
            return nf.DROP("closed")
        if frame.is_udp:
            return nf.REDIRECT(self.way)
        if self.table.add((frame.ipv4_src, frame.l4_dst)) > self.limit:
            self.dropped.add()
            self.noisy.emit(source=frame.ipv4_src)
            return nf.DROP("over limit")
        return nf.PASS


def test_frames_time_and_state(instance: "Callable[..., AtWork]") -> None:
    guard = instance(Guard, limit=1)
    outcomes = guard.run([tcp(sport=k) for k in range(3)])
    assert [one.verdict.kind for one in outcomes] == ["pass", "drop", "drop"]
    assert guard.rows("table") == {"10.0.0.1,80": 3}
    assert guard.rows("dropped") == {"value": 2}
    assert [one["source"] for one in guard.state("noisy").take()] == [0x0A000001] * 2
    guard.wait(1.5)
    assert guard.rows("table") == {}
    assert guard.send(tcp()).verdict == nf.PASS


def test_tables_are_filled_as_users_do(instance: "Callable[..., AtWork]") -> None:
    guard = instance(Guard)
    guard.state("closed").put("10.0.0.9", 1)
    assert guard.send(tcp("10.0.0.9")).reason == "closed"
    assert guard.rows("closed") == {"10.0.0.9": 1}


def test_chains_and_ports(instance: "Callable[..., AtWork]") -> None:
    chain = instance([(Guard, {"limit": 5}), (Guard, {"limit": 0, "way": "probe"})],
                     ports={"probe": 7})
    assert chain.send(tcp(), direction="tx").reason == "over limit"
    assert chain.rows("dropped", 0) == {"value": 0}
    assert chain.rows("dropped", 1) == {"value": 1}


@pytest.mark.parametrize(("name", "number"), [("probe", 7), ("another", -1)])
def test_ports_have_the_numbers_that_the_test_gives(instance: "Callable[..., AtWork]", name: str,
                                                    number: int) -> None:
    guard = instance(Guard, way=name, ports={"probe": 7})
    assert guard.send(udp()).verdict == nf.REDIRECT(number)
