# SPDX-License-Identifier: Apache-2.0
"""No function hangs a worker: ranges at the edges of 64 bits, calls of calls, the work budget."""

from pathlib import Path

import pytest

from byway import nf
from byway.functions import blueprint as does
from byway.functions.harness import Harness, blueprint_of, same
from byway.functions.translate import translate
from byway.nf.function import definition
from byway.nf.problem import FunctionError
from byway.testing import builders
from tests.authoring import LINE, function_of

FRAME = builders.tcp("10.0.0.1", "10.0.0.2", 1000, 80)
HIGHEST, LOWEST = (1 << 63) - 1, -1 << 63


def _both(cls: type, **parameters: int) -> nf.Outcome:
    """What becomes of a frame, the same in plain Python; a function that hangs fails here."""
    [outcome] = Harness(cls, **parameters).run([FRAME])
    [expected] = nf.Plain(cls, **parameters).run([FRAME])
    assert same(outcome, expected), f"{outcome}\n{expected}"
    return outcome


@pytest.mark.parametrize("ends", [
    f"0, {HIGHEST}, {1 << 62}", f"{HIGHEST - 2}, {HIGHEST}, 2", f"{HIGHEST - 2}, {HIGHEST}",
    f"0, {LOWEST}, -{(1 << 62) + 1}", f"{LOWEST + 2}, {LOWEST}, -2", f"{LOWEST + 2}, {LOWEST}, -1",
    f"{LOWEST}, {HIGHEST}, {HIGHEST}", f"{HIGHEST}, {LOWEST}, {LOWEST}", f"{HIGHEST}, 0, 3",
    f"self.limit, {HIGHEST}, {1 << 62}", f"self.limit, {LOWEST}, -{1 << 62}",
    f"0, self.limit + {HIGHEST - 100}, {1 << 61}", "0, self.limit, 30", "self.limit, -9, -40",
])
def test_a_range_ends_where_pythons_does(tmp_path: Path, ends: str) -> None:
    cls = function_of(tmp_path, f"""
        n = 0
        last = 0
        for i in range({ends}):
            n += 1
            last = i
        self.sums[0] = last & 0xFFFF
        return nf.REDIRECT(n * 256 + (self.sums[0] & 0xFF))
        """)
    outcome = _both(cls)
    assert outcome.fault is None


def test_a_range_of_all_numbers_uses_up_its_budget(tmp_path: Path) -> None:
    cls = function_of(tmp_path, f"for i in range({LOWEST}, {HIGHEST}):\n    pass\nreturn nf.PASS")
    outcome = _both(cls)
    assert outcome.fault == nf.Fault("work budget used up", str(tmp_path / "trial.py"), LINE)


def test_a_range_that_cannot_wrap_is_not_looked_after(tmp_path: Path) -> None:
    made = translate(definition(function_of(tmp_path, """
        for i in range(0, 15, 5):
            for k in range(frame.length):
                self.sums[i & 7] += k
        return nf.PASS
        """)), "trial.py:Trial", {})
    assert "= t2" not in made.methods["process"].source


def _doubling(depth: int, leaf: str = "return x + 1") -> str:
    """Methods each of which calls the one before twice."""
    lines = ["def f0(self, x):", f"    {leaf}"]
    for k in range(1, depth + 1):
        lines += [f"def f{k}(self, x):", f"    return self.f{k - 1}(x) + self.f{k - 1}(x)"]
    return "\n".join(lines)


@pytest.mark.parametrize(("depth", "counted"), [(3, False), (4, False), (5, True), (20, True)])
def test_calls_are_rounds(tmp_path: Path, depth: int, counted: bool) -> None:
    """Of calls of f4, f3, ... f1 there are 15: within the budget of 20; of f5 there are 31."""
    body = f"return nf.REDIRECT(self.f{depth}(0))"
    cls = function_of(tmp_path, body, _doubling(depth))
    flags = blueprint_of(cls).methods["process"].flags
    assert (does.LOOPS in flags) == counted
    outcome = _both(cls)
    if counted:
        assert outcome.fault is not None
        assert outcome.fault.kind == "work budget used up"
    else:
        assert outcome.verdict == nf.REDIRECT(2 ** depth)


def test_calls_may_not_be_too_deep(tmp_path: Path) -> None:
    cls = function_of(tmp_path, "return nf.REDIRECT(self.f60(0))", _doubling(60))
    with pytest.raises(FunctionError, match="calls deep; write what it does where it is called"):
        blueprint_of(cls)


def test_kernels_that_become_part_of_others_stay_small(tmp_path: Path) -> None:
    cls = function_of(tmp_path, "return nf.REDIRECT(self.f12(0))",
                      "budget = 1000000\n" + _doubling(12))
    source = blueprint_of(cls).methods["process"].source
    assert source.count("@kernel(inline=True)") > 3
    assert source.count("@kernel\n") > 1


def test_the_calls_of_the_way_that_is_longest_count(tmp_path: Path) -> None:
    cls = function_of(tmp_path, """
        if frame.is_tcp:
            x = self.f4(1)
        elif frame.is_udp:
            x = self.f4(2)
        else:
            x = self.f4(3) if frame.is_arp else self.f4(4)
        return nf.REDIRECT(x)
        """, _doubling(4))
    assert does.LOOPS not in blueprint_of(cls).methods["process"].flags


@pytest.mark.parametrize("limit", range(7))
def test_calls_and_loops_share_the_budget(tmp_path: Path, limit: int) -> None:
    """A round of the loop is four: itself, more and twice most; five times that is the budget."""
    cls = function_of(tmp_path, """
        for i in range(self.limit):
            self.hits.add(1)
            self.sums[0] += self.more(frame, i)
        return nf.REDIRECT(100 + self.sums[0])
        """, """
        def more(self, frame, n):
            self.sums[1] += 1
            return self.most(frame, n) + self.most(frame, n + 1)

        def most(self, frame, n):
            self.sums[2] += triple(n)
            return self.sums[2] // (n + 1)
        """)
    harness, plain = Harness(cls, limit=limit), nf.Plain(cls, limit=limit)
    outcome, expected = harness.run([FRAME] * 2), plain.run([FRAME] * 2)
    assert [same(*each) for each in zip(outcome, expected, strict=True)] == [True, True]
    states = harness.instances[0].states
    assert [row["value"] for row in states["sums"].dump()] == [
        value for _, value in plain.instances[0].sums.entries()]
    assert (outcome[0].fault is not None) == (limit > 5)


def test_deep_conditions_are_translated_once(tmp_path: Path) -> None:
    """Of a condition twice as deep comes twice as much, not its square."""
    lines = []
    for depth in (10, 20, 40):
        test = "self.words.add(1) > 3"
        for k in range(depth):
            test = f"(self.words.add({k & 3}) > {k} {'and' if k % 2 else 'or'} {test})"
        (tmp_path / str(depth)).mkdir()
        cls = function_of(tmp_path / str(depth),
                          f"return nf.DROP('deep') if {test} else nf.PASS")
        assert _both(cls).verdict == nf.PASS
        lines.append(blueprint_of(cls).methods["process"].source.count("\n"))
    assert lines[2] - lines[1] < 3 * (lines[1] - lines[0]), lines
