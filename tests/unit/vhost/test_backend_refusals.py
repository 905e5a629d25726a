# SPDX-License-Identifier: Apache-2.0
"""vhost/backend.py: everything that ends a conversation, with its reason, and nothing left open.

The fixture `talk` counts file descriptors and mappings before and after each of these.
"""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from byway.testing.conversation import (
    FEATURES,
    MEMORY_SIZE,
    RING_SIZE,
    USER,
    FileKind,
    Step,
    region,
    ring_address,
)
from byway.testing.dialogue import OFFERED, PROTOCOL_OFFERED, Dialogue, End
from byway.vhost.messages import NEED_REPLY, REPLY, SPECS, VERSION, Request
from byway.vhost.payloads import (
    MemoryRegion,
    RingFile,
    VringAddress,
    VringState,
    pack_memory_table,
    pack_u64,
    unpack_u64,
)

R = Request
MEMORY, EVENT = FileKind.MEMORY, FileKind.EVENT
TAKE_ALL = Step(R.SET_PROTOCOL_FEATURES, payload=pack_u64(PROTOCOL_OFFERED))


def u64(request: Request, value: int) -> Step:
    return Step(request, payload=pack_u64(value))


def state(request: Request, index: int, num: int) -> Step:
    return Step(request, payload=VringState(index, num).pack())


def table(*regions: MemoryRegion, files: tuple[FileKind, ...] = (MEMORY,)) -> Step:
    return Step(R.SET_MEM_TABLE, payload=pack_memory_table(list(regions)), files=files)


def running() -> list[Step]:
    steps = [TAKE_ALL, u64(R.SET_FEATURES, FEATURES), table(region())]
    for i in (0, 1):
        steps += [state(R.SET_VRING_NUM, i, RING_SIZE),
                  Step(R.SET_VRING_ADDR, payload=ring_address(i).pack()),
                  Step(R.SET_VRING_CALL, payload=RingFile(i, True).pack(), files=(EVENT,)),
                  Step(R.SET_VRING_KICK, payload=RingFile(i, True).pack(), files=(EVENT,))]
    return steps


@pytest.fixture
def served(talk: Dialogue) -> Dialogue:
    """A dialogue with both rings running."""
    talk.play(running())
    assert talk.target.served == [0, 1]
    return talk


