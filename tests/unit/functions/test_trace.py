# SPDX-License-Identifier: Apache-2.0
"""A traced chain tells of each frame what each function made of it."""

import numpy as np

from byway.functions.harness import Harness
from byway.functions.harness_kernels import frames_in
from byway.functions.memory import Chain
from byway.functions.trace import Trace
from byway.testing import builders
from tests.unit.functions.samples import Divides, Older, Says


def traced(frames: list[bytes], room: int) -> tuple[Trace, list[object]]:
    harness = Harness([Older, (Says, {"what": "drop"}), Divides])
    trace = Trace(room, len(harness.instances))
    chain = Chain(harness.instances, "rx", 1e9, trace)
    for frame in frames:
        octets = np.frombuffer(frame, np.uint8).copy()
        harness.fill([octets])
        frames_in(chain.address, harness.batch.address, 0)
    reasons = [one.blueprint.reasons for one in harness.instances]
    return trace, list(trace.frames(["older", "says", "divides"], reasons, "rx"))


def test_step_by_step() -> None:
    frames = [builders.udp(dport=5), builders.udp(dport=53), builders.udp(dport=0)]
    trace, told = traced(frames, 3)
    assert trace.complete
    assert [[(s.function, s.verdict) for s in one.steps] for one in told] == [
        [("older", "pass"), ("says", "pass"), ("divides", "pass")],
        [("older", "pass"), ("says", "drop: told to")],
        [("older", "pass"), ("says", "pass"), ("divides", "fault")]]
    first = told[0]
    assert first.length == len(frames[0])
    assert (first.headers["ipv4_src"], first.headers["l4_dst"]) == (builders.SRC, 5)
    assert first.headers["eth_src"] == builders.ETH_SRC
    assert first.steps[0].changed == {"ip_ttl": (64, 63)}
    assert first.steps[1].changed == {}


def test_it_ends_with_the_last_frame_that_there_is_room_for() -> None:
    trace, told = traced([builders.udp(dport=5)] * 5, 2)
    assert trace.complete
    assert len(told) == 2
    assert all(len(one.steps) == 3 for one in told)
    trace, told = traced([builders.udp(dport=5)], 2)
    assert not trace.complete
    assert len(told) == 1
