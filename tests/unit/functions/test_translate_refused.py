# SPDX-License-Identifier: Apache-2.0
"""What is not translated: each refusal names the line, what is wrong and what to write instead."""

import textwrap
from pathlib import Path

import pytest

from byway import nf
from byway.functions.translate import translate
from byway.nf.function import definition
from tests.authoring import LINE, function_of

# Lines of process, what is said of the first of them, what is to be written instead.
REFUSED = [
    ("x = [1, 2]", "a list is made", "keep it in an nf.Array, or write a tuple of constants"),
    ("x = {}", "a dict is made", "keep it in an nf.Map"),
    ("x = {1, 2}", "a set is made", "write a tuple of constants, or keep it in an nf.Map"),
    ("x = [i for i in range(3)]", "a list is made", "write a for loop over range(...)"),
    ("x = sum(i for i in range(3))", "sum() is not there when frames flow", "write a for loop"),
    ("x = f'{frame.length}'", "text is put together", "send the numbers with an nf.Event"),
    ("x = lambda: 3", "a function is made while frames flow",
     "write a method, or a function of the file"),
    ("if (x := 3) > 2: pass", "an assignment in an expression",
     "write the assignment in a line before"),
    ("try:\n    pass\nexcept OSError:\n    pass", "try: nothing raises here",
     "test the condition with if"),
    ("raise ValueError", "raise: nobody would catch it", 'return nf.DROP("why")'),
    ("assert frame.is_ip", "assert: nobody would see it",
     'write if not ...: return nf.DROP("why")'),
    ("with frame: pass", "with: there is nothing to open or to lock",
     "leave it out: an instance's state is never used by two at once"),
    ("import os", "import in what is called for every frame", "import at the top of the file"),
    ("def f(): pass", "a function is made while frames flow",
     "write it as a method, or at the top level of the file"),
    ("class C: pass", "a class is made while frames flow",
     "write it at the top level of the file"),
    ("global x", "global: an instance has no variables outside itself", "keep it in an nf.Array"),
    ("del frame", "del", "delete an entry with self.table.delete(key)"),
    ("match frame.length:\n    case 1: pass", "match", "write if and elif"),
    ("x = 5 / 2", "/ makes a number with a fraction", "write //"),
    ("x = frame.length ** 2", "** is not translated", "multiply, or shift: 1 << n"),
    ("x = 1.5", "1.5 is no whole number", "count in whole units, like nanoseconds, or thousandths"),
    ("x = None", "None is no value here", "use a number, like -1 or 0, for nothing"),
    ("x = 3 // 0", "a division by zero", "divide by something else"),
    ("x = frame.length % 0", "a division by zero", "divide by something else"),
    ("x = frame.length << -1", "a shift by a negative amount", "shift the other way"),
    ("x = 1 << 200", "the result has more than 64 bits, or the shift is negative",
     "stay within -2**63 to 2**63 - 1"),
    ("x = 3 << 127", "the result has more than 64 bits, or the shift is negative",
     "stay within -2**63 to 2**63 - 1"),
    ("x = frame.length + 'a'", "the right side is text, where a number is needed",
     'write a number; an address is nf.IPv4("10.0.0.1")'),
    ("x = nf.Pass", "byway.nf has no Pass", 'did you mean "PASS"?'),
    ("x = frame.ipv4_source", "frame has no ipv4_source", 'did you mean "ipv4_src"?'),
    ("x = self.limits2", "Trial has no limits2", 'did you mean "limits"?'),
    ("x = frame.ipv6_src + 1", "the left side is an address of 128 bits",
     "take nf.high(x) or nf.low(x)"),
    ("if frame.ipv6_src < 5: pass", "addresses of 128 bits are compared with <",
     "write == or !=, or compare nf.high(x) and nf.low(x)"),
    ("if frame.ipv6_src == frame.length: pass",
     "one side is a number, where an address of 128 bits is needed",
     'write one, like frame.ipv6_src or nf.IPv6("2001:db8::1")'),
    ("if frame.length is frame.port: pass", "is compares objects, and there are none here",
     "write == or !="),
    ("if frame.flow == frame.flow: pass", "flows are compared",
     "use them as keys, or compare their fields"),
    ("if frame.length in range(3): pass", "in range(...)", "write a <= x < b"),
    ("if frame.length in frame: pass", "in a frame",
     "write a tuple of numbers, a network, or a state with keys"),
    ("if 1 in self.sums: pass", "in Array", "only maps have keys"),
    ("if self.mode == 'c': pass", "the parameter is never 'c'", "compare it with one of 'a', 'b'"),
    ("if self.mode < 'b': pass", "texts are compared with <", "write == or !="),
    ("if frame: pass", "a frame is no condition", "compare it with something"),
    ("if frame.is_tcp:\n    k = 1\nx = k", "k may have no value here",
     "give it one before, on every way that leads here: k = 0"),
    ("x = y\ny = 1", "y has no value yet here",
     "give it one before, on every way that leads here: y = 0"),
    ("for i in range(3):\n    z = i\nx = z", "z may have no value here",
     "give it one before, on every way that leads here: z = 0"),
    ("x = nix", "there is no nix", "define or import it in the file"),
    ("x = nf.nix", "byway.nf has no nix", "look for its right name"),
    ("x = 3\nx = frame.ipv6_src", "x is a number before, and an address of 128 bits here",
     "use two names"),
    ("x = frame.colour", "frame has no colour", "look it up on the page of frame's fields"),
    ("x = frame.inner.length", "inner has no length", "look it up on the page of frame's fields"),
    ("frame.colour = 1", "frame has no colour", "look it up on the page of frame's fields"),
    ("frame.ip_protocol = 1", "frame.ip_protocol is set", "it can be read only"),
    ("frame.inner.ip_ttl = 1", "inner is set",
     "what a tunnel carries can be read only: frame.decapsulate(n) first"),
    ("frame.quoted.eth_type = 1", "quoted.eth_type is set", "it can be read only"),
    ("frame.ipv6_src = frame.length",
     "ipv6_src is a number, where an address of 128 bits is needed",
     'write one, like frame.ipv6_src or nf.IPv6("2001:db8::1")'),
    ("frame.swap_eth", "frame.swap_eth is not called", "write swap_eth(...)"),
    ("frame.ip_ttl()", "frame.ip_ttl is no method", "write frame.ip_ttl"),
    ("frame.colour()", "frame has no colour", "look it up on the page of frame's fields"),
    ("frame.u8()", "0 arguments", "give at"),
    ("frame.resize(n=3, k=4)", "there is no argument k", "give n"),
    ("frame.payload.nix(3)", "payload has no nix()",
     "it has length, u8(at), u16(at), u32(at), set_u8(at, value), ..."),
    ("x = frame.payload.size", "payload has no size",
     "it has length, u8(at), u16(at), u32(at), set_u8(at, value), ..."),
    ("frame.send_copy()", "send_copy without a port", "write frame.send_copy(port)"),
    ("x = frame.flow", "x would be a flow", "write frame.flow where the key is"),
    ("x = self.nix", "Trial has no nix",
     "declare it in the class; there are limit, fast, mode, note, inside, inside6, uplink, peer6, "
     "words, pairs, flows, sixes, sums, small, hits, limits, routes, told"),
    ("x = self.note", "note is an nf.Text, which only the listener can read",
     "use a parameter that is a number"),
    ("x = self.mode", "x would be text", "assign numbers, addresses, records or verdicts"),
    ("self.limit = 3", "self.limit is assigned to",
     "parameters are changed from outside: keep it in an nf.Array"),
    ("self.words[1] = 2", "[...] of a state",
     "only an nf.Array has places; a map has get, set, find, make"),
    ("self.sums[8] = 2", "place 8 of an array of 8", "write a place from 0 to 7"),
    ("x = PORTS[2]", "a place that the tuple does not have", "write another"),
    ("x = PORTS[frame.length]", "a tuple's element", "keep the numbers in an nf.Array"),
    ("x = frame[3]", "[...] of a frame",
     "only an nf.Array has places; a map has get, set, find, make"),
    ("x = frame[1:3]", "a slice", "read with frame.u8(at), u16(at) or u32(at)"),
    ("self.words.find(1)", "an nf.Map of numbers has no find()", "it has get, set, add, delete"),
    ("self.pairs.get((1, 2))", "an nf.Map of records has no get()",
     "it has find, peek, make, delete"),
    ("self.hits.put('value', 3)", "an nf.Counter has no put()", "it has add"),
    ("x = self.hits.value", "hits.value is not called", "write self.hits.value(...)"),
    ("self.words.get(1, 2, 3)", "3 arguments", "give key, default"),
    ("self.words.get(k=1)", "there is no argument k", "give key, default"),
    ("self.pairs.find(1)", "a key of 1 parts", "the state was declared with u32, u16"),
    ("self.words.get(frame.flow)", "a flow as u32 of a key", "write a number or an address"),
    ("self.flows.get(3)", "a number as a flow of a key", "write frame.flow"),
    ("self.sixes.get(frame.length)",
     "the key's address is a number, where an address of 128 bits is needed",
     'write one, like frame.ipv6_src or nf.IPv6("2001:db8::1")'),
    ("x = self.pairs.find((1, 2)).nix", "a record of pairs has no nix", "it has n, who"),
    ("r = self.pairs.make((1, 2))\nr.nix = 3", "a record of pairs has no nix", "it has n, who"),
    ("self.told.emit(3)", "a field without its name", "write emit(field=value, ...)"),
    ("self.told.emit(nix=3)", "told has no field nix", "it has src, n, six, head"),
    ("self.told.emit(head=3)", "head is a number",
     "give frame or frame.payload: its first bytes are taken"),
    ("self.told.take()", "an event has no take()", "write emit(field=value, ...)"),
    ("print(3)", "print() is not there when frames flow",
     "send it with an nf.Event, and print it where events are received"),
    ("x = len(self.words)", "len() is not there when frames flow",
     "write frame.length, frame.payload.length or the number itself"),
    ("x = math.sqrt(3)", "sqrt cannot be called when frames flow",
     "call a function that is written in Python and takes numbers"),
    ("x = endless(3)", "endless calls itself",
     "write a loop: a function cannot be at work twice"),
    ("x = triple()", "triple: missing a required argument: 'x'", "give it what it takes"),
    ("x = triple(3, 4)", "triple: too many positional arguments", "give it what it takes"),
    ("x = triple(self.mode)", "triple is given text as x",
     "give it numbers, addresses, records or the frame"),
    ("x = silent(3)", "what is called gives nothing", "call it on a line of its own"),
    ("x = min(3)", "1 arguments, where 2 are needed", "look at the page of the author"),
    ("x = max(3, y=4)", "y= by name", "give the arguments by place"),
    ("x = nf.IPv4(frame.length)", "an address is made of something that is no constant",
     "addresses are numbers here: use the number itself"),
    ("x = nf.Mac('no')", "'no' is no MAC address like 02:00:00:00:00:01", "write an address"),
    ("x = nf.Port('a')", "Port cannot be called when frames flow",
     "call a function that is written in Python and takes numbers"),
    ("x = self.inside", "x would be a network", "assign numbers, addresses, records or verdicts"),
    ("x = (1, 2)", "x would be several values", "assign numbers, addresses, records or verdicts"),
    ("x = (frame.length, 2)", "several values at once",
     "use a tuple as a key, or with in; or give each value a name"),
    ("a, b = 1", "several names on the left, and not as many values on the right",
     "write as many values, like a, b = b, a, or one assignment for each"),
    ("x = 3 if frame.is_tcp else frame.flow", "a flow cannot be chosen by a condition",
     "write if and else around all of it"),
    ("x = nf.PASS if frame.is_tcp else 3", "this is a verdict or a number, as it comes",
     "make both sides alike"),
    ("for i in self.words: pass", "a loop over something that is no range",
     "write for i in range(...), or for x in (1, 2, 3)"),
    ("for i in range(0, 9, frame.length): pass", "a range whose step is no constant, or 0",
     "write the step as a number"),
    ("for a, b in (1, 2): pass", "a loop over several names", "write for i in range(...)"),
    ("for i in (1, 2): break", "break or continue in a loop over single values",
     "write for i in range(...)"),
    ("for i in range(3): pass\nelse: pass", "else at a loop",
     "set a variable before break, and test it"),
    ("while frame.is_tcp: pass\nelse: pass", "else at a loop",
     "set a variable before break, and test it"),
    ("nf.DROP('x')", "a verdict is made and forgotten", "write return in front of it"),
    ("frame.length", "this line does nothing", "leave it out, or assign what it computes"),
    ("return nf.DROP(f'{1}')", "text is put together", "send the numbers with an nf.Event"),
    ("return nf.DROP(3)", "a drop whose reason is no plain text",
     'write the reason as it stands: nf.DROP("over limit")'),
    ("return True", "process returns a number",
     'return a verdict: nf.PASS, nf.DROP("why"), nf.REDIRECT(port), ...'),
    ("return", "process returns nothing",
     'return a verdict: nf.PASS, nf.DROP("why"), nf.REDIRECT(port), ...'),
    ("return frame.length", "process returns a number",
     'return a verdict: nf.PASS, nf.DROP("why"), nf.REDIRECT(port), ...'),
]