HALF = MEMORY_SIZE // 2
A, B = region(0, 2), region(1, 2)
BAD = [
    # frames
    (Step(R.GET_FEATURES, flags=2), "version 2"),
    (Step(R.GET_FEATURES, flags=0x21), "unknown flags"),
    (Step(R.GET_FEATURES, flags=VERSION | REPLY), "GET_FEATURES marked as a reply"),
    (Step(R.GET_FEATURES, payload=b"1234"), r"GET_FEATURES with 4 bytes; its payload \(nothing\)"),
    (Step(R.SET_FEATURES, payload=b"1234"), "SET_FEATURES with 4 bytes"),
    (Step(R.SET_FEATURES, payload=bytes(9)), "SET_FEATURES with 9 bytes"),
    (Step(R.SET_VRING_NUM, payload=bytes(12)), "SET_VRING_NUM with 12 bytes"),
    (Step(R.SET_VRING_ADDR, payload=bytes(39)), "SET_VRING_ADDR with 39 bytes"),
    (Step(R.SET_MEM_TABLE, payload=bytes(4)), "SET_MEM_TABLE with 4 bytes"),
    (Step(R.SET_MEM_TABLE, payload=bytes(265)), "SET_MEM_TABLE with 265 bytes"),
    (Step(R.ADD_MEM_REG, payload=bytes(32), files=(MEMORY,)), "ADD_MEM_REG with 32 bytes"),
    (Step(R.SET_OWNER, declared=4097), "SET_OWNER with 4097 bytes"),
    (Step(R.SET_OWNER, files=(EVENT,)), "SET_OWNER with 1 file descriptors; it takes 0"),
    (Step(R.SET_VRING_NUM, payload=bytes(8), files=(EVENT,)), "SET_VRING_NUM with 1 file"),
    (Step(R.SET_OWNER, files=(EVENT,) * 33), "more file descriptors"),
    # features
    (u64(R.SET_FEATURES, OFFERED | 1 << 40 | 1 << 20), "ctrl_rx_extra, ring_reset"),
    (u64(R.SET_FEATURES, 1 << 41), "bit41"),
    (u64(R.SET_PROTOCOL_FEATURES, 1 << 8), "protocol features that were not offered: 0x100"),
    (u64(R.SET_STATUS, 0x100), "a device status of 0x100"),
    # rings
    (state(R.SET_VRING_NUM, 8, 256), "ring 8 of a device that has 8"),
    (state(R.SET_VRING_NUM, 0xFFFFFFFF, 256), "ring 4294967295"),
    (state(R.SET_VRING_BASE, 9, 0), "ring 9"),
    (state(R.GET_VRING_BASE, 9, 0), "ring 9"),
    (state(R.SET_VRING_ENABLE, 9, 1), "ring 9"),
    (Step(R.SET_VRING_ADDR, payload=VringAddress(9, 0, 0, 0, 0).pack()), "ring 9"),
    (u64(R.SET_VRING_KICK, 0x1FF), "ring 255"),
    (u64(R.SET_VRING_KICK, 0x10001), "0x10001, which is more than 8 bits"),
    *[(state(R.SET_VRING_NUM, 0, n), f"of {n} entries")
      for n in (0, 3, 255, 32769, 65536, 1 << 31)],
    (state(R.SET_VRING_BASE, 0, 0x10000), "0x10000, no 16-bit index"),
    (state(R.SET_VRING_ENABLE, 0, 2), "enabled with 2"),
    # event fds
    *[(Step(r, payload=pack_u64(0)), f"{r.name}: one file descriptor announced, 0 attached")
      for r in (R.SET_VRING_KICK, R.SET_VRING_CALL, R.SET_VRING_ERR)],
    (Step(R.SET_VRING_KICK, payload=pack_u64(0x100), files=(EVENT,)), "no file descriptor"),
    (Step(R.SET_VRING_CALL, payload=pack_u64(0), files=(EVENT, EVENT)), "takes 0 to 1"),
    *[(Step(R.SET_VRING_CALL, payload=pack_u64(0), files=(kind,)), "no event fd")
      for kind in FileKind if kind is not EVENT],
    # memory
    (table(region(), files=()), "1 memory regions with 0 file"),
    (table(region(), files=(MEMORY, MEMORY)), "1 memory regions with 2 file"),
    (table(*[region()] * 9, files=(MEMORY,) * 9), "SET_MEM_TABLE with 296 bytes"),
    (Step(R.SET_MEM_TABLE, payload=pack_u64(9), files=(MEMORY,)), "9 regions, more than 8"),
    (Step(R.SET_MEM_TABLE, payload=pack_u64(2), files=(MEMORY,)), "2 regions in 8 bytes"),
    (table(A, A, files=(MEMORY, MEMORY)), "overlaps"),
    (table(A, replace(B, gpa=A.gpa + HALF - 1), files=(MEMORY, MEMORY)), "overlaps the memory"),
    (table(A, replace(B, user=A.user + 1), files=(MEMORY, MEMORY)), "overlaps the user"),
    (table(replace(A, size=0)), "is empty"),
    (table(replace(A, gpa=(1 << 64) - 4096)), "wraps"),
    (table(replace(A, offset=HALF + 1)), "bytes into a file of"),
    (table(region(), files=(FileKind.SHORT_MEMORY,)), "into a file of 0x1000"),
    (table(region(), files=(FileKind.EMPTY_MEMORY,)), "into a file of 0x0"),
    (table(region(), files=(FileKind.READ_ONLY_MEMORY,)), "cannot be mapped"),
    (table(region(), files=(EVENT,)), "no memory file"),
    (table(MemoryRegion(0, HALF, 1 << 40, 0)), "ring 0: the descriptor table"),
    (Step(R.ADD_MEM_REG, payload=region().pack_single(), files=(FileKind.OTHER_MEMORY,)),
     "overlaps"),
    (Step(R.ADD_MEM_REG, payload=region().pack_single()), "0 file descriptors; it takes 1"),
    (Step(R.REM_MEM_REG, payload=A.pack_single()), "was never added"),
    # rings outside of memory, while running
    (Step(R.SET_VRING_ADDR, payload=replace(ring_address(1), desc=0x1234).pack()),
     r"ring 1: the descriptor table \(4096 bytes at user address 0x1234\)"),
    (Step(R.SET_VRING_ADDR, payload=replace(ring_address(1), avail=USER + MEMORY_SIZE - 8).pack()),
     r"ring 1: the avail ring \(518 bytes at user"),
    (Step(R.SET_VRING_ADDR, payload=replace(ring_address(0), used=(1 << 64) - 4).pack()),
     "ring 0: the used ring"),
    (Step(R.SET_VRING_ADDR, payload=replace(ring_address(0), desc=USER + 8).pack()),
     "not aligned to 16"),
    (Step(R.SET_VRING_ADDR, payload=replace(ring_address(0), avail=USER + 1).pack()),
     "not aligned to 2"),
    (Step(R.SET_VRING_ADDR, payload=replace(ring_address(0), used=USER + 2).pack()),
     "not aligned to 4"),
    (state(R.SET_VRING_NUM, 1, 32768), "ring 1: the descriptor table"),
]


@pytest.mark.parametrize(("step", "says"), BAD)
def test_it_ends_with_a_reason(served: Dialogue, step: Step, says: str) -> None:
    assert served.say(step) == []
    assert served.end is End.ERROR
    assert re.search(says, served.reason), served.reason
    assert not served.target.attached
    assert served.back_end.memory.regions == []


