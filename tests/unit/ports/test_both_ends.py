# SPDX-License-Identifier: Apache-2.0
"""Byway's front end against Byway's vhost-user port, in what a virtio-user port does not use: an
IOMMU, the dirty log, the configuration space, announcements."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from byway.machine.regions import Region
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import GPA, Guest
from byway.vhost import FrontEnd
from byway.vhost.frontend import protocol_mask
from byway.vhost.messages import ProtocolFeature as P
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch, mac

PAGE = 4096
ALL = protocol_mask(P.MQ, P.REPLY_ACK, P.NET_MTU, P.RESET_DEVICE, P.STATUS, P.CONFIG, P.LOG_SHMFD,
                    P.RARP, P.BACKEND_REQ)


class Eager(FrontEnd):
    """A front end that takes all protocol features, and opens the channel to be asked on."""

    def negotiate(self, wanted: int, protocol_wanted: int = ALL) -> int:
        features = super().negotiate(wanted, ALL)
        if self.channel is None:
            self.open_channel()
        return features


@contextmanager
def eager(switch: RunningSwitch, features: int = 0,
          **options: Any) -> Iterator[tuple[Guest, Guest]]:
    """A guest with such a front end, and an ordinary one beside it."""
    switch.vhost("vm1", "vm2")
    front = Eager.connect(switch.socket("vm1"))
    with Guest(front, mac(1), features=features, **options) as one, switch.guest("vm2", 2) as two:
        switch.until(lambda: switch.port("vm1")["state"] == "up")
        yield one, two


def frames_of(source: Guest, count: int = 7) -> list[bytes]:
    """Broadcasts."""
    return [ethernet(BROADCAST, source.mac, TEST_ETHERTYPE, bytes([k]) * 80) for k in range(count)]


def crosses(switch: RunningSwitch, one: Guest, other: Guest) -> bool:
    """Do frames come from one to the other, with misses answered meanwhile?"""
    frames = frames_of(one)
    assert one.send(frames) == len(frames)
    got: list[bytes] = []
    for _ in range(20):
        switch.step(3)
        for guest in (one, other):
            guest.front.answer()
        got += other.receive()
        if len(got) >= len(frames):
            break
    return got == frames


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_behind_an_iommu(switch: RunningSwitch, packed: bool) -> None:
    """Told beforehand, and after everything was taken back, asked for."""
    with eager(switch, mask(Feature.ACCESS_PLATFORM), packed=packed) as (one, two):
        assert one.features & mask(Feature.ACCESS_PLATFORM)
        for _ in range(2):
            assert crosses(switch, one, two)
            assert crosses(switch, two, one)
            one.front.invalidate_iotlb(GPA, one.region.size)
        assert switch.drops() == {}


def test_what_is_written_is_logged(switch: RunningSwitch) -> None:
    """While LOG_ALL is on, and no longer."""
    with eager(switch) as (one, two):
        front, queue = one.front, one.rx_queue
        log = Region.create(-(-(GPA + one.region.size) // PAGE // 8))
        front.set_log(log.fd, log.size)
        front.set_features(one.features | mask(Feature.LOG_ALL))
        addresses = (queue.desc, queue.avail, queue.used)
        front.set_addresses(0, *addresses, log=front.guest_address(queue.used))
        assert crosses(switch, two, one)
        pages = dirty_pages(log)
        assert front.guest_address(queue.used) // PAGE in pages
        assert any(page >= front.guest_address(queue.buffers) // PAGE for page in pages)
        assert all(GPA <= page * PAGE < GPA + one.region.size for page in pages)
        front.set_features(one.features)
        front.set_addresses(0, *addresses)
        log.view[:] = 0
        assert crosses(switch, two, one)
        assert dirty_pages(log) == set()
        log.close()


def dirty_pages(log: Region) -> set[int]:
    """The numbers of the pages that are marked."""
    marked = np.flatnonzero(log.view)
    return {int(8 * byte + bit) for byte in marked for bit in range(8)
            if log.view[byte] >> bit & 1}


def test_the_configuration_space(switch: RunningSwitch) -> None:
    with eager(switch) as (one, _):
        space = one.front.get_config(0, 12)
        assert int.from_bytes(space[8:10], "little") == 1, "max_virtqueue_pairs"
        assert int.from_bytes(space[10:12], "little") == 1500, "mtu"


def test_an_announcement(switch: RunningSwitch) -> None:
    """RARP: from the guest's address to everybody (RFC 903)."""
    with eager(switch) as (one, two):
        one.front.send_rarp(one.mac)
        switch.settle()
        (frame,) = two.receive()
        assert frame[:14] == BROADCAST + one.mac + b"\x80\x35"
