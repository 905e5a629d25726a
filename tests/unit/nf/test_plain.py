# SPDX-License-Identifier: Apache-2.0
"""Functions as they stand, in plain Python: verdicts, copies, faults, time, chains."""

from pathlib import Path
from typing import Any

import pytest

from byway import nf
from byway.functions.finding import find
from byway.testing import builders

_FRAME = builders.tcp("10.0.0.1", "10.0.0.2", 1000, 80, flags="S")


@nf.function
class RateGuard:
    """Drop a source's new connections above a limit."""

    limit: int = 1
    table = nf.Map(key="ipv4", value="u32", capacity=100, age=1.0)

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if not frame.is_tcp_syn:
            return nf.PASS
        n = self.table.add(frame.ipv4_src, 1)
        return nf.DROP("over limit") if n > self.limit else nf.PASS


@nf.function
class Says:
    """Whatever it is told."""

    port: nf.Port = nf.Port()
    what: int = 0

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if self.what == 1:
            return nf.REDIRECT(self.port)
        if self.what == 2:
            return nf.MIRROR(self.port)
        if self.what == 3:
            return nf.CLONE(self.port)
        return nf.REPLY


@nf.function
class Faulty:
    """What goes wrong is what it is told."""

    what: int = 0
    sums = nf.Array(size=4)
    budget = 10

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if self.what == 1:
            self.sums[0] = 1 // self.sums[1]
        elif self.what == 2:
            self.sums[self.what + 2] += 1
        elif self.what == 3:
            while self.what == 3:
                self.sums[0] += 1
        elif self.what == 4:
            self.sums[0] = 1 << self.sums[2] - 1
        elif self.what == 5:
            for i in range(10):
                self.sums[1] += i
        elif self.what == 6:
            count(11)
        return nf.PASS


def count(n: int) -> int:
    total = 0
    for i in range(n):
        total += i
    return total


def test_state_lives_on_and_ages() -> None:
    plain = nf.Plain(RateGuard, limit=2)
    verdicts = [one.verdict for one in plain.run([_FRAME] * 3)]
    assert verdicts == [nf.PASS, nf.PASS, nf.DROP("over limit")]
    assert plain.instances[0].table.get(0x0A000001) == 3
    [later] = plain.run([_FRAME], now=2_000_000_000)
    assert later.verdict == nf.PASS
    assert later.frame == _FRAME


@pytest.mark.parametrize(("what", "verdict", "copies"), [
    (0, nf.REPLY, 0), (1, nf.REDIRECT(3), 0), (2, nf.MIRROR(3), 1), (3, nf.CLONE(3), 1)])
def test_verdicts(what: int, verdict: nf.Verdict, copies: int) -> None:
    plain = nf.Plain(Says, ports={"uplink": 3}, port="uplink", what=what)
    [outcome] = plain.run([_FRAME])
    assert outcome.verdict == verdict
    assert outcome.copies == ((3, _FRAME),) * copies
    if what == 0:
        assert outcome.frame[:12] == _FRAME[6:12] + _FRAME[:6]


def test_a_port_that_is_not_there_has_the_number_minus_one() -> None:
    [outcome] = nf.Plain(Says, port="nix", what=1).run([_FRAME])
    assert outcome.verdict == nf.REDIRECT(-1)


@pytest.mark.parametrize(("what", "kind", "line"), [
    (1, "division by zero", "self.sums[0] = 1 // self.sums[1]"),
    (2, "index out of range", "self.sums[self.what + 2] += 1"),
    (3, "work budget used up", "while self.what == 3:"),
    (4, "negative shift", "self.sums[0] = 1 << self.sums[2] - 1"),
    (6, "work budget used up", "for i in range(n):"),
])
def test_faults_drop_the_frame_and_name_the_line(what: int, kind: str, line: str) -> None:
    plain = nf.Plain(Faulty, what=what)
    [outcome] = plain.run([_FRAME])
    assert outcome.verdict == nf.DROP("")
    assert outcome.fault is not None
    assert outcome.fault.kind == kind
    with open(outcome.fault.file, encoding="utf-8") as file:
        assert file.readlines()[outcome.fault.line - 1].strip() == line
    assert str(outcome.fault) == f"{__file__}:{outcome.fault.line}: {kind}"


