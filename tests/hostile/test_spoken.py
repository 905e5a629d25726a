# SPDX-License-Identifier: Apache-2.0
"""Guests that say anything in ARP and neighbour discovery: what is read lies in the frame's head,
what is answered is what was asked, and who says too much harms itself only."""

import random
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS
from scapy.layers.l2 import ARP, Ether

from byway.control.actions import AddPort
from byway.machine.jit import INTERPRETED
from byway.packet.batch import HEAD, ROWS, SCRATCH_BYTES
from byway.switch.port_security import PortSecurity
from byway.switch.responder import Responder
from byway.testing.arena import Arena
from byway.testing.frames import ARP_REPLY, ARP_REQUEST, BROADCAST, Arp
from byway.testing.guarding_kernels import respond, secure
from byway.testing.guest import Guest
from tests.oracles.guest_frames import NUMBERS, PAIRS, V4, V6, frames
from tests.running import RunningSwitch, mac
from tests.staging import Outcome, Place, mapped

EXAMPLES = 100 if INTERPRETED else 1000


def populated() -> Place:
    """A place where some of the addresses that guests speak of have owners."""
    place = Place()
    for k, ip in enumerate(V4 + V6):
        place.population.set_ip(place.number, mapped(ip), NUMBERS[k % 3])
    place.learn(NUMBERS[2], 1)
    return place


def watch(place: Place, *records: tuple[str, object]) -> Arena:
    """What the stages may touch."""
    arena = Arena()
    batch = place.batch
    arena.allow_array("batch", batch.record)
    arena.allow_array("rows", batch.rows)
    for k in range(ROWS):
        arena.allow(f"head {k}", int(batch.rows[k]["head"]), HEAD)
    arena.allow("scratch", int(batch.record["scratch"][0]), SCRATCH_BYTES)
    for name, array in (
            ("network", place.network), ("fdb", place.fdb.record), ("words", place.fdb._words),
            ("population", place.population.record), ("ips", place.population._ips.memory),
            ("ip table", place.population._ips.record), ("ring", place.events.record),
            ("events", place.events._events), ("shares", place.events._shares), *records):
        arena.allow_array(name, array)
    return arena


@pytest.mark.interpreted_only
@settings(max_examples=EXAMPLES, deadline=None)
@given(made=st.lists(frames(), min_size=1, max_size=6))
def test_stages_look_at_heads_only(made: list[bytes]) -> None:
    place = populated()
    responder, security = Responder(place.population), PortSecurity(PAIRS[0])
    arena = watch(place, ("responder", responder.record), ("security", security.record),
                  ("pairs", security._pairs))

    def watched(record: int, batch: int) -> int:
        with arena:
            return int((secure if record == security.address else respond)(record, batch))

    for owner in (security, responder):
        place.run(watched, owner, made)
    assert arena.accesses
    place.close()


def check_answer(question: bytes, outcome: Outcome) -> None:
    """An answer is whole, goes to who asked, and speaks of what was asked."""
    assert question[0] & 1, "asked of everybody"
    answer = Ether(outcome.frame)
    assert answer.dst in (question[6:12].hex(":"), "33:33:00:00:00:01")
    if answer.type == 0x0806:
        asked = Ether(question)[ARP]
        assert (answer[ARP].op, answer[ARP].psrc, answer[ARP].pdst) == (2, asked.pdst, asked.psrc)
        assert asked.op == 1
        owner = answer[ARP].hwsrc
    else:
        asked = Ether(question)[ICMPv6ND_NS]
        assert answer[ICMPv6ND_NA].tgt == asked.tgt
        sum_of_it = answer.copy()
        del sum_of_it[ICMPv6ND_NA].cksum
        assert bytes(sum_of_it) == outcome.frame
        owner = answer.src
    assert int(owner.replace(":", ""), 16) in NUMBERS
    assert owner != question[6:12].hex(":"), "never to the owner itself"


@settings(max_examples=EXAMPLES, deadline=None)
@given(made=st.lists(frames(), min_size=1, max_size=12))
def test_answers_are_what_was_asked(made: list[bytes]) -> None:
    place = populated()
    outcomes = place.run(respond, Responder(place.population), made, origin=3)
    for question, outcome in zip(made, outcomes, strict=True):
        assert outcome.reason is None, "the responder drops nothing"
        if outcome.out is None:
            assert outcome.frame == question
        else:
            assert outcome.out == 3
            check_answer(question, outcome)
    place.close()


# ---------------------------------------------------------------- in a switch
@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        made.network("blue", responder=True, fdb_limit=64)
        yield made


def connect(switch: RunningSwitch, stack: ExitStack, name: str, number: int,
            **options: object) -> Guest:
    switch.apply([AddPort(switch.config("vhost-user", name, **options))])
    return stack.enter_context(switch.guest(name, number))


def ask(switch: RunningSwitch, guest: Guest, sender: str, target: str) -> list[bytes]:
    """A guest asks by ARP; -> what it receives."""
    guest.receive()
    guest.send([Arp(ARP_REQUEST, guest.mac, sender, bytes(6), target).frame(BROADCAST)])
    switch.settle()
    return guest.receive()


