# SPDX-License-Identifier: Apache-2.0
"""State in plain Python: what declarations refuse, and what only authors see of it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from byway import nf
from byway.nf.maps import Map
from byway.nf.running import RUN, Run
from byway.nf.states import SECOND


@pytest.mark.parametrize(("declare", "sentence"), [
    (lambda: nf.Map("u8", "u8", 0), "capacity=0: write a number from 1 to 67108864"),
    (lambda: nf.Map("u8", "u8", True), "capacity=True: write a number"),
    (lambda: nf.Map("u8", "u8", 1, age=1, idle=1), "an age or an idle time; write one of them"),
    (lambda: nf.Map("u8", "u8", 1, age=0), "0 is no age: write seconds"),
    (lambda: nf.Map("u8", "u8", 1, age="1 s"), "'1 s' is no age"),
    (lambda: nf.Map("u8", "ipv6", 1), "value='ipv6': write one of u8"),
    (lambda: nf.Map("u8", {"a": "int"}, 1), "write a type, or names with types"),
    (lambda: nf.Map("u8", {}, 1), "write a type, or names with types"),
    (lambda: nf.Map("u8", {"_a": "u8"}, 1), "write a type, or names with types"),
    (lambda: nf.Map("u8", {f"f{k}": "ipv6" for k in range(17)}, 1), "more than 32 words"),
    (lambda: nf.Array("flow", size=1), "value='flow': write one of"),
    (lambda: nf.Array(size=1 << 27), "size=134217728: write a number from 1"),
    (lambda: nf.Lpm(capacity=1, key="mac"), 'key=\'mac\': write "ipv4" or "ipv6"'),
    (lambda: nf.Event(), "an event has fields"),
    (lambda: nf.Event(a="bytes:2049"), "bytes:N with N up to 2048"),
    (lambda: nf.Event(a="bytes:0"), "write one of u8"),
    (lambda: nf.Event(time="u8"), "a field cannot be called time"),
])
def test_what_cannot_be_declared(declare: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        declare()
    assert sentence in str(caught.value)


def test_records_have_the_fields_that_were_declared() -> None:
    record = Map("u8", {"a": "u8"}, 1).make(1)
    with pytest.raises(AttributeError, match="no field b; it has a"):
        record.b = 1
    with pytest.raises(AttributeError, match="no field b; it has a"):
        _ = record.b


def test_a_false_record_keeps_nothing() -> None:
    table = Map("u8", {"a": "u8"}, 1)
    missing = table.find(1)
    missing.a = 5
    assert not missing
    assert table.find(2).a == 0
    assert len(table) == 0


def test_keys_have_the_parts_that_were_declared() -> None:
    table = Map(("u8", "flow"), "u8", 1)
    with pytest.raises(TypeError, match="a key of 1 parts; it needs u8, flow"):
        table.get(3)
    with pytest.raises(TypeError, match=r"write frame\.flow"):
        table.get((3, 4))
    assert table.get((3, nf.Flow())) == 0


def test_an_age_by_the_name_of_a_parameter() -> None:
    run = Run(now=SECOND)
    RUN.set(run)
    owner = SimpleNamespace(hold=SECOND)
    table = Map("u8", "u8", 5, age="hold").fresh(owner)
    assert table.set(1, 1)
    run.now += 2 * SECOND
    assert 1 not in table
    owner.hold = 3 * SECOND
    assert 1 in table


def test_instances_share_nothing() -> None:
    declared = Map("u8", "u8", 5)
    one, other = declared.fresh(None), declared.fresh(None)
    one.set(1, 1)
    assert 1 not in other
    assert 1 not in declared


def test_what_cannot_be_emitted() -> None:
    event = nf.Event(a="u8")
    with pytest.raises(TypeError, match="no field b; it has a"):
        event.emit(b=1)