def _problems(cls: type) -> list[nf.Problem]:
    with pytest.raises(nf.FunctionError) as raised:
        translate(definition(cls), "trial.py:Trial", {})
    return list(raised.value.problems)


@pytest.mark.parametrize(("lines", "message", "fix"), REFUSED, ids=[each[0] for each in REFUSED])
def test_refused(tmp_path: Path, lines: str, message: str, fix: str) -> None:
    last = "" if lines.startswith("return") else "\nreturn nf.PASS"
    problem = _problems(function_of(tmp_path, lines + last))[0]
    assert (problem.message, problem.fix) == (message, fix)
    if "endless" not in lines:
        assert problem.file == str(tmp_path / "trial.py")
        assert LINE <= problem.line <= LINE + lines.count("\n")


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    cls = function_of(tmp_path, """
        y = frame.nix
        z = y + 1  # nothing is said of y again
        x = 1 / z
        return nf.PAST
        """)
    assert [each.line - LINE for each in _problems(cls)] == [0, 2, 3]


@pytest.mark.parametrize("body", [
    "if frame.is_tcp:\n    return nf.PASS",
    "while frame.is_tcp:\n    return nf.PASS",
    "for i in range(3):\n    return nf.PASS",
    "x = 3",
    "while True:\n    if frame.is_tcp:\n        break",
])
def test_a_way_that_ends_without_a_verdict(tmp_path: Path, body: str) -> None:
    [problem] = _problems(function_of(tmp_path, body))
    assert problem.message == "process can end without an answer"
    assert problem.fix == "return nf.PASS, or another verdict, on every way through it"


