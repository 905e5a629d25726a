# SPDX-License-Identifier: Apache-2.0
"""An uplink with two remote hosts and two networks, fed with frames; for tests."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from byway.control.uplink import Uplink, UplinkAddress
from byway.machine.layout import address_of, alloc
from byway.packet.batch import ROWS, UNDECIDED, dropped, origin_word
from byway.packet.counters import COUNTERS
from byway.packet.reason import Reason
from byway.packet.tunnels import Remotes, Vnis
from byway.switch.fdb import FIRST_TUNNEL
from byway.testing.finishing import content
from byway.testing.frame_batch import FINISHED, Frame, FrameBatch, Unfinished
from byway.testing.stage_kernels import uplink_in, wrap_selected

PORT, NETWORK = 5, 2  # of the uplink's port, in plans
OWN_MAC = bytes.fromhex("02b100000001")
OWN = {4: bytes([192, 0, 2, 1]), 6: bytes.fromhex("20010db8000000000000000000000001")}
HOST = {4: bytes([192, 0, 2, 9]), 6: bytes.fromhex("20010db8000000000000000000000009")}
OTHER = {4: bytes([192, 0, 2, 10]), 6: bytes.fromhex("20010db800000000000000000000000a")}
VNI, NUMBER = 0x123456, 7
TUNNEL = FIRST_TUNNEL + 3


@dataclass(frozen=True)
class Left:
    """A frame that is left to the switch."""

    frame: bytes
    todo: Unfinished = FINISHED


@dataclass(frozen=True)
class Inner:
    """A frame out of a tunnel."""

    frame: bytes
    todo: Unfinished = FINISHED
    network: int = NUMBER
    tunnel: int = TUNNEL


@dataclass(frozen=True)
class Answer:
    """A frame that goes back."""

    frame: bytes
    todo: Unfinished = FINISHED


Result = Left | Inner | Answer | Reason


class Bed:
    """The uplink, its tables, a batch."""

    def __init__(self, version: int = 4, **changes: object) -> None:
        self.version = version
        self.settled = 0
        self.vnis, self.remotes = Vnis(), Remotes(self._settle)
        self.vnis.set(VNI, NUMBER, 1514)
        self.counters = alloc(COUNTERS, 2)  # of what came from the host, of what goes to it
        self.remotes.set(HOST[version], TUNNEL, address_of(self.counters))
        own = UplinkAddress(**{"ip": OWN[version], "mac": OWN_MAC, "mtu": 1500, **changes})
        self.uplink = Uplink(own, PORT, NETWORK, self.vnis, self.remotes, self._settle)
        self.frames = FrameBatch()
        self.origins = alloc(np.dtype("<i8"), ROWS)
        self.frames.batch.record["origins"] = address_of(self.origins)

    def _settle(self) -> None:
        self.settled += 1

    def way(self) -> int:
        """The way to the host."""
        return self.uplink.way(HOST[self.version], address_of(self.counters[1:]))

    def rx(self, given: Sequence[Frame], pieces: int = 1, now: int = 100) -> list[Result]:
        """What becomes of frames that come in."""
        n = self.place(given, pieces, now)
        self.take()
        return [self._result(k) for k in range(n)]

    def place(self, given: Sequence[Frame], pieces: int = 1, now: int = 100) -> int:
        """The first half of ``rx``: frames have come in; -> how many."""
        n = self.frames.place(given, [pieces])
        self.frames.batch.rows["out"][:n] = UNDECIDED
        self.frames.batch.record["now"] = now
        self.origins[:] = origin_word(NETWORK, PORT)
        return n

    def take(self) -> None:
        """The second half: the kernel."""
        uplink_in(self.uplink.address, self.frames.address)

    def _result(self, k: int) -> Result:
        row = self.frames.batch.rows[k]
        out, origin = int(row["out"]), int(self.origins[k])
        todo = Unfinished.of(int(row["offload"]))
        if out == UNDECIDED:
            if origin == origin_word(NETWORK, PORT):
                return Left(content(row), todo)
            return Inner(content(row), todo, origin >> 32, origin & 0xFFFFFFFF)
        if out >= 0:
            assert out == PORT
            return Answer(content(row), todo)
        return Reason(dropped(out))

    def tx(self, given: Sequence[bytes], vni: int = VNI, pieces: int = 1) -> list[bytes]:
        """The packets that frames to the host become."""
        n = self.frames.place(given, [pieces])
        self.frames.batch.record["vni"] = vni
        way = next(iter(self.uplink._ways.values()))[0]
        made = wrap_selected(address_of(way), self.frames.address, self.frames.selected, n)
        copies = self.frames.batch.copies
        rows = [copies[(int(a) - address_of(copies)) // copies.itemsize]
                for a in self.frames.chosen[:made]]
        assert not any(int(row["offload"]) for row in rows)
        return [content(row) for row in rows]
