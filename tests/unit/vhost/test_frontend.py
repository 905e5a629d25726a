# SPDX-License-Identifier: Apache-2.0
"""vhost/frontend.py against a scripted back end: every reply is checked, and has a time-out.

The script's replies lie in the socket before the request is made.
"""

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.machine import unixsocket
from byway.machine.regions import Region
from byway.vhost import Closed, FrontEnd, ProtocolError
from byway.vhost.frontend import protocol_mask
from byway.vhost.messages import HEADER, ProtocolFeature, Request
from byway.vhost.payloads import VringAddress, VringState, pack_u64
from byway.vhost.requests import RequestRefused
from byway.virtio.features import Feature, mask
from byway.virtio.ring import WRAP
from tests.unit.vhost.scripted import PROTOCOL_FEATURES, Script

R, P = Request, ProtocolFeature


@pytest.fixture
def script() -> Iterator[Script]:
    before = len(os.listdir("/proc/self/fd"))
    made = Script()
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def hurried() -> Iterator[Script]:
    """One whose front end waits 20 ms."""
    made = Script(0.02)
    yield made
    made.close()


def test_negotiation(script: Script) -> None:
    offered = mask(Feature.VERSION_1, Feature.MRG_RXBUF, Feature.PROTOCOL_FEATURES)
    script.u64(R.GET_FEATURES, offered)
    script.u64(R.GET_PROTOCOL_FEATURES, 0xFFFF)
    script.u64(R.GET_QUEUE_NUM, 7)
    script.u64(R.SET_OWNER)
    script.u64(R.SET_FEATURES)
    front = script.front
    taken = front.negotiate(mask(Feature.VERSION_1, Feature.EVENT_IDX))
    assert taken == front.features == mask(Feature.VERSION_1, Feature.PROTOCOL_FEATURES)
    assert (front.offered, front.protocol_offered) == (offered, 0xFFFF)
    assert front.protocol_features == 1 << 0 | 1 << 3 | 1 << 4 | 1 << 13
    assert front.queue_num == 7
    said = [(m.request, m.flags) for m in script.said()]
    assert said == [(R.GET_FEATURES, 1), (R.GET_PROTOCOL_FEATURES, 1),
                    (R.SET_PROTOCOL_FEATURES, 1), (R.GET_QUEUE_NUM, 1), (R.SET_OWNER, 9),
                    (R.SET_FEATURES, 9)]


def test_negotiation_without_protocol_features(script: Script) -> None:
    script.u64(R.GET_FEATURES, mask(Feature.VERSION_1))
    assert script.front.negotiate(-1) == mask(Feature.VERSION_1)
    assert [m.request for m in script.said()] == [R.GET_FEATURES, R.SET_OWNER, R.SET_FEATURES]
    # Nothing is sent that such a back end does not know.
    script.front.set_mtu(1500)
    script.front.enable_ring(0, True)
    script.front.reset()
    assert script.said() == []


def test_memory_without_acknowledgements_waits_all_the_same(script: Script) -> None:
    script.negotiate(protocol=0)
    region = Region.create(4096)
    script.u64(R.GET_FEATURES, 0)
    script.front.set_memory([region], [0])
    assert [m.request for m in script.said()] == [R.SET_MEM_TABLE, R.GET_FEATURES]
    region.close()


def test_more_regions_than_a_table_takes(script: Script) -> None:
    region = Region.create(4096)
    with pytest.raises(ValueError, match="9 regions"):
        script.front.set_memory([region] * 9, range(9))
    region.close()


def test_the_order_of_a_ring(script: Script) -> None:
    script.negotiate(protocol=0)
    event = os.eventfd(0)
    script.front.start_ring(1, 256, 3, 0x1000, 0x2000, 0x3000, event, -1)
    said = script.said()
    assert [m.request for m in said] == [R.SET_VRING_NUM, R.SET_VRING_BASE, R.SET_VRING_ADDR,
                                         R.SET_VRING_CALL, R.SET_VRING_KICK]
    assert said[1].payload == VringState(1, 3).pack()
    assert said[3].payload == pack_u64(0x101)
    assert said[4].payload == pack_u64(1)
    script.front.set_call(1, event)
    assert script.said()[0].payload == pack_u64(1)
    os.close(event)


def test_stop_returns_the_base(script: Script) -> None:
    script.reply(R.GET_VRING_BASE, VringState(1, 0xFFFF).pack())
    assert script.front.stop_ring(1) == 0xFFFF


def test_reset_stops_what_runs(script: Script) -> None:
    script.negotiate(protocol=0)
    script.front.start_ring(0, 1, 0, 0, 0, 0, -1, -1)
    script.said()
    script.u64(R.GET_FEATURES)
    script.reply(R.GET_VRING_BASE, VringState(0, 1).pack())
    script.front.reset()
    script.front.reset()
    assert [m.request for m in script.said()] == [R.SET_VRING_ENABLE, R.GET_FEATURES,
                                                  R.GET_VRING_BASE]


