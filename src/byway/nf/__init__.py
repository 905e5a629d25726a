# SPDX-License-Identifier: Apache-2.0
"""The author's page: all that a network function is written with.

    from byway import nf

    @nf.function
    class RateGuard:
        ...

Used by authors, and by byway.functions, which compiles what they wrote. Pure Python: a function
runs as it stands, slowly, which is how it is debugged and what its compiled form is held against.
"""

from byway.nf.addresses import IPv4, IPv6, Mac, Port, Prefix4, Prefix6, Seconds, Text
from byway.nf.calls import hash, high, low, now, random, wide
from byway.nf.events import Event
from byway.nf.frame import Frame
from byway.nf.function import function
from byway.nf.keys import Flow
from byway.nf.maglev import Maglev
from byway.nf.maps import Buckets, Lpm, Map, Record
from byway.nf.outcome import Fault, Outcome
from byway.nf.parameters import Range
from byway.nf.plain import Plain
from byway.nf.problem import FunctionError, ParameterError, Problem
from byway.nf.rules import RuleError, Rules
from byway.nf.states import Array, Bucket, Counter
from byway.nf.undone import Undone
from byway.nf.verdicts import CLONE, DROP, MIRROR, PASS, REDIRECT, REPLY, Verdict

__all__ = [
    "CLONE",
    "DROP",
    "MIRROR",
    "PASS",
    "REDIRECT",
    "REPLY",
    "Array",
    "Bucket",
    "Buckets",
    "Counter",
    "Event",
    "Fault",
    "Flow",
    "Frame",
    "FunctionError",
    "IPv4",
    "IPv6",
    "Lpm",
    "Mac",
    "Maglev",
    "Map",
    "Outcome",
    "ParameterError",
    "Plain",
    "Port",
    "Prefix4",
    "Prefix6",
    "Problem",
    "Range",
    "Record",
    "RuleError",
    "Rules",
    "Seconds",
    "Text",
    "Undone",
    "Verdict",
    "function",
    "hash",
    "high",
    "low",
    "now",
    "random",
    "wide",
]
