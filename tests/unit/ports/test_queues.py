# SPDX-License-Identifier: Apache-2.0
"""A port with several queues, unfinished frames for different takers, and announcements."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from byway.machine.cpu import usable_cpus
from byway.packet.offload import GSO_TCPV4, NEEDS_CSUM
from byway.testing.frame_batch import Unfinished
from byway.testing.guest import Guest
from byway.vhost.frontend import PROTOCOL_FEATURES
from byway.vhost.messages import ProtocolFeature
from byway.virtio.features import Feature, mask
from tests.peers import need_peer
from tests.running import RunningSwitch, mac

PAIRS, FLOWS = 4, 24
LARGE = mask(Feature.CSUM, Feature.GUEST_CSUM, Feature.HOST_TSO4, Feature.GUEST_TSO4,
             Feature.MRG_RXBUF)


def datagram(flow: int, number: int, sender: int, receiver: int) -> bytes:
    """One numbered datagram of a flow between two stations."""
    return bytes(Ether(src=mac(sender), dst=mac(receiver)) / IP(src="10.0.0.1", dst="10.0.0.2")
                 / UDP(sport=1000 + flow, dport=7) / number.to_bytes(4, "big"))


def pseudo_sum(length: int) -> int:
    """What a sender leaves in the checksum field of TCP (VIRTIO 1.2, 5.1.6.2): the sum of the
    pseudo-header."""
    words = (0x0A00, 0x0001, 0x0A00, 0x0002, 6, length)
    total = sum(words)
    return (total & 0xFFFF) + (total >> 16)


def numbers_by_flow(frames: list[bytes]) -> dict[int, list[int]]:
    """The numbers of each flow's datagrams, in the order of the frames."""
    found = defaultdict(list)
    for frame in frames:
        got = Ether(frame)
        found[got[UDP].sport - 1000].append(int.from_bytes(got[UDP].payload.load, "big"))
    return dict(found)


def queues_used(switch: RunningSwitch, port: str) -> list[int]:
    """Frames that went out on each of a port's rings."""
    return [r["frames"] for r in switch.port(port)["rings"] if r["way"] == "tx"]


@pytest.fixture(params=[1, 2], ids=["one-worker", "two-workers"])
def switch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningSwitch]:
    """Stepped; with two ports of four queue pairs each."""
    cpus = usable_cpus()
    workers = [cpus[k % len(cpus)] for k in range(request.param)]
    if len(set(workers)) < len(workers):
        need_peer("a second CPU", "two workers need one each")
    with RunningSwitch(tmp_path, stepped=True, workers=workers) as made:
        made.network()
        for name in ("vm1", "vm2"):
            made.add("vhost-user", name, queues=PAIRS)
        yield made


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def guests(request: pytest.FixtureRequest,
           switch: RunningSwitch) -> Iterator[tuple[Guest, Guest]]:
    one, two = (switch.guest(f"vm{n}", n, pairs=PAIRS, packed=request.param) for n in (1, 2))
    with one, two:
        two.send([datagram(0, 0, 2, 1)])  # so that it is known
        switch.settle()
        one.receive()
        yield one, two


def test_flows_are_spread_and_stay_in_order(switch: RunningSwitch,
                                            guests: tuple[Guest, Guest]) -> None:
    one, two = guests
    for number in range(12):
        for flow in range(FLOWS):  # a flow moves from queue to queue at its sender, too
            one.send([datagram(flow, number, 1, 2)], pair=flow % PAIRS)
        switch.settle()
    found = numbers_by_flow(two.receive(10_000))
    assert found == {flow: list(range(12)) for flow in range(FLOWS)}
    used = queues_used(switch, "vm2")
    assert sum(used) == 12 * FLOWS
    assert all(n > 0 and n % 12 == 0 for n in used), "whole flows, on every queue"
    status = switch.port("vm1")
    assert [r["frames"] for r in status["rings"] if r["way"] == "rx"] == [72] * PAIRS
    assert (status["queues"], status["queues_enabled"]) == (PAIRS, PAIRS)


