# SPDX-License-Identifier: Apache-2.0
"""Frames into and out of tunnels, by UDP sockets on the loopback interface: what is sent is what a
plain socket sees, what a plain socket sends becomes rows, and whatever is wrong is counted."""

import ctypes
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.offload import GSO_TCPV4, GSO_TCPV6
from byway.packet.reason import Reason
from byway.packet.segment import Finisher
from byway.packet.tunnels import Remotes, Vnis
from byway.packet.vxlan import CE, ECT_0, ECT_1
from byway.ports.tunnel import _ECN
from byway.ports.tunnel_send import MOST, SENDER
from byway.ports.underlay import Received
from byway.ports.underlay_sockets import dropped, name_of, receiving, sending
from byway.testing.frame_batch import FINISHED, Frame, FrameBatch, Unfinished
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.offload_frames import ACK, PSH, UDP, Shape
from byway.testing.tunnel_kernels import tunnel_receive, tunnel_send, tunnel_waiting

VNI, NETWORK, TUNNEL = 0xABCDE, 5, 0xC001
HEADER = b"\x08\0\0\0" + VNI.to_bytes(3, "big") + b"\0"
LONGEST = 14 + 1450
_UDP_SEGMENT = 103


@dataclass(frozen=True)
class Wanted:
    address: str = "127.0.0.1"
    port: int = 0
    checksum: str = "auto"
    dont_fragment: bool = True
    ttl: int = 64


def frame(n: int, k: int = 0) -> bytes:
    """A frame of n bytes, all different."""
    payload = bytes((j * 7 + n + k) & 0xFF for j in range(n - 14))
    return (BROADCAST + b"\x02\0\0\0\0\x01" + TEST_ETHERTYPE.to_bytes(2, "big") + payload)[:n]


def free_port(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET,
                       socket.SOCK_DGRAM) as found:
        found.bind((address, 0))
        return int(found.getsockname()[1])


class Bench:
    """A batch, an rx queue on a socket, a tx queue to a plain socket; and that plain socket."""

    def __init__(self, address: str) -> None:
        self.wanted = Wanted(address, free_port(address))
        (self.socket,) = receiving(self.wanted, 1)
        self.peer = socket.socket(self.socket.family, socket.SOCK_DGRAM)
        self.peer.bind((address, 0))
        self.peer.settimeout(10)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sources = sending(self.wanted)
        self.frames = FrameBatch()
        self.finisher = Finisher()
        self.frames.batch.record["finisher"] = self.finisher.address
        self.frames.batch.record["vni"] = VNI
        self.rx, self.tx, self.host = (alloc(COUNTERS, 1) for _ in range(3))
        self.vnis, self.remotes = Vnis(), Remotes(lambda: None)
        self.vnis.set(VNI, NETWORK, LONGEST)
        self.remotes.set(ipaddress.ip_address(address).packed, TUNNEL, address_of(self.host))
        self.queue = Received()
        row = self.queue.record[0]
        row["rx"], row["origin"] = address_of(self.rx), 0xC000
        row["vnis"], row["remotes"] = self.vnis.address, self.remotes.address
        self.queue.use(self.socket.fileno())
        self.sender = alloc(SENDER, 1)
        self.point_at(self.peer.getsockname()[1])

    def point_at(self, port: int, longest: int = LONGEST, most: int = MOST) -> None:
        self.name = ctypes.create_string_buffer(name_of(self.wanted.address, port))
        row = self.sender[0]
        row["fd"], row["tx"] = self.sources[0].fileno(), address_of(self.tx)
        row["name"], row["name_bytes"] = ctypes.addressof(self.name), len(self.name) - 1
        row["ecn"] = _ECN[6 if ":" in self.wanted.address else 4]
        row["longest"], row["most"] = longest, most
        self.tx[:], self.rx[:], self.host[:] = 0, 0, 0

    def send(self, frames: Sequence[Frame], pieces: int = 1) -> int:
        n = self.frames.place(frames, (pieces,))
        return int(tunnel_send(address_of(self.sender), self.frames.address,
                               self.frames.selected, n))

    def arrived(self, n: int) -> list[bytes]:
        return [self.peer.recv(65536) for _ in range(n)]

    def tell(self, data: bytes, size: int = 0, ecn: int = 0) -> None:
        """The plain socket sends something, in datagrams of ``size`` bytes where that is not 0."""
        say = []
        if size:
            say.append((17, _UDP_SEGMENT, size.to_bytes(2, "little")))
        if ecn:
            v6 = self.peer.family == socket.AF_INET6
            say.append((41, 67, ecn.to_bytes(4, "little")) if v6 else
                       (0, 1, ecn.to_bytes(4, "little")))
        self.peer.sendmsg([data], say, 0, (self.wanted.address, self.wanted.port))

    def receive(self) -> list[tuple[Unfinished, bytes] | Reason]:
        n = int(tunnel_receive(self.queue.address, self.frames.address))
        self.origins = [divmod(int(word), 1 << 32) for word in
                        (ctypes.c_int64 * ROWS).from_address(
                            int(self.frames.batch.record["origins"][0]))[:n]]
        return self.frames.content(n)

    def drops(self) -> dict[str, int]:
        return drops_by_name(self.tx[0], self.rx[0])

    def close(self) -> None:
        for sock in (self.socket, self.peer, *self.sources):
            sock.close()


