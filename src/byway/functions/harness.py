# SPDX-License-Identifier: Apache-2.0
"""A chain without a switch: frames in, what became of them out.

Used by tests of functions, `byway nf check` and trial.py. Uses translate, memory and
harness_kernels.

    harness = Harness(RateGuard, limit=2)
    [outcome] = harness.run([frame], port=1, now=5_000)
    same(outcome, nf.Plain(RateGuard, limit=2).run([frame], port=1, now=5_000)[0])

It answers like nf.Plain, which runs the functions as they stand; so the two can be compared. With
NUMBA_DISABLE_JIT=1 the translated functions are interpreted.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from byway.functions.blueprint import Blueprint
from byway.functions.harness_kernels import frame_at, frames_in, frames_out
from byway.functions.instance import I
from byway.functions.memory import Chain, Instance
from byway.functions.translate import translate
from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.nf.function import definition
from byway.nf.outcome import Fault, Outcome
from byway.nf.verdicts import DROP, PASS, REDIRECT, REPLY, Verdict
from byway.packet.batch import MAX_FRAME, ROWS, UNDECIDED, Batch
from byway.packet.counters import COUNTERS
from byway.packet.reason import Reason

_HZ = 1e9  # so that ticks are nanoseconds
_WORD = np.dtype("<i8")
_DOWN = -1 - int(Reason.PORT_DOWN)


def blueprint_of(cls: type) -> Blueprint:
    """An author's class, translated. Raises FunctionError."""
    return translate(definition(cls), cls.__name__, {})


