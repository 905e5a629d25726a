# SPDX-License-Identifier: Apache-2.0
"""For pytest: network functions at work, in plain Python and compiled.

    pytest_plugins = ["byway.testing.function_fixtures"]

    def test_the_third_one_is_too_many(instance):
        guard = instance(RateGuard, limit=2)
        outcomes = guard.run([tcp(flags="S")] * 3)
        assert outcomes[2].reason == "over limit"
        guard.wait(1.5)
        assert guard.send(tcp(flags="S")).verdict == nf.PASS

Used by authors' tests. Each test that asks for ``instance`` runs twice, which is how a test shows
that the switch does what the source says. Uses nf.Plain and functions.harness.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import pytest

from byway.nf import Outcome, Plain

SECOND = 10**9
BEGINNING = 1000 * SECOND  # the time at which a test starts: nothing has been there for long


class AtWork:
    """A function, or a chain of them, that a test sends frames to. Time stands still but for
    ``wait``. ``runs``: nf.Plain or functions.harness.Harness."""

    def __init__(self, runs: Any) -> None:
        self.runs = runs
        self.now = BEGINNING

    def run(self, frames: Iterable[bytes], *, port: int = 1,
            direction: Literal["rx", "tx"] = "rx", **more: Any) -> list[Outcome]:
        """What becomes of frames that come together. ``direction``: "rx", from the port; "tx", to
        it. ``more``: network, vni (numbers)."""
        made: list[Outcome] = self.runs.run(
            list(frames), port=port, direction=direction, now=self.now, **more)
        return made

    def send(self, frame: bytes, **more: Any) -> Outcome:
        """What becomes of one frame."""
        return self.run([frame], **more)[0]

    def wait(self, seconds: float) -> None:
        """Let time pass. Nobody sleeps."""
        self.now += round(seconds * SECOND)


@pytest.fixture(params=["plain", "compiled"])
def instance(request: pytest.FixtureRequest) -> Callable[..., AtWork]:
    """Makes instances: ``instance(RateGuard, limit=2)``, or of a chain: ``instance([First, (Second,
    {"limit": 2})])``. ``ports``: {name: number} of those that parameters name."""
    def make(functions: Any, **given: Any) -> AtWork:
        if request.param == "plain":
            return AtWork(Plain(functions, **given))
        from byway.functions.harness import Harness

        return AtWork(Harness(functions, **given))

    return make
