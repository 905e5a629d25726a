# SPDX-License-Identifier: Apache-2.0
"""TCP as RFC 9293 draws it, seen from between the two ends; and what RFC 5961 asks of receivers.

Each figure is played through a port; ">" is the guest's segment, "<" one to it.
"""

import pytest

from byway.packet.reason import Reason
from byway.switch.groups_compile import Rule
from byway.testing.flow_frames import ACK, FIN, PSH, RST, SYN, TCP, Packet, tcp
from tests.filtering import OUT4, Filtered

GUEST, REMOTE = "10.0.0.1", "10.0.0.2"
FLAGS = {"SYN": SYN, "SYN,ACK": SYN | ACK, "ACK": ACK, "FIN,ACK": FIN | ACK, "RST": RST,
         "RST,ACK": RST | ACK, "DATA": ACK | PSH, "NULL": 0, "SYN,FIN": SYN | FIN,
         "SYN,RST": SYN | RST, "FIN": FIN, "FIN,RST,ACK": FIN | RST | ACK, "XMAS": 0x29}


@pytest.fixture
def lab() -> Filtered:
    """A guest that may begin connections; to it nothing may be begun."""
    made = Filtered()
    made.groups.set_group("out", [OUT4])
    made.port(1, "out")
    return made


def play(lab: Filtered, script: str, port: int = 40000) -> list[Reason | None]:
    """Segments such as "> SYN; < SYN,ACK"; -> what became of each."""
    verdicts = []
    for step in script.split(";"):
        way, name = step.split()
        if way == ">":
            verdicts.append(lab.rx(Packet(GUEST, REMOTE, TCP, tcp(port, 80, FLAGS[name]))))
        else:
            verdicts.append(lab.tx(Packet(REMOTE, GUEST, TCP, tcp(80, port, FLAGS[name]))))
    return verdicts


def passes(lab: Filtered, script: str) -> bool:
    return play(lab, script) == [None] * len(script.split(";"))


HANDSHAKE = "> SYN; < SYN,ACK; > ACK"


def test_figure_6_handshake(lab: Filtered) -> None:
    for step, state in (("> SYN", "syn_sent"), ("< SYN,ACK", "syn_received"),
                        ("> ACK", "established"), ("> DATA", "established"),
                        ("< DATA", "established")):
        assert passes(lab, step)
        assert lab.states() == [state]


def test_figure_7_simultaneous_open(lab: Filtered) -> None:
    assert passes(lab, "> SYN; < SYN; > SYN,ACK; < SYN,ACK")
    assert lab.states() == ["established"]
    assert passes(lab, "> ACK; < ACK; < SYN,ACK; > SYN,ACK")


def test_figure_8_old_duplicate_syn(lab: Filtered) -> None:
    """The guest answers the wrong SYN-ACK with RST, and its own SYN goes on."""
    assert passes(lab, "> SYN; < SYN,ACK; > RST; > SYN; < SYN,ACK; > ACK")
    assert lab.states() == ["established"]


def test_figure_9_half_open(lab: Filtered) -> None:
    """The peer still has a connection that the guest has lost: it answers with an ACK."""
    assert passes(lab, f"{HANDSHAKE}; > SYN; < ACK; > RST; > SYN; < SYN,ACK; > ACK")
    lab.groups.table.forget(-1)
    assert passes(lab, "> SYN; < ACK; > RST; > SYN")
    assert lab.states() == ["syn_sent"]


def test_figure_10_active_side_causes_half_open_discovery(lab: Filtered) -> None:
    assert passes(lab, f"{HANDSHAKE}; < DATA; > RST")
    assert lab.states() == ["closed"]


def test_figure_12_close(lab: Filtered) -> None:
    assert passes(lab, f"{HANDSHAKE}; > FIN,ACK; < ACK")
    assert lab.states() == ["fin_wait"]
    assert passes(lab, "< DATA; > ACK; < FIN,ACK")
    assert lab.states() == ["time_wait"]
    assert passes(lab, "> ACK; < FIN,ACK; > ACK")


def test_figure_13_simultaneous_close(lab: Filtered) -> None:
    assert passes(lab, f"{HANDSHAKE}; > FIN,ACK; < FIN,ACK; > ACK; < ACK")
    assert lab.states() == ["time_wait"]


def test_time_wait_may_be_followed_by_a_new_connection(lab: Filtered) -> None:
    """RFC 9293, 3.6.1: a new SYN reopens it; to the guest only where the rules allow that."""
    closed = f"{HANDSHAKE}; > FIN,ACK; < FIN,ACK; > ACK"
    assert passes(lab, f"{closed}; > SYN; < SYN,ACK; > ACK")
    assert play(lab, "> FIN,ACK; < FIN,ACK; < SYN")[-1] is Reason.NOT_ALLOWED
    assert lab.states() == []


