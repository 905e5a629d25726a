# SPDX-License-Identifier: Apache-2.0
"""What `byway nf new` writes: a network function that works, and a test of it.

Used by cli.nf. Uses nothing. The function is small, and has one of everything: a parameter, state,
a verdict; whoever writes another one changes it line by line.
"""

import keyword
from pathlib import Path

FUNCTION = '''"""{name}: a network function. `byway nf check {file}` says whether it is right."""

from byway import nf


@nf.function
class {name}:
    """Refuse TCP connections to one port, and count what was refused."""

    closed_port: int = 23  # a parameter; `byway nf set` changes it while it works
    refused = nf.Counter()  # state; `byway nf show` shows it

    def process(self, frame: nf.Frame) -> nf.Verdict:
        """Called for each frame that comes in."""
        if frame.is_tcp_syn and frame.l4_dst == self.closed_port:
            self.refused.add()
            return nf.DROP("closed port")
        return nf.PASS
'''

TEST = '''"""Tests of {name}: `byway nf test {file}` runs each in plain Python and compiled."""

from byway.testing.builders import tcp, udp
from {module} import {name}

pytest_plugins = ["byway.testing.function_fixtures"]


def test_connections_to_the_closed_port_are_refused(instance):
    function = instance({name}, closed_port=23)
    outcome = function.send(tcp(dport=23, flags="S"))
    assert (outcome.verdict.kind, outcome.reason) == ("drop", "closed port")


def test_everything_else_passes(instance):
    function = instance({name}, closed_port=23)
    for frame in (tcp(dport=80, flags="S"), tcp(dport=23, flags="A"), udp(dport=23)):
        outcome = function.send(frame)
        assert outcome.verdict.kind == "pass"
        assert outcome.frame == frame
'''


class PlaceError(ValueError):
    """What was asked for cannot be the place of a function; the message says what can."""


def write_scaffold(place: str) -> list[Path]:
    """Write a function and its test to FILE[:CLASS]; -> the files.

    PlaceError: a name that is none; FileExistsError: one of them is there already, and neither is
    touched; OSError: they cannot be written.
    """
    text, _, name = place.rpartition(":")
    if not text or "/" in name:  # a folder may have a colon in its name
        text, name = place, ""
    path = Path(text if text.endswith(".py") else f"{text}.py")
    module = path.stem
    name = name or "".join(part.title() for part in module.split("_"))
    if not _is_name(module):
        raise PlaceError(f"{path.name}: a test imports the file, so its name is made of letters,"
                         " digits and _, as in guard.py")
    if not _is_name(name):
        raise PlaceError(f"{name}: no name for a class; write it as in guard.py:RateGuard")
    texts = {path: FUNCTION, path.with_name(f"test_{path.name}"): TEST}
    for file in texts:
        if file.exists():
            raise FileExistsError(17, "is there already, and left as it is", str(file))
    for file, body in texts.items():
        file.write_text(body.format(name=name, file=path.name, module=module))
    return list(texts)


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)
