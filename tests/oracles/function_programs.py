# SPDX-License-Identifier: Apache-2.0
"""Random network functions: text that is right, but may go wrong with a frame.

Used by test_translation.py. What they compute stays below 64 bits, where plain Python does not
wrap (arithmetic at the edges: tests/unit/functions/test_arith.py). All else is in them: conditions
with side effects, loops that may exceed their budget, divisions, places of arrays, shifts, state,
records, addresses of 128 bits, fields that are set, methods and functions that are called.
"""

import random
import textwrap

_FIELDS = ("ip_ttl", "ipv4_src", "ipv4_dst", "l4_src", "l4_dst", "ip_protocol", "eth_type",
           "tcp_flags", "length", "l4_offset", "ipv4_id", "vlan_id", "quoted.l4_dst",
           "inner.ipv4_src", "payload.length")
_SET = (("ip_ttl", 0xFF), ("l4_src", 0xFFFF), ("ipv4_dst", 0xFFFFFFFF), ("tcp_window", 0xFFFF),
        ("ip_dscp", 0x3F), ("vlan_id", 0xFFF), ("eth_src", 0xFFFFFFFFFFFF))
_TESTS = ("frame.is_tcp", "frame.is_udp", "frame.is_ipv6", "frame.has_vlan", "self.fast",
          'self.mode == "b"', "frame.ipv4_src in self.inside", "frame.ipv6_src in self.inside6",
          "frame.l4_dst in PORTS", 'frame.direction == "rx"', "frame.ipv6_dst == self.peer6",
          "self.limits.take(1, 0, 5)", "1 in self.words", "(3, 4) in self.pairs")
_SHAPES = ("frame.pop_vlan()", "frame.push_vlan(7)", "frame.swap_ip()", "frame.set_u8(20, 3)",
           "frame.resize({n} & 0x1FF)", "frame.decapsulate(({n} & 7) * 4)",
           "a ^= self.tagged(frame)", "frame.send_copy(({n} & 3) - 1)", "frame.fix()",
           "frame.swap_eth()", "frame.swap_l4()", "frame.replace_l3({n} & 60, ({n} & 15) * 4)",
           "frame.eth_type = 0x800 if {t} else 0x86DD", "frame.tcp_data_offset = {n} & 15",
           "frame.payload.set_u16({n} & 0xFF, {n})", "a ^= frame.payload.u16({n} & 0xFF)",
           "frame.set_u16({n} & 0x3F, {n})", "a ^= frame.u32({n} & 0x7F) & 0xFFFF",
           "frame.ipv6_src = six", "frame.icmp_type = {n} & 15", "a ^= frame.flow_hash & 0xFF")
_EFFECTS = (
    "self.sums[{n} & 7] += {n} & 0xFF", "self.sums[{n} & a] = {n}", "self.small[{n} & 7] = {n}",
    "self.hits.add({n} & 15)", "self.words.set({n} & 3, {n})", "self.words.add({n} & 3)",
    "self.pairs.make(({n} & 3, 1)).n += {n} & 7", "self.pairs.make((3, 4)).who = six",
    "self.words.delete({n} & 3)", "six = self.wide(frame, {n})", "self.sixes.set(six, {n})",
    "v = frame.quoted", "w = frame.inner", "v.l4_src = {n} & 0xFF",
    "v.ip_ttl += self.tagged(frame)", "frame.quoted.ipv4_dst ^= {n} & 0xFF",
    "self.flows.add(frame.flow, 1)", "self.told.emit(src={n}, n={n}, six=six, head=frame)",
    "b, c = c, b", "b, c = {n} & 0xFFFF, {n} & 0xFFFF", "six = nf.wide(nf.low(six), nf.high(six))",
    "r = self.pairs.make(({n} & 3, 1))", "s = self.pairs.find(({n} & 3, 1))", "r, s = s, r",
    "self.pairs.delete(({n} & 3, 1))", "r.n = {n} & 0xFF", "s.n += self.exchanged({n} & 3)",
    "s.who, r = six, self.other(r, {n} & 3)", "r.n, s.n = s.n, {n} & 0x7F",
    "six = nf.wide(nf.low(six) ^ {n}, {n})", "self.sums[{n} & 7], frame.ip_ttl = {n}, {n} & 0xFF")