@pytest.mark.parametrize(("step", "says"), [b for b in BAD if b[0].flags == VERSION])
def test_a_front_end_that_asked_is_told(served: Dialogue, step: Step, says: str) -> None:
    replies = served.say(replace(step, flags=VERSION | NEED_REPLY))
    assert served.end is End.ERROR
    framing = step.declared is not None or len(step.files) > 32
    assert [unpack_u64(m.payload) for m in replies] == ([] if framing else [1])


NOT_SERVED = [s.number for s in SPECS.values() if not s.served] + [0, 45, 999]


@pytest.mark.parametrize("number", NOT_SERVED)
@pytest.mark.parametrize("attached", [(), (EVENT,), (MEMORY, FileKind.PIPE)])
def test_requests_that_are_not_served(new_talk: Callable[..., Dialogue], number: int,
                                      attached: tuple[FileKind, ...]) -> None:
    """Refused: the conversation goes on if the front end can be told, and ends otherwise."""
    talk = new_talk()
    talk.play(running())
    (reply,) = talk.say(Step(number, VERSION | NEED_REPLY, bytes(8), attached))
    assert (reply.request, reply.flags, unpack_u64(reply.payload)) == (number, 5, 1)
    assert (talk.end, talk.target.served) == (None, [0, 1])
    talk.say(Step(number, payload=bytes(8), files=attached))
    assert talk.end is End.ERROR
    assert talk.reason.endswith("is not supported")


@pytest.mark.parametrize("spec", [s for s in SPECS.values() if s.served and s.gate is not None])
def test_requests_without_their_protocol_feature(talk: Dialogue, spec: object) -> None:
    assert spec in SPECS.values()
    number = spec.number  # type: ignore[attr-defined]
    size, count = SPECS[number].payload.fewest, SPECS[number].fds[0]
    talk.say(Step(number, VERSION | NEED_REPLY, bytes(size), (MEMORY,) * count))
    assert talk.end is End.ERROR
    assert "without the protocol feature" in talk.reason


@pytest.mark.parametrize("mtu", [0, 67, 9001, 65536, 1 << 63])
def test_an_mtu_that_cannot_be_served(served: Dialogue, mtu: int) -> None:
    (reply,) = served.say(Step(R.NET_SET_MTU, VERSION | NEED_REPLY, pack_u64(mtu)))
    assert unpack_u64(reply.payload) == 1
    assert (served.end, served.back_end.mtu) == (None, 0)
    served.say(u64(R.NET_SET_MTU, mtu))
    assert "MTU" in served.reason


def test_as_many_regions_as_slots(new_talk: Callable[..., Dialogue]) -> None:
    talk = new_talk()
    talk.back_end.mem_slots = 4
    talk.say(TAKE_ALL)
    for i in range(4):
        talk.say(Step(R.ADD_MEM_REG, payload=region(i, 8).pack_single(), files=(MEMORY,)))
    assert talk.end is None, talk.reason
    talk.say(Step(R.ADD_MEM_REG, payload=region(4, 8).pack_single(), files=(MEMORY,)))
    assert "more than 4 memory regions" in talk.reason


def test_rings_outside_memory_matter_only_when_they_start(talk: Dialogue) -> None:
    steps = running()
    steps[4] = Step(R.SET_VRING_ADDR, payload=replace(ring_address(0), desc=64).pack())
    talk.play(steps[:6])
    assert talk.end is None, talk.reason
    talk.play(steps[6:7])  # SET_VRING_KICK of ring 0 completes it
    assert talk.reason.startswith("SET_VRING_KICK: ring 0: the descriptor table (4096 bytes")


@pytest.mark.parametrize("features", [FEATURES, FEATURES & ~(1 << 29)])
def test_event_words_count_only_with_event_idx(talk: Dialogue, features: int) -> None:
    """A used ring that ends with the memory, its event word outside (VIRTIO 1.2, 2.7.8)."""
    steps = running()
    steps[1] = u64(R.SET_FEATURES, features)
    used = USER + MEMORY_SIZE - (4 + 8 * RING_SIZE)
    steps[4] = Step(R.SET_VRING_ADDR, payload=replace(ring_address(0), used=used).pack())
    talk.play(steps)
    if features >> 29 & 1:
        assert "the used ring (2054 bytes" in talk.reason
    else:
        assert talk.target.served == [0, 1]


@pytest.mark.parametrize("n", [0, 1, 11, 12, 13, 51])
def test_hang_up_in_the_middle(served: Dialogue, n: int) -> None:
    step = Step(R.SET_MEM_TABLE, payload=table(region()).payload, files=(MEMORY,), cut=n)
    served.play([step])
    assert served.end is End.CLOSED
    assert not served.target.attached


def test_the_first_reason_is_told_even_where_nobody_listens(served: Dialogue) -> None:
    served.write(Step(R.SET_FEATURES, VERSION | NEED_REPLY, pack_u64(1 << 63)))
    served.front.close()
    served.run()
    assert served.end is End.ERROR
    assert "not offered" in served.reason
