# SPDX-License-Identifier: Apache-2.0
"""A function that looks into the payload of what goes out leaves the row as it is: others may be
about to get it, when the place of the function's copy is another frame's already."""

from typing import Any

import pytest

from byway import nf
from byway.functions.harness import Harness
from byway.packet.batch import BUFFER, ROWS
from byway.testing.builders import udp


@nf.function
class Looks:
    """Reads beyond the head."""

    last = nf.Counter()

    def process(self, frame: nf.Frame) -> nf.Verdict:
        """Count what the last byte says."""
        self.last.add(frame.payload.u8(frame.payload.length - 1))
        return nf.PASS


@nf.function
class Writes:
    """Reads and writes there."""

    last = nf.Counter()

    def process(self, frame: nf.Frame) -> nf.Verdict:
        """Count what the last byte says, and set it."""
        self.last.add(frame.payload.u8(frame.payload.length - 1))
        frame.payload.set_u8(frame.payload.length - 1, 1)
        return nf.PASS


@pytest.mark.parametrize("function", [Looks, Writes])
def test_what_goes_out_stays_where_it_lies(function: type) -> None:
    harness: Any = Harness(function)
    data = udp(data=bytes(500) + b"\x07")
    [outcome] = harness.run([data], direction="tx")
    assert outcome.frame == (data[:-1] + b"\x01" if function is Writes else data)
    assert harness.instances[0].states["last"].dump()[0]["value"] == 7
    batch = harness.batch
    behind = int(batch.rows[0]["addr"]) - int(batch.record[0]["payloads"])
    assert not 0 <= behind < 3 * ROWS * BUFFER
