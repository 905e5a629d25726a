# SPDX-License-Identifier: Apache-2.0
"""Chains are measured over the frames that were given, each in turn."""

from byway import nf
from byway.functions.harness import Harness
from byway.testing.builders import tcp, udp
from byway.testing.chain_bench import ChainBench, connections


@nf.function
class OnlyTcp:
    """Drop what is no TCP, and count everything."""

    seen = nf.Counter()

    def process(self, frame: nf.Frame) -> nf.Verdict:
        """Called for each frame."""
        self.seen.add()
        return nf.PASS if frame.is_tcp else nf.DROP("no TCP")


def test_all_frames_go_through_in_turn() -> None:
    harness = Harness(OnlyTcp)
    chain = harness.chain("rx")
    bench = ChainBench([tcp(), tcp(), tcp(), udp()], batches=3)
    cost = bench.turn(chain)
    assert cost.settled == 0.25
    assert cost.cycles > 0
    assert harness.instances[0].counters["frames"] == 3 * 64
    assert harness.instances[0].drops == {"no TCP": 48}


@nf.function
class Answers:
    """Sends all frames back."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        """Called for each frame."""
        return nf.REPLY


def test_a_function_that_answers_is_measured_as_well() -> None:
    """Who is answered is learned, so there is a table to learn in."""
    cost = ChainBench(connections(64), batches=8).turn(Harness(Answers).chain("rx"))
    assert cost.settled == 1.0


def test_chains_take_turns() -> None:
    one, other = Harness(OnlyTcp), Harness(OnlyTcp)
    bench = ChainBench(connections(5), batches=1)
    costs = bench.measure({"one": one.chain("rx"), "other": other.chain("rx")}, 0.001)
    assert list(costs) == ["one", "other"]
    assert {cost.settled for cost in costs.values()} == {0.0}
    assert one.instances[0].counters["frames"] == other.instances[0].counters["frames"] >= 64


def test_one_frame_in_eight_begins_a_connection() -> None:
    frames = connections(16)
    assert len(frames) == 8 * 16
    assert sum(frame[47] == 2 for frame in frames) == 16
    assert len({frame[26:36] for frame in frames}) == 16
