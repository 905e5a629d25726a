# SPDX-License-Identifier: Apache-2.0
"""af-packet ports at veths of the Linux kernel: its own stacks are the judges.

Two stations in namespaces talk through a switch: TCP with segmentation and checksums left to do,
which pass whole where both ends take them and are finished where one does not. Interfaces go,
come back, and take their namespace with them.
"""

import json
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from byway.control.problem import EngineError
from byway.packet.offload import GSO_TCPV4, GSO_UDP_L4
from byway.testing.finishing import net_header
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.frames import checksum
from byway.testing.guest import Guest
from byway.testing.offload_frames import UDP, Shape
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch
from tests.system.peers.veth import Wire, shell, tag_of, transfer
from tests.system.test_udp import free_ports

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DATA = Random(4).randbytes(8 << 20)
LEFT, RIGHT, GUEST = "10.9.0.1", "10.9.0.2", "10.9.0.9"
OFFLOADS = mask(Feature.CSUM, Feature.GUEST_CSUM, Feature.GUEST_TSO4, Feature.GUEST_USO4,
                Feature.GUEST_USO6, Feature.HOST_TSO4, Feature.HOST_USO, Feature.MRG_RXBUF)
UDP_SEGMENT = 103
SIZE = 1000  # of the payload of a segment
PAYLOAD = Random(5).randbytes(30 * SIZE + 7)


