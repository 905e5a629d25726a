# SPDX-License-Identifier: Apache-2.0
"""Network functions from text, as an author's file would have them: for tests of the translation.

Used by tests of byway.functions.translate.
"""

import textwrap
from pathlib import Path

from byway.functions.finding import find

HEAD = '''\
from typing import Literal
import math
import byway.nf as nf

PORTS = (80, 443)
GATEWAY = nf.IPv4("10.0.0.1")
PREFIX = nf.Prefix6("2001:db8::/32")


def triple(x):
    return 3 * x


def silent(x):
    pass


def endless(x):
    return again(x)


def again(x):
    return endless(x)


@nf.function
class Trial:
    """A function under test."""

    limit: int = 100
    fast: bool = True
    mode: Literal["a", "b"] = "a"
    note: nf.Text = nf.Text("text")
    inside: nf.Prefix4 = nf.Prefix4("10.0.0.0/8")
    inside6: nf.Prefix6 = nf.Prefix6("fe80::/10")
    uplink: nf.Port = nf.Port("uplink")
    peer6: nf.IPv6 = nf.IPv6("2001:db8::1")
    words = nf.Map(key="u32", value="u32", capacity=16)
    pairs = nf.Map(key=("u32", "u16"), value={"n": "u8", "who": "ipv6"}, capacity=16)
    flows = nf.Map(key="flow", value="u32", capacity=16)
    sixes = nf.Map(key="ipv6", value="u32", capacity=16)
    sums = nf.Array(size=8)
    small = nf.Array(value="u8", size=8)
    hits = nf.Counter()
    limits = nf.Bucket()
    routes = nf.Lpm(value="u32", capacity=16)
    told = nf.Event(src="ipv4", n="u16", six="ipv6", head="bytes:64")
    budget = 20
    SYN = 2

'''
LINE = HEAD.count("\n") + 2  # of the first line of process


def function_of(folder: Path, body: str, methods: str = "") -> type:
    """The class whose ``process`` has this body; ``methods``: more of the class."""
    text = HEAD + "    def process(self, frame):\n" + textwrap.indent(
        textwrap.dedent(body).strip("\n"), " " * 8) + "\n\n" + textwrap.indent(
        textwrap.dedent(methods), " " * 4)
    path = folder / "trial.py"
    path.write_text(text)
    cls, _ = find(f"{path}:Trial", folder)
    return cls
