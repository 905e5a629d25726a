# SPDX-License-Identifier: Apache-2.0
"""The order of things stays the author's: what is read before is what it was before."""

from pathlib import Path

import pytest

from byway import nf
from byway.functions.harness import Harness, same
from byway.testing import builders
from tests.authoring import function_of

FRAMES = [builders.tcp("10.0.0.1", "10.0.0.2", 1000, 80),
          builders.tcp("2001:db8::1", "2001:db8::2", 1, 2),
          builders.icmp("10.0.0.9", "10.0.0.1", kind=3, code=3,
                        data=builders.udp("10.0.0.1", "10.0.0.2", 5, 6)[14:])]
METHODS = '''
def bump(self):
    self.sums[0] += 7
    return 5

def older(self, frame):
    frame.ip_ttl = 9
    return 1

def tagged(self, frame):
    frame.push_vlan(7)
    return 1

def given(self, frame, view, n):
    return view.l4_dst + n

def split(self, a, b):
    return a // b
'''
# Lines of process; what ends in x (below 256) and in sums is compared.
WIDE = [
    "w = nf.wide(5, 9)\nw = nf.wide(nf.low(w), 0)\nx = nf.high(w) * 16 + nf.low(w)",
    "w = nf.wide(5, 9)\nw = nf.wide(nf.low(w), nf.high(w))\nx = nf.high(w) * 16 + nf.low(w)",
    "w = nf.wide(5, 9)\nw = nf.wide(nf.low(w) + nf.high(w), nf.high(w) + 1)\n"
    "x = nf.high(w) * 16 + nf.low(w)",
    "w = nf.wide(5, 9)\nv = w = nf.wide(nf.low(w), nf.high(w))\nx = nf.high(v) * 16 + nf.low(w)",
    "w = frame.ipv6_src\nw = nf.wide(nf.low(w), nf.high(w))\nframe.ipv6_dst = w\nx = 0",
    "r = self.pairs.make((1, 2))\nr.who = nf.wide(5, 9)\n"
    "r.who = nf.wide(nf.low(r.who), nf.high(r.who))\nx = nf.high(r.who) * 16 + nf.low(r.who)",
    "w = nf.wide(5, 9)\nv = nf.wide(6, 7)\nw, v = nf.wide(nf.low(v), nf.low(w)), w\n"
    "x = nf.high(w) * 16 + nf.low(w) + nf.high(v)",
]
UNPACKED = [
    "x, y = self.sums[0], self.bump()\nx += 16 * y",
    "x, _ = frame.ip_ttl, self.older(frame)",
    "a, b, c = self.bump(), self.sums[0], self.bump()\nx = a + b + c",
    "self.sums[1], self.sums[2] = self.sums[0], self.bump()\nx = self.sums[1]",
    "r = self.pairs.make((1, 2))\nr.n = 3\nx, _ = r.n, self.pairs.delete((1, 2))",
]
CHAINED = [
    "n = self.sums[7]\nx = 3 if 0 < n < 100 // n else 4",
    "n = self.sums[7]\nx = 3 if 0 < n < self.bump() else 4",
    "n = self.sums[7]\nx = 3 if 0 <= n < self.bump() else 4",
    "n = self.sums[7]\nx = 3 if n < 1 < self.bump() < 100 // n else 4",
    "x = 3 if self.sums[0] < self.bump() < self.sums[0] else 4",
    "x = 3 if self.sums[0] <= self.bump() == 5 > self.bump() else 4",
    "x = 0\nwhile 0 <= x < self.bump():\n    x += 1",
    "x = int(5 > self.sums[0] > self.sums[self.sums[0]]) + (1 < 2 < self.sums[1])",
    "x = int(not 0 < self.sums[7] < self.bump())",
    "x = (0 < self.sums[7] < self.bump()) + (self.bump() > 3 and 1 < self.bump() < 9) * 2",
    "x = 3 if frame.ip_ttl < frame.ip_ttl + self.older(frame) > frame.ip_ttl else 4",
]
UNROLLED = [
    "a = 1\nx = 0\nfor y in (a, a + 1, 3):\n    a = 10\n    x = x * 4 + y",
    "x = 0\nfor y in (self.sums[0], self.sums[0] + 1):\n    self.sums[0] = 9\n    x = x * 4 + y",
    "x = 0\nfor y in (frame.ip_ttl, frame.ip_ttl):\n    frame.ip_ttl = 3\n    x += y",
    "x = 0\na = nf.wide(5, 9)\nfor y in (a, nf.wide(nf.low(a), 1)):\n    a = nf.wide(0, 0)\n"
    "    x = x * 2 + nf.high(y)",
    "x = 1\nfor x in (x, x + 1):\n    x = x * 3",
    "x = 0\nfor y in (1, x):\n    for z in (y, x, 2):\n        y = 7\n        x = x + z & 0xFF",
    "x = 0\nfor y in (self.split(4, 2), self.split(1, self.sums[7])):\n    x += 1",
]
VIEWS = [
    "q = frame.quoted\nx = q.l4_dst + self.tagged(frame) + q.l4_dst & 0xFF",
    "x = frame.inner.ip_ttl + self.tagged(frame) + frame.ip_ttl & 0xFF",
    "x = self.given(frame, frame.quoted, self.tagged(frame))",
    "frame.quoted.l4_src += self.tagged(frame)\nx = 3",
    "x = 0\nfor q in (frame.quoted, frame.quoted):\n    x += q.l4_dst\n    self.tagged(frame)",
]