def test_status(script: Script) -> None:
    """ACKNOWLEDGE and DRIVER, FEATURES_OK after the features, DRIVER_OK when all is set up."""
    front = script.front
    script.u64(R.GET_FEATURES, PROTOCOL_FEATURES)
    script.u64(R.GET_PROTOCOL_FEATURES, -1 & (1 << 64) - 1)
    script.u64(R.GET_STATUS, 11)
    front.negotiate(0, protocol_mask(P.STATUS))
    script.u64(R.GET_FEATURES)
    front.driver_ok()
    said = [(m.request, m.payload) for m in script.said()]
    assert said == [
        (R.GET_FEATURES, b""), (R.GET_PROTOCOL_FEATURES, b""),
        (R.SET_PROTOCOL_FEATURES, pack_u64(1 << 16)), (R.SET_OWNER, b""),
        (R.SET_STATUS, pack_u64(3)), (R.SET_FEATURES, pack_u64(PROTOCOL_FEATURES)),
        (R.SET_STATUS, pack_u64(11)), (R.GET_STATUS, b""),
        (R.SET_STATUS, pack_u64(15)), (R.GET_FEATURES, b"")]
    front.reset()
    assert [m.payload for m in script.said()] == [pack_u64(0)]


def test_a_back_end_that_cannot_live_with_its_features(script: Script) -> None:
    with pytest.raises(ProtocolError, match="no FEATURES_OK"):
        script.negotiate(protocol=protocol_mask(P.STATUS), status=3)


def test_a_status_of_more_than_a_byte(script: Script) -> None:
    with pytest.raises(ProtocolError, match="more than 8 bits"):
        script.negotiate(protocol=protocol_mask(P.STATUS), status=0x10B)


@pytest.mark.parametrize("queues", [0, 257])
def test_a_number_of_queues_that_cannot_be(script: Script, queues: int) -> None:
    script.u64(R.GET_FEATURES, PROTOCOL_FEATURES)
    script.u64(R.GET_PROTOCOL_FEATURES, 1)
    script.u64(R.GET_QUEUE_NUM, queues)
    with pytest.raises(ProtocolError, match=f"has {queues} queues"):
        script.front.negotiate(0)


def test_the_configuration_space(script: Script) -> None:
    script.negotiate(protocol=protocol_mask(P.CONFIG))
    script.reply(R.GET_CONFIG, struct.pack("=III", 2, 4, 0) + b"abcd")
    assert script.front.get_config(2, 4) == b"abcd"
    script.front.set_config(0, b"mac", migrating=True)
    assert [m.payload for m in script.said()] == [
        struct.pack("=III", 2, 4, 0) + bytes(4), struct.pack("=III", 0, 3, 1) + b"mac"]
    with pytest.raises(ValueError, match="257 bytes"):
        script.front.get_config(0, 257)


@pytest.mark.parametrize("reply", [
    b"", struct.pack("=III", 0, 0, 0), struct.pack("=III", 0, 8, 0) + bytes(4),
    struct.pack("=III", 1, 4, 0) + bytes(4)])
def test_no_configuration_space(script: Script, reply: bytes) -> None:
    script.negotiate(protocol=protocol_mask(P.CONFIG))
    script.reply(R.GET_CONFIG, reply)
    with pytest.raises(RequestRefused, match="no configuration space of 4 bytes at 0"):
        script.front.get_config(0, 4)


def test_what_was_not_negotiated_is_not_said(script: Script) -> None:
    script.negotiate(protocol=0)
    front = script.front
    for call in (front.get_status, front.max_regions, front.open_channel,
                 lambda: front.set_status(1), lambda: front.get_config(0, 1),
                 lambda: front.set_config(0, b"1"), lambda: front.send_rarp(bytes(6)),
                 lambda: front.set_log(0, 8), lambda: front.get_inflight(2, 256)):
        with pytest.raises(ProtocolError, match="was not negotiated"):
            call()
    assert script.said() == []


def test_a_packed_ring(script: Script) -> None:
    """Both halves of the base, and the two event areas for the two rings."""
    script.negotiate(mask(Feature.PROTOCOL_FEATURES, Feature.RING_PACKED), protocol=0)
    script.front.start_ring(2, 100, WRAP | 5, 0x1000, 0x2000, 0x3000, -1, -1)
    said = script.said()
    assert said[1].payload == VringState(2, 0x80058005).pack()
    assert said[2].payload == VringAddress(2, 0, 0x1000, 0x3000, 0x2000).pack()
    script.reply(R.GET_VRING_BASE, VringState(2, 7).pack())
    assert script.front.stop_ring(2) == 7
    script.front.start_ring(2, 100, WRAP, 0x1000, 0x2000, 0x3000, -1, -1)
    script.reply(R.GET_VRING_BASE, VringState(2, WRAP | 100).pack())
    with pytest.raises(ProtocolError, match="stopped at slot 100 of 100"):
        script.front.stop_ring(2)


