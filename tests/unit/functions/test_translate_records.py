# SPDX-License-Identifier: Apache-2.0
"""Records that are deleted while a function has them: whoever writes to one writes to no other."""

from pathlib import Path

import pytest

from byway import nf
from byway.functions.harness import Harness, blueprint_of, same
from byway.testing import builders
from tests.authoring import function_of
from tests.both_ways import tables
from tests.unit.functions.samples import Churns

FRAME = builders.tcp("10.0.0.1", "10.0.0.2", 1000, 80)
METHODS = '''
def gone(self, n):
    return self.pairs.delete((n, 1))

def instead(self, n, m):
    self.pairs.delete((n, 1))
    made = self.pairs.make((m, 1))
    made.n = 40
    return 1

def kept(self, record, n):
    self.instead(n, n + 1)
    record.n += 2
    return record
'''
# Lines of process after ``r`` was made and is 5; x is compared, and what is in the map.
LINES = [
    "self.pairs.delete((1, 1))\ns = self.pairs.make((2, 1))\nr.n = 9\nx = s.n",
    "self.pairs.delete((1, 1))\ns = self.pairs.make((1, 1))\nr.n = 9\nx = s.n * 16 + r.n",
    "self.gone(1)\ns = self.pairs.make((2, 1))\nr.n = 9\nx = s.n * 16 + r.n",
    "self.instead(1, 2)\nr.n = 9\nx = self.pairs.find((2, 1)).n + int(bool(r))",
    "q = r\nself.instead(1, 2)\nr.n = 9\nx = q.n",
    "x = 0\nfor i in range(5):\n    s = r\n    self.pairs.delete((i, 1))\n"
    "    r = self.pairs.make((i + 1, 1))\n    s.n = 9\n    r.n = i\n    x = x * 2 + r.n",
    "x = 0\nfor i in range(9):\n    r.n += self.instead(i + 1, i)\n    x += r.n",
    "r.n += self.instead(1, 2)\nx = r.n",
    "self.pairs.make((3, 1)).n = self.instead(3, 4)\nx = self.pairs.find((4, 1)).n",
    "self.pairs.make((3, 1)).n += self.instead(3, 4)\nx = self.pairs.find((4, 1)).n",
    "r.n, x = self.instead(1, 2), r.n",
    "s = self.kept(r, 1)\nx = s.n + self.pairs.find((2, 1)).n",
    "s = self.kept(self.pairs.make((6, 1)), 6)\nx = s.n + self.pairs.find((7, 1)).n",
    "s = r if self.gone(1) else self.pairs.make((2, 1))\nt = self.pairs.make((3, 1))\ns.n = 9\n"
    "x = t.n",
    "x = 0\nfor s in (r, self.pairs.make((2, 1))):\n    self.instead(1, 3)\n    self.gone(2)\n"
    "    self.pairs.make((4, 1)).n = 1\n    s.n += 7\n    x += self.pairs.find((4, 1)).n",
    "self.gone(1)\nr.who = nf.wide(1, 2)\nx = nf.low(self.pairs.make((2, 1)).who)",
    "x = 0\nfor i in range(18):\n    x += bool(self.pairs.make((i, 1)))\n    x += self.gone(i)",
]


@pytest.mark.parametrize("lines", LINES)
def test_a_deleted_record_is_nobody_elses(tmp_path: Path, lines: str) -> None:
    cls = function_of(tmp_path, f"""
r = self.pairs.make((1, 1))
r.n = 5
{lines}
return nf.REDIRECT(256 + (x & 0xFF))""", METHODS)
    harness, plain = Harness(cls), nf.Plain(cls)
    for _ in range(3):
        [outcome], [expected] = harness.run([FRAME]), plain.run([FRAME])
        assert same(outcome, expected), f"{outcome}\n{expected}"
        rows, entries = tables(harness, plain, ["pairs"])
        assert rows == entries


def test_places_are_free_again_with_the_next_frame(tmp_path: Path) -> None:
    cls = function_of(tmp_path, """
        for i in range(8):
            self.gone(i)
        for i in range(8):
            if not self.pairs.make((i, 1)):
                return nf.DROP("no room")
        return nf.PASS
        """, METHODS)
    harness = Harness(cls)
    for _ in range(300):
        [outcome] = harness.run([FRAME])
        assert outcome.verdict == nf.PASS
    assert harness.instances[0].states["pairs"].stats()["entries"] == 8


def test_a_frame_that_deletes_without_end_finds_room() -> None:
    """Places of what it deleted are the last that it gets, but better than none."""
    [outcome], [expected] = Harness(Churns).run([FRAME]), nf.Plain(Churns).run([FRAME])
    assert outcome.verdict == expected.verdict == nf.PASS


@pytest.mark.parametrize(("body", "looked_after"), [
    ("self.gone(1)\nself.pairs.make((1, 1))", True), ("self.gone(1)", False),
    ("self.pairs.make((1, 1))", False), ("self.words.delete(1)\nself.words.set(1, 2)", False)])
def test_frames_are_told_apart_where_they_must_be(tmp_path: Path, body: str,
                                                  looked_after: bool) -> None:
    cls = function_of(tmp_path, f"{body}\nreturn nf.PASS", METHODS)
    assert ("next_frame" in blueprint_of(cls).methods["process"].source) == looked_after