class Harness:
    """Functions in a chain; the arguments are those of nf.Plain. Raises FunctionError."""

    def __init__(self, functions: Any, *, ports: Mapping[str, int] | None = None, seed: int = 1,
                 **parameters: Any) -> None:
        chain = functions if isinstance(functions, list) else [(functions, parameters)]
        pairs = [each if isinstance(each, tuple) else (each, {}) for each in chain]
        number = (ports or {}).get
        self.now = 0
        self.instances = [
            Instance(blueprint_of(cls), given, lambda name: number(name, -1), lambda: self.now)
            for cls, given in pairs]
        for one in self.instances:
            one.record[I.random // 8] = seed
            for state in one.states.values():
                state.strict()
        self._chains: dict[str, Chain] = {}
        self.batch = Batch()
        self._selected = alloc(_WORD, ROWS, CACHE_LINE)
        self._counters = alloc(COUNTERS, 1, CACHE_LINE)
        self._room = np.zeros(MAX_FRAME, np.uint8)

    def chain(self, direction: Literal["rx", "tx"] = "rx") -> Chain:
        """The chain's code and record, for one direction: of the functions that have it."""
        if direction not in self._chains:
            there = [one for one in self.instances if one.blueprint.method(direction)]
            self._chains[direction] = Chain(there, direction, _HZ)
        return self._chains[direction]

    def run(self, frames: Iterable[bytes], *, port: int = 1, network: int = 1, vni: int = 0,
            now: int = 0, direction: Literal["rx", "tx"] = "rx", offload: int = 0) -> list[Outcome]:
        """What becomes of frames that come one after the other. ``now``: nanoseconds; ``offload``:
        what their sender left to do (packet.offload)."""
        record = self.batch.record[0]
        record["origin"], record["network"], record["vni"] = port, network, vni
        record["offloads"] = offload
        self.now = now
        chain = self.chain(direction)
        return [self._one(chain, frame, now, direction, port, offload) for frame in frames]

    def run_batch(self, frames: list[bytes], now: int = 0) -> list[int]:
        """Have frames come in together, at most ROWS; -> R.out of each (packet.batch)."""
        kept = [np.frombuffer(frame, np.uint8).copy() for frame in frames]
        self.fill(kept)
        self.now = now
        frames_in(self.chain().address, self.batch.address, now)
        return [int(out) for out in self.batch.rows["out"][:len(frames)]]

    def fill(self, frames: list[np.ndarray[Any, Any]], offload: int = 0) -> None:
        """Have the batch hold these frames, which stay where they are, as they come in."""
        for row, octets in zip(self.batch.rows, frames, strict=False):
            row["addr"], row["len"], row["out"] = address_of(octets), len(octets), UNDECIDED
            row["nsegs"], row["offload"] = 0, offload
        self.batch.record[0]["n"] = len(frames)

    # ------------------------------------------------------------ one frame
    def _one(self, chain: Chain, frame: bytes, now: int, direction: str, port: int,
             offload: int) -> Outcome:
        octets = np.frombuffer(frame or bytes(1), np.uint8).copy()
        self.fill([octets[:len(frame)]], offload)
        before = [(one.drops, one.counters["faults"]) for one in self.instances]
        row, goes_on, to = (self._came_in(chain, now) if direction == "rx"
                            else self._went_out(chain, now))
        fault = self._fault(before)
        verdict = PASS
        if fault is not None:
            verdict = DROP("")
        elif not goes_on:
            verdict = self._settled(to, port, before)
        elsewhere = direction == "tx" and not goes_on and to >= 0
        return Outcome(verdict, self._bytes(row), self._copies(int(elsewhere)), fault)

    def _came_in(self, chain: Chain, now: int) -> tuple[Any, bool, int]:
        """-> the row, whether it goes on, the port that it goes to instead (or a drop)."""
        frames_in(chain.address, self.batch.address, now)
        row = self.batch.rows[0]
        return row, int(row["out"]) == UNDECIDED, int(row["out"])

    def _went_out(self, chain: Chain, now: int) -> tuple[Any, bool, int]:
        """As ``_came_in``; a frame that goes elsewhere does so as its last copy."""
        self._counters["drops"] = 0
        kept = frames_out(chain.address, self.batch.address, now, address_of(self._selected),
                          address_of(self._counters))
        if kept:
            altered = int(self._selected[0]) == address_of(self.batch.altered)
            return (self.batch.altered if altered else self.batch.rows)[0], True, UNDECIDED
        if self._counters["drops"].any():
            return self.batch.rows[0], False, -1 - int(np.argmax(self._counters["drops"][0]))
        last = self.batch.clones[int(self.batch.record[0]["nclones"]) - 1]
        return last, False, int(last["out"])

    def _settled(self, to: int, port: int, before: list[tuple[dict[str, int], int]]) -> Verdict:
        if to == _DOWN:
            return REDIRECT(-1)
        if to >= 0:
            return REPLY if to == port else REDIRECT(to)
        for one, (drops, _) in zip(self.instances, before, strict=True):
            for reason, n in one.drops.items():
                if n > drops[reason]:
                    return DROP(reason)
        raise AssertionError("a frame was dropped, and nobody counted why")

    def _fault(self, before: list[tuple[dict[str, int], int]]) -> Fault | None:
        for one, (_, faults) in zip(self.instances, before, strict=True):
            if one.counters["faults"] > faults:
                return Fault(*one.fault_of(int(one.record[I.last_fault // 8])))
        return None

    def _copies(self, taken: int) -> tuple[tuple[int, bytes], ...]:
        """What CLONE and MIRROR made of a frame, without the ``taken`` last ones."""
        clones = int(self.batch.record[0]["nclones"]) - taken
        return tuple((int(one["out"]), self._bytes(one)) for one in self.batch.clones[:clones])

    def _bytes(self, row: Any) -> bytes:
        frame_at(int(row.__array_interface__["data"][0]), address_of(self._room))
        return self._room[:int(row["len"])].tobytes()


def same(compiled: Outcome, plain: Outcome) -> bool:
    """Did a frame fare the same? Compiled functions tell MIRROR and CLONE by the copies only, and
    what a frame that is dropped, or has no port to go to, looks like does not matter."""
    if compiled.fault and plain.fault:
        return (compiled.fault.kind, compiled.fault.line) == (plain.fault.kind, plain.fault.line)
    if compiled.fault or plain.fault:
        return False
    verdict = plain.verdict if plain.verdict.kind not in ("mirror", "clone") else PASS
    if verdict.kind == "drop":
        return compiled.verdict == verdict
    gone = verdict.kind == "redirect" and verdict.port < 0
    return (compiled.verdict == verdict and (gone or compiled.frame == plain.frame)
            and sorted(compiled.copies) == sorted(plain.copies))