_NUMBERS = (
    "({n} + {n})", "({n} - {n})", "({n} & 0xFFFF) * ({n} & 0xFFFF)", "({n} // ({n} - b))",
    "({n} % ({n} + a))", "(({n} & 0xFFF) << {n} % 9)", "({n} >> ({n} & 63))", "({n} ^ {n})",
    "(1 << ({n} & 31) - (c & 1))",
    "({n} | {n})", "min({n}, {n}, 999)", "max({n}, {n})", "abs({n})", "(-{n})", "(~{n})",
    "({n} if {t} else {n})", "triple({n} & 0xFFF)", "self.method({n} & 0xFF, {n} & 0xFF)",
    "self.sums[{n} & 7]", "self.words.get({n} & 3, 9)", "self.words.add({n} & 3, {n} & 7)",
    "self.pairs.find(({n} & 3, 1)).n", "self.routes.lookup({n})", "nf.hash({n}, six, {n})",
    "nf.random({n} & 0xFF)", "(nf.low(six) & 0xFFFF)", "(self.words.set({n} & 3, 1) or {n} & 7)",
    "(int({t}) & {n})", "(nf.now() & 0xFFFF)", "({n} if {n} < {n} <= {n} else {n})",
    "(0 < {n} < 9 != {n})", "self.twice({n} & 0xFF)", "(r.n + {n})", "(v.l4_dst + {n})",
    "self.seen(w, v, {n} & 0xFF)", "self.seen(frame.inner, frame, self.tagged(frame))",
    "(s.n if s else {n})",
    "self.exchanged({n} & 3)", "self.other(s, {n} & 3).n")
METHODS = '''
def method(self, a, b):
    if a > b:
        return a - b
    self.sums[a & 3] += 1
    return b // (a + 1)


def twice(self, n):
    return self.method(n, 9) + self.method(n, n)


def wide(self, frame, n):
    if n & 1:
        return frame.ipv6_src
    return nf.wide(n, 7)


def exchanged(self, n):
    gone = self.pairs.delete((n, 1))
    made = self.pairs.make((n + 1 & 3, 1))
    made.n += 3
    return made.n + gone


def other(self, record, n):
    self.pairs.delete((n, 1))
    if record.n & 1:
        record.n += 1
        return record
    return self.pairs.make((n, 1))


def tagged(self, frame):
    return frame.push_vlan(frame.length & 0xFFF) + frame.has_vlan


def seen(self, one, other, n):
    return one.ip_ttl + (other.l4_dst if n & 1 else other.ip_ttl)


def judge(self, frame, n):
    if n % 3 == 1:
        return nf.DROP("by judge")
    return nf.REDIRECT(5) if n % 3 == 2 else nf.PASS
'''


