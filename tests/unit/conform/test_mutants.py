# SPDX-License-Identifier: Apache-2.0
"""Each check can fail: a back end that breaks its rule is found by it, and a right one is not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from byway.conform.backend.bench import Bench
from byway.conform.backend.catalogue import all_checks
from byway.conform.outcome import Outcome, Verdict
from byway.conform.plain_rings import PlainBackEnd, PlainSwitch
from byway.conform.runner import run
from tests.unit.conform.mutants import MUTANTS

# A back end in Python cannot survive that its memory is truncated.
FATAL = "robust.truncated-memory"
# What the plain back end does not offer.
ABSENT = {"features.platform-closure", "iotlb.updates", "iotlb.misses", "iotlb.invalidated",
          "net.tso", "net.tso-large"}
CHECKS = {check.name: check for check in all_checks()}


@contextmanager
def bench(folder: Path, kind: type[PlainBackEnd], timeout: float) -> Iterator[Bench]:
    """A bench for a back end of this kind, whose other port is a right one."""
    sockets = [str(folder / name) for name in ("a.sock", "b.sock")]
    with PlainSwitch(sockets, (kind,)):
        made = Bench(sockets[0], peer=sockets[1], timeout=timeout)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_back_end_that_breaks_a_rule_is_found(name: str, tmp_path: Path) -> None:
    kind, check = MUTANTS[name]
    for turn in range(3):  # one that does not get the CPU does its wrong thing too late
        folder = tmp_path / str(turn)
        folder.mkdir()
        with bench(folder, kind, 0.4) as made:
            (outcome,) = run([CHECKS[check]], made)
        if outcome.verdict is Verdict.FAIL:
            break
    assert outcome.verdict is Verdict.FAIL, outcome.seen


@pytest.mark.parametrize("check", sorted({check for _, check in MUTANTS.values()}))
def test_a_right_one_is_not_found(check: str, tmp_path: Path) -> None:
    with bench(tmp_path, PlainBackEnd, 10.0) as made:
        (outcome,) = run([CHECKS[check]], made)
    assert outcome.verdict is Verdict.PASS, outcome.seen


@pytest.mark.timeout(300)
def test_the_plain_back_end_passes_every_check_that_applies(tmp_path: Path) -> None:
    with bench(tmp_path, PlainBackEnd, 20.0) as made:
        outcomes: list[Outcome] = list(run([c for c in all_checks() if c.name != FATAL], made))
    failed = {o.name: o.seen for o in outcomes
              if o.verdict not in (Verdict.PASS, Verdict.NOT_APPLICABLE)}
    assert failed == {}
    assert {o.name for o in outcomes if o.verdict is Verdict.NOT_APPLICABLE} == ABSENT


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_kills_a_back_end_is_told_and_the_others_are_not_made(tmp_path: Path) -> None:
    with bench(tmp_path, MUTANTS["Crashes"][0], 0.4) as made:
        crash = CHECKS["robust.split.bad-address"]
        first, second = run([crash, CHECKS["transport.burst"]], made)
    assert first.counts
    assert "afterwards nobody answered" in first.seen or "no connection" in first.seen
    assert (second.verdict, second.seen) == (
        Verdict.UNABLE, "nobody has answered since robust.split.bad-address")
