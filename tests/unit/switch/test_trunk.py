# SPDX-License-Identifier: Apache-2.0
"""Trunk ports: which network a tag means, what is taken off and put on, what is dropped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.machine.layout import address_of, alloc
from byway.packet.batch import HEAD, MAX_FRAME, ROWS, UNDECIDED, dropped, origin_word
from byway.packet.counters import COUNTERS
from byway.packet.offload import NEEDS_CSUM
from byway.packet.reason import Reason
from byway.switch.trunk import LAST_TAG, SubPort, Trunk
from byway.testing.finishing import content
from byway.testing.frame_batch import FINISHED, Frame, FrameBatch, Unfinished
from byway.testing.stage_kernels import trunk_in, trunk_out

MACS = bytes(range(2, 14))
NATIVE = 1 << 32 | 7
EXAMPLES = 60 if INTERPRETED else 300
WORD = np.dtype("<i8")


def tagged(*tags: int, kind: int = 0x8100, length: int = 100) -> bytes:
    """A frame with these tags (all 16 bits of each)."""
    words = b"".join(kind.to_bytes(2, "big") + tag.to_bytes(2, "big") for tag in tags)
    return MACS + words + bytes.fromhex("88b5") + bytes(k * 5 & 0xFF for k in range(length - 14))


class Trunked:
    """A trunk port with native network 1 (port 7), and others by tag."""

    def __init__(self, networks: dict[int, tuple[int, int]], native: bool = True) -> None:
        self.trunk = Trunk(native)
        for tag, (network, port) in networks.items():
            self.trunk.set(tag, network, port)
        self.frames = FrameBatch()
        self.origins = alloc(WORD, ROWS)
        self.frames.batch.record["origins"] = address_of(self.origins)
        self.counters = alloc(COUNTERS, 1)

    def rx(self, given: list[Frame], pieces: int = 1) -> list[tuple[int, bytes] | Reason]:
        """What becomes of frames: (origin word, frame), or why not."""
        n = self.frames.place(given, [pieces])
        self.frames.batch.rows["out"][:n] = UNDECIDED
        self.origins[:] = NATIVE
        trunk_in(self.trunk.address, self.frames.address)
        return [(int(self.origins[k]), content(row)) if row["out"] == UNDECIDED
                else Reason(dropped(int(row["out"])))
                for k, row in enumerate(self.frames.batch.rows[:n])]

    def tx(self, sub: SubPort, given: list[Frame], pieces: int = 1) -> list[bytes]:
        """What goes out of frames to a sub-port."""
        n = self.frames.place(given, [pieces])
        kept = trunk_out(sub.address, self.frames.address, self.frames.selected, n,
                         address_of(self.counters))
        assert kept == n
        return [content(row) for row in self.listed(n)]

    def listed(self, n: int) -> list[np.void]:
        """The rows that the list names now."""
        copies = self.frames.batch.copies
        return [copies[(int(self.frames.chosen[k]) - address_of(copies)) // copies.itemsize]
                for k in range(n)]


def test_the_outer_tag_names_the_network() -> None:
    made = Trunked({10: (2, 8), 20: (3, 9)})
    assert made.rx([tagged(), tagged(10), tagged(20), tagged(20, kind=0x88A8)]) == [
        (NATIVE, tagged()), (origin_word(2, 8), tagged()), (origin_word(3, 9), tagged()),
        (origin_word(3, 9), tagged())]


def test_an_inner_tag_passes() -> None:
    made = Trunked({10: (2, 8)})
    assert made.rx([tagged(10, 20), tagged(10, 10), tagged(10, 20, 30)]) == [
        (origin_word(2, 8), tagged(20)), (origin_word(2, 8), tagged(10)),
        (origin_word(2, 8), tagged(20, 30))]


def test_priority_and_dei_are_no_part_of_the_tag() -> None:
    assert Trunked({10: (2, 8)}).rx([tagged(0xF00A)]) == [(origin_word(2, 8), tagged())]


def test_a_priority_tag_names_no_network() -> None:
    made = Trunked({10: (2, 8)})
    assert made.rx([tagged(0xE000), tagged(0xE000, 10)]) == [
        (NATIVE, tagged()), (NATIVE, tagged(10))]


def test_an_unknown_tag_is_dropped() -> None:
    made = Trunked({10: (2, 8)})
    assert made.rx([tagged(11), tagged(4095), tagged(10)]) == [
        Reason.VLAN_TAG, Reason.VLAN_TAG, (origin_word(2, 8), tagged())]
    assert made.trunk.tags() == [10]
    made.trunk.drop(10)
    assert made.rx([tagged(10)]) == [Reason.VLAN_TAG]


def test_without_a_native_network_untagged_frames_are_dropped() -> None:
    made = Trunked({10: (2, 8)}, native=False)
    assert made.rx([tagged(), tagged(0), tagged(10)]) == [
        Reason.VLAN_TAG, Reason.VLAN_TAG, (origin_word(2, 8), tagged())]


def test_a_tag_cut_off_is_no_tag() -> None:
    """Shorter than its own header: the frame is a runt. Others leave that to who decides."""
    made = Trunked({10: (2, 8)})
    whole = tagged(10)
    assert made.rx([whole[:n] for n in (1, 13, 14, 17, 18)]) == [
        (NATIVE, whole[:1]), (NATIVE, whole[:13]), Reason.RUNT, Reason.RUNT,
        (origin_word(2, 8), tagged()[:14])]


def test_what_was_dropped_stays_dropped() -> None:
    made = Trunked({10: (2, 8)})
    n = made.frames.place([tagged(10)])
    made.frames.batch.rows["out"][:n] = dropped(int(Reason.BAD_OFFLOAD))
    made.origins[:] = NATIVE
    trunk_in(made.trunk.address, made.frames.address)
    assert content(made.frames.batch.rows[0]) == tagged(10)


@settings(max_examples=EXAMPLES, deadline=None)
@given(length=st.sampled_from([14, 60, HEAD - 4, HEAD, HEAD + 1, 1500, MAX_FRAME - 8]),
       tag=st.integers(1, LAST_TAG), inner=st.lists(st.integers(0, 0xFFFF), max_size=2),
       pieces=st.integers(1, 16))
def test_off_and_on_again(length: int, tag: int, inner: list[int], pieces: int) -> None:
    made = Trunked({tag: (2, 8)})
    inside = tagged(*inner, length=length)
    assert made.tx(SubPort(tag), [inside, inside], pieces) == [
        tagged(tag, *inner, length=length)] * 2
    assert made.rx([tagged(tag, *inner, length=length)], pieces) == [(origin_word(2, 8), inside)]


def test_a_service_tag_goes_on() -> None:
    assert Trunked({}).tx(SubPort(10, 0x88A8), [tagged(20)]) == [
        MACS + bytes.fromhex("88a8 000a") + tagged(20)[12:]]


def test_the_trunk_port_itself_puts_nothing_on() -> None:
    made = Trunked({10: (2, 8)})
    n = made.frames.place([tagged()])
    before = made.frames.chosen.copy()
    assert trunk_out(made.trunk.address, made.frames.address, made.frames.selected, n, 0) == n
    assert (made.frames.chosen == before).all()


def test_what_would_pass_for_another_network_does_not_go_out_untagged() -> None:
    """Frames of the native network with a tag of their own; priority tags alone are none."""
    made = Trunked({10: (2, 8)})
    good = [tagged(), tagged(0), tagged(0xE000, 0), tagged()[:14], tagged()]
    bad = [tagged(10), tagged(11), tagged(0xE00A), tagged(10, kind=0x88A8), tagged(0, 10),
           tagged(0, 0, 0), tagged(0)[:15], tagged(10)[:14]]
    mixed = [frame for pair in zip(bad, [*good, *good], strict=False) for frame in pair]
    n = made.frames.place(mixed)
    kept = trunk_out(made.trunk.address, made.frames.address, made.frames.selected, n,
                     address_of(made.counters))
    rows = made.frames.batch.rows
    left = [content(rows[(int(made.frames.chosen[k]) - address_of(rows)) // rows.itemsize])
            for k in range(kept)]
    assert left == [frame for frame in mixed if frame in good]
    assert made.counters[0]["drops"][int(Reason.VLAN_TAG)] == len(bad)
    assert made.tx(SubPort(20), [tagged(10)]) == [tagged(20, 10)], "behind a tag they may"


def test_the_others_of_a_flood_get_no_tag() -> None:
    made = Trunked({})
    made.tx(SubPort(10), [tagged(length=300)])
    assert content(made.frames.batch.rows[0]) == tagged(length=300)


def test_a_whole_batch_in_many_pieces() -> None:
    made = Trunked({})
    frames = [tagged(length=200 + k) for k in range(ROWS)]
    expected = [tagged(10, length=200 + k) for k in range(ROWS)]
    assert made.tx(SubPort(10), frames, 16) == expected


def test_what_is_left_to_do_moves_with_the_tag() -> None:
    made = Trunked({10: (2, 8)})
    todo = Unfinished(NEEDS_CSUM, 1, 1448, 38, 16)
    made.rx([(todo, tagged(10, length=3000))])
    inside = Unfinished.of(int(made.frames.batch.rows[0]["offload"]))
    assert inside == Unfinished(NEEDS_CSUM, 1, 1448, 34, 16)
    made.tx(SubPort(10), [(inside, tagged(length=3000)), (FINISHED, tagged())])
    assert [int(row["offload"]) for row in made.listed(2)] == [todo.word, 0]


@pytest.mark.parametrize("tag", [-1, 0, 4095, 4096])
def test_tags_that_there_are_not(tag: int) -> None:
    with pytest.raises(ValueError, match="not between 1 and 4094"):
        Trunk().set(tag, 0, 0)
    with pytest.raises(ValueError, match="not between 1 and 4094"):
        SubPort(tag)


def test_types_that_are_no_tags() -> None:
    with pytest.raises(ValueError, match="0x0800 is no Ethernet type of VLAN tags"):
        SubPort(1, 0x0800)
