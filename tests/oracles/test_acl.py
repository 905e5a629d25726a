# SPDX-License-Identifier: Apache-2.0
"""byway.acl against a walk through its rules, over frames of every kind."""

import random

import pytest

from byway.functions.builtin.acl import Acl
from byway.nf.frame import Frame
from byway.nf.rules import Rule
from byway.testing.builders import arp, icmpv6, tcp, udp
from byway.testing.generated import generated
from tests.both_ways import Both
from tests.frames_wanted import frames_wanted
from tests.oracles.test_rules import random_rule

VALUES = ("drop", "pass")


def _walk(rules: list[Rule], frame: bytes, default: str, neighbours: bool) -> str:
    """What becomes of a frame: the reason of its drop, or nothing."""
    seen = Frame(frame)
    for rule in rules:
        if rule.matches(seen):
            return "rule" if rule.value == 0 else ""
    if default == "pass":
        return ""
    if neighbours:
        if seen.is_arp:
            return ""
        if seen.is_icmpv6 and 133 <= seen.icmp_type <= 137 and seen.ip_ttl == 255:
            return ""
    return "no rule"


@pytest.mark.parametrize(("default", "neighbours"), [
    ("drop", True), ("drop", False), ("pass", True)])
def test_it_does_what_a_walk_does(default: str, neighbours: bool) -> None:
    rng = random.Random(default + str(neighbours))
    rows = []
    while len(rows) < 40:
        row = {**random_rule(rng), "value": rng.choice(VALUES)}
        if len(row) > 3 or "eth_type" in row:
            rows.append(row)
    both = Both(Acl, default=default, neighbours=neighbours)
    both.put("rules", enumerate(rows))
    rules = [Rule.given(row, VALUES) for row in rows]
    frames = generated(frames_wanted() // 2, 3)
    frames += [icmpv6(kind=kind, ttl=ttl) for kind in range(130, 140) for ttl in (255, 64)]
    seen = {"": 0, "rule": 0}
    for frame, outcome in zip(frames, both.run(frames), strict=True):
        wanted = _walk(rules, frame, default, neighbours)
        assert outcome.reason == wanted, frame.hex()
        assert outcome.frame == frame
        seen[wanted] = seen.get(wanted, 0) + 1
    assert all(seen.values())
    assert ("no rule" in seen) == (default == "drop")


def test_rules_change_while_frames_flow() -> None:
    both = Both(Acl)
    frame = tcp("10.0.0.1", "10.0.0.2", dport=80)
    assert both.one(frame).reason == "no rule"
    assert both.one(arp()).verdict.kind == "pass"
    both.put("rules", [(10, {"value": "pass", "protocol": "tcp", "destination_ports": 80})])
    assert both.one(frame).verdict.kind == "pass"
    assert both.one(udp(dport=80)).reason == "no rule"
    both.put("rules", [(5, {"value": "drop", "source": "10.0.0.1"})])
    assert both.one(frame).reason == "rule"
    both.set("default", "pass")
    assert both.one(udp(dport=80)).reason == "rule"
    assert both.one(udp("10.0.0.9", dport=80)).verdict.kind == "pass"
    rules = both.harness.instances[0].states["rules"]
    assert [row["value"]["hits"] for row in rules.dump()] == [2, 1]