def test_a_split_ring_stops_at_an_index(script: Script) -> None:
    script.negotiate(protocol=0)
    script.reply(R.GET_VRING_BASE, VringState(0, 0x10000).pack())
    with pytest.raises(ProtocolError, match="which is no index"):
        script.front.stop_ring(0)


def test_an_error_fd_and_logging(script: Script) -> None:
    script.negotiate(protocol=0)
    event = os.eventfd(0)
    script.front.start_ring(0, 4, 0, 1, 2, 3, event, event, err=event, log=0x5000)
    said = script.said()
    assert said[2].payload == VringAddress(0, 1, 1, 3, 2, 0x5000).pack()
    assert said[3].request == R.SET_VRING_ERR
    os.close(event)


@pytest.mark.parametrize(("request_id", "payload", "flags", "says"), [
    (R.GET_FEATURES, bytes(7), 5, "has 7 bytes, not 8"),
    (R.GET_FEATURES, bytes(9), 5, "has 9 bytes, not 8"),
    (R.GET_FEATURES, bytes(8), 1, "has flags 0x1, not 0x5"),
    (R.GET_FEATURES, bytes(8), 13, "has flags 0xd, not 0x5"),
    (R.GET_FEATURES, bytes(8), 6, "version 2"),
    (R.GET_QUEUE_NUM, bytes(8), 5, "GET_FEATURES was answered with GET_QUEUE_NUM"),
    (77, bytes(8), 5, "was answered with request 77"),
    (R.GET_FEATURES, bytes(5000), 5, "5000 bytes of payload"),
])
def test_wrong_replies(script: Script, request_id: int, payload: bytes, flags: int,
                       says: str) -> None:
    script.reply(request_id, payload, flags)
    with pytest.raises(ProtocolError, match=says):
        script.front.negotiate(0)


def test_a_reply_with_file_descriptors(script: Script) -> None:
    script.reply(R.GET_FEATURES, bytes(8), fds=(0, 1))
    with pytest.raises(ProtocolError, match="carries file descriptors"):
        script.front.negotiate(0)


def test_a_base_of_another_ring(script: Script) -> None:
    script.reply(R.GET_VRING_BASE, VringState(0, 5).pack())
    with pytest.raises(ProtocolError, match="of ring 1 was answered for ring 0"):
        script.front.stop_ring(1)


def test_a_refusal(script: Script) -> None:
    script.negotiate(protocol=1 << 3 | 1 << 4)
    script.u64(R.NET_SET_MTU, 1)
    with pytest.raises(RequestRefused, match="refused NET_SET_MTU"):
        script.front.set_mtu(9000)


@pytest.mark.parametrize("bytes_sent", [b"", b"\1", HEADER.pack(R.GET_FEATURES, 5, 8) + b"1"])
def test_time_out(hurried: Script, bytes_sent: bytes) -> None:
    hurried.peer.send(bytes_sent)
    with pytest.raises(ProtocolError, match=r"no reply to GET_FEATURES within 0\.02 s"):
        hurried.front.negotiate(0)


def test_a_back_end_that_never_reads(hurried: Script) -> None:
    def enable_for_ever() -> None:
        for _ in range(100_000):
            hurried.front.set_call(0, -1)

    with pytest.raises(ProtocolError, match="does not read"):
        enable_for_ever()


@pytest.mark.parametrize("after", [0, 5, 12])
def test_hang_up(script: Script, after: int) -> None:
    script.peer.send(HEADER.pack(R.GET_FEATURES, 5, 8)[:after])
    script.peer.close()
    with pytest.raises(Closed):
        script.front.negotiate(0)


def test_closed_on_this_side(script: Script) -> None:
    script.front.close()
    with pytest.raises(Closed, match="this side"):
        script.front.negotiate(0)


def test_connect_and_accept(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener = unixsocket.listen(path)
    with pytest.raises(TimeoutError, match="no back end connected"):
        FrontEnd.accept(listener, 0.01)
    first = FrontEnd.connect(path, 1.0)
    second = FrontEnd.accept(listener, 1.0)
    assert first.fileno() >= 0
    second.close()
    with pytest.raises(Closed):
        first.negotiate(0)
    first.close()
    unixsocket.close(listener)
    with pytest.raises(unixsocket.SocketError, match="does not exist"):
        FrontEnd.connect(path)


def test_accept_waits(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener = unixsocket.listen(path)
    got: list[FrontEnd] = []
    thread = threading.Thread(target=lambda: got.append(FrontEnd.accept(listener, 5.0)))
    thread.start()
    peer = unixsocket.connect(path)
    thread.join()
    got[0].close()
    peer.close()
    unixsocket.close(listener)
