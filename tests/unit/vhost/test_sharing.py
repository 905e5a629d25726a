# SPDX-License-Identifier: Apache-2.0
"""What a front end shares, against a scripted back end: log, in-flight region, IOTLB, memory slots,
and the channel on which a back end asks."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from byway.machine.regions import Region
from byway.vhost import Closed, ProtocolError
from byway.vhost.connection import Connection, Message
from byway.vhost.front_channel import MESSAGES_A_TURN, MISSES, Asked, FrontChannel
from byway.vhost.frontend import protocol_mask
from byway.vhost.messages import NEED_REPLY, VERSION, ProtocolFeature, Request
from byway.vhost.payloads import Inflight, Iotlb, Log, MemoryRegion, VringAddress, pack_u64
from byway.virtio.features import Feature, mask
from tests.unit.vhost.scripted import Script

R, P = Request, ProtocolFeature
SIZE = 1 << 16
GPA = 1 << 32


@pytest.fixture
def script() -> Iterator[Script]:
    before = len(os.listdir("/proc/self/fd"))
    made = Script()
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region.create(SIZE)
    yield made
    made.close()


# ---------------------------------------------------------------- memory


def test_slots(script: Script, region: Region) -> None:
    script.negotiate(protocol=protocol_mask(P.CONFIGURE_MEM_SLOTS))
    front = script.front
    script.u64(R.GET_MAX_MEM_SLOTS, 8)
    assert front.max_regions() == 8
    for _ in range(2):
        script.u64(R.GET_FEATURES)  # what it waits with
    front.add_region(region, GPA)
    assert front.guest_address(region.address + 5) == GPA + 5
    for outside in (region.address - 1, region.address + SIZE):
        with pytest.raises(ValueError, match="in no region"):
            front.guest_address(outside)
    front.remove_region(region, GPA)
    assert front.regions == []
    described = pack_u64(0) + MemoryRegion(GPA, SIZE, region.address, 0).pack()
    said = [(m.request, m.payload) for m in script.said()]
    assert (R.ADD_MEM_REG, described) in said
    assert (R.REM_MEM_REG, described) in said


# ---------------------------------------------------------------- log, announcement


@pytest.mark.parametrize("answer", [b"", bytes(8), bytes(16)])
def test_the_dirty_log(script: Script, region: Region, answer: bytes) -> None:
    script.negotiate(protocol=protocol_mask(P.LOG_SHMFD))
    script.reply(R.SET_LOG_BASE, answer)
    script.front.set_log(region.fd, 4096, 64)
    script.front.set_log_fd(region.fd)
    said = script.said()
    assert [(m.request, m.payload) for m in said] == [
        (R.SET_LOG_BASE, Log(4096, 64).pack()), (R.SET_LOG_FD, b"")]


def test_a_strange_answer_to_the_log(script: Script, region: Region) -> None:
    script.negotiate(protocol=protocol_mask(P.LOG_SHMFD))
    script.reply(R.SET_LOG_BASE, bytes(12))
    with pytest.raises(ProtocolError, match="has 12 bytes, not 0 or 8 or 16"):
        script.front.set_log(region.fd, 4096)


def test_logging_on_and_off(script: Script) -> None:
    script.negotiate(mask(Feature.PROTOCOL_FEATURES, Feature.VERSION_1, Feature.LOG_ALL), 0)
    front = script.front
    front.set_features(mask(Feature.VERSION_1))
    front.set_addresses(1, 0x1000, 0x2000, 0x3000, log=0x9000)
    front.set_addresses(1, 0x1000, 0x2000, 0x3000)
    said = script.said()
    assert said[1].payload == VringAddress(1, 1, 0x1000, 0x3000, 0x2000, 0x9000).pack()
    assert said[2].payload == VringAddress(1, 0, 0x1000, 0x3000, 0x2000, 0).pack()
    assert front.features == mask(Feature.VERSION_1)


def test_announce(script: Script) -> None:
    script.negotiate(protocol=protocol_mask(P.RARP))
    script.front.send_rarp(b"\2\0\0\0\0\7")
    assert script.said()[0].payload == b"\2\0\0\0\0\7\0\0"


# ---------------------------------------------------------------- in flight


@pytest.mark.parametrize("octets", [20, 24])
def test_an_inflight_region_comes_and_goes_back(script: Script, region: Region,
                                                octets: int) -> None:
    script.negotiate(protocol=protocol_mask(P.INFLIGHT_SHMFD))
    script.reply(R.GET_INFLIGHT_FD, Inflight(4096, 64, 2, 256).pack()[:octets], fds=(region.fd,))
    inflight = script.front.get_inflight(2, 256)
    assert inflight
    assert inflight.shape == Inflight(4096, 64, 2, 256)
    script.front.set_inflight(inflight)
    said = script.said()
    assert [m.payload for m in said] == [Inflight(0, 0, 2, 256).pack(), inflight.shape.pack()]
    inflight.close()
    inflight.close()


def test_a_back_end_without_an_inflight_region(script: Script) -> None:
    script.negotiate(protocol=protocol_mask(P.INFLIGHT_SHMFD))
    script.reply(R.GET_INFLIGHT_FD, bytes(24))
    assert script.front.get_inflight(2, 256) is None


@pytest.mark.parametrize(("shape", "file", "says"), [
    (Inflight(4096, 0, 2, 4), "", "comes without a file"),
    (Inflight(0, 0, 2, 4), "memory", "has 0 bytes at offset 0"),
    (Inflight(1 << 29, 0, 2, 4), "memory", "bytes at offset 0"),
    (Inflight(4096, (1 << 64) - 4096, 2, 4), "memory", "bytes at offset"),
    (Inflight(SIZE, 1, 2, 4), "memory", "more than its file"),
    (Inflight(4096, 0, 2, 4), "pipe", "is no memory file"),
])
def test_an_inflight_region_that_cannot_be(script: Script, region: Region, shape: Inflight,
                                           file: str, says: str) -> None:
    script.negotiate(protocol=protocol_mask(P.INFLIGHT_SHMFD))
    reader, writer = os.pipe()
    fds = {"": (), "memory": (region.fd,), "pipe": (reader,)}[file]
    script.reply(R.GET_INFLIGHT_FD, shape.pack(), fds=fds)
    with pytest.raises(ProtocolError, match=says):
        script.front.get_inflight(2, 4)
    os.close(reader)
    os.close(writer)


# ---------------------------------------------------------------- IOTLB

IOMMU = mask(Feature.PROTOCOL_FEATURES, Feature.ACCESS_PLATFORM)


def test_rings_by_their_guest_addresses(script: Script, region: Region) -> None:
    """With ACCESS_PLATFORM; and the translation is told before it is asked for."""
    script.negotiate(IOMMU, 0)
    for _ in range(2):
        script.u64(R.GET_FEATURES)
    front, host = script.front, region.address
    front.set_memory([region], [GPA])
    front.start_ring(0, 16, 0, host, host + 0x1000, host + 0x2000, -1, -1)
    said = {m.request: m.payload for m in script.said()}
    assert said[R.SET_VRING_ADDR] == VringAddress(0, 0, GPA, GPA + 0x2000, GPA + 0x1000).pack()
    assert said[R.IOTLB_MSG] == Iotlb(GPA, SIZE, host, 3, 2).pack()
    script.u64(R.GET_FEATURES)
    front.invalidate_iotlb(GPA, 4096)
    assert script.said()[0].payload == Iotlb(GPA, 4096, 0, 0, 3).pack()


# ---------------------------------------------------------------- what a back end asks


class Asking:
    """A script whose front end opened a channel; ``ask`` speaks at the back end's end of it."""

    def __init__(self, script: Script) -> None:
        script.negotiate(IOMMU, protocol_mask(P.BACKEND_REQ))
        script.front.open_channel()
        connection = Connection(script.peer)
        message = connection.receive()
        assert message
        assert message.request == R.SET_BACKEND_REQ_FD
        self.script = script
        sock = socket.socket(fileno=message.take_fd())
        sock.setblocking(False)
        self.end = Connection(sock)

    def ask(self, request: int, payload: bytes = b"", flags: int = 0,
            fds: tuple[int, ...] = ()) -> None:
        self.end.send(request, flags, payload, fds)

    def miss(self, iova: int, kind: int = 1, permission: int = 1, flags: int = 0) -> None:
        self.ask(Asked.IOTLB_MSG, Iotlb(iova, 1, 0, permission, kind).pack(), flags)

    def answered(self) -> Message:
        message = self.end.receive()
        assert message
        return message


