# SPDX-License-Identifier: Apache-2.0
"""The bare copy copies all of every frame, over as many buffers as it takes, and says how long."""

import numpy as np
import pytest

from byway.machine.cpu import usable_cpus
from byway.testing.bare_copy import HEADER, BareCopy


@pytest.mark.parametrize(("length", "buffer", "flight"), [(60, 256, 4), (1514, 512, 4),
                                                          (65549, 4096, 2)])
def test_frames_arrive_whole(length: int, buffer: int, flight: int) -> None:
    each = -(-(length + HEADER) // buffer)
    ring = 3 * flight * each
    copy = BareCopy(length, buffer, ring, flight, passes=6)
    try:
        assert copy.run((usable_cpus()[0], usable_cpus()[-1])) > 0
        came = np.frombuffer(copy.target.view, np.uint8).reshape(-1, each * buffer)
        assert len(came) == 3 * flight
        assert (came[:, :length + HEADER] == copy.private[:length + HEADER]).all()
        assert not came[:, length + HEADER:].any()
        del came
    finally:
        copy.close()


def test_the_thread_stays_where_it_was() -> None:
    before = usable_cpus()
    copy = BareCopy(60, 256, 16, 4, passes=2)
    copy.run((before[0], before[-1]))
    copy.close()
    assert usable_cpus() == before
