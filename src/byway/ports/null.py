# SPDX-License-Identifier: Apache-2.0
"""The null port: swallows what is sent to it, and never sends anything.

Used to measure, and as a sink for traffic that shall go nowhere.
"""

from typing import Any

from byway.machine.jit import kernel
from byway.machine.mem import ld64
from byway.packet.batch import R
from byway.packet.counters import count_frames
from byway.ports.port import Port
from byway.ports.record import Kind

TAKES_ALL = -1


@kernel
def null_tx(counters, selected, n):
    """Count n rows as sent; -> n."""
    octets = 0
    for k in range(n):
        octets += ld64(ld64(selected + 8 * k) + R.len)
    count_frames(counters, n, octets)
    return n


class NullPort(Port):
    """Always up."""

    kind = Kind.NULL

    def open(self) -> None:
        self.txqs["takes"] = TAKES_ALL
        self.bring_up()

    def close(self) -> None:
        self.take_down("closed")

    def details(self) -> dict[str, Any]:
        return {"peer": None}