def test_a_refused_connection(lab: Filtered) -> None:
    assert passes(lab, "> SYN; < RST,ACK; > SYN; < RST,ACK")
    lab.wait(11)
    assert play(lab, "< RST,ACK") == [Reason.BAD_STATE]


@pytest.mark.parametrize("wrong", [
    "< SYN", "< SYN,ACK", "< ACK", "< FIN,ACK", "< RST", "> SYN,ACK", "> FIN,ACK", "> RST"])
def test_what_begins_nothing(lab: Filtered, wrong: str) -> None:
    expected = Reason.NOT_ALLOWED if wrong == "< SYN" else Reason.BAD_STATE
    assert play(lab, wrong) == [expected]
    assert lab.states() == []


@pytest.mark.parametrize("wrong", ["> ACK", "> SYN,ACK", "> FIN,ACK", "< FIN,ACK"])
def test_what_does_not_fit_a_syn(lab: Filtered, wrong: str) -> None:
    """RFC 9293, 3.10.7.3: nothing but SYN and RST is accepted in SYN-SENT, and ACK answered."""
    assert play(lab, f"> SYN; {wrong}") == [None, Reason.BAD_STATE]
    assert lab.states() == ["syn_sent"]


@pytest.mark.parametrize("wrong", ["< SYN", "> SYN,ACK"])
def test_what_does_not_fit_an_established_connection(lab: Filtered, wrong: str) -> None:
    assert play(lab, f"{HANDSHAKE}; {wrong}")[-1] is Reason.BAD_STATE
    assert lab.states() == ["established"]


def test_a_syn_into_a_connection_changes_nothing(lab: Filtered) -> None:
    """RFC 5961, 4: the peer answers with a challenge ACK."""
    assert passes(lab, f"{HANDSHAKE}; > SYN; < ACK; > DATA; < DATA")
    assert lab.states() == ["established"]


def test_a_reset_that_is_not_believed(lab: Filtered) -> None:
    """RFC 5961, 3: a blind RST is answered with a challenge ACK, and the connection goes on."""
    assert passes(lab, f"{HANDSHAKE}; < RST")
    assert lab.states() == ["closed"]
    assert passes(lab, "> ACK; < DATA")
    assert lab.states() == ["established"]
    lab.wait(3600)
    assert passes(lab, "< DATA")


def test_a_reset_that_is_believed(lab: Filtered) -> None:
    assert passes(lab, f"{HANDSHAKE}; < RST; < DATA; < ACK")
    assert lab.states() == ["closed"], "what was on its way passes and revives nothing"
    lab.wait(11)
    assert play(lab, "< DATA") == [Reason.BAD_STATE]


@pytest.mark.parametrize("name", ["NULL", "SYN,FIN", "SYN,RST", "FIN", "FIN,RST,ACK", "XMAS"])
def test_flags_that_no_tcp_sends(lab: Filtered, name: str) -> None:
    assert play(lab, f"> {name}") == [Reason.BAD_STATE]
    assert play(lab, f"{HANDSHAKE}; > {name}; < {name}")[3:] == [Reason.BAD_STATE] * 2
    assert lab.states() == ["established"]


@pytest.mark.parametrize(("script", "seconds"), [
    ("> SYN", 60), ("> SYN; < SYN,ACK", 60), (HANDSHAKE, 7440), (f"{HANDSHAKE}; < FIN,ACK", 240),
    (f"{HANDSHAKE}; < FIN,ACK; > FIN,ACK", 60), (f"{HANDSHAKE}; > RST", 10), ("> ACK", 300)])
def test_how_long_each_state_lasts(lab: Filtered, script: str, seconds: int) -> None:
    """RFC 5382, 5, REQ-5: an established connection for 2 hours 4 minutes, a half-closed one for 4
    minutes, which are minimums for translators."""
    assert passes(lab, script)
    lab.wait(seconds)
    assert lab.groups.tick(lab.now) == 0
    lab.wait(0.001)
    assert lab.groups.tick(lab.now) == 1


def test_a_server(lab: Filtered) -> None:
    """The other way round: the remote side is the opener."""
    lab.groups.set_group("out", [Rule(ingress=True, version=4, protocol=TCP)])
    assert passes(lab, "< SYN; > SYN,ACK; < ACK; > DATA; < FIN,ACK; > FIN,ACK; < ACK")
    assert lab.states() == ["time_wait"]
    assert play(lab, "> SYN") == [Reason.NOT_ALLOWED]
    assert play(lab, "< SYN; < ACK; > SYN,ACK; > SYN") == [
        None, Reason.BAD_STATE, None, Reason.BAD_STATE]
