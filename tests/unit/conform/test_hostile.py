# SPDX-License-Identifier: Apache-2.0
"""The hunt finds what breaks a back end, makes it smaller, and does it again from a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.conform.backend.acts import MESSAGE, PAUSE, RING_SPACE, USED_AT, Act, Stage, seeds
from byway.conform.backend.bench import Bench
from byway.conform.backend.hostile import GONE, STUCK, Finding, Hunt, make, play
from byway.conform.device import DeviceRing, Taken
from byway.conform.plain_back_end import RingState
from byway.conform.plain_rings import PlainBackEnd, PlainSwitch
from tests.unit.conform.mutants import Crashes

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Hangs(PlainBackEnd):
    """Is stuck for good once it saw a bad descriptor, and still answers."""

    broken = False

    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        type(self).broken |= any(taken.bad for taken, _ in used)
        if not self.broken:
            super().finish(ring, device, used)


class Lab:
    """A back end that is started again, and a bench for it."""

    def __init__(self, folder: Path, kind: type[PlainBackEnd]) -> None:
        self.path, self._kind = str(folder / "a.sock"), kind
        self._switch: PlainSwitch | None = None
        self.starts = 0
        self.start()
        # Those that never hang may be slow.
        self.bench = Bench(self.path, timeout=0.3 if kind is Hangs else 2, seed=1)

    def start(self) -> None:
        """Start it, again."""
        if self._switch:
            self._switch.close()
        if issubclass(self._kind, Hangs):
            self._kind.broken = False
        self._switch = PlainSwitch([self.path], (self._kind,))
        self.starts += 1

    def close(self) -> None:
        """End it."""
        self.bench.close()
        assert self._switch
        self._switch.close()


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path, request.param)
    yield made
    made.close()


@pytest.mark.parametrize(("lab", "what"), [(Crashes, GONE), (Hangs, STUCK)], indirect=["lab"])
def test_what_breaks_it_is_found_and_made_smaller(lab: Lab, what: str, tmp_path: Path) -> None:
    hunt = Hunt(lab.bench, lab.start)
    finding = next(f for _, f in hunt.cases(200) if f is not None)
    assert finding.what == what
    smaller = hunt.smaller(finding)
    assert smaller.minimised
    assert len(smaller.acts) < len(finding.acts) / 2
    assert lab.starts > 2
    file = str(tmp_path / "finding.json")
    smaller.write(file)
    assert any(seen_again(lab, Finding.read(file)) for _ in range(5))


def seen_again(lab: Lab, finding: Finding) -> bool:
    """-> the same happened, to one that was just started and may not have been run in time."""
    lab.start()
    return play(lab.bench, finding.acts)[0] == finding.what


@pytest.mark.parametrize("lab", [Crashes], indirect=True)
def test_where_it_stays_away_the_finding_is_left_as_it_is(lab: Lab) -> None:
    hunt = Hunt(lab.bench)
    finding = next(f for _, f in hunt.cases(200) if f is not None)
    assert hunt.smaller(finding) == finding
    assert not finding.minimised


@pytest.mark.parametrize("lab", [PlainBackEnd], indirect=True)
def test_unspoiled_lists_are_right(lab: Lab) -> None:
    for acts in seeds(lab.bench):
        assert any(all_used(lab.bench, [*acts, Act(PAUSE, pause)]) for pause in (1, 10, 100, 1000))


def all_used(bench: Bench, acts: list[Act]) -> bool:
    """-> all eight frames were, by a back end that may not have been run at once."""
    stage = Stage()
    try:
        assert stage.do(bench, acts) == "it went on"
        bench.clear()
        at = RING_SPACE + USED_AT + 2
        packed = stage.area.map[RING_SPACE + 14 : RING_SPACE + 16] == b"\x80\x80"
        return packed or stage.area.map[at : at + 2] == b"\x08\x00"
    finally:
        stage.close()


@pytest.mark.parametrize("lab", [PlainBackEnd], indirect=True)
def test_the_same_seed_makes_the_same_cases(lab: Lab) -> None:
    assert [make(lab.bench, k) for k in range(20)] == [make(lab.bench, k) for k in range(20)]
    assert len({len(make(lab.bench, k)) for k in range(40)}) > 3
    every = [act for k in range(60) for act in make(lab.bench, k)]
    assert any(act.kind == MESSAGE and act.cut >= 0 for act in every)
