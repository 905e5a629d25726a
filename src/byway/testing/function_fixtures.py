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

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import pytest

from byway.nf import Map, Outcome, Plain
from byway.nf.keys import show_key
from byway.nf.running import RUN, Run, current
from byway.nf.states import shown_value

SECOND = 10**9
MOST = 1 << 20  # rows
BEGINNING = 1000 * SECOND  # the time at which a test starts: nothing has been there for long


class AtWork:
    """A function, or a chain of them, that a test sends frames to. Time stands still but for
    ``wait``. ``runs``: nf.Plain or functions.harness.Harness."""

    def __init__(self, runs: Any) -> None:
        self.runs = runs
        self.now = BEGINNING
        self.wait(0)

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
        if isinstance(self.runs, Plain):
            current().now = self.now  # for who looks at its state
        else:
            self.runs.now = self.now

    def state(self, name: str, place: int = 0) -> Any:
        """A state of the function (of the one at ``place`` in a chain), to be filled as by a user:
        ``put(key, value)``, ``remove(key)``, ``clear()``, ``fill(rows)``; of an event, ``take()``:
        what was emitted."""
        thing = self.runs.instances[place]
        return getattr(thing, name) if isinstance(self.runs, Plain) else thing.states[name]

    def rows(self, name: str, place: int = 0) -> dict[Any, Any]:
        """What is in a state, keys and values as users see them; a counter's one key is
        "value"."""
        state = self.state(name, place)
        if not isinstance(self.runs, Plain):
            return {row["key"]: row["value"] for row in state.dump(MOST)}
        if isinstance(state, Map):
            return {show_key(state.key_types, key): shown_value(state.fields, value)
                    for key, value in state.entries()}
        return dict(state.entries())


@pytest.fixture(params=["plain", "compiled"])
def instance(request: pytest.FixtureRequest) -> Iterator[Callable[..., AtWork]]:
    """Makes instances: ``instance(RateGuard, limit=2)``, or of a chain: ``instance([First, (Second,
    {"limit": 2})])``. ``ports``: {name: number} of those that parameters name."""
    def make(functions: Any, **given: Any) -> AtWork:
        if request.param == "plain":
            return AtWork(Plain(functions, **given))
        from byway.functions.harness import Harness

        return AtWork(Harness(functions, **given))

    before = RUN.set(Run())
    yield make
    RUN.reset(before)
