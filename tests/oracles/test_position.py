# SPDX-License-Identifier: Apache-2.0
"""Where a packed ring goes on, as the ring itself says it, after chains of any lengths."""

from hypothesis import given, settings
from hypothesis import strategies as st

from byway.testing.plain_memory import Layout
from byway.testing.plain_queue import INDIRECT_DESC
from byway.virtio.position import packed_position
from byway.virtio.ring import PACKED_START
from tests.oracles.rings import EXAMPLES, PACKED, Setup, frame, pair

# What is done to a queue: frames sent in chains of so many slots each (0: an indirect one, which
# takes one); then, whether the device takes them, whether the driver takes its buffers back.
steps = st.lists(st.tuples(
    st.lists(st.sampled_from([1, 1, 1, 2, 3, 5, 0]), max_size=9), st.booleans(), st.booleans()),
    min_size=1, max_size=25)


def layout(slots: int) -> Layout:
    return Layout((), 0) if slots == 0 else Layout((20,) * (slots - 1))


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(size=st.sampled_from([1, 2, 3, 4, 5, 8, 16, 31]), todo=steps)
def test_what_the_device_took(regions, size: int, todo) -> None:
    p = pair(regions, Setup(size, PACKED | INDIRECT_DESC), receive=False)
    for chains, taken, reaped in todo:
        for slots in chains:
            if p.driver.room >= max(slots, 1):
                p.driver.send(frame(slots, 120), layout(slots))
        p.driver.publish()
        if taken:
            p.device.take()
        if reaped:
            p.driver.reap()
        row = p.device.queue[0]
        exact = int(row["last_avail"])
        for base in (PACKED_START, exact):
            found = packed_position(int(row["desc"]), int(row["used"]), size, base)
            assert found == exact, f"{found:#x} for base {base:#x}"
