# SPDX-License-Identifier: Apache-2.0
"""What a function asks its maps for a whole batch, before its first frame: what cannot change until
then, and nothing else."""

from pathlib import Path

import pytest

from byway.functions.compose import compose
from byway.functions.harness import blueprint_of
from tests.authoring import function_of

FIRST = "self.words.add(frame.ipv4_src, 1)"
# Lines of process, and how many look-ups take what was found out ahead.
KNOWN = [
    ("n = self.words.get(frame.l4_dst)", 1),
    ("if not frame.is_tcp:\n    return nf.PASS\nn = self.words.get(frame.l4_dst)", 1),
    ("a = frame.ipv4_src & 0xFF\nb = a * 3 if self.fast else nf.hash(a)\n"
     "n = self.words.add(b, self.limit)", 1),
    ("a = frame.l4_src // (frame.ip_ttl + 1)\nn = self.words.get(a)", 1),
    ("if frame.is_udp:\n    n = self.words.get(3)\nelse:\n    n = self.words.get(4)", 2),
    ("n = self.flows.add(frame.flow, 1)", 1),
    ("n = 1 if 3 in self.words else 0", 1),
    ("r = self.pairs.make((frame.ipv4_src & 3, 1))\nr.n += 1", 1),
    ("n = self.words.get(frame.port + frame.network)", 1),
    # Where one may have been asked before, the next is not.
    ("if frame.is_udp:\n    n = self.words.get(3)\nn = self.words.get(4)", 1),
    ("n = self.words.get(3) + self.words.get(4)", 1),
]
CHANGING = [
    "self.sums[0] += 1\nn = self.words.get(3)",
    "n = self.words.get(self.sums[0])",
    "if self.sums[1] > 3:\n    return nf.PASS\nn = self.words.get(3)",
    "n = self.words.get(nf.random(9))",
    "self.hits.add()\nn = self.words.get(3)",
    "frame.ip_ttl = 3\nn = self.words.get(frame.ip_ttl)",
    "frame.pop_vlan()\nn = self.words.get(3)",
    "n = self.words.get(frame.payload.u8(0))",
    "n = self.words.get(frame.quoted.l4_src)",
    "n = self.words.get(self.routes.lookup(frame.ipv4_src))",
    "n = 0\nfor k in range(3):\n    n = self.words.get(k)",
    "frame.send_copy(3)\nn = self.words.get(3)",
]


@pytest.mark.parametrize(("lines", "taken"), KNOWN)
def test_what_is_known_ahead(tmp_path: Path, lines: str, taken: int) -> None:
    method = blueprint_of(function_of(tmp_path, lines + "\nreturn nf.PASS")).methods["process"]
    assert f"def {method.ahead}(self, row, frame, batch, now):" in method.source
    assert method.source.count("asked if asked != 0 else ") == taken
    assert method.source.split("def ")[1].count("map_ask(") == taken


@pytest.mark.parametrize("lines", CHANGING)
def test_what_may_be_another_thing_by_then(tmp_path: Path, lines: str) -> None:
    method = blueprint_of(function_of(tmp_path, lines + "\nreturn nf.PASS")).methods["process"]
    assert method.ahead == ""
    assert "asked" not in method.source


def test_nobody_asks_behind_one_that_may_change_the_frame(tmp_path: Path) -> None:
    for name in ("asks", "writes"):
        (tmp_path / name).mkdir()
    asks = blueprint_of(function_of(tmp_path / "asks", f"n = {FIRST}\nreturn nf.PASS"))
    writes = blueprint_of(function_of(tmp_path / "writes", "frame.ip_ttl = 3\nreturn nf.PASS"))
    name = asks.methods["process"].ahead
    for direction in ("rx", "tx"):
        for chain, asking in (([asks], 1), ([asks, writes, asks], 1), ([writes, asks], 0),
                              ([asks, asks], 2), ([asks] * 9, 7)):
            source = compose(chain, direction).source.split("def chain(")[1]
            assert source.count(f", {name}(") == asking
            assert source.count(", ld64(asked + ") == asking
            assert source.count(", now, 0)") == chain.count(asks) - asking
