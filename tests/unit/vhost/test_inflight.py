# SPDX-License-Identifier: Apache-2.0
"""vhost/inflight.py and recovery.py: the region made, brought back and refused.

That no buffer is lost, whenever a back end is killed, is the matter of tests/oracles.
"""

import ctypes
import os
from collections.abc import Callable

import pytest

from byway.testing.conversation import (
    FEATURES,
    MEMORY_SIZE,
    PACKED_FEATURES,
    FileKind,
    Step,
    tracked,
    tracked_split,
)
from byway.testing.dialogue import Dialogue, End, Files
from byway.vhost.inflight import MAX_REGION, part_bytes
from byway.vhost.payloads import Inflight
from byway.virtio.features import Feature, mask
from byway.virtio.ring import PACKED_START
from tests.unit.vhost.conversing import (
    TABLE,
    TAKE_ALL,
    R,
    asked,
    ring_steps,
    start,
    state,
    u64,
)

RETURNED = (FileKind.RETURNED,)


def get(queues: int, queue_size: int) -> Step:
    return Step(R.GET_INFLIGHT_FD, payload=Inflight(0, 0, queues, queue_size).pack())


def give(size: int, offset: int = 0, queues: int = 2, queue_size: int = 256,
         kind: FileKind = FileKind.RETURNED) -> Step:
    return Step(R.SET_INFLIGHT_FD, payload=Inflight(size, offset, queues, queue_size).pack(),
                files=(kind,))


def put(files: Files, at: int, data: bytes) -> None:
    """Write into the file that was returned."""
    os.pwrite(files.get(FileKind.RETURNED), data, at)


def look(files: Files, at: int, n: int) -> int:
    """A number in the file that was returned."""
    return int.from_bytes(os.pread(files.get(FileKind.RETURNED), n, at), "little")


def test_sizes_of_a_part() -> None:
    """"Inflight I/O tracking": the header and an entry for each descriptor, aligned to 64."""
    assert [part_bytes(n, False) for n in (1, 3, 4, 256)] == [64, 64, 128, 4160]
    assert [part_bytes(n, True) for n in (1, 2, 3, 256)] == [64, 128, 128, 8256]


@pytest.mark.parametrize("seed", [tracked, tracked_split])
def test_tracked(talk: Dialogue, seed: Callable[[], list[Step]]) -> None:
    replies = talk.play(seed())
    assert talk.end is None, talk.reason
    (made,) = [Inflight.unpack(m.payload) for m in replies if m.request == R.GET_INFLIGHT_FD]
    assert made == Inflight(2 * part_bytes(256, seed is tracked), 0, 2, 256)


def test_a_new_region_is_prepared_at_the_start(talk: Dialogue, files: Files) -> None:
    talk.play([TAKE_ALL, u64(R.SET_FEATURES, PACKED_FEATURES), TABLE, get(2, 256)])
    assert look(files, 0, 8256) == 0
    talk.play(ring_steps(1, 250, 0x8000 | 7))
    assert talk.target.served == [1]
    ring = talk.back_end.rings[1]
    assert ring.inflight
    assert look(files, 0, 8256) == 0, "the other ring's part"
    assert look(files, 8256, 8) == PACKED_FEATURES
    assert (look(files, 8256 + 8, 2), look(files, 8256 + 10, 2)) == (1, 256)
    assert look(files, 8256 + 12, 12) == (7 << 32 | 7 << 48 | 1 << 64 | 1 << 72)
    assert [look(files, 8256 + 32 + 32 * i + 2, 2) for i in (0, 1, 255)] == [1, 2, 256]


def test_a_region_without_padding_in_its_message(talk: Dialogue) -> None:
    talk.play([TAKE_ALL, u64(R.SET_FEATURES, FEATURES)])
    (reply,) = talk.say(Step(R.GET_INFLIGHT_FD, payload=Inflight(0, 0, 1, 256).pack()[:20]))
    assert len(reply.payload) == 20
    assert Inflight.unpack_either(reply.payload).size == 4160
    talk.say(Step(R.SET_INFLIGHT_FD, payload=reply.payload, files=RETURNED))
    assert talk.end is None, talk.reason


def test_the_region_knows_better_than_the_front_end(new_talk: Callable[[], Dialogue],
                                                    files: Files) -> None:
    """After a back end was killed, only the region knows how far a packed ring had come."""
    first = new_talk()
    start(first, features=PACKED_FEATURES)
    first.play([get(2, 256), *ring_steps(0, 256, 0x8000)])
    put(files, 16, bytes.fromhex("0500 0500 01 01"))
    first.hang_up()
    second = new_talk()
    start(second, features=PACKED_FEATURES)
    second.play([give(2 * 8256), *ring_steps(0, 256, 0x8000)])
    assert second.end is None, second.reason
    assert second.target.positions[0] == 5 | PACKED_START


