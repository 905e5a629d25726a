# SPDX-License-Identifier: Apache-2.0
"""Virtio headers that leave checksums and segments to do, in virtqueues of both formats."""

import contextlib
import struct
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from byway.packet.reason import Reason
from byway.testing.plain_queue import GUEST_CSUM, GUEST_TSO4
from tests.oracles.rings import EXAMPLES, frame, layouts, model, pair, setups

CSUM = 1 << 0


def tcp(length: int) -> bytes:
    """A frame of IPv4 and TCP, 54 bytes of headers."""
    head = bytes(12) + b"\x08\0\x45" + bytes(8) + b"\6" + bytes(22) + b"\x50"
    return head.ljust(54, b"\0") + frame(length, length - 54)


NEEDS_CSUM, TCPV4 = 1, 1
fields = st.tuples(
    st.sampled_from([0, 1, 1, 1, 2, 3, 0x80, 0x81, 255]),
    st.sampled_from([0, 0, 0, 1, 3, 0x80, 255]), st.integers(0, 65535), st.integers(0, 65535),
    st.integers(0, 130) | st.integers(0, 65535),
    st.integers(0, 130) | st.integers(0, 65535))


def left_to_do(flags: int, gso: int, start: int, offset: int, length: int) -> int | Reason:
    """The offload word of a frame that is not IP, or that its header makes no sense (5.1.6.2)."""
    if not flags & NEEDS_CSUM:
        return Reason.BAD_OFFLOAD if gso else 0
    sound = gso == 0 and start >= 14 and offset < 256 and start + offset + 2 <= length
    return NEEDS_CSUM | start << 32 | offset << 48 if sound else Reason.BAD_OFFLOAD


class TestOffloads:
    """Virtio headers where checksums and segments may be left to do (5.1.6)."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(setup=setups(), layout=layouts, wanted=st.lists(fields, min_size=1, max_size=4))
    def test_what_a_driver_leaves(self, regions, setup, layout, wanted) -> None:
        """From a header in any layout, each byte read once; frames of no protocol known."""
        p = pair(regions, replace(setup, features=setup.features | CSUM), receive=False)
        for flags, gso, hdr_len, size, start, offset in wanted:
            data = bytes(12) + b"\x88\xb5" + frame(start & 0xFF, 106)
            header = struct.pack("<BBHHHH", flags, gso, hdr_len, size, start, offset)
            try:
                p.driver.send(data, layout, header)
            except MemoryError:
                break
            p.driver.publish()
            with p.watched():
                got = p.device.borrow()
            expected = left_to_do(flags, gso, start, offset, len(data))
            if isinstance(expected, Reason):
                assert got == [expected]
            else:
                assert (got, p.device.offloads) == ([data], [expected])
            p.device.give_back()
            assert len(p.driver.reap()) == 1

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(setup=setups(), room=st.integers(20, 3000), layout=layouts,
           length=st.integers(200, 2500), size=st.sampled_from([0, 1, 100, 536]))
    def test_what_is_left_to_a_driver(self, regions, setup, room, layout, length, size) -> None:
        """``size``: of the segments that a frame is to be cut into, 0 for a checksum only."""
        p = pair(regions, replace(setup, features=setup.features | GUEST_CSUM | GUEST_TSO4),
                 receive=True)
        with contextlib.suppress(MemoryError):
            for _ in range(9):
                p.driver.add(room, layout)
        p.driver.publish()
        word = NEEDS_CSUM | 34 << 32 | 16 << 48 | (TCPV4 << 8 | size << 16 if size else 0)
        data = [tcp(length), frame(1, 60)]
        received, _ = model(p.driver, [data])
        p.device.place(data, (2, 1), (word, 0))
        with p.watched():
            sent = p.device.deliver(data, (2, 1), (word, 0))
        assert p.driver.receive_frames() == received
        assert sent == len(received)
        headers = [header[:10] for header in p.driver.headers]
        hdr_len = 54 if size else 52
        expected = {data[0]: struct.pack("<BBHHHH", 1, TCPV4 if size else 0, hdr_len, size, 34, 16),
                    data[1]: bytes(10)}
        assert headers == [expected[one] for one in received]