@pytest.fixture
def asking(script: Script) -> Iterator[Asking]:
    made = Asking(script)
    yield made
    made.end.close()


def test_a_miss_is_answered_from_our_memory(asking: Asking, region: Region) -> None:
    front = asking.script.front
    asking.script.u64(R.GET_FEATURES)
    front.set_memory([region], [GPA])
    asking.script.said()
    asking.miss(GPA + SIZE - 1, flags=NEED_REPLY)
    asking.miss(GPA + SIZE, flags=NEED_REPLY)  # nobody's
    front.answer()
    assert [(m.request, m.flags, m.payload) for m in asking.script.said()] == [
        (R.IOTLB_MSG, VERSION, Iotlb(GPA, SIZE, region.address, 3, 2).pack())]
    assert [asking.answered().payload for _ in range(2)] == [pack_u64(0), pack_u64(1)]
    front.answer()
    assert asking.script.said() == []


def test_a_flood_of_misses_is_bounded(asking: Asking, region: Region) -> None:
    front = asking.script.front
    front.regions = [(region, 0)]
    assert front.channel
    for k in range(MISSES + 40):
        asking.miss(k)
        asking.miss(k)
        front.channel.handle()
    assert len(front.channel.misses) == MISSES


def test_a_turn_is_bounded(asking: Asking) -> None:
    channel = asking.script.front.channel
    assert channel
    for _ in range(MESSAGES_A_TURN + 1):
        asking.ask(Asked.CONFIG_CHANGE_MSG)
    channel.handle()
    assert channel.config_changes == MESSAGES_A_TURN