def test_a_ring_that_was_stopped_starts_where_it_is_told(talk: Dialogue, files: Files) -> None:
    start(talk, features=PACKED_FEATURES)
    talk.play([get(2, 256), *ring_steps(0, 256, 0x8000)])
    talk.target.positions[0] = 77
    talk.say(state(R.GET_VRING_BASE, 0, 0))
    assert look(files, 8, 2) == 0
    talk.play(ring_steps(0, 256, 0x00140014))
    assert talk.target.positions[0] == 20
    assert look(files, 16, 6) == 20 | 20 << 16


def test_a_change_takes_the_position_along(talk: Dialogue, files: Files) -> None:
    start(talk, features=PACKED_FEATURES)
    talk.play([get(2, 256), *ring_steps(0, 256, 0x8000)])
    talk.target.positions[0] = 0x8000 | 9
    talk.say(state(R.SET_VRING_ENABLE, 0, 1))
    assert look(files, 16, 6) == 9 | 9 << 16 | 1 << 32 | 1 << 40
    talk.say(state(R.SET_VRING_BASE, 0, 3))
    assert (talk.target.positions[0], look(files, 16, 6)) == (3, 3 | 3 << 16)


def test_reset_forgets(talk: Dialogue, files: Files) -> None:
    start(talk, features=PACKED_FEATURES)
    talk.play([get(2, 256), *ring_steps(0, 256, 0x8000), *ring_steps(1, 256, 0x8000)])
    assert (look(files, 8, 2), look(files, 8256 + 8, 2)) == (1, 1)
    talk.say(Step(R.RESET_DEVICE))
    assert (look(files, 8, 2), look(files, 8256 + 8, 2)) == (0, 0)


def test_rings_that_the_region_has_no_part_for(talk: Dialogue) -> None:
    start(talk, features=PACKED_FEATURES)
    talk.play([get(1, 256), *ring_steps(0, 256, 0x8000), *ring_steps(1, 256, 0x8000)])
    assert [bool(r.inflight) for r in talk.back_end.rings[:2]] == [True, False]


def test_a_split_ring_needs_no_notes(talk: Dialogue, files: Files) -> None:
    start(talk)
    talk.play([get(2, 256), *ring_steps(0)])
    assert talk.target.served == [0]
    assert talk.back_end.rings[0].inflight == 0
    assert look(files, 8, 2) == 1, "but the region is kept in a state that others can read"


def test_what_is_put_back_is_logged(talk: Dialogue, files: Files) -> None:
    """A guest that is being moved while its back end comes back."""
    features = PACKED_FEATURES | mask(Feature.LOG_ALL)
    talk.play([TAKE_ALL, u64(R.SET_FEATURES, features), TABLE, get(1, 256)])
    put(files, 0, bytes(8) + bytes.fromhex("0100 0001 0100 0100 0000 0000 01 01"))
    # Entry 0: a chain of one descriptor in flight; the others are free.
    put(files, 32, bytes.fromhex("01 00 0100 0000 0100"))
    for i in range(1, 256):
        put(files, 32 + 32 * i + 2, (i + 1).to_bytes(2, "little"))
    os.pwrite(files.get(FileKind.LOG), bytes(1 << 16), 0)
    talk.play([Step(R.SET_LOG_BASE, payload=(1 << 16).to_bytes(8, "little") + bytes(8),
                    files=(FileKind.LOG,)), *ring_steps(0, 256, 0x8000)])
    assert talk.target.served == [0], talk.reason
    page = 0x40000000 >> 12
    assert os.pread(files.get(FileKind.LOG), 1, page >> 3) == bytes([1 << (page & 7)])
    ring = talk.back_end.rings[0]
    assert ctypes.c_uint16.from_address(ring.desc + 14).value == 0x80, "available again"


@pytest.mark.parametrize(("step", "says"), [
    (get(0, 256), "region of 0 rings"),
    (get(257, 256), "region of 257 rings, for a device that has 256"),
    (get(2, 0), "rings of 0 entries"),
    (get(2, 32769), "rings of 32769 entries"),
    (give(2 * 8256 - 1), "2 rings of 256 entries take 0x4080"),
    (give(0), "region of 0x0 bytes"),
    (give(2 * 8256, queues=0), "region of 0 rings"),
    (give(2 * 8256, queue_size=65535), "rings of 65535 entries"),
    (give(2 * 8256, 8), "at offset 0x8, which is odd"),
    (give(MAX_REGION, 64), "ends after 0x40000000"),
    (give((1 << 64) - 1), "ends after 0x40000000"),
    (give(2 * 8256, (1 << 64) - 64), "ends after 0x40000000"),
    (give(2 * 8256, kind=FileKind.SHORT_MEMORY), "ends 0x4080 bytes into a file of 0x1000"),
    (give(2 * 8256, MEMORY_SIZE, kind=FileKind.MEMORY), "into a file of"),
    (give(2 * 8256, kind=FileKind.READ_ONLY_MEMORY), "cannot be mapped"),
    (give(2 * 8256, kind=FileKind.DISK), "a disk or network"),
    (give(2 * 8256, kind=FileKind.PIPE), "no memory file"),
    (Step(R.SET_INFLIGHT_FD, payload=Inflight(8192, 0, 1, 1).pack()), "0 file descriptors"),
    (Step(R.GET_INFLIGHT_FD, payload=bytes(22)), "inflight description of 22 bytes"),
    (Step(R.GET_INFLIGHT_FD, payload=bytes(19)), "GET_INFLIGHT_FD with 19 bytes")])