class Program:
    """Writes one function, by a generator of random numbers."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._names = ["a", "b", "c"]
        self._loops = 0

    def text(self) -> str:
        """The body of ``process``."""
        lines = ["a = frame.u16(16)", "b = 3", "c = 5", "six = frame.ipv6_src",
                 "r = self.pairs.make((1, 1))", "s = self.pairs.find((2, 1))",
                 "v = frame.quoted", "w = frame.inner"]
        lines += self.block(0, 6)
        lines.append(self._random.choice((
            "return nf.PASS", 'return nf.DROP("odd") if a & 1 else nf.PASS',
            "return self.judge(frame, a)", "return nf.MIRROR((a & 7) - 1)",
            "return nf.REPLY if a & 4 else nf.PASS", "return nf.CLONE(3) if b < c else nf.PASS",
            "return nf.REDIRECT((b & 7) - 1) if a & 8 else nf.PASS")))
        return "\n".join(lines)

    def block(self, depth: int, most: int) -> list[str]:
        """Some statements."""
        return [line for _ in range(self._random.randint(1, most))
                for line in self.statement(depth)]

    def statement(self, depth: int) -> list[str]:
        """One statement, as lines."""
        pick = self._random.random()
        if depth < 3 and pick < 0.16:
            made = [f"if {self.test(2)}:", *self._in(self.block(depth + 1, 3))]
            if self._random.random() < 0.5:
                made += ["else:", *self._in(self.block(depth + 1, 2))]
            return made
        if depth < 2 and pick < 0.26:
            return self._loop(depth)
        if pick < 0.5:
            return [f"{self.name()} = {self.number(3)} & 0xFFFF"]
        if pick < 0.6:
            sign = self._random.choice(("+", "-", "|", "^", "&"))
            return [f"{self.name()} {sign}= {self.number(2)} & 0xFF"]
        return [self.effect()]

    def effect(self) -> str:
        """A statement that changes state or the frame."""
        field, mask = self._random.choice(_SET)
        return self._filled(self._random.choice((
            *_EFFECTS, f"frame.{field} = {{n}} & {mask}", self._random.choice(_SHAPES))), 1)

    def _loop(self, depth: int) -> list[str]:
        name = f"i{self._loops}"
        self._loops += 1
        if self._random.random() < 0.2:  # single values
            values = f"({self.number(1)} & 0xFFFF, a, {self.number(1)} & 0xFFFF)"
            return [f"for {name} in {values}:", f"    a = (a + {name}) & 0xFFFF",
                    "    " + self.effect()]
        body = self.block(depth + 1, 2)
        if self._random.random() < 0.3:
            body.append(f"if {self.test(1)}:")
            body.append("    " + self._random.choice(("break", "continue")))
        end = self._random.choice(("3", "5", "a & 15", "b & 63", "12", "1, a & 31, 7",
                                   "b & 31, -1, -3", "c & 31, 1 << 62, 1 << 61"))
        if "," in end or self._random.random() < 0.7:
            return [f"for {name} in range({end}):", f"    c = (c + {name}) & 0xFFFF",
                    *self._in(body)]
        return [f"{name} = {end}", f"while {name} > 0 and {self.test(1)}:", f"    {name} -= 1",
                *self._in(body)]

    def name(self) -> str:
        """A variable."""
        return self._random.choice(self._names)

    def test(self, depth: int) -> str:
        """A condition."""
        pick = self._random.random()
        if depth and pick < 0.3:
            word = self._random.choice((" and ", " or "))
            return "(" + word.join(self.test(depth - 1) for _ in range(2)) + ")"
        if depth and pick < 0.4:
            return f"not {self.test(depth - 1)}"
        if pick < 0.65:
            return self._random.choice(_TESTS)
        sign = self._random.choice(("<", "<=", ">", ">=", "==", "!="))
        return f"{self.number(1)} {sign} {self.number(1)}"

    def number(self, depth: int) -> str:
        """A number below 2**48."""
        pick = self._random.random()
        if depth == 0 or pick < 0.25:
            return self._random.choice((self.name(), self.name(), str(self._random.randint(0, 70)),
                                        f"frame.{self._random.choice(_FIELDS)}", "self.limit"))
        return self._filled(self._random.choice(_NUMBERS), depth - 1)

    def _filled(self, template: str, depth: int) -> str:
        """A template with {n} for numbers and {t} for conditions."""
        while "{" in template:
            made = self.number(depth) if template[template.index("{") + 1] == "n" else (
                self.test(depth))
            template = template.replace(template[template.index("{"):][:3], made, 1)
        return template

    @staticmethod
    def _in(lines: list[str]) -> list[str]:
        return textwrap.indent("\n".join(lines), "    ").splitlines()
