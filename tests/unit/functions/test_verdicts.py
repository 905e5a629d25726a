# SPDX-License-Identifier: Apache-2.0
"""What a chain makes of a function's verdict, for frames that come in and for those that go out."""

import pytest

from byway import nf
from byway.functions.harness import Harness, same
from byway.machine.layout import address_of
from byway.nf.verdicts import MOST_PORTS
from byway.packet.batch import CLONES, ROWS, UNDECIDED
from byway.packet.reason import Reason
from byway.switch.fdb import MAX_PORTS
from byway.testing import builders
from tests.staging import Place
from tests.unit.functions.samples import Divides, Older, Says

FRAMES = [builders.udp(dport=53, data=bytes(300)), builders.udp(dport=54), builders.arp()]
WHAT = ["pass", "drop", "redirect", "mirror", "clone", "reply"]


@pytest.mark.parametrize("direction", ["rx", "tx"])
@pytest.mark.parametrize("what", WHAT)
def test_as_in_plain_python(what: str, direction: str) -> None:
    chain = [(Says, {"what": what, "to": "x"}), Older]
    plain, harness = (made(chain, ports={"x": 9}) for made in (nf.Plain, Harness))
    for frame in FRAMES:
        one, = harness.run([frame], direction=direction)
        other, = plain.run([frame], direction=direction)
        assert same(one, other), (one, other)


def test_a_copy_is_of_the_frame_as_it_is_and_a_mirror_as_it_leaves() -> None:
    for what, later in (("clone", 0), ("mirror", 1)):
        harness = Harness([(Says, {"what": what, "to": "x"}), Older], ports={"x": 9})
        outcome, = harness.run(FRAMES[:1])
        (port, copy), = outcome.copies
        assert port == 9
        assert outcome.frame != FRAMES[0]
        assert (copy == outcome.frame) == bool(later)


@pytest.mark.parametrize("direction", ["rx", "tx"])
def test_who_drops_counts_why(direction: str) -> None:
    harness = Harness([(Says, {"what": "drop"}), Older])
    assert [o.reason for o in harness.run(FRAMES, direction=direction)] == ["told to", "", ""]
    first, second = (one.counters for one in harness.instances)
    assert (first["frames"], first["drops"]) == (3, {"told to": 1})
    assert (second["frames"], second["drops"]) == (2, {"too old": 0})


def test_a_port_counts_what_its_functions_drop() -> None:
    frames = [FRAMES[0], builders.udp(dport=0), FRAMES[1]]
    outs = Harness([(Says, {"what": "drop"}), Divides]).run_batch(frames)
    assert outs == [dropped(Reason.FUNCTION), dropped(Reason.FUNCTION_FAULT), UNDECIDED]


def dropped(reason: Reason) -> int:
    return -1 - int(reason)


@pytest.mark.parametrize("direction", ["rx", "tx"])
@pytest.mark.parametrize("what", ["redirect", "mirror", "clone"])
@pytest.mark.parametrize("number", [-1, -2, MAX_PORTS - 1, MAX_PORTS])
def test_a_port_that_is_not_there_and_one_that_cannot_be(
        number: int, what: str, direction: str) -> None:
    chain = [(Says, {"what": what, "to": "x"}), Older]
    plain, harness = (made(chain, ports={"x": number}) for made in (nf.Plain, Harness))
    outcome, = harness.run(FRAMES[:1], direction=direction)
    other, = plain.run(FRAMES[:1], direction=direction)
    assert same(outcome, other), (outcome, other)
    there = 0 <= number < MAX_PORTS
    if what != "redirect":
        assert outcome.verdict == nf.PASS
        assert [port for port, _ in outcome.copies] == [number] * there
        assert harness.instances[0].counters["copies_lost"] == 1 - there
    elif there or number == -1:
        assert outcome.verdict == nf.REDIRECT(number)
    else:
        assert outcome.fault is not None
        assert outcome.fault.kind == "a port that there cannot be"
    assert MOST_PORTS == MAX_PORTS


def test_a_frame_too_short_for_ethernet_comes_to_no_function() -> None:
    harness = Harness(Says, what="drop", only=0)
    assert harness.run([bytes(13)])[0].verdict == nf.PASS
    assert harness.instances[0].counters["frames"] == 0
    assert harness.run([bytes(14)])[0].verdict == nf.DROP("told to")


def test_more_copies_than_there_is_room_for_are_counted() -> None:
    harness = Harness([(Says, {"what": "clone", "to": "x"})] * 5, ports={"x": 9})
    harness.run_batch([FRAMES[0]] * ROWS)
    assert int(harness.batch.record[0]["nclones"]) == CLONES
    assert sum(one.counters["copies_lost"] for one in harness.instances) == 5 * ROWS - CLONES


@pytest.mark.parametrize("direction", ["rx", "tx"])
@pytest.mark.parametrize("last", ["pass", "drop", "redirect", "reply"])
def test_each_mirror_gets_its_copy_of_what_leaves(last: str, direction: str) -> None:
    chain = [(Says, {"what": "mirror", "to": "x"}), (Says, {"what": "mirror", "to": "y"}), Older,
             (Says, {"what": last, "to": "z"})]
    plain, harness = (made(chain, ports={"x": 9, "y": 8, "z": 7}) for made in (nf.Plain, Harness))
    one, = harness.run(FRAMES[:1], direction=direction)
    other, = plain.run(FRAMES[:1], direction=direction)
    assert same(one, other), (one, other)
    assert [port for port, _ in one.copies] == ([] if last == "drop" else [9, 8])
    assert all(copy == one.frame for _, copy in one.copies)


@pytest.mark.parametrize("direction", ["rx", "tx"])
@pytest.mark.parametrize(("last", "number"), [("drop", 7), ("redirect", -1), ("redirect", 1 << 20)])
def test_nobody_gets_a_mirror_of_what_goes_nowhere(last: str, number: int, direction: str) -> None:
    chain = [(Says, {"what": "mirror", "to": "x"}), (Says, {"what": last, "to": "z"})]
    for one in (made(chain, ports={"x": 9, "z": number}) for made in (nf.Plain, Harness)):
        outcome, = one.run(FRAMES[:1], direction=direction)
        assert outcome.copies == (), one


def test_what_a_function_drops_teaches_nothing() -> None:
    place = Place()
    victim, other = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")
    frames = [FRAMES[0][:6] + victim + FRAMES[0][12:], FRAMES[1][:6] + other + FRAMES[1][12:]]
    harness = Harness([(Says, {"what": "drop"}), (Says, {"what": "reply", "only": 54})])
    harness.batch.record[0]["here"] = address_of(place.network)
    harness.batch.record[0]["origin"] = 3
    harness.run_batch(frames)
    assert {mac: port for mac, port, _ in place.fdb.entries()} == {
        int.from_bytes(other, "big"): 3}
    place.close()


def test_what_a_function_sends_is_held_against_the_networks_rules() -> None:
    place = Place()
    long = builders.udp(dport=53, data=bytes(1500))
    group = FRAMES[0][:6] + b"\x03" + FRAMES[0][7:]
    for what in ("redirect", "reply"):
        harness = Harness(Says, what=what, to="x", ports={"x": 9})
        harness.batch.record[0]["here"] = address_of(place.network)
        outs = harness.run_batch([long, group, FRAMES[0]])
        assert outs[:2] == [dropped(Reason.OVER_MTU), dropped(Reason.BAD_SOURCE)]
        assert outs[2] >= 0
    place.close()