@pytest.fixture(scope="module", params=["127.0.0.1", "::1"])
def made(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.close()


@pytest.fixture
def bench(made: Bench) -> Bench:
    made.point_at(made.peer.getsockname()[1])
    made.queue.record["join"] = 1
    assert made.receive() == []
    return made


# ---------------------------------------------------------------- into the tunnel
@pytest.mark.parametrize("pieces", [1, 2, 16])
def test_what_is_sent(bench: Bench, pieces: int) -> None:
    sent = [frame(n) for n in (14, 60, 127, 128, 129, 1000, LONGEST, 60)]
    assert bench.send(sent, pieces) == len(sent)
    assert bench.arrived(len(sent)) == [HEADER + data for data in sent]
    assert (bench.tx["frames"][0], bench.tx["bytes"][0]) == (8, sum(map(len, sent)))
    assert bench.drops() == {}


@pytest.mark.parametrize("count", [2, 3, 44, ROWS])
@pytest.mark.parametrize("last", [LONGEST, 500, 60])
def test_frames_of_one_length_are_one_message(bench: Bench, count: int, last: int) -> None:
    """Each arrives as it was; that they took one call is what the next test sees."""
    sent = [frame(LONGEST, k) for k in range(count - 1)] + [frame(last)]
    assert bench.send(sent) == count
    assert bench.arrived(count) == [HEADER + data for data in sent]


def test_one_message_arrives_as_one(bench: Bench) -> None:
    bench.peer.setsockopt(17, 104, 1)  # UDP_GRO
    try:
        sent = [frame(1000, k) for k in range(40)] + [frame(700)]
        assert bench.send(sent) == 41
        data, said, _, _ = bench.peer.recvmsg(65536, 64)
        assert said == [(17, 104, (1008).to_bytes(4, "little"))]
        assert data == b"".join(HEADER + one for one in sent)
        bench.point_at(bench.peer.getsockname()[1], most=1)
        assert bench.send(sent[:2]) == 2
        assert [len(bench.peer.recv(65536)) for _ in range(2)] == [1008, 1008]
    finally:
        bench.peer.setsockopt(17, 104, 0)


def test_a_longer_frame_begins_another_message(bench: Bench) -> None:
    sent = [frame(n, k) for k, n in enumerate([60, 60, 61, 61, 60, 60, 1400, 100, 100, 1400])]
    assert bench.send(sent) == len(sent)
    assert bench.arrived(len(sent)) == [HEADER + data for data in sent]


def test_frames_that_are_too_long(bench: Bench) -> None:
    sent = [frame(60), frame(LONGEST + 1), frame(60, 1), frame(9000), frame(60, 2)]
    assert bench.send(sent) == 3
    assert bench.arrived(3) == [HEADER + frame(60, k) for k in range(3)]
    assert bench.drops() == {Reason.TOO_BIG.name.lower(): 2}


def test_what_the_interface_does_not_take(bench: Bench) -> None:
    """More than UDP carries: refused alone and in a run, and the others go."""
    bench.point_at(bench.peer.getsockname()[1], longest=70000)
    assert bench.send([frame(60), frame(65530), frame(65530), frame(60)]) == 2
    assert bench.arrived(2) == [HEADER + frame(60)] * 2
    assert bench.drops() == {"too_big": 2}
    assert bench.sender["most"][0] == MOST


def test_a_way_that_does_not_cut(bench: Bench) -> None:
    """Without checksums the kernel makes no runs of datagrams: they go one by one from then on."""
    if ":" in bench.wanted.address:
        plain = sending(replace(bench.wanted, checksum="no", address="::1"))
        plain[0].setsockopt(17, 101, 1)
    else:
        plain = sending(replace(bench.wanted, checksum="no"))
    try:
        bench.sender["fd"] = plain[0].fileno()
        sent = [frame(100, k) for k in range(20)]
        for _ in range(2):
            assert bench.send(sent) == 20
            if ":" not in bench.wanted.address:
                assert bench.arrived(20) == [HEADER + data for data in sent]
                assert bench.sender["most"][0] == 1
    finally:
        for sock in plain:
            sock.close()


def test_memory_that_a_sender_took_away(bench: Bench) -> None:
    n = bench.frames.place([frame(1000, k) for k in range(5)])
    bench.frames.batch.rows["addr"][2] = 4096  # nothing is there
    sent = tunnel_send(address_of(bench.sender), bench.frames.address, bench.frames.selected, n)
    assert (sent, bench.drops()) == (4, {Reason.BAD_ADDRESS.name.lower(): 1})
    assert bench.arrived(4) == [HEADER + frame(1000, k) for k in (0, 1, 3, 4)]


def test_nobody_there_is_no_error(bench: Bench) -> None:
    bench.point_at(free_port(bench.wanted.address))
    for _ in range(3):
        assert bench.send([frame(60)] * 10) == 10


def test_no_way_there(bench: Bench) -> None:
    wrong = "::ffff:192.0.2.1" if ":" in bench.wanted.address else "240.0.0.1"
    bench.name = ctypes.create_string_buffer(name_of(wrong, 4789))
    bench.sender["name"] = ctypes.addressof(bench.name)
    assert bench.send([frame(60)] * 3 + [frame(200)]) == 0
    assert bench.drops() == {Reason.SEND_REFUSED.name.lower(): 4}


def test_no_room(bench: Bench) -> None:
    """A socket buffer that holds nothing."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.setblocking(False)
        row = bench.sender[0]
        row["fd"], row["name"], row["name_bytes"], row["most"] = left.fileno(), 0, 0, 1
        sent = 0
        while not bench.drops():
            sent += bench.send([frame(1400)] * ROWS)
        assert bench.drops()[Reason.NO_BUFFERS.name.lower()] > 0
        assert bench.tx["frames"][0] == sent


@pytest.mark.parametrize("ecn", [0, ECT_0, ECT_1, CE])
@pytest.mark.parametrize("version", [4, 6])
def test_congestion_is_told_outside(bench: Bench, version: int, ecn: int) -> None:
    v6 = ":" in bench.wanted.address
    bench.peer.setsockopt(*((41, socket.IPV6_RECVTCLASS, 1) if v6 else (0, 13, 1)))
    inner = bytearray(Shape(version, payload=bytes(100)).build(complete=True))
    inner[15] |= ecn << (4 if version == 6 else 0)
    others = [bytes(inner), frame(len(inner)), bytes(inner)]  # what is not IP says nothing
    assert bench.send(others) == 3
    got = [bench.peer.recvmsg(65536, 64) for _ in others]
    assert [data for data, _, _, _ in got] == [HEADER + one for one in others]
    assert [said[0][2][0] for _, said, _, _ in got] == [ecn, 0, ecn]


# ---------------------------------------------------------------- out of the tunnel
def test_what_comes_out(bench: Bench) -> None:
    sent = [frame(n) for n in (14, 60, 128, 129, 1514, 9000)]
    for data in sent:
        bench.tell(HEADER + data)
    assert bench.receive() == [(FINISHED, data) for data in sent]
    assert bench.origins == [(NETWORK, TUNNEL)] * 6
    assert (bench.rx["frames"][0], bench.rx["bytes"][0]) == (6, sum(map(len, sent)))
    assert (bench.host["frames"][0], bench.host["bytes"][0]) == (6, sum(map(len, sent)))
    assert bench.receive() == []


def test_reserved_bits_mean_nothing(bench: Bench) -> None:
    bench.tell(b"\xff\xff\xff\xff" + VNI.to_bytes(3, "big") + b"\xff" + frame(60))
    assert bench.receive() == [(FINISHED, frame(60))]


def test_what_is_malformed(bench: Bench) -> None:
    for data in (b"", b"\x08", HEADER[:7], HEADER, HEADER + frame(13), b"\0" * 8 + frame(60),
                 b"\xf7" + HEADER[1:] + frame(60)):
        bench.tell(data)
    assert bench.receive() == [Reason.BAD_TUNNEL] * 7
    assert bench.origins == [(0, TUNNEL)] * 7
    assert (bench.rx["frames"][0], bench.host["frames"][0]) == (0, 0)


def test_a_network_that_is_not_here(bench: Bench) -> None:
    for vni in (0, 1, VNI - 1, VNI + 1, 0xFFFFFF):
        bench.tell(b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0" + frame(60))
    assert bench.receive() == [Reason.UNKNOWN_VNI] * 5


def test_a_host_that_is_not_known(bench: Bench) -> None:
    address = ipaddress.ip_address(bench.wanted.address).packed
    bench.remotes.drop(address)
    try:
        bench.tell(HEADER + frame(60))
        bench.tell((HEADER + frame(92)) * 10, size=100)
        assert bench.receive() == [Reason.UNKNOWN_TUNNEL] * 2
        assert bench.origins == [(0, 0xC000)] * 2
        assert bench.drops() == {"unknown_tunnel": 9}  # the rows are counted by who asked for them
    finally:
        bench.remotes.set(address, TUNNEL, address_of(bench.host))
    bench.tell(HEADER + frame(60))
    assert bench.receive() == [(FINISHED, frame(60))]


def test_many_in_one_message(bench: Bench) -> None:
    sent = [frame(600, k) for k in range(50)] + [frame(60)]
    bench.tell(b"".join(HEADER + data for data in sent), size=608)
    assert bench.receive() == [(FINISHED, data) for data in sent]


def test_more_than_a_batch_waits(bench: Bench) -> None:
    sent = [[frame(600, k + 60 * j) for k in range(60)] for j in range(5)]
    for lot in sent:
        bench.tell(b"".join(HEADER + data for data in lot), size=608)
    got = []
    while rows := bench.receive():
        assert len(rows) <= ROWS
        got += rows
        if len(got) < 300:
            assert tunnel_waiting(bench.queue.address) == 1
    assert got == [(FINISHED, data) for lot in sent for data in lot]
    assert tunnel_waiting(bench.queue.address) == 0


def test_a_pass_is_bounded(bench: Bench) -> None:
    for _ in range(20):
        bench.tell(HEADER + frame(60000))
    counts = [len(bench.receive()) for _ in range(5)]
    assert sum(counts) == 20
    assert max(counts) == 9


def test_an_idle_queue_knows_what_waits(bench: Bench) -> None:
    assert tunnel_waiting(bench.queue.address) == 0
    bench.tell(HEADER + frame(60))
    assert tunnel_waiting(bench.queue.address) == 1
    assert len(bench.receive()) == 1


@pytest.mark.parametrize("outer", [ECT_0, ECT_1, CE])
def test_congestion_is_told_inside(bench: Bench, outer: int) -> None:
    able = bytearray(Shape(4, payload=bytes(100)).build(complete=True))
    bench.tell(HEADER + bytes(able), ecn=outer)
    bench.tell(HEADER + frame(60), ecn=outer)
    got = bench.receive()
    assert got[0] == (Reason.CONGESTED if outer == CE else (FINISHED, bytes(able)))
    assert got[1] == (FINISHED, frame(60))
    v6 = bytearray(Shape(6, payload=bytes(100)).build(complete=True))
    v6[15] |= ECT_0 << 4
    expected = bytearray(v6)
    expected[15] = v6[15] & 0xCF | outer << 4
    bench.tell(HEADER + bytes(v6), ecn=outer)
    assert bench.receive() == [(FINISHED, bytes(expected))]


# ---------------------------------------------------------------- TCP
def flow(version: int, sizes: Sequence[int]) -> list[bytes]:
    made, sequence = [], 1
    for k, size in enumerate(sizes):
        flags = ACK | PSH if k == len(sizes) - 1 else ACK
        made.append(Shape(version, sequence=sequence, ident=1 + k, flags=flags,
                          payload=os.urandom(size)).build(complete=True))
        sequence += size
    return made


@pytest.mark.parametrize("version", [4, 6])
def test_segments_of_one_message_become_one_frame(bench: Bench, version: int) -> None:
    frames = flow(version, [1000] * 40 + [7])
    stride = len(frames[0]) + 8
    bench.tell(b"".join(HEADER + data for data in frames), size=stride)
    ((todo, data),) = bench.receive()  # type: ignore[misc]
    shape = Shape(version)
    gso = GSO_TCPV4 if version == 4 else GSO_TCPV6
    assert todo == Unfinished(1, gso, 1000, shape.l4, 16)
    assert data[shape.header_bytes :] == b"".join(one[shape.header_bytes :] for one in frames)
    assert bench.frames.batch.record["offloads"][0] != 0
    assert bench.rx["frames"][0] == 1


def test_flows_in_one_message_stay_apart(bench: Bench) -> None:
    first = flow(4, [1000] * 3)
    other = [Shape(4, ports=(1, 2), payload=bytes(1000)).build(complete=True)]
    bench.tell(b"".join(HEADER + data for data in [*first, *other, *flow(4, [1000] * 2)]),
               size=len(first[0]) + 8)
    got = bench.receive()
    assert [len(data) for _, data in got] == [3054, 1054, 2054]  # type: ignore[misc]
    bench.queue.record["join"] = 0
    bench.tell(b"".join(HEADER + data for data in first), size=len(first[0]) + 8)
    assert bench.receive() == [(FINISHED, data) for data in first]


def test_a_damaged_segment_stays_damaged(bench: Bench) -> None:
    frames = flow(4, [1000] * 5)
    frames[2] = frames[2][:500] + bytes([frames[2][500] ^ 1]) + frames[2][501:]
    bench.tell(b"".join(HEADER + data for data in frames), size=len(frames[0]) + 8)
    got = bench.receive()
    assert [len(data) for _, data in got] == [2054, 1054, 2054]  # type: ignore[misc]
    assert got[1] == (FINISHED, frames[2])


# ---------------------------------------------------------------- what was left undone
@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_that_was_left_undone(bench: Bench, version: int) -> None:
    shape = Shape(version, payload=b"x" * 100)
    bench.tell(HEADER + shape.build())
    bench.tell(HEADER + replace(shape, protocol=UDP).build())
    assert bench.receive() == [
        (Unfinished(1, 0, 0, shape.l4, 16), shape.build()),
        (Unfinished(1, 0, 0, shape.l4, 6), replace(shape, protocol=UDP).build())]


@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize("version", [4, 6])
def test_a_large_frame_in_one_datagram(
        bench: Bench, version: int, tags: tuple[int, ...]) -> None:
    """As Linux hands it over between interfaces of one machine."""
    shape = Shape(version, payload=bytes(30000), tags=tags)
    bench.tell(HEADER + shape.build())
    gso = GSO_TCPV4 if version == 4 else GSO_TCPV6
    size = LONGEST + 4 * len(tags) - shape.header_bytes
    assert bench.receive() == [(Unfinished(1, gso, size, shape.l4, 16), shape.build())]
    bench.tell(HEADER + shape.build(complete=True))
    assert bench.receive() == [(FINISHED, shape.build(complete=True))]


# ---------------------------------------------------------------- sockets
def test_several_queues_share_what_comes() -> None:
    wanted = Wanted(port=free_port("127.0.0.1"))
    sockets = receiving(wanted, 3)
    peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(32)]
    try:
        for peer in peers:
            peer.sendto(HEADER, ("127.0.0.1", wanted.port))
        heard = []
        for sock in sockets:
            count = 0
            while True:
                try:
                    sock.recv(100)
                except BlockingIOError:
                    break
                count += 1
            heard.append(count)
        assert sum(heard) == 32
        assert min(heard) > 0
    finally:
        for sock in sockets + peers:
            sock.close()


def test_what_there_was_no_room_for_is_counted() -> None:
    wanted = Wanted(port=free_port("127.0.0.1"))
    (sock,) = receiving(wanted, 1)
    with sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(20):
            peer.sendto(bytes(1000), ("127.0.0.1", wanted.port))
        assert 0 < dropped(sock) < 20


def test_source_ports_are_for_flows() -> None:
    sockets = sending(Wanted())
    ports = {sock.getsockname()[1] for sock in sockets}
    assert len(ports) == len(sockets)
    assert min(ports) >= 49152
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("checksum", ["auto", "no", "yes"])
def test_datagrams_without_checksums_over_ipv6(checksum: str) -> None:
    """RFC 6936: taken, unless it is said that they must have one."""
    wanted = Wanted("::1", free_port("::1"), checksum)
    (sock,) = receiving(wanted, 1)
    with sock, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.setsockopt(17, 101, 1)  # UDP_NO_CHECK6_TX
        peer.sendto(HEADER + ethernet(BROADCAST, BROADCAST, 1, b""), ("::1", wanted.port))
        if checksum == "yes":
            with pytest.raises(BlockingIOError):
                sock.recv(100)
        else:
            assert len(sock.recv(100)) == 68
