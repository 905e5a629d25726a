# SPDX-License-Identifier: Apache-2.0
"""Checks of front ends: a right one passes, one that breaks a rule is found."""

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from byway.conform.backend.bench import Bench
from byway.conform.backend.session import Session, Setup
from byway.conform.device import DeviceRing
from byway.conform.frontend.bench import FrontBench
from byway.conform.frontend.catalogue import all_checks
from byway.conform.outcome import Failed, HungUp, Outcome, Verdict
from byway.conform.ring import SplitRing
from byway.conform.runner import run
from byway.conform.wire import u64
from byway.vhost.messages import NEED_REPLY, VERSION, Request
from byway.vhost.payloads import VringState
from byway.virtio.features import Feature, mask

WANTED = Setup(features=mask(Feature.VERSION_1, Feature.PROTOCOL_FEATURES, Feature.MRG_RXBUF))
PACKED = Setup(features=WANTED.features | mask(Feature.RING_PACKED), packed=True)


class Driver(Session):
    """A front end with a driver that gives its buffers back and sends a frame now and then."""

    def live(self) -> None:
        """Until it is hung up on."""
        self.run()
        sent = 0
        try:
            while True:
                self.wire.quiet(0.002)
                got = self.frames()
                for _ in got[:4]:
                    self.tx.poll()
                    if len(self.tx.free) > 8:
                        self.speak(sent)
                        sent += 1
        except Failed:
            return

    def speak(self, number: int) -> None:
        """Send one frame."""
        self.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01\x88\xb5" + bytes(50))
        self.flush()


class FrontEnd:
    """A driver that comes again whenever it is hung up on, in a thread of its own."""

    def __init__(self, path: str, kind: type[Driver], setup: Setup) -> None:
        self._path, self._kind, self._setup = path, kind, setup
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            bench = Bench(self._path, timeout=1.0)
            try:
                bench.known = True
                wire = bench.connect()
                bench.offered = wire.get_u64(Request.GET_FEATURES)
                bench.protocol_offered = wire.get_u64(Request.GET_PROTOCOL_FEATURES)
                session = self._kind(bench, self._setup, wire)
                bench.keep(session)
                session.live()
            except (Failed, HungUp):
                self._stop.wait(0.02)
            finally:
                bench.close()

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(10)


@contextmanager
def bench(folder: Path, kind: type[Driver] = Driver, setup: Setup = WANTED,
          timeout: float = 10.0) -> Iterator[FrontBench]:
    """A bench, and a front end of this kind that comes to it."""
    path = str(folder / "f.sock")
    made = FrontBench(path, timeout=timeout)
    front = FrontEnd(path, kind, setup)
    try:
        yield made
    finally:
        made.close()
        front.close()


@pytest.mark.parametrize("setup", [WANTED, PACKED], ids=["split", "packed"])
def test_a_right_front_end_passes_every_check(setup: Setup, tmp_path: Path) -> None:
    with bench(tmp_path, setup=setup) as made:
        outcomes: list[Outcome] = list(run(all_checks(), made))
    assert {o.name: o.seen for o in outcomes if o.verdict is Verdict.FAIL} == {}
    assert {o.name for o in outcomes if o.verdict is not Verdict.PASS} == {"status.order"}