@pytest.fixture
def switch(folder: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(folder) as made:
        made.network()
        yield made


@pytest.fixture
def left() -> Iterator[Wire]:
    with Wire(LEFT) as made:
        yield made


@pytest.fixture
def right() -> Iterator[Wire]:
    with Wire(RIGHT) as made:
        yield made


def attach(switch: RunningSwitch, name: str, wire: Wire, **options: object) -> None:
    switch.add("af-packet", name, ifname=wire.ifname, netns=wire.outer, **options)
    assert switch.port(name)["state"] == "up"


def meet(wire: Wire, guest: Guest) -> None:
    """The station knows the guest's address."""
    shell(f"ip -n {wire.station} neigh replace {GUEST} lladdr {guest.mac.hex(':')}"
          f" dev {wire.device}")


def udp_frames(guest: Guest, count: int,
               seconds: float = 5.0) -> list[tuple[Unfinished, bytes]]:
    """UDP frames that come to a guest, among whatever else the kernel sends."""
    found: list[tuple[Unfinished, bytes]] = []
    while len(found) < count and guest.wait(seconds):
        found += [(todo, frame) for todo, frame in guest.receive_unfinished()
                  if UDP in (frame[23], frame[27]) and b"\x08\x00" in frame[12:18]]
    return found


def sum_is_right(frame: bytes, l3: int = 14) -> bool:
    """Is the UDP checksum of an IPv4 frame complete?"""
    length = struct.unpack_from(">H", frame, l3 + 24)[0]
    body = frame[l3 + 20 : l3 + 20 + length]
    return checksum(frame[l3 + 12 : l3 + 20] + struct.pack(">HH", UDP, length) + body) == 0


def test_ping_and_tcp_between_two_stations(switch: RunningSwitch, left: Wire, right: Wire) -> None:
    attach(switch, "left", left)
    attach(switch, "right", right, queues=2)
    assert "5 packets received" in left.ping(RIGHT)
    for source, to in ((left, right), (right, left)):
        before = switch.port("left")
        assert transfer(source, to, DATA) == DATA
        after = switch.port("left")
        way = "rx_frames" if source is left else "tx_frames"
        assert after[way] - before[way] < len(DATA) / 1460 / 3, "large frames pass whole"
    assert switch.lost() == {}
    assert left.checksum_errors() == right.checksum_errors() == {}


def test_tcp_with_frames_that_are_finished_on_the_way(switch: RunningSwitch, left: Wire,
                                                      right: Wire) -> None:
    """A link in UDP between them takes nothing unfinished."""
    switch.network("green")
    attach(switch, "left", left)
    attach(switch, "right", right, network="green")
    here, there = (f"127.0.0.1:{number}" for number in free_ports("127.0.0.1"))
    switch.add("udp", "a", local=here, remote=there)
    switch.add("udp", "b", "green", local=there, remote=here)
    assert "5 packets received" in left.ping(RIGHT)
    assert transfer(left, right, DATA[: 2 << 20]) == DATA[: 2 << 20]
    assert transfer(right, left, DATA[: 2 << 20]) == DATA[: 2 << 20]
    assert switch.port("a")["tx_frames"] > (2 << 20) / 1460
    assert left.checksum_errors() == right.checksum_errors() == {}


def test_what_the_kernel_leaves_to_do_is_done_for_a_plain_guest(switch: RunningSwitch,
                                                                left: Wire) -> None:
    attach(switch, "left", left)
    switch.vhost("guest")
    with switch.guest("guest", 9) as guest, left.opened(socket.SOCK_DGRAM) as sender:
        meet(left, guest)
        sender.sendto(b"small", (GUEST, 7))
        ((todo, frame),) = udp_frames(guest, 1)
        assert todo == FINISHED
        assert sum_is_right(frame)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
        sender.sendto(PAYLOAD, (GUEST, 7))
        frames = udp_frames(guest, 31)
        assert all(todo == FINISHED and sum_is_right(frame) for todo, frame in frames)
        assert b"".join(frame[42:] for _, frame in frames).startswith(PAYLOAD)
    assert "left" not in switch.lost()


def test_a_guest_that_takes_them_gets_them_unfinished(switch: RunningSwitch, left: Wire) -> None:
    attach(switch, "left", left)
    switch.vhost("guest")
    with switch.guest("guest", 9, features=OFFLOADS) as guest, \
            left.opened(socket.SOCK_DGRAM) as sender:
        meet(left, guest)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
        sender.sendto(PAYLOAD, (GUEST, 7))
        ((todo, frame),) = udp_frames(guest, 1)
        assert todo == Unfinished(1, GSO_UDP_L4, SIZE, 34, 6)
        assert frame[42:] == PAYLOAD


def test_a_guests_unfinished_frames_arrive_at_the_kernel(switch: RunningSwitch,
                                                         left: Wire) -> None:
    attach(switch, "left", left)
    switch.vhost("guest")
    with switch.guest("guest", 9, features=OFFLOADS) as guest, \
            left.opened(socket.SOCK_DGRAM) as taker:
        taker.bind((LEFT, 5001))
        shape = Shape(protocol=UDP, source=socket.inet_aton(GUEST),
                      destination=socket.inet_aton(LEFT), macs=left.mac + guest.mac,
                      payload=PAYLOAD[:700])
        assert guest.send([shape.build(complete=True),
                           (Unfinished(1, 0, 0, 34, 6), shape.build())]) == 2
        assert [taker.recv(2000) for _ in range(2)] == [PAYLOAD[:700]] * 2
        large = Shape(**{**vars(shape), "payload": PAYLOAD})
        assert guest.send([(Unfinished(1, GSO_UDP_L4, SIZE, 34, 6), large.build())]) == 1
        assert b"".join(taker.recv(2000) for _ in range(31)) == PAYLOAD
    assert left.checksum_errors() == {}
    assert "left" not in switch.lost()


def test_vlan_tags(switch: RunningSwitch, left: Wire) -> None:
    """The kernel takes a frame's tag out of it; it comes back, and the checksum is found."""
    attach(switch, "left", left)
    switch.vhost("guest")
    shape = Shape(protocol=UDP, tags=(0x2005,), source=socket.inet_aton(LEFT),
                  destination=socket.inet_aton(GUEST), payload=PAYLOAD[:300])
    with switch.guest("guest", 9, features=OFFLOADS) as guest, left.raw() as raw:
        frame = Shape(**{**vars(shape), "macs": guest.mac + left.mac}).build()
        raw.send(net_header(1, 0, 0, shape.l4, 6, shape.header_bytes) + frame)
        ((todo, got),) = udp_frames(guest, 1)
        assert (todo, got) == (Unfinished(1, 0, 0, 38, 6), frame)
        # A large one, which comes by the socket's queue; and back, to be seen by the kernel.
        large = Shape(**{**vars(shape), "macs": guest.mac + left.mac, "payload": PAYLOAD})
        raw.send(large.header(GSO_UDP_L4, SIZE) + large.build())
        ((todo, got),) = udp_frames(guest, 1)
        assert (todo, got) == (Unfinished(1, GSO_UDP_L4, SIZE, 38, 6), large.build())
        back = Shape(**{**vars(shape), "macs": left.mac + guest.mac})
        assert guest.send([(Unfinished(1, 0, 0, 38, 6), back.build())]) == 1
        while True:
            data, control, _, _ = raw.recvmsg(70000, 64)
            if data[10 + 6 : 10 + 12] == guest.mac:
                break
        assert tag_of(control) == 0x2005
        assert data[10:] == back.build()[:12] + back.build()[16:]
    assert "left" not in switch.lost()


def test_a_plain_guest_gets_tagged_frames_finished(switch: RunningSwitch, left: Wire) -> None:
    attach(switch, "left", left)
    switch.vhost("guest")
    with switch.guest("guest", 9) as guest, left.raw() as raw:
        shape = Shape(protocol=UDP, tags=(5,), macs=guest.mac + left.mac, payload=PAYLOAD)
        raw.send(shape.header(GSO_UDP_L4, SIZE) + shape.build())
        frames = udp_frames(guest, 31)
        assert all(todo == FINISHED and sum_is_right(frame, 18) for todo, frame in frames)
        assert b"".join(frame[46:] for _, frame in frames).startswith(PAYLOAD)


def test_tcp_of_64_kib_arrives_whole(switch: RunningSwitch, left: Wire) -> None:
    """As long as a veth lets it be (gso_max_size, with the Ethernet header)."""
    attach(switch, "left", left)
    switch.vhost("guest")
    with switch.guest("guest", 9, features=OFFLOADS) as guest, left.raw() as raw:
        shape = Shape(macs=guest.mac + left.mac, payload=Random(6).randbytes(65535 - 54))
        raw.send(shape.header(GSO_TCPV4, 1460) + shape.build())
        found = [got for got in _some(guest) if len(got[1]) > 60000]
        assert found == [(Unfinished(1, GSO_TCPV4, 1460, 34, 16), shape.build())]


def _some(guest: Guest) -> list[tuple[Unfinished, bytes]]:
    """What comes within two seconds of silence, until something large did."""
    found: list[tuple[Unfinished, bytes]] = []
    while not any(len(frame) > 60000 for _, frame in found) and guest.wait(2.0):
        found += guest.receive_unfinished()
    return found


def test_several_queues_share_what_comes(switch: RunningSwitch, left: Wire) -> None:
    """Every frame once, and those of a flow in their order."""
    attach(switch, "left", left, queues=4)
    switch.vhost("guest")
    with switch.guest("guest", 9) as guest:
        meet(left, guest)
        senders = [left.opened(socket.SOCK_DGRAM) for _ in range(16)]
        for number in range(8):
            for flow, sender in enumerate(senders):
                sender.sendto(bytes([flow, number]), (GUEST, 7))
        got = [frame[42:44] for _, frame in udp_frames(guest, 128)]
        got += [frame[42:44] for _, frame in udp_frames(guest, 1, 0.1)]  # none twice
        for sender in senders:
            sender.close()
        assert sorted(got) == [bytes([f, n]) for f in range(16) for n in range(8)]
        for flow in range(16):
            assert [n for f, n in got if f == flow] == list(range(8))
    assert (switch.port("left")["queues"], switch.port("left")["queues_enabled"]) == (4, 4)


# ---------------------------------------------------------------- interfaces that come and go
def test_down_and_up(switch: RunningSwitch, left: Wire, right: Wire) -> None:
    attach(switch, "left", left)
    attach(switch, "right", right)
    for end in (f"-n {left.outer} link set {left.ifname}",
                f"-n {left.station} link set {left.device}"):
        shell(f"ip {end} down")
        switch.until(lambda: switch.port("left")["state"] == "down")
        shell(f"ip {end} up")
        switch.until(lambda: switch.port("left")["state"] == "up")
    assert switch.port("left")["last_trouble"] == 'the interface "e1" has no carrier'
    assert "5 packets received" in left.ping(RIGHT)


def test_sockets_that_cannot_be_had_for_a_while(switch: RunningSwitch, left: Wire) -> None:
    """No more news comes of the interface: the port tries again by itself."""
    attach(switch, "left", left)
    link = f"ip -n {left.outer} link set {left.ifname}"
    shell(f"{link} down")
    switch.until(lambda: switch.port("left")["state"] == "down")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    with subprocess.Popen(["sh", "-c", f"read go; {link} up"], stdin=subprocess.PIPE) as process:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            process.communicate(b"go\n")
            switch.until(lambda: "Too many open files" in switch.port("left")["reason"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    switch.until(lambda: switch.port("left")["state"] == "up")


def test_an_interface_that_is_deleted_and_made_again(switch: RunningSwitch, left: Wire,
                                                     right: Wire) -> None:
    attach(switch, "left", left)
    attach(switch, "right", right)
    shell(f"ip -n {left.outer} link del {left.ifname}")
    switch.until(lambda: switch.port("left")["state"] == "down")
    assert switch.port("left")["reason"] == 'there is no interface "e1"'
    left.plug_in()
    switch.until(lambda: switch.port("left")["state"] == "up")
    assert "5 packets received" in left.ping(RIGHT)
    assert switch.port("right")["last_trouble"] is None


def test_a_namespace_that_is_deleted_and_made_again(switch: RunningSwitch, left: Wire,
                                                    right: Wire) -> None:
    """The port does not keep it alive: the veth goes, at both ends."""
    attach(switch, "left", left)
    attach(switch, "right", right)
    shell(f"ip netns del {left.outer}")
    switch.until(lambda: switch.port("left")["state"] == "down")
    assert switch.port("left")["reason"] == f'the network namespace "{left.outer}" was removed'
    switch.until(lambda: left.device not in shell(f"ip -n {left.station} link"))
    shell(f"ip netns add {left.outer}")
    left.plug_in()
    switch.until(lambda: switch.port("left")["state"] == "up")
    assert "5 packets received" in left.ping(RIGHT)


def test_an_interface_that_comes_later(switch: RunningSwitch, left: Wire) -> None:
    switch.add("af-packet", "later", ifname="e7", netns=left.outer)
    port = switch.port("later")
    assert (port["state"], port["reason"]) == ("waiting", 'there is no interface "e7"')
    shell(f"ip -n {left.outer} link set {left.ifname} down")
    shell(f"ip -n {left.outer} link set {left.ifname} name e7 up")
    switch.until(lambda: switch.port("later")["state"] == "up")
    assert switch.port("later")["peer"] == f"e7 in {left.outer}"


def test_an_interface_that_is_not_ethernet(switch: RunningSwitch, left: Wire) -> None:
    shell(f"ip -n {left.outer} link set lo up")
    with pytest.raises(EngineError, match='ifname: the interface "lo" is not Ethernet'):
        switch.add("af-packet", "loop", ifname="lo", netns=left.outer)


def test_a_burst_that_the_ring_does_not_hold(switch: RunningSwitch, left: Wire) -> None:
    """What the kernel had no slot for is counted, at the port that it was for."""
    with RunningSwitch(switch.folder, stepped=True) as slow:
        slow.network()
        slow.add("af-packet", "left", ifname=left.ifname, netns=left.outer)
        with left.raw() as raw:
            frame = bytes(10) + b"\xff" * 6 + left.mac + b"\x88\xb5" + bytes(46)
            for _ in range(1100):
                raw.send(frame)
        assert slow.port("left")["drops"]["ring_full"] >= 1100 - 1024
        slow.settle()
        assert slow.port("left")["rx_frames"] >= 1024


@pytest.mark.compiled_only
def test_the_bench_measures_every_way(folder: Path, left: Wire) -> None:
    """Each way of receiving and sending (``left`` says what is missing)."""
    script = Path(__file__).parents[2] / "bench" / "packet_syscalls.py"
    subprocess.run([sys.executable, script, "--rounds", "1", "--json", folder / "packet.json"],
                   check=True, timeout=250, capture_output=True)
    found = json.loads((folder / "packet.json").read_text())
    assert len(found) == 3 * 4 * 2 + 2 + 3 * 3
    assert all(samples[0] > 0 for name, samples in found.items() if "kernel" not in name)