@pytest.mark.parametrize("told", [False, True])
def test_it_ends_with_a_reason(talk: Dialogue, step: Step, says: str, told: bool) -> None:
    start(talk, 0, features=PACKED_FEATURES, base=0x8000)
    replies = talk.say(asked(step) if told else step)
    assert talk.end is End.ERROR
    assert says in talk.reason
    assert len(replies) == told


# Of a packed ring: (offset, bytes) in a part that was prepared, and what is said of it.
NONSENSE = [
    (8, "0200", "version 2"), (10, "ff00", "255 entries, for a ring of 256"),
    (10, "0101", "257 entries"), (16, "0001", "slot 256 of 256"), (18, "ffff", "slot 65535"),
    (20, "02", "wrap counter 2"), (21, "ff", "wrap counter 255"),
    # entry 0 in flight, all are taken, and its chain ...
    (12, "ffff ffff", "entry 0 has 0 descriptors"),
    (36, "0000 0100", ""),
    (36, "0100 0100", "has 1 descriptors"),
    (36, "0000 0200", "has 2 descriptors"),
    (34, "ffff 0000 0200", "leads to 65535"), (34, "0000 0000 0200", "leads to 0"),
    (36, "ff00 0101", "leads to 256")]


@pytest.mark.parametrize(("at", "data", "says"), NONSENSE)
def test_nonsense_in_the_region(new_talk: Callable[[], Dialogue], files: Files, at: int,
                                data: str, says: str) -> None:
    talk = new_talk()
    start(talk, features=PACKED_FEATURES)
    talk.play([get(1, 256), *ring_steps(0, 256, 0x8000)])
    talk.hang_up()
    if at >= 12 and at not in (16, 18, 20, 21):
        put(files, 12, b"\xff" * 4)  # no entry is free
        put(files, 32, b"\1")
    put(files, at, bytes.fromhex(data))
    talk = new_talk()
    start(talk, features=PACKED_FEATURES)
    talk.play([give(8256, queues=1), *ring_steps(0, 256, 0x8000)])
    if says:
        assert talk.reason.startswith("SET_VRING_KICK: ring 0: the in-flight region makes no sense")
        assert says in talk.reason
    else:
        assert talk.target.served == [0], talk.reason


@pytest.mark.parametrize(("head", "entries", "says"), [
    ("0200 0001", {}, "version 2"),
    ("0100 0101", {}, "257 entries"),
    ("0100 0001 0000 0000", {0: 1}, "1 chains, up to number 0, of 0 that were made available"),
    ("0100 0001 0000 ffff", {7: 1}, "1 chains, up to number 7"),
    ("0100 0001 0001 ffff", {7: 1}, "entry 256 of 256"),
    ("0100 0001 0000 0080", {7: 1}, "a batch of 32768 in 256 entries"),
    ("0100 0001 0000 0080", {}, "")])
def test_nonsense_of_a_split_ring(new_talk: Callable[[], Dialogue], files: Files, head: str,
                                  entries: dict[int, int], says: str) -> None:
    os.pwrite(files.get(FileKind.MEMORY), bytes(MEMORY_SIZE), 0)
    talk = new_talk()
    start(talk)
    talk.say(get(1, 256))
    put(files, 8, bytes.fromhex(head))
    for i, inflight in entries.items():
        put(files, 16 + 16 * i, bytes([inflight]))
    talk.play([give(4160, queues=1), *ring_steps(0)])
    if says:
        assert says in talk.reason
    else:
        assert talk.target.served == [0], talk.reason


@pytest.mark.parametrize(("first", "second"), [(FEATURES, PACKED_FEATURES),
                                               (PACKED_FEATURES, FEATURES)])
def test_a_region_for_the_other_format(talk: Dialogue, files: Files, first: int,
                                       second: int) -> None:
    """There is nothing to be noted in it, and nothing is written."""
    start(talk, features=first)
    talk.play([get(2, 256), u64(R.SET_FEATURES, second), *ring_steps(0, 256, 0x80),
               *ring_steps(1, 256, 0x80)])
    assert talk.end is None, talk.reason
    assert talk.target.served == [0, 1]
    assert [bool(r.inflight) for r in talk.back_end.rings[:2]] == [False, False]
    assert look(files, 0, 8320) == 0


def test_a_region_that_is_given_before_the_features(talk: Dialogue, files: Files) -> None:
    talk.play([TAKE_ALL, TABLE, get(2, 256)])
    large = Step(R.SET_INFLIGHT_FD, payload=Inflight(1 << 16, 0, 2, 256).pack(),
                 files=(FileKind.OTHER_MEMORY,))
    talk.play([large, u64(R.SET_FEATURES, PACKED_FEATURES), *ring_steps(0, 256, 0x8000)])
    assert talk.target.served == [0], talk.reason
    assert talk.back_end.rings[0].inflight
    os.pwrite(files.get(FileKind.OTHER_MEMORY), bytes(1 << 16), 0)
