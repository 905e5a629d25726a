# SPDX-License-Identifier: Apache-2.0
"""Services: where frames go that have to pass them, and those that come back."""

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import RETURNED_RX, RETURNED_TX, ROWS, origin_word
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.reason import Reason
from byway.switch.service import LEFT, RIGHT, SLOTS
from byway.switch.service_memory import Back, Homes, Service, Steps
from byway.testing.service_kernels import hash_of_ends, service_in, service_out, service_return
from tests.staging import Outcome, Place

EXAMPLES = 40 if INTERPRETED else 300
MAC = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b", "out": "02:00:00:00:00:01"}
PORT = {"a": 1, "b": 2, "out": 3}
FW, IDS = (10, 11), (12, 13)  # left and right ports of their appliances


def number(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


def frame(source: str, target: str, sport: int = 1000, dport: int = 80) -> bytes:
    to = MAC.get(target, target)
    return bytes(Ether(src=MAC.get(source, source), dst=to) / IP(src="10.0.0.1", dst="10.0.0.2")
                 / TCP(sport=sport, dport=dport) / Raw(bytes(30)))


class Served(Place):
    """A network where port a is behind the firewall and then the IDS, port b behind the firewall,
    and port out behind none."""

    def __init__(self) -> None:
        super().__init__()
        self.homes = Homes(seed=1)
        self.fw, self.ids = Service("fw"), Service("ids")
        self.fw.spread([("fw1", *FW)])
        self.ids.spread([("ids1", *IDS)])
        self.origins = alloc(np.dtype("<i8"), ROWS)
        self.batch.record["origins"] = address_of(self.origins)
        self.counters = alloc(COUNTERS, 1)
        self.steps: dict[str, Steps] = {}
        self.have("a", self.fw, self.ids)
        self.have("b", self.fw)
        self.learn(number(MAC["out"]), PORT["out"])

    def have(self, port: str, *services: Service) -> None:
        """The port has these services."""
        self.steps[port] = Steps(self.homes, self.number, PORT[port], services)
        self.homes.settle_in(self.steps[port], [number(MAC[port])])

    def sent(self, port: str, *frames: bytes) -> list[Outcome]:
        """What becomes of frames that a port with services sends."""
        return self.run(service_in, self.steps[port], frames, PORT[port])

    def gets(self, port: str, *frames: bytes, origin: int = PORT["out"], returned: int = 0
             ) -> list[int | str | None]:
        """Where frames go that are for a port with services: None: to it, or why to nobody."""
        self.run(lambda *_: 0, self.homes, frames, origin)
        self.batch.record["nclones"] = 0
        listed = alloc(np.dtype("<i8"), ROWS)
        rows = [int(address_of(self.batch.rows)) + 64 * k for k in range(len(frames))]
        listed[:len(frames)] = rows
        before = drops_by_name(self.counters[0])
        self.batch.record["returned"] = returned
        kept = int(service_out(self.steps[port].address, self.batch.address, address_of(listed),
                               len(frames), address_of(self.counters)))
        made: list[int | str | None] = [None] * kept
        for copy in self.batch.clones[:int(self.batch.record["nclones"][0])]:
            head = ctypes.string_at(int(copy["head"]), min(int(copy["len"]), 128))
            assert any(one.startswith(head) for one in frames)
            made.append(int(copy["out"]))
        after = drops_by_name(self.counters[0])
        made += [name for name in after for _ in range(after[name] - before.get(name, 0))]
        return made

    def back(self, service: Service, side: int, *frames: bytes) -> list[tuple[Outcome, int]]:
        """What becomes of frames that come back from a service's appliance: and their origins."""
        port = {("fw", LEFT): 10, ("fw", RIGHT): 11, ("ids", LEFT): 12, ("ids", RIGHT): 13}
        own = port[service.name, side]
        self.returns = Back(self.homes, service, side, self.number, own)
        self.origins[:] = origin_word(self.number, own)
        outcomes = self.run(service_return, self.returns, frames, own)
        return [(one, int(self.origins[k])) for k, one in enumerate(outcomes)]


@pytest.fixture
def place() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()


def test_what_a_port_sends_goes_to_its_first_service(place: Served) -> None:
    to_one, to_all, unknown = place.sent(
        "a", frame("a", "out"), frame("a", "ff:ff:ff:ff:ff:ff"), frame("a", "02:00:00:00:00:77"))
    assert [one.out for one in (to_one, to_all, unknown)] == [FW[LEFT]] * 3


def test_between_inside_ports_nothing_passes_the_service_that_both_have(place: Served) -> None:
    assert place.sent("a", frame("a", "b"))[0].out is None
    assert place.sent("b", frame("b", "a"))[0].out is None
    assert place.gets("b", frame("a", "b"), origin=PORT["a"]) == [None]
    assert place.gets("a", frame("b", "a"), origin=PORT["b"]) == [IDS[RIGHT]]


def test_a_borrowed_address_is_not_inside(place: Served) -> None:
    assert place.gets("b", frame("a", "b"), origin=PORT["out"]) == [FW[RIGHT]]


def test_what_is_for_a_port_comes_through_its_services_from_the_last_on(place: Served) -> None:
    assert place.gets("a", frame("out", "a"), frame("out", "a", 7)) == [IDS[RIGHT]] * 2
    assert place.gets("b", frame("out", "b")) == [FW[RIGHT]]


def test_groups_go_directly_to_an_inside_port(place: Served) -> None:
    assert place.gets("a", frame("out", "ff:ff:ff:ff:ff:ff"), frame("out", "33:33:00:00:00:01")
                      ) == [None, None]


def test_what_came_through_the_services_does_not_do_so_again(place: Served) -> None:
    assert place.gets("a", frame("out", "a"), returned=RETURNED_TX) == [None]
    assert place.gets("a", frame("out", "a"), returned=RETURNED_RX) == [IDS[RIGHT]]


def test_on_the_way_out_services_follow_one_another(place: Served) -> None:
    (first, word), = place.back(place.fw, RIGHT, frame("a", "out"))
    assert (first.out, word) == (IDS[LEFT], origin_word(5, PORT["a"]) | RETURNED_RX)
    (last, word), = place.back(place.ids, RIGHT, frame("a", "out"))
    assert (last.out, last.reason) == (None, None)
    assert word == origin_word(5, PORT["a"]) | RETURNED_RX
    (only, word), = place.back(place.fw, RIGHT, frame("b", "ff:ff:ff:ff:ff:ff"))
    assert (only.out, word) == (None, origin_word(5, PORT["b"]) | RETURNED_RX)


def test_on_the_way_in_services_follow_one_another(place: Served) -> None:
    (first, word), = place.back(place.ids, LEFT, frame("out", "a"))
    assert (first.out, word) == (FW[RIGHT], origin_word(5, PORT["out"]) | RETURNED_TX)
    (last, word), = place.back(place.fw, LEFT, frame("out", "a"))
    assert (last.out, word) == (PORT["a"], origin_word(5, PORT["out"]) | RETURNED_TX)


def test_from_nobodys_address_the_appliance_is_the_origin(place: Served) -> None:
    (one, word), = place.back(place.fw, LEFT, frame("02:00:00:00:00:99", "b"))
    assert (one.out, word) == (PORT["b"], origin_word(5, FW[LEFT]) | RETURNED_TX)


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_what_comes_back_teaches_the_forwarding_database_nothing(place: Served, side: int) -> None:
    known = place.fdb.entries()
    place.back(place.fw, side, frame("a", "out"), frame("out", "a"), frame("a", "b"),
               frame("02:00:00:00:00:99", "a"))
    assert place.fdb.entries() == known


@pytest.mark.parametrize(("side", "given"), [
    (RIGHT, frame("out", "a")), (RIGHT, frame("02:00:00:00:00:99", "ff:ff:ff:ff:ff:ff")),
    (LEFT, frame("a", "out")), (LEFT, frame("out", "ff:ff:ff:ff:ff:ff")),
    (LEFT, bytes(60)), (RIGHT, bytes(60))])
def test_what_an_appliance_sends_of_its_own_is_dropped(
        place: Served, side: int, given: bytes) -> None:
    (one, _), = place.back(place.fw, side, given)
    assert one.reason is Reason.SERVICE_STRAY


def test_a_service_that_the_port_does_not_have_gives_nothing_back(place: Served) -> None:
    (out, _), = place.back(place.ids, RIGHT, frame("b", "out"))
    (into, _), = place.back(place.ids, LEFT, frame("out", "b"))
    assert out.reason is into.reason is Reason.SERVICE_STRAY


def test_a_port_sends_and_gets_with_its_own_address_only(place: Served) -> None:
    for source in ("out", "b", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"):
        assert place.sent("a", frame(source, "out"))[0].reason is Reason.SERVICE_ADDRESS
    assert place.gets("a", frame("out", "02:00:00:00:00:77")) == ["service_address"]


def test_frames_that_are_cut_or_too_long(place: Served) -> None:
    short, long = place.sent("a", frame("a", "out")[:13], frame("a", "out").ljust(1515, b"\0"))
    assert (short.out, short.reason) == (None, None)  # decide drops it
    assert long.reason is Reason.OVER_MTU
    (short, _), (long, _) = place.back(
        place.fw, RIGHT, frame("a", "out")[:13], frame("a", "out").ljust(1515, b"\0"))
    assert short.reason is Reason.RUNT
    assert long.reason is Reason.OVER_MTU


def test_where_no_appliance_works_frames_are_dropped_or_go_on(place: Served) -> None:
    place.fw.spread([])
    assert place.sent("a", frame("a", "out"))[0].reason is Reason.SERVICE_DOWN
    assert place.gets("b", frame("out", "b")) == ["service_down"]
    assert place.fw.statistics() == {"bypassed": 0, "blocked": 2}
    place.fw.choose(bypass=True, addresses=False)
    assert place.sent("a", frame("a", "out"))[0].out == IDS[LEFT]
    assert place.gets("b", frame("out", "b")) == [None]
    assert place.back(place.ids, LEFT, frame("out", "a"))[0][0].out == PORT["a"]
    assert place.fw.statistics() == {"bypassed": 3, "blocked": 2}


def test_a_probe_is_noted_where_it_comes_back(place: Served) -> None:
    (one, _), = place.back(place.fw, RIGHT, place.fw.probe(1 << 40 | 7))
    assert one.reason is Reason.SERVICE_PROBE
    assert place.returns.heard == 1 << 40 | 7
    (other, _), = place.back(place.fw, RIGHT, place.ids.probe(8))
    assert other.reason is Reason.SERVICE_STRAY
    assert place.returns.heard == 0
    (cut, _), = place.back(place.fw, RIGHT, place.fw.probe(8)[:29])
    assert cut.reason is Reason.SERVICE_STRAY


def test_a_failure_moves_the_flows_of_the_one_that_failed_and_no_others() -> None:
    service = Service("fw")
    three = [("fw1", 10, 11), ("fw2", 12, 13), ("fw3", 14, 15)]
    service.spread(three)
    before = [service.share(left) for left in (10, 12, 14)]
    assert sum(before) == SLOTS
    assert all(SLOTS // 6 < one < SLOTS // 2 for one in before)
    slots = service._slots.copy()
    service.spread(three[:2])
    moved = service._slots != slots
    assert set(slots[moved] & 0xFFFF) == {14}
    assert service.share(14) == 0
    service.spread(three)
    assert (service._slots == slots).all()


def test_flows_are_spread_and_both_directions_pass_the_same_appliance(place: Served) -> None:
    place.fw.spread([("fw1", 10, 11), ("fw2", 20, 21)])
    seen = set()
    for k in range(40):
        out = place.sent("b", frame("b", "out", 1000 + k, 80))[0].out
        back, = place.gets("b", bytes(
            Ether(src=MAC["out"], dst=MAC["b"]) / IP(src="10.0.0.2", dst="10.0.0.1")
            / TCP(sport=80, dport=1000 + k)))
        assert out is not None
        assert back == out + 1
        seen.add(out)
    assert seen == {10, 20}


def test_by_addresses_ports_do_not_count(place: Served) -> None:
    place.fw.spread([("fw1", 10, 11), ("fw2", 20, 21)])
    place.fw.choose(bypass=False, addresses=True)
    assert len({place.sent("b", frame("b", "out", 1000 + k))[0].out for k in range(40)}) == 1


_v4 = st.integers(0, (1 << 32) - 1).map(lambda n: ".".join(map(str, n.to_bytes(4, "big"))))
_port = st.integers(0, 65535)


@given(a=_v4, b=_v4, p=_port, q=_port, kind=st.sampled_from([TCP, UDP]), six=st.booleans(),
       addresses=st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_hash_is_that_of_the_other_direction(
        a: str, b: str, p: int, q: int, kind: type, six: bool, addresses: bool) -> None:
    def hashed(source: str, target: str, sport: int, dport: int) -> int:
        ends = (IPv6(src=f"::ffff:{source}", dst=f"::ffff:{target}") if six
                else IP(src=source, dst=target))
        made = bytes(Ether(src=MAC["a"], dst=MAC["b"]) / ends / kind(sport=sport, dport=dport))
        place.run(lambda *_: 0, place.homes, [made])
        return int(hash_of_ends(address_of(place.batch.rows), int(addresses)))

    place = Served()
    try:
        assert hashed(a, b, p, q) == hashed(b, a, q, p) >= 0
        if addresses:
            assert hashed(a, b, p, q) == hashed(a, b, q, p ^ 1)
    finally:
        place.close()


@pytest.mark.parametrize("made", [
    IP(src="10.0.0.1", dst="10.0.0.2", frag=100) / Raw(bytes(20)),
    IP(src="10.0.0.1", dst="10.0.0.2", flags="MF", proto=6) / Raw(bytes(range(20))),
    IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(id=9)])
def test_fragments_and_other_protocols_go_by_addresses(place: Served, made: IP) -> None:
    place.fw.spread([("fw1", 10, 11), ("fw2", 20, 21)])
    out = {place.sent("b", bytes(Ether(src=MAC["b"], dst=MAC["out"]) / made))[0].out}
    place.fw.choose(bypass=False, addresses=True)
    assert out == {place.sent("b", bytes(Ether(src=MAC["b"], dst=MAC["out"]) / made))[0].out}


def test_what_is_not_ip_goes_by_mac_addresses(place: Served) -> None:
    place.fw.spread([("fw1", 10, 11), ("fw2", 20, 21)])
    asked = bytes(Ether(src=MAC["b"], dst=MAC["out"]) / ARP())
    answer = bytes(Ether(src=MAC["out"], dst=MAC["b"]) / ARP(op=2))
    out = place.sent("b", asked)[0].out
    assert out is not None
    assert place.gets("b", answer) == [out + 1]
