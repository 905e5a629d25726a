# SPDX-License-Identifier: Apache-2.0
"""What a translated function does, thing by thing, and what its blueprint says of it."""

from pathlib import Path

import pytest

from byway import nf
from byway.functions import blueprint as does
from byway.functions.blueprint import Blueprint
from byway.functions.finding import find
from byway.functions.harness import Harness, same
from byway.functions.translate import translate
from byway.nf.function import definition
from byway.testing import builders
from tests.authoring import LINE, function_of

# Each is a way through one function, chosen by the parameter ``limit``.
WAYS = [
    "pass",
    "frame.ipv6_dst = self.turned(frame, 1)  # an address of 128 bits from a method",
    "frame.ipv6_dst = nf.IPv6('2001:db8::9') if frame.is_ipv6 else 0",
    "self.tag(frame, 5)\nframe.ip_ttl = 9  # where it is now, behind the tag",
    "frame.pop_vlan()\nframe.pop_vlan()\nframe.ip_dscp = 3",
    "q = frame.quoted\nq.l4_src = 7\nframe.quoted.ip_ttl = 4",
    "q = frame.quoted\nframe.push_vlan(9)\nq.ip_ttl = 4  # nothing is there any more",
    "p = frame.payload\np.set_u16(0, p.length)",
    "total = 0\nfor x in PORTS:\n    total += x\nfor y in (total, 3):\n    total -= y\n"
    "frame.ipv4_id = total",
    "n = 0\nwhile True:\n    n += 1\n    if n > 12:\n        break\n    if n & 1:\n"
    "        continue\nframe.ipv4_id = n",
    "for i in range(5, -1, -2):\n    frame.ip_dscp = frame.ip_dscp * 2 + i",
    "frame.set_u16(frame.l4_offset, frame.u16(frame.l4_offset + 2))",
    "frame.send_copy(3)\nframe.swap_ip()\nframe.send_copy(self.uplink)",
    "x, y = frame.l4_dst, frame.l4_src\nframe.l4_src, frame.l4_dst = x, y",
    "r = self.pairs.make((frame.ipv4_src, frame.l4_src))\nr.who = frame.ipv6_src\nr.n += 300\n"
    "if r and r.who == frame.ipv6_src:\n    frame.ip_ttl = r.n",
    "if self.pairs.find((1, 2)):\n    return nf.DROP('there is none')",
    "if frame.ipv6_src in PREFIX or frame.inner.ipv4_src in self.inside:\n    frame.ip_ttl = 1",
    "if 60 < frame.length <= 90 != self.limit:\n    frame.ip_ttl = 1",
    "if frame.direction == 'rx' and self.mode != 'b' and not (self.fast and frame.is_udp):\n"
    "    frame.ip_ttl = 1",
    "frame.resize(frame.length + 4)\nframe.fix()",
    "if self.check(frame) == nf.PASS:\n    return nf.DROP('it is right')\n"
    "return nf.DROP('it is not')",
]
METHODS = '''
def turned(self, frame, n):
    if n == 1:
        return nf.wide(nf.low(frame.ipv6_src), nf.high(frame.ipv6_src))
    return self.peer6

def tag(self, frame, vlan):
    frame.push_vlan(vlan)

def check(self, view, least=20):
    return nf.PASS if view.ip_ttl > least else nf.DROP("old")
'''
_QUOTED = builders.icmp("10.0.0.9", "10.0.0.1", kind=3, code=3,
                        data=builders.udp("10.0.0.1", "10.0.0.2", 5, 6)[14:])
FRAMES = [
    builders.tcp("10.0.0.1", "10.0.0.2", 1000, 80, flags="S"),
    builders.udp("10.0.0.1", "192.0.2.2", 53, 53, data=b"0123456789abcdef"),
    builders.tcp("2001:db8::1", "2001:db8::2", 1, 2, data=b"x" * 40),
    _QUOTED,
]


def _ways() -> str:
    lines = []
    for k, way in enumerate(WAYS):
        lines.append(f"{'el' if k else ''}if self.limit == {k}:")
        lines += ["    " + line for line in way.split("\n")]
    return "\n".join([*lines, "return nf.PASS"])


def test_each_way_as_in_plain_python(tmp_path: Path) -> None:
    cls = function_of(tmp_path, _ways(), METHODS)
    changed = set()
    for k, way in enumerate(WAYS):
        ports = {"uplink": 6}
        for outcome, expected in zip(
                Harness(cls, ports=ports, limit=k).run(FRAMES, port=2),
                nf.Plain(cls, ports=ports, limit=k).run(FRAMES, port=2), strict=True):
            assert same(outcome, expected), f"{way}\n{outcome}\n{expected}"
            if expected.frame not in FRAMES or expected.copies or expected.reason:
                changed.add(k)
    assert set(range(1, len(WAYS))) - changed <= {6, 15}, "a way that does nothing shows nothing"