def test_bursts_of_a_flow_stay_in_order_with_what_follows_them(
        switch: RunningSwitch, guests: tuple[Guest, Guest]) -> None:
    """A batch that begins with one flow, and goes on with others; and one of a single flow."""
    one, two = guests
    for flows in ([0] * 9 + [1, 2, 3, 0, 0, 4, 5, 0], [3] * 16, [4, 5, 6] + [5] * 12):
        sent = Counter[int]()
        frames = []
        for flow in flows:
            frames.append(datagram(flow, sent[flow], 1, 2))
            sent[flow] += 1
        assert one.send(frames) == len(frames)
        switch.settle()
        assert numbers_by_flow(two.receive(1000)) == {
            flow: list(range(count)) for flow, count in sent.items()}


def test_queues_of_one_port_are_served_by_all_workers(switch: RunningSwitch,
                                                      guests: tuple[Guest, Guest]) -> None:
    workers = switch.call(switch.engine.workers)
    assert all(w["ports"] == ["vm1", "vm2"] for w in workers)


def test_a_queue_that_is_switched_off_takes_nothing(switch: RunningSwitch,
                                                    guests: tuple[Guest, Guest]) -> None:
    one, two = guests
    for pair in (0, 2):
        two.front.enable_ring(2 * pair, False)
    before = queues_used(switch, "vm2")
    one.send([datagram(flow, 5, 1, 2) for flow in range(FLOWS)])
    switch.settle()
    assert numbers_by_flow(two.receive(1000)) == {flow: [5] for flow in range(FLOWS)}
    grown = [new - old for new, old in zip(queues_used(switch, "vm2"), before, strict=True)]
    assert grown[0] == grown[2] == 0 < min(grown[1], grown[3])
    assert switch.port("vm2")["queues_enabled"] == 2
    for pair in (1, 3):
        two.front.enable_ring(2 * pair, False)
    one.send([datagram(1, 6, 1, 2)])
    switch.settle()
    assert switch.drops() == {"vm2": {"ring_disabled": 1}}


def test_large_frames_for_who_takes_them_and_who_does_not(tmp_path: Path) -> None:
    """Flooded: one guest gets it as it is, the other in segments with their checksums done."""
    payload = bytes(k * 7 & 0xFF for k in range(9000))
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1", "vm2", "vm3")
        sender = switch.guest("vm1", 1, features=LARGE)
        taker = switch.guest("vm2", 2, features=LARGE)
        plain = switch.guest("vm3", 3)
        whole = (Ether(src=mac(1), dst="ff:ff:ff:ff:ff:ff") / IP(src="10.0.0.1", dst="10.0.0.2")
                 / TCP(sport=1, dport=2, seq=100, flags="PA", chksum=pseudo_sum(len(payload) + 20))
                 / payload)
        unfinished = Unfinished(NEEDS_CSUM, GSO_TCPV4, 1000, 34, 16)
        assert sender.send([(unfinished, bytes(whole))]) == 1
        switch.settle()
        [(left, frame)] = taker.receive_unfinished()
        assert (left, frame) == (unfinished, bytes(whole))
        segments = [Ether(frame) for frame in plain.receive()]
        assert b"".join(s[TCP].payload.load for s in segments) == payload
        assert [s[TCP].seq for s in segments] == [100 + 1000 * k for k in range(9)]
        for segment in segments:
            said = segment[TCP].chksum
            del segment[TCP].chksum
            assert Ether(bytes(segment))[TCP].chksum == said
        assert switch.drops() == {}
        assert (switch.port("vm2")["tx_frames"], switch.port("vm3")["tx_frames"]) == (1, 9)
        for guest in (sender, taker, plain):
            guest.close()


def test_a_guest_that_has_been_moved_here_is_announced(tmp_path: Path) -> None:
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        moved, other = switch.guest("vm1", 1), switch.guest("vm2", 2)
        moved.front.negotiate(moved.features, PROTOCOL_FEATURES | 1 << ProtocolFeature.RARP)
        moved.front.send_rarp(bytes.fromhex("0200000000aa"))
        switch.settle()
        [frame] = other.receive()
        asked = Ether(frame)
        assert (asked.src, asked.dst, asked.type) == ("02:00:00:00:00:aa", "ff:ff:ff:ff:ff:ff",
                                                      0x8035)
        question = ARP(bytes(asked.payload))  # RFC 903: a reverse request, about oneself
        assert (question.op, question.hwsrc, question.hwdst) == (3, asked.src, asked.src)
        [entry] = [e for e in switch.call(switch.engine.fdb, "blue") if e["mac"] == asked.src]
        assert entry["port"] == "vm1"
        moved.close()
        other.close()