@pytest.mark.parametrize(("body", "message", "fix"), [
    ("\nel".join(f"if frame.length == {k}:\n    x = {k}" for k in range(120)),
     "blocks are nested more than 90 deep (each elif is one)",
     "write a helper for some of them, or keep them in an nf.Map"),
    ("x = " + " + ".join(["frame.length"] * 300),
     "an expression is nested more than 100 deep", "give parts of it a name first")])
def test_what_is_nested_too_deep(tmp_path: Path, body: str, message: str, fix: str) -> None:
    [problem] = _problems(function_of(tmp_path, f"{body}\nreturn nf.PASS"))
    assert (problem.message, problem.fix) == (message, fix)


def test_what_no_frame_ever_reaches(tmp_path: Path) -> None:
    [problem] = _problems(function_of(tmp_path, "return nf.PASS\nx = 3"))
    assert (problem.line - LINE, problem.message) == (1, "this line is never reached")


@pytest.mark.parametrize(("method", "message"), [
    ("""
     def other(self, x):
         if x > 3:
             return 1
     """, "other can end without an answer"),
    ("""
     def other(self, x):
         if x > 3:
             return 1
         return nf.PASS
     """, "other returns a verdict here, a number elsewhere"),
    ("""
     def other(self, *x):
         return 1
     """, "other takes * or **"),
    ("""
     def other(self, x):
         return self.mode
     """, "other returns text"),
])
def test_methods_that_are_called(tmp_path: Path, method: str, message: str) -> None:
    cls = function_of(tmp_path, "x = self.other(3)\nreturn nf.PASS", textwrap.dedent(method))
    assert message in [each.message for each in _problems(cls)]


def test_an_age_that_names_no_parameter(tmp_path: Path) -> None:
    cls = function_of(tmp_path, "return nf.PASS", 'old = nf.Map("u8", "u8", 4, age="limit")')
    [problem] = _problems(cls)
    assert problem.message == "old has the age 'limit', which is no nf.Seconds parameter"
    assert problem.fix == "declare it: limit: nf.Seconds = nf.Seconds(30)"