def test_a_fault_ends_the_function_before_anything_else_happens(tmp_path: Path) -> None:
    cls = function_of(tmp_path, """
        self.hits.add(1)
        self.sums[frame.length] = self.words.add(7)
        self.hits.add(100)
        return nf.PASS
        """)
    harness, plain = Harness(cls), nf.Plain(cls)
    [outcome], [expected] = harness.run(FRAMES[:1]), plain.run(FRAMES[:1])
    assert same(outcome, expected)
    assert outcome.fault == nf.Fault("index out of range", str(tmp_path / "trial.py"), LINE + 1)
    assert harness.instances[0].states["hits"].dump() == [{"key": "value", "value": 1}]
    assert plain.instances[0].words.get(7) == 1
    [again] = harness.run(FRAMES[1:2])
    assert again.fault == outcome.fault


def test_a_fault_in_a_function_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("def split(a, b):\n    c = a + 1\n    return c // b\n")
    path = tmp_path / "trial.py"
    path.write_text("from byway import nf\nfrom other import split\n\n\n"
                    "@nf.function\nclass Trial:\n    none: int = 0\n\n"
                    "    def process(self, frame):\n"
                    "        return nf.DROP('x') if split(3, self.none) else nf.PASS\n")
    cls, _ = find(f"{path}:Trial", tmp_path)
    [outcome] = Harness(cls).run(FRAMES[:1])
    assert outcome.fault == nf.Fault("division by zero", str(tmp_path / "other.py"), 3)


@pytest.mark.parametrize(("body", "flags"), [
    ("return nf.PASS", set()),
    ("return nf.DROP('x') if frame.length > self.limit else nf.PASS", set()),
    ("return nf.REDIRECT(self.uplink)", {does.SETTLES}),
    ("return nf.MIRROR(3)", {does.COPIES}),
    ("frame.ip_ttl = 3\nreturn nf.PASS", {does.WRITES}),
    ("frame.pop_vlan()\nreturn nf.PASS", {does.WRITES, does.RESHAPES}),
    ("self.hits.add()\nreturn nf.PASS", {does.STATEFUL}),
    ("x = self.words.get(3)\nreturn nf.PASS", {does.STATEFUL, does.TIMED}),
    ("x = nf.now()\nreturn nf.PASS", {does.TIMED}),
    ("x = 3 // frame.length\nreturn nf.PASS", {does.FAULTY, does.STATEFUL}),
    ("for i in range(20): pass\nreturn nf.PASS", set()),
    ("for i in range(21): pass\nreturn nf.PASS", {does.LOOPS, does.FAULTY, does.STATEFUL}),
    ("for i in range(4):\n    for k in range(4): pass\nreturn nf.PASS", set()),
    ("for i in range(5):\n    for k in range(4): pass\nreturn nf.PASS",
     {does.LOOPS, does.FAULTY, does.STATEFUL}),
    ("for i in range(frame.length): pass\nreturn nf.PASS",
     {does.LOOPS, does.FAULTY, does.STATEFUL}),
])
def test_flags_say_what_a_chain_has_to_do(tmp_path: Path, body: str, flags: set[str]) -> None:
    made = translate(definition(function_of(tmp_path, body)), "trial.py:Trial", {})
    assert made.methods["process"].flags == flags


def test_a_blueprint_is_the_same_for_the_same_text(tmp_path: Path) -> None:
    first, second, third = (
        translate(definition(function_of(tmp_path, body)), "trial.py:Trial", {"f": "d"})
        for body in ("return nf.DROP('a')", "return nf.DROP('a')  # said", "return nf.DROP('b')"))
    assert first == second
    assert first.digest != third.digest
    assert first.reasons == ("a",)
    assert first.methods["process"].name == f"process_{first.digest}"
    assert Blueprint.from_json(first.to_json()) == first
    assert first.parameters["inside"]["words"] == 2
    assert first.place("words") == first.place("limit") + 8 * (1 + 1 + 1 + 0 + 2 + 4 + 1 + 2)


def test_another_default_is_another_function(tmp_path: Path) -> None:
    """Else a file that is read again, and differs in nothing else, would change nothing."""
    text = ("from byway import nf\n\n\n@nf.function\nclass Limits:\n    limit: int = {}\n\n"
            "    def process(self, frame):\n        return nf.PASS\n")
    digests = set()
    for default in (2, 3):
        file = tmp_path / f"limits{default}.py"
        file.write_text(text.format(default))
        digests.add(translate(definition(find(str(file), tmp_path)[0]), "limits.py", {}).digest)
    assert len(digests) == 2