def is_answered(got: list[bytes], by: Guest, target: str) -> bool:
    answers = [answer for answer in map(Arp.parse, got) if answer]
    return [(a.operation, a.sender_mac, a.sender_ip) for a in answers] == [
        (ARP_REPLY, by.mac, target)]


def invented(rng: random.Random, n: int) -> list[bytes]:
    """ARP requests of n stations that nobody has, with addresses that nobody gave them."""
    made = []
    for _ in range(n):
        source = struct.pack(">Q", 0x0600 << 32 | rng.getrandbits(32))[2:]
        ip = f"10.{rng.randrange(1, 255)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        made.append(Arp(ARP_REQUEST, source, ip, bytes(6), "10.0.0.99").frame(BROADCAST))
    return made


def test_who_invents_addresses_harms_itself_only(switch: RunningSwitch) -> None:
    """More MAC and IP addresses than the network has room for, from one port, for long: others'
    addresses, configured or said once, are known and answered as before."""
    rng = random.Random(7)
    with ExitStack() as stack:
        configured = connect(switch, stack, "one", 1, mac=mac(1), ips=["10.0.0.1"])
        quiet = connect(switch, stack, "two", 2)
        asker = connect(switch, stack, "three", 3)
        flooder = connect(switch, stack, "four", 4)
        assert is_answered(ask(switch, asker, "10.0.0.3", "10.0.0.1"), configured, "10.0.0.1")
        ask(switch, quiet, "10.0.0.2", "10.0.0.1")
        assert is_answered(ask(switch, asker, "10.0.0.3", "10.0.0.2"), quiet, "10.0.0.2")
        now = 1 << 40
        for _ in range(20):
            now += 1 << 27
            flooder.send(invented(rng, 32))
            switch.settle(now)
            for guest in (configured, quiet, asker):
                guest.receive()
        assert is_answered(ask(switch, asker, "10.0.0.3", "10.0.0.1"), configured, "10.0.0.1")
        assert is_answered(ask(switch, asker, "10.0.0.3", "10.0.0.2"), quiet, "10.0.0.2")
        known = switch.call(switch.engine.population, "blue")
        assert {entry["mac"] for entry in known} >= {mac(1), mac(2), mac(3)}
        assert len(known) <= 64 + 4


def test_port_security_ends_a_storm_where_it_begins(switch: RunningSwitch) -> None:
    rng = random.Random(8)
    with ExitStack() as stack:
        guarded = connect(switch, stack, "one", 1, mac=mac(1), ips=["10.0.0.1"],
                          port_security=True)
        other = connect(switch, stack, "two", 2)
        guarded.send(invented(rng, 64))
        switch.settle()
        assert other.receive() == []
        assert switch.drops() == {"one": {"spoofed_mac": 64}}
        stolen = Arp(ARP_REPLY, guarded.mac, "10.0.0.2", bytes(6), "10.0.0.2").frame(BROADCAST)
        guarded.send([stolen])
        switch.settle()
        assert other.receive() == []
        assert switch.drops() == {"one": {"spoofed_mac": 64, "spoofed_arp": 1}}
        assert [e["mac"] for e in switch.call(switch.engine.population, "blue")] == [mac(1)]
        assert len(ask(switch, guarded, "10.0.0.1", "10.0.0.2")) == 0
        assert len(other.receive()) == 1, "what it may say is heard"


def test_a_trunks_tags_are_no_way_around(switch: RunningSwitch) -> None:
    switch.network("red")
    with ExitStack() as stack:
        trunk = connect(switch, stack, "trunk", 1, network="red", vlans={"10": "blue"},
                        mac=mac(1), ips=["10.0.0.1"], port_security=True)
        other = connect(switch, stack, "two", 2)
        for source, sender, passes in ((trunk.mac, "10.0.0.1", 1), (trunk.mac, "10.0.0.2", 0),
                                       (other.mac, "10.0.0.1", 0)):
            frame = Arp(ARP_REQUEST, source, sender, bytes(6), "10.0.0.9").frame(BROADCAST)
            trunk.send([frame[:12] + b"\x81\0\0\x0a" + frame[12:]])
            switch.settle()
            assert len(other.receive()) == passes
        assert switch.drops() == {"trunk": {"spoofed_mac": 1, "spoofed_arp": 1}}


def test_what_is_configured_is_not_anothers_to_say(switch: RunningSwitch) -> None:
    """Without port security anybody can say anything to those who hear it; but the switch goes on
    answering with what was configured."""
    with ExitStack() as stack:
        owner = connect(switch, stack, "one", 1, mac=mac(1), ips=["10.0.0.1"])
        thief = connect(switch, stack, "two", 2)
        asker = connect(switch, stack, "three", 3)
        thief.send([Arp(ARP_REPLY, thief.mac, "10.0.0.1", bytes(6), "10.0.0.1").frame(BROADCAST)])
        switch.settle()
        assert is_answered(ask(switch, asker, "10.0.0.3", "10.0.0.1"), owner, "10.0.0.1")