def test_other_requests(asking: Asking) -> None:
    front = asking.script.front
    event = os.eventfd(0)
    asking.ask(Asked.CONFIG_CHANGE_MSG, flags=NEED_REPLY)
    asking.ask(Asked.VRING_HOST_NOTIFIER_MSG, bytes(24), NEED_REPLY, (event,))
    asking.ask(Asked.SHMEM_UNMAP, bytes(40))
    asking.miss(0, kind=4)
    front.answer()
    os.close(event)
    assert front.channel
    assert (front.channel.config_changes, front.channel.access_failures) == (1, 1)
    assert front.channel.refused == {"vring_host_notifier_msg", "shmem_unmap"}
    assert [asking.answered().payload for _ in range(2)] == [pack_u64(0), pack_u64(1)]


def test_it_may_ask_while_we_wait_for_it(asking: Asking) -> None:
    """It acknowledges nothing before its own question is acknowledged: no dead-lock."""
    script = asking.script

    def back_end() -> None:
        asking.ask(Asked.CONFIG_CHANGE_MSG, flags=NEED_REPLY)
        poll_until(asking.end)
        script.u64(R.GET_MAX_MEM_SLOTS, 1)

    script.front.protocol_features |= protocol_mask(P.CONFIGURE_MEM_SLOTS)
    thread = threading.Thread(target=back_end)
    thread.start()
    assert script.front.max_regions() == 1
    thread.join()


def poll_until(connection: Connection) -> None:
    """Until a message has come."""
    waiting = threading.Event()
    while connection.receive() is None:
        waiting.wait(0.001)


@pytest.mark.parametrize(("request_id", "payload", "flags", "fds", "says"), [
    (99, b"", 0, 0, "asked for 99"),
    (Asked.CONFIG_CHANGE_MSG, b"1", 0, 0, "has 1 bytes, not 0"),
    (Asked.CONFIG_CHANGE_MSG, b"", 4, 0, "as a reply"),
    (Asked.CONFIG_CHANGE_MSG, b"", 0, 1, "carries 1 file descriptors"),
    (Asked.IOTLB_MSG, Iotlb(0, 1, 0, 1, 2).pack(), 0, 0, "of type 2"),
    (Asked.IOTLB_MSG, Iotlb(0, 1, 0, 0, 1).pack(), 0, 0, "permission 0"),
])
def test_what_a_back_end_may_not_say(asking: Asking, request_id: int, payload: bytes, flags: int,
                                     fds: int, says: str) -> None:
    asking.ask(request_id, payload, flags, (asking.end.fileno(),) * fds)
    with pytest.raises(ProtocolError, match=says):
        asking.script.front.answer()


def test_a_channel_that_the_back_end_closes(asking: Asking) -> None:
    """It asks no more; the conversation goes on."""
    asking.end.close()
    asking.script.front.answer()
    assert asking.script.front.channel
    assert asking.script.front.channel.fileno() == -1
    asking.script.front.answer()
    asking.script.u64(R.GET_STATUS, 1)
    asking.script.front.protocol_features |= protocol_mask(P.STATUS)
    assert asking.script.front.get_status() == 1


def test_nothing_asked_without_a_channel(script: Script) -> None:
    script.front.answer()
    assert script.front.channel is None


def test_a_channel_by_itself() -> None:
    channel = FrontChannel(lambda iova: True)
    channel.handle()
    channel.handed_over()
    with pytest.raises(Closed):
        channel.handle()
    channel.close()
    channel.close()
