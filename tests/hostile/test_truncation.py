# SPDX-License-Identifier: Apache-2.0
"""A guest that spoils its memory or its rings at full speed: its port goes down, others go on."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from byway.machine import sigbus
from byway.machine.regions import HUGE_PAGE, Region
from byway.testing.exchange import Exchange
from byway.testing.frames import TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.ring import ENTRIES, INDEX, RingError
from tests.exchanging import SIZES, both, exchanging, introduce, running
from tests.running import RunningSwitch

pytestmark = pytest.mark.compiled_only

Memory = Callable[[int, str], Region]
Spoil = Callable[[Guest, DriverQueue], None]
TIMES = 20
FULL = 2**64 - 2  # an event fd's counter at its maximum: the next write waits


def mapped_bytes() -> int:
    """The size of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")


def unsealed(size: int, name: str, huge: bool = False) -> Region:
    """Shared memory that can be truncated."""
    page = HUGE_PAGE if huge else os.sysconf("SC_PAGESIZE")
    size = -(-size // page) * page
    fd = os.memfd_create(name, os.MFD_CLOEXEC | (os.MFD_HUGETLB if huge else 0))
    os.ftruncate(fd, size)
    return Region(fd, True, size, 0)


def unsealed_huge(size: int, name: str) -> Region:
    return unsealed(size, name, huge=True)


@contextmanager
def lab(folder: Path) -> Iterator[tuple[RunningSwitch, Guest]]:
    """A switch with two guests that exchange and lose nothing, a third one, and a free port vm4.

    The latter two have a network of their own: what is sent to a port that has gone down is
    flooded, and might find the others without a free buffer.
    """
    with RunningSwitch(folder) as switch:
        switch.network()
        switch.network("green")
        switch.vhost("vm1", "vm2")
        switch.vhost("vm3", "vm4", network="green")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two, \
                switch.guest("vm3", 3) as three:
            introduce(one, two)
            with exchanging(both(one, two)) as exchanges:
                yield switch, three
                assert exchanges[0].statistics()["received"] > 0
            for name in ("vm1", "vm2"):
                assert switch.port(name)["state"] == "up"
                assert switch.port(name)["drops"] == {}


def test_truncated_memory(tmp_path: Path) -> None:
    truncate_many(tmp_path, unsealed)


@pytest.mark.usefixtures("huge_pages")
def test_truncated_huge_pages(tmp_path: Path) -> None:
    truncate_many(tmp_path, unsealed_huge)


def truncate_many(tmp_path: Path, memory: Memory) -> None:
    """Guests that truncate their memory one after the other, while others exchange frames."""
    sizes, files = [], []
    with lab(tmp_path) as (switch, three):
        answers = Exchange(three, sizes=SIZES)
        with running([(answers, False)]):
            for _ in range(TIMES):
                truncate_one(switch, memory, three, answers)
                sizes.append(mapped_bytes())
                files.append(len(os.listdir("/proc/self/fd")))
        # Memory that was not unmapped would add up; a thread or two may be new.
        grown = sum(b - a >= three.region.length for a, b in pairwise(sizes[TIMES // 2 :]))
        assert grown <= 2, sizes
        assert files[-1] <= files[0]
        switch.guest("vm4", 4).close()


def truncate_one(switch: RunningSwitch, memory: Memory, three: Guest, answers: Exchange) -> None:
    """A guest on vm4 exchanges with ``three`` and truncates its memory meanwhile."""
    before = answers.statistics()["received"]
    with switch.guest("vm4", 4, memory=memory) as guest:
        # The guest's side of the memory is in this process as well.
        slot = sigbus.add(guest.region.start, guest.region.length)
        with running([(Exchange(guest, three.mac, sizes=SIZES), True)]):
            switch.until(lambda: answers.statistics()["received"] > before + 100)
            os.ftruncate(guest.region.fd, 0)
            os.eventfd_write(guest.tx_queue.kick, 1)  # the worker may have gone to sleep
            switch.until(lambda: switch.port("vm4")["state"] == "down")
        assert switch.port("vm4")["reason"] == "the peer truncated the memory that it shares"
        sigbus.remove(slot)


def jump(guest: Guest, queue: DriverQueue) -> None:
    """The available index goes more than a ring ahead."""
    store(guest, queue.avail + INDEX, load(guest, queue.avail + INDEX) + queue.size + 1)


def bad_head(guest: Guest, queue: DriverQueue) -> None:
    """The next available entries name no descriptor."""
    index = load(guest, queue.avail + INDEX)
    taken = load(guest, queue.used + INDEX)
    for k in range(index - taken & 0xFFFF or 1):
        store(guest, queue.avail + ENTRIES + 2 * ((taken + k) % queue.size), 0xFFFF)
    if index == taken:
        store(guest, queue.avail + INDEX, index + 1)


def load(guest: Guest, address: int) -> int:
    at = address - guest.region.address
    return int.from_bytes(bytes(guest.region.view[at : at + 2]), "little")


def store(guest: Guest, address: int, value: int) -> None:
    at = address - guest.region.address
    guest.region.view[at] = value & 0xFF
    guest.region.view[at + 1] = value >> 8 & 0xFF


@pytest.mark.parametrize(("spoil", "error"), [
    (jump, RingError.AVAIL_JUMP), (bad_head, RingError.BAD_HEAD)])
@pytest.mark.parametrize("side", ["receive", "transmit"])
def test_broken_rings(tmp_path: Path, side: str, spoil: Spoil, error: RingError) -> None:
    with lab(tmp_path) as (switch, three):
        for _ in range(3):
            with switch.guest("vm4", 4) as guest:
                introduce(guest, three)
                queue = guest.rx_queue if side == "receive" else guest.tx_queue
                spoil(guest, queue)
                os.eventfd_write(queue.kick, 1)
                if side == "receive":  # more than all buffers that were seen before
                    frame = ethernet(guest.mac, three.mac, TEST_ETHERTYPE, b"")
                    sent = 0
                    while sent <= queue.size:
                        sent += three.send([frame])
                switch.until(lambda: switch.port("vm4")["state"] == "down")
                assert error.sentence in switch.port("vm4")["reason"]


def test_a_call_event_fd_that_blocks(tmp_path: Path) -> None:
    """Filled to the brim and made blocking again: the worker waits to write, but not for long."""
    with lab(tmp_path) as (switch, three):
        for _ in range(2):
            with switch.guest("vm4", 4) as guest:
                introduce(guest, three)
                block(guest)
                three.send([ethernet(guest.mac, three.mac, TEST_ETHERTYPE, b"")])
                switch.until(lambda: switch.port("vm4")["state"] == "down")
                assert "block" in switch.port("vm4")["reason"]


def test_a_back_end_that_blocks_our_kick(tmp_path: Path) -> None:
    """The same from the other side: a virtio-user port drops its device, and begins anew."""
    with lab(tmp_path) as (switch, three):
        switch.network("red")
        switch.vhost("vm5", "trunk", network="red")
        switch.add("virtio-user", "uplink", "green", socket=switch.socket("trunk"))
        switch.until(lambda: switch.port("uplink")["state"] == "up")
        with switch.guest("vm5", 5) as five:
            introduce(three, five)
            pause = threading.Event()
            kick = dict(switch.engine._ports["uplink"].pairs.rings())[1].kick
            os.eventfd_write(kick, FULL - 1)
            os.set_blocking(kick, True)
            reasons = set()

            def dropped() -> bool:
                pause.wait(0.005)  # longer than the trunk needs to fall asleep and ask for a kick
                three.send([ethernet(five.mac, three.mac, TEST_ETHERTYPE, b"")])
                status = switch.port("uplink")
                reasons.add(status["reason"])
                return bool(status["state"] != "up")

            switch.until(dropped)
            assert any("block" in reason for reason in reasons), reasons
            switch.until(lambda: switch.port("uplink")["state"] == "up")
            introduce(three, five)


def test_guests_that_hang_up_at_full_speed(tmp_path: Path) -> None:
    """In the middle of everything; they may connect again at once."""
    with lab(tmp_path) as (switch, three):
        answers = Exchange(three, sizes=SIZES)
        with running([(answers, False)]):
            for _ in range(TIMES):
                before = answers.statistics()["received"]
                with switch.guest("vm4", 4) as guest, \
                        running([(Exchange(guest, three.mac, sizes=SIZES), True)]):
                    switch.until(lambda n=before: answers.statistics()["received"] > n + 100)
                    guest.front.close()
                    switch.until(lambda: switch.port("vm4")["state"] == "waiting")
        assert answers.statistics()["bad"] == 0


def block(guest: Guest) -> None:
    """The next call of the device to this guest waits for ever."""
    with suppress(BlockingIOError):
        os.eventfd_read(guest.rx_queue.call)
    os.eventfd_write(guest.rx_queue.call, FULL)
    os.set_blocking(guest.rx_queue.call, True)
    store(guest, guest.rx_queue.avail, 0)  # flags: it wants to be called


@pytest.mark.parametrize("change", ["plan", "end"])
def test_a_change_while_a_worker_waits(tmp_path: Path, change: str) -> None:
    """A plan is taken up, and the switch ends, although a peer makes the worker wait."""
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            introduce(one, two)
            block(two)
            one.send([ethernet(two.mac, one.mac, TEST_ETHERTYPE, b"")])
            if change == "plan":
                switch.vhost("vm3")
                switch.until(lambda: switch.port("vm2")["state"] == "down")
            switch.close()
