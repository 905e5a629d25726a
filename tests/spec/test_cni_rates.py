# SPDX-License-Identifier: Apache-2.0
"""The rates of the CNI conventions (CONVENTIONS.md, bandwidth), as `byway-cni` sets them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cni_lab import FakeLab, fake_lab, inside, interfaces
from tests.cni_runtime import PluginError


@pytest.fixture
def lab() -> Iterator[FakeLab]:
    with fake_lab() as made:
        yield made


def code_of(call: Any, *arguments: Any, **options: Any) -> int:
    with pytest.raises(PluginError) as caught:
        call(*arguments, **options)
    return caught.value.code


def test_rates(lab: FakeLab) -> None:
    """CONVENTIONS.md, bandwidth: rates in bits a second, bursts in bits; ingress is what the
    container receives."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns, bandwidth={"ingressRate": 8_000_000, "ingressBurst": 16_000_000,
                                        "egressRate": 4_000_000})
    assert "root refcnt 2 rate 4Mbit burst 128Kb" in inside(
        netns, "tc", "qdisc", "show", "dev", "eth0")
    assert "rate 8Mbit burst 2000000b" in inside(netns, "tc", "qdisc", "show", "dev", "ifb-eth0")
    assert "redirect to device ifb-eth0" in inside(
        netns, "tc", "filter", "show", "dev", "eth0", "parent", "ffff:").lower()
    runtime.check("c1", netns)
    inside(netns, "tc", "qdisc", "del", "dev", "ifb-eth0", "root")
    assert code_of(runtime.check, "c1", netns) == 103
    runtime.delete("c1", netns)
    assert interfaces(netns) == set()


def test_a_burst_without_a_rate(lab: FakeLab) -> None:
    assert code_of(lab.runtime().add, "c1", lab.namespace(), bandwidth={"egressBurst": 1}) == 7
