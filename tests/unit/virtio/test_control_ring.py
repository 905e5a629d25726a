# SPDX-License-Identifier: Apache-2.0
"""The control queue over a real virtqueue: driver and device of one ring in one memory.

The plain, slow way: a ring written word by word on both sides. VIRTIO 1.2, 2.7.4 (any framing),
5.1.6.5, 5.1.6.6 (a legacy driver's framing).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest

from byway.testing.guarded import Guarded
from byway.testing.plain_device import PlainDevice, Taken, plain_device
from byway.testing.plain_driver import PlainDriver, PlainMemory
from byway.testing.plain_queue import NEXT, WRITE, Chain
from byway.virtio.control_commands import Command, ControlError, MacTables
from byway.virtio.control_queue import ControlDevice, ControlDriver, Limits
from byway.virtio.features import Feature, mask

SIZE = 16
FEATURES = mask(Feature.VERSION_1, Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_VLAN,
                Feature.CTRL_MAC_ADDR, Feature.MQ, Feature.GUEST_ANNOUNCE)
OWN, OTHER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
UNANSWERED = 0xEE


class CommandQueue(PlainDriver):
    """A driver's ring whose chains are readable first and writable at their end."""

    def ask(self, pieces: Sequence[bytes], answer: Sequence[int] = (1,)) -> int:
        """Make a command in these pieces available, with writable ones of such sizes; -> head."""
        sizes = [(len(piece), 0) for piece in pieces] + [(n, WRITE) for n in answer]
        content = [*pieces, *(bytes([UNANSWERED]) * n for n in answer)]
        taken = [self.free.pop() for _ in sizes]
        writable = []
        for k, (n, flags) in enumerate(sizes):
            gpa = self.memory.take(n)
            self.memory.write(gpa, content[k])
            last = k + 1 == len(sizes)
            self._describe(self.desc + 16 * taken[k], gpa, n, flags | (0 if last else NEXT),
                           0 if last else taken[k + 1])
            if flags:
                writable.append((gpa, n))
        self._put16(self.avail + 4 + 2 * (self.avail_idx % self.size), taken[0])
        self.avail_idx = (self.avail_idx + 1) % 65536
        self.chains[taken[0]] = Chain(taken, writable, b"")
        self.publish()
        return taken[0]

    def answers(self) -> list[tuple[bytes, int]]:
        """(writable bytes, used length) of the commands that came back."""
        return [(self.content(chain), length) for _, length, chain in self.take_used()]


class Pair:
    """Both ends of a control queue."""

    def __init__(self, memory: Guarded) -> None:
        plain = PlainMemory([(1 << 20, memory.address, memory.size)])
        self.queue = CommandQueue(plain, SIZE, FEATURES, receive=True)
        self.ring: PlainDevice = plain_device(plain, SIZE, FEATURES, self.queue.desc,
                                              self.queue.avail, self.queue.used)
        limits = Limits(pairs=4)
        self.driver = ControlDriver(FEATURES, limits)
        self.device = ControlDevice(FEATURES, OWN, limits)

    def serve(self) -> int:
        """The device answers all that is there; -> how many."""
        taken = self.ring.take()
        for chain in taken:
            self.ring.use([chain], [self.answer(chain)])
        return len(taken)

    def answer(self, chain: Taken) -> int:
        """Execute one command; -> bytes written."""
        return self.ring.fill(chain, self.device.execute(self.ring.content(chain)))

    def command(self, data: bytes, cuts: Sequence[int] = (), answer: Sequence[int] = (1,)) -> None:
        """Send a command in pieces that begin at ``cuts``, and understand what comes back."""
        edges = [0, *cuts, len(data)]
        self.queue.ask([data[a:b] for a, b in pairwise(edges)], answer)
        assert self.serve() == 1
        written, used = self.queue.answers()[0]
        self.driver.understand(written, used)


@pytest.fixture
def pair() -> Iterator[Pair]:
    memory = Guarded(1 << 16)
    yield Pair(memory)
    memory.close()


def test_a_session(pair: Pair) -> None:
    """More commands than the ring has entries, each seen to take effect before it is used."""
    for turn in range(SIZE):
        pair.command(pair.driver.command(Command.PROMISC, turn % 2 == 0), (2,))
        assert pair.device.state.promisc is (turn % 2 == 0)
        pair.command(pair.driver.command(Command.VLAN_ADD, turn), (2,))
        pair.command(pair.driver.command(Command.VQ_PAIRS, turn % 4 + 1), (2,))
        assert pair.device.state.pairs == turn % 4 + 1
    assert pair.device.state.vlans == set(range(SIZE))
    assert len(pair.queue.free) == SIZE


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (3,), (2, 6), (2, 12, 15), tuple(range(1, 14))])
def test_any_framing(pair: Pair, cuts: tuple[int, ...]) -> None:
    """2.7.4.1: the device makes no assumptions on how a buffer is cut."""
    data = pair.driver.command(Command.MAC_TABLE, MacTables((OTHER,), ()))
    pair.command(data, cuts)
    assert pair.device.state.unicast == {OTHER}


def test_a_legacy_framing(pair: Pair) -> None:
    """5.1.6.6: class and command, each table, and the answer in descriptors of their own."""
    data = pair.driver.command(Command.MAC_TABLE, MacTables((OTHER,), (b"\1" * 6, b"\3" * 6)))
    pair.command(data, (2, 12))
    assert pair.device.state.multicast == {b"\1" * 6, b"\3" * 6}


def test_a_refusal(pair: Pair) -> None:
    with pytest.raises(ControlError, match="refused"):
        pair.command(bytes([4, 0, 9, 0]), (2,))
    assert pair.device.state.pairs == 1
    pair.command(pair.driver.command(Command.VQ_PAIRS, 2))
    assert pair.device.state.pairs == 2


def test_announcing(pair: Pair) -> None:
    pair.device.ask_to_announce()
    pair.command(pair.driver.command(Command.ANNOUNCE_ACK))
    assert not pair.device.state.announce


def test_room_for_more_than_an_answer(pair: Pair) -> None:
    """Only one byte is written, whatever room there is."""
    pair.queue.ask([pair.driver.command(Command.PROMISC, True)], (3, 5))
    pair.serve()
    assert pair.queue.answers() == [(b"\0" + bytes([UNANSWERED]) * 7, 1)]


def test_no_room_for_an_answer(pair: Pair) -> None:
    """It is executed and comes back with nothing written, which the driver does not take for OK."""
    with pytest.raises(ControlError, match="wrote 0 bytes"):
        pair.command(pair.driver.command(Command.PROMISC, True), (), ())
    assert pair.device.state.promisc


def test_several_at_once(pair: Pair) -> None:
    """Executed in the order in which they were made available."""
    for pairs in (2, 4, 3):
        pair.queue.ask([pair.driver.command(Command.VQ_PAIRS, pairs)])
    assert pair.serve() == 3
    assert pair.queue.answers() == [(b"\0", 1)] * 3
    assert pair.device.state.pairs == 3