# An address and the port that is set right behind it may be set in one step.
JOINED = [
    "frame.ipv4_dst = 0x0A0000FF\nframe.l4_dst = 77\nx = 3",
    "frame.ipv4_src = 0xFFFFFFFF\nframe.l4_src = 0\nx = 3",
    "n = 5\nframe.ipv4_src = n\nframe.l4_src = n << 3\nframe.l4_dst = n\nx = n",
    "frame.ipv4_dst = 9\nframe.l4_dst = frame.ipv4_dst\nx = 3",
    "frame.ipv4_src = self.bump()\nframe.l4_src = self.bump()\nx = self.sums[0]",
    "frame.ipv4_dst = 9\nframe.l4_dst = self.older(frame)\nx = 3",
    "frame.ipv4_dst = 9\nframe.l4_src = 8\nframe.ipv4_src = 7\nframe.l4_dst = 6\nx = 3",
    "x = 3\nif frame.is_tcp:\n    frame.ipv4_dst = 9\nframe.l4_dst = 8",
    "x = 3\nframe.ipv4_dst = 9\nif frame.ip_ttl > 200:\n    frame.l4_dst = 8",
    "x = 3\nif frame.ip_ttl > 2:\n    frame.ipv4_dst = 9\nelse:\n    frame.l4_dst = 8",
    "q = frame.quoted\nq.ipv4_dst = 9\nq.l4_dst = 8\nx = q.l4_dst",
    "q = frame.quoted\nframe.ipv4_dst = 9\nq.l4_dst = 8\nx = 3",
]


def _check(folder: Path, lines: str) -> None:
    cls = function_of(
        folder, f"self.sums[0] = 1\n{lines}\nreturn nf.REDIRECT(256 + (x & 0xFF))", METHODS)
    harness, plain = Harness(cls), nf.Plain(cls)
    for frame in FRAMES:
        [outcome], [expected] = harness.run([frame]), plain.run([frame])
        assert same(outcome, expected), f"{outcome}\n{expected}"
    assert [row["value"] for row in harness.instances[0].states["sums"].dump()] == [
        value for _, value in plain.instances[0].sums.entries()]


@pytest.mark.parametrize("lines", WIDE)
def test_an_address_made_of_its_own_halves(tmp_path: Path, lines: str) -> None:
    _check(tmp_path, lines)


@pytest.mark.parametrize("lines", UNPACKED)
def test_values_on_the_right_one_after_the_other(tmp_path: Path, lines: str) -> None:
    _check(tmp_path, lines)


@pytest.mark.parametrize("lines", CHAINED)
def test_a_chain_of_comparisons_goes_as_far_as_it_must(tmp_path: Path, lines: str) -> None:
    _check(tmp_path, lines)


@pytest.mark.parametrize("lines", UNROLLED)
def test_single_values_are_those_at_the_loops_beginning(tmp_path: Path, lines: str) -> None:
    _check(tmp_path, lines)


@pytest.mark.parametrize("lines", VIEWS)
def test_views_where_the_frame_changes_its_shape(tmp_path: Path, lines: str) -> None:
    _check(tmp_path, lines)


@pytest.mark.parametrize("lines", JOINED)
def test_an_address_and_its_port_are_set_one_after_the_other(tmp_path: Path, lines: str) -> None:
    _check(tmp_path, lines)