def test_as_many_rounds_as_the_budget_has_are_allowed() -> None:
    plain = nf.Plain(Faulty, what=5)
    assert [one.verdict for one in plain.run([_FRAME] * 2)] == [nf.PASS] * 2
    assert plain.instances[0].sums[1] == 90


def test_rounds_in_functions_of_other_files_count(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(
        "def total(n):\n    k = 0\n    for i in range(n):\n        k += i\n    return k\n")
    (tmp_path / "guard.py").write_text(
        "from byway import nf\nfrom counting import total\n\n\n@nf.function\nclass Guard:\n"
        "    rounds: int = 5\n    budget = 6\n\n    def process(self, frame):\n"
        "        return nf.PASS if total(self.rounds) else nf.REPLY\n")
    cls, _ = find(f"{tmp_path}/guard.py:Guard", tmp_path)
    assert nf.Plain(cls).run([_FRAME])[0].fault is None
    [outcome] = nf.Plain(cls, rounds=6).run([_FRAME])
    assert outcome.fault == nf.Fault("work budget used up", str(tmp_path / "counting.py"), 3)


def test_calls_count_but_those_of_what_neither_calls_nor_loops(tmp_path: Path) -> None:
    (tmp_path / "guard.py").write_text(
        "from byway import nf\n\n\n@nf.function\nclass Guard:\n"
        "    n = nf.Array(size=1)\n    budget = 2\n\n"
        "    def one(self, x):\n        return x + 1\n\n"
        "    def two(self, x):\n        self.n[0] += 1\n"
        "        return self.one(self.one(x)) + self.one(x)\n\n"
        "    def process(self, frame):\n"
        "        x = self.two(self.two(1))\n"
        "        return nf.DROP('odd') if frame.is_udp and self.two(x) else nf.PASS\n")
    cls, _ = find(f"{tmp_path}/guard.py:Guard", tmp_path)
    plain = nf.Plain(cls)
    assert plain.run([_FRAME])[0].fault is None
    [outcome] = plain.run([builders.udp("10.0.0.1", "10.0.0.2", 1, 2)])
    assert outcome.fault == nf.Fault("work budget used up", str(tmp_path / "guard.py"), 12)
    assert plain.instances[0].n[0] == 4


def test_a_chain_ends_with_the_first_that_does_not_pass() -> None:
    plain = nf.Plain([(RateGuard, {"limit": 0}), (Says, {"what": 1})], ports={})
    [syn, other] = plain.run([_FRAME, builders.udp("10.0.0.1", "10.0.0.2", 1, 2)])
    assert syn.verdict == nf.DROP("over limit")
    assert other.verdict == nf.REDIRECT(-1)


def test_mirrors_are_of_the_frame_as_it_leaves() -> None:
    @nf.function
    class Ages:
        """A hop."""

        def process(self, frame: nf.Frame) -> nf.Verdict:
            frame.ip_ttl -= 1
            return nf.PASS

    chain: list[Any] = [(Says, {"what": 2, "port": "m"}), (Says, {"what": 3, "port": "c"}), Ages]
    [outcome] = nf.Plain(chain, ports={"m": 1, "c": 2}).run([_FRAME])
    assert outcome.copies == ((2, _FRAME), (1, outcome.frame))
    assert outcome.frame != _FRAME


def test_an_exception_that_is_no_fault_is_the_functions_defect() -> None:
    @nf.function
    class Broken:
        """Wrong."""

        def process(self, frame: nf.Frame) -> nf.Verdict:
            return nf.DROP(str(frame.nix))  # type: ignore[attr-defined]

    with pytest.raises(AttributeError):
        nf.Plain(Broken).run([_FRAME])


def test_an_answer_that_is_no_verdict() -> None:
    @nf.function
    class Mumbles:
        """Wrong."""

        def process(self, frame: nf.Frame) -> Any:
            return 1

    with pytest.raises(nf.FunctionError, match="Mumbles answers 1, which is no verdict; return"):
        nf.Plain(Mumbles).run([_FRAME])


def test_a_function_without_a_method_for_a_direction_lets_pass() -> None:
    @nf.function
    class Inwards:
        """One way."""

        def rx(self, frame: nf.Frame) -> nf.Verdict:
            return nf.DROP("in")

    assert nf.Plain(Inwards).run([_FRAME])[0].verdict == nf.DROP("in")
    assert nf.Plain(Inwards).run([_FRAME], direction="tx")[0].verdict == nf.PASS