def test_no_kick_is_asked_for_while_none_is_wanted(tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a moment: a driver that looks just then would be blamed for its kick."""
    asked, want_kicks = [], DeviceRing.want_kicks

    def noted(ring: DeviceRing, wanted: bool) -> None:
        asked.append(wanted)
        want_kicks(ring, wanted)

    monkeypatch.setattr(DeviceRing, "want_kicks", noted)
    with bench(tmp_path) as made:
        assert made.first.back_end.frames_in
    first, last = asked.index(False), len(asked) - asked[::-1].index(False)
    assert last - first > 10
    assert not any(asked[first:last])


class TakesMore(Driver):
    def negotiate(self) -> None:
        super().negotiate()
        self.wire.send(Request.SET_FEATURES, u64(self.features | mask(Feature.HASH_REPORT)))


class NeverEnables(Driver):
    def run(self, enable: bool = True) -> None:
        super().run(enable=False)


class AsksUngated(Driver):
    def negotiate(self) -> None:
        super().negotiate()
        self.wire.send(Request.GET_QUEUE_NUM)


class SaysUnknown(Driver):
    def negotiate(self) -> None:
        super().negotiate()
        self.wire.send(0x7000)


class NeedsReplies(Driver):
    def negotiate(self) -> None:
        self.wire.send(Request.SET_OWNER, flags=VERSION | NEED_REPLY)
        super().negotiate()


class FeaturesLate(Driver):
    def run(self, enable: bool = True) -> None:
        super().run()
        self.wire.set(Request.SET_FEATURES, u64(self.features ^ mask(Feature.MRG_RXBUF)))


class BadAddress(Driver):
    def speak(self, number: int) -> None:
        assert isinstance(self.tx, SplitRing)
        self.tx.describe(self.tx.desc, 1 << 50, 100, 0)
        self.tx.show(0)
        self.flush()


class UnaskedIndirect(Driver):
    def speak(self, number: int) -> None:
        self.send(bytes(60), direct=0)
        self.flush()


class DirtyHeader(Driver):
    def speak(self, number: int) -> None:
        self.send(bytes(60), header=bytes(10) + struct.pack("<H", 1))
        self.flush()


class KeepsBuffers(Driver):
    def live(self) -> None:
        self.refilled = False
        super().live()


class SmallBuffers(Driver):
    pass


class OddSize(Driver):
    def place(self, ring: object, base: int | None = None) -> None:
        self.wire.send(Request.SET_VRING_NUM, VringState(0, 100).pack())
        super().place(ring, base)  # type: ignore[arg-type]


class AlwaysKicks(Driver):
    def flush(self, ring: object = None) -> None:
        super().flush(ring)  # type: ignore[arg-type]
        self.tx.notify()


class Overlaps(Driver):
    def share(self) -> None:
        area = self.memory.areas[0]
        region = area.region.pack()
        self.wire.send(Request.SET_MEM_TABLE, struct.pack("=II", 2, 0) + region + region,
                       [area.fd, area.fd])


PLAIN = Setup(features=mask(Feature.VERSION_1, Feature.PROTOCOL_FEATURES), protocol=0)
MUTANTS = (
    (TakesMore, PLAIN, "features.offered-only"),
    (NeverEnables, PLAIN, "conversation.starts"),
    (AsksUngated, PLAIN, "conversation.gated"),
    (SaysUnknown, PLAIN, "conversation.known"),
    (NeedsReplies, PLAIN, "conversation.need-reply"),
    (FeaturesLate, PLAIN, "features.constant"),
    (BadAddress, PLAIN, "driver.addresses"),
    (UnaskedIndirect, PLAIN, "driver.unnegotiated"),
    (DirtyHeader, PLAIN, "driver.header"),
    (KeepsBuffers, PLAIN, "driver.accepts"),
    (SmallBuffers, Setup(features=PLAIN.features, protocol=0, buffer=600), "driver.buffer-size"),
    (OddSize, WANTED, "rings.size"),
    (AlwaysKicks, PLAIN, "driver.kicks-wanted-only"),
    (Overlaps, PLAIN, "memory.overlap"),
)


@pytest.mark.parametrize(("kind", "setup", "check"), MUTANTS,
                         ids=[kind.__name__ for kind, _, _ in MUTANTS])
def test_a_front_end_that_breaks_a_rule_is_found(kind: type[Driver], setup: Setup, check: str,
                                                 tmp_path: Path) -> None:
    (wanted,) = [c for c in all_checks() if c.name == check]
    patience = 1.0 if kind in (NeverEnables, KeepsBuffers) else 5.0  # these take all of it
    with bench(tmp_path, kind, setup, timeout=patience) as made:
        (outcome,) = run([wanted], made)
    assert outcome.verdict is Verdict.FAIL, outcome.seen


def test_nobody_comes(tmp_path: Path) -> None:
    made = FrontBench(str(tmp_path / "f.sock"), timeout=0.1)
    outcomes = list(run(all_checks()[:3], made))
    made.close()
    assert [o.verdict for o in outcomes] == [Verdict.FAIL] * 3
    assert "nobody came" in outcomes[0].seen
