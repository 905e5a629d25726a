# SPDX-License-Identifier: Apache-2.0
"""A guest behind an IOMMU on a vhost-user port of a running switch."""

import os
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.testing.guest_queues import GPA
from byway.vhost.frontend import protocol_mask
from byway.vhost.messages import ProtocolError, ProtocolFeature
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, mask
from tests.exchanging import exchanging, introduce
from tests.running import RunningSwitch, mac

pytestmark = pytest.mark.compiled_only

SECONDS = 5.0
PAGE = 4096
FULL = 2**64 - 2  # an event fd's counter at its maximum: the next write waits


class IommuGuest(Guest):
    """Its addresses are those of an IOMMU; the back end may ask for them."""

    def start(self, features: int = 0) -> None:
        self._protocol |= protocol_mask(ProtocolFeature.BACKEND_REQ)
        super().start(features | mask(Feature.ACCESS_PLATFORM))
        self.front.open_channel()

    def asked(self, seconds: float = SECONDS) -> bool:
        """Has the back end a question?"""
        assert self.front.channel
        return bool(select.select([self.front.channel.fileno()], [], [], seconds)[0])

    def forget_buffers(self, queue: DriverQueue) -> None:
        """The guest takes the buffers of a queue out of its IOMMU, and no page of a ring."""
        start = -(-queue.buffers // PAGE) * PAGE
        end = queue.buffers + queue.size * int(queue.record["buffer_size"][0])
        self.front.invalidate_iotlb(self.front.guest_address(start), end // PAGE * PAGE - start)


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    """With a worker thread."""
    with RunningSwitch(tmp_path) as made:
        made.network()
        yield made


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def guests(switch: RunningSwitch, request: pytest.FixtureRequest) -> Iterator[
        tuple[IommuGuest, Guest]]:
    switch.vhost("vm1", "vm2")
    one = IommuGuest.connect(switch.socket("vm1"), mac(1), packed=request.param)
    other = switch.guest("vm2", 2)
    switch.until(lambda: switch.port("vm1")["state"] == "up")
    yield one, other
    one.close()
    other.close()


def frame(source: Guest, number: int) -> bytes:
    return ethernet(BROADCAST, source.mac, TEST_ETHERTYPE, bytes([number]) * 200)


def test_frames_pass_at_full_speed(
        switch: RunningSwitch, guests: tuple[IommuGuest, Guest]) -> None:
    one, other = guests
    assert "access_platform" in switch.port("vm1")["features"]["acked"]
    introduce(one, other)
    before = switch.port("vm1")["rx_frames"]
    with exchanging([(one, other), (other, one)]):
        switch.until(lambda: switch.port("vm1")["rx_frames"] > before + 2000)
    assert switch.drops() == {}


def test_a_frame_waits_for_its_page(
        switch: RunningSwitch, guests: tuple[IommuGuest, Guest]) -> None:
    """Nobody else waits: the switch goes on meanwhile."""
    one, other = guests
    introduce(one, other)
    one.forget_buffers(one.tx_queue)
    sent = [frame(one, k) for k in range(20)]
    assert one.send(sent) == 20
    got: list[bytes] = []
    assert one.asked()
    other.send([frame(other, 99)])
    while len(got) < 20:
        got += other.receive_until(1, 0.05)
        one.front.answer()
    assert got == sent
    assert one.receive_until(1) == [frame(other, 99)]
    assert switch.drops() == {}


def test_a_buffer_that_is_not_known_yet(
        switch: RunningSwitch, guests: tuple[IommuGuest, Guest]) -> None:
    """The frame is dropped and counted; the next one comes in."""
    one, other = guests
    introduce(one, other)
    one.forget_buffers(one.rx_queue)
    other.send([frame(other, 1)] * 5)
    switch.until(lambda: switch.drops().get("vm1", {}).get("no_translation"))
    assert one.asked()
    one.front.answer()
    got: list[bytes] = []
    while not got:
        other.send([frame(other, 2)])
        got = one.receive_until(1, 0.05)
        one.front.answer()
    assert set(got) <= {frame(other, 1), frame(other, 2)}


def test_everything_is_taken_away(
        switch: RunningSwitch, guests: tuple[IommuGuest, Guest]) -> None:
    """The rings too: the port waits, asks, and goes on where it was."""
    one, other = guests
    introduce(one, other)
    for number in range(3):
        one.front.invalidate_iotlb(GPA, one.region.size)
        switch.until(lambda: switch.port("vm1")["state"] == "waiting")
        one.send([frame(one, number)])
        assert one.asked()
        one.front.answer()
        switch.until(lambda: switch.port("vm1")["state"] == "up")
        got: list[bytes] = []
        while not got:  # the frame waits in its ring until its page is known as well
            got = other.receive_until(1, 0.05)
            one.front.answer()
        assert got == [frame(one, number)]
        while frame(other, number) not in got:  # dropped while the buffer is not known yet
            other.send([frame(other, number)])
            got = one.receive_until(1, 0.05)
            one.front.answer()
    assert set(switch.drops().get("vm1", {})) <= {"no_translation"}


def test_a_translation_that_leads_out_of_the_shared_memory(
        switch: RunningSwitch, guests: tuple[IommuGuest, Guest]) -> None:
    """It is refused, and changes nothing."""
    one, other = guests
    introduce(one, other)
    with pytest.raises(ProtocolError, match="IOTLB_MSG"):
        one.front.update_iotlb(GPA, PAGE, one.region.address - PAGE)
    one.send([frame(one, 1)])
    assert other.receive_until(1) == [frame(one, 1)]


def test_nobody_waits_for_a_kick_that_is_full(tmp_path: Path) -> None:
    """The peer has its kick's event fd too, may fill it and make whoever writes to it wait."""
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1")
        one = IommuGuest.connect(switch.socket("vm1"), mac(1))
        switch.until(lambda: switch.port("vm1")["state"] == "up")
        kick = one.tx_queue.kick
        with suppress(BlockingIOError):
            os.eventfd_read(kick)
        os.eventfd_write(kick, FULL)
        os.set_blocking(kick, True)
        one.forget_buffers(one.rx_queue)
        assert switch.port("vm1")["state"] == "up"
        os.set_blocking(kick, False)
        one.close()
