# SPDX-License-Identifier: Apache-2.0
"""Small functions for tests of chains: each does one thing."""

from typing import Literal

from byway import nf


@nf.function
class Says:
    """Answers what it is told to, for frames to one UDP port."""

    what: Literal["pass", "drop", "redirect", "mirror", "clone", "reply"] = "pass"
    to: nf.Port = nf.Port("")
    only: int = 53

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if frame.l4_dst != self.only or self.what == "pass":
            return nf.PASS
        if self.what == "drop":
            return nf.DROP("told to")
        if self.what == "redirect":
            return nf.REDIRECT(self.to)
        if self.what == "mirror":
            return nf.MIRROR(self.to)
        if self.what == "clone":
            return nf.CLONE(self.to)
        return nf.REPLY


@nf.function
class Older:
    """Takes one from the time to live."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if frame.is_ipv4 and frame.ip_ttl <= 1:
            return nf.DROP("too old")
        frame.ip_ttl = frame.ip_ttl - 1
        return nf.PASS


@nf.function
class Counts:
    """Counts frames by source; what came from the network, and what goes there."""

    least: int = 0
    by_source = nf.Map(key="ipv4", value="u32", capacity=16)
    out = nf.Counter()

    def rx(self, frame: nf.Frame) -> nf.Verdict:
        if self.by_source.add(frame.ipv4_src) < self.least:
            return nf.DROP("too few")
        return nf.PASS

    def tx(self, frame: nf.Frame) -> nf.Verdict:
        self.out.add()
        return nf.PASS


@nf.function
class Divides:
    """Goes wrong with every frame to port 0."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if 100 // frame.l4_dst > 1000:
            return nf.DROP("never")
        return nf.PASS


@nf.function
class Tells:
    """Tells of each frame, and keeps flows."""

    seen = nf.Event(source="ipv4")
    flows = nf.Map(key="flow", value="u32", capacity=16)

    def process(self, frame: nf.Frame) -> nf.Verdict:
        self.seen.emit(source=frame.ipv4_src)
        self.flows.add(frame.flow)
        return nf.PASS


@nf.function
class Within:
    """Lets pass what comes from one prefix; it keeps nothing."""

    prefix: nf.Prefix4 = nf.Prefix4("10.0.0.0/8")

    def process(self, frame: nf.Frame) -> nf.Verdict:
        return nf.PASS if frame.ipv4_src in self.prefix else nf.DROP("another's")


@nf.function
class Patient:
    """Knows sources for as long as it is told to."""

    idle: nf.Seconds = nf.Seconds(60)
    known = nf.Map(key="ipv4", value="u32", capacity=16, idle="idle")

    def process(self, frame: nf.Frame) -> nf.Verdict:
        return nf.PASS if self.known.add(frame.ipv4_src) > 1 else nf.DROP("new")


@nf.function
class Churns:
    """Makes and deletes the same record, often."""

    pairs = nf.Map(key="u32", value={"n": "u8", "who": "ipv6"}, capacity=1000)

    def process(self, frame: nf.Frame) -> nf.Verdict:
        for _ in range(400):
            if not self.pairs.make(1):
                return nf.DROP("no room")
            self.pairs.delete(1)
        return nf.PASS
