# SPDX-License-Identifier: Apache-2.0
"""The fake guest and its exchanges, against a real switch: what it sends, gets, counts, notices."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byway.machine.jit import INTERPRETED, prepare
from byway.testing.exchange import Exchange
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet, mac
from byway.testing.guest import Guest, GuestError
from byway.testing.traffic import traffic_pair, traffic_run
from byway.virtio.features import Feature, mask
from tests.exchanging import check, introduce, settle
from tests.running import RunningSwitch

SHORT = 0.05


@pytest.fixture
def guests(tmp_path: Path) -> Iterator[tuple[Guest, Guest]]:
    """Two guests of a running switch."""
    prepare([traffic_pair, traffic_run])
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            yield one, two


def frames_of(guest: Guest, lengths: list[int]) -> list[bytes]:
    return [ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, bytes([n & 0xFF]) * (n - 14))
            for n in lengths]


class TestGuest:
    """Frames in and out by hand."""

    def test_content(self, guests: tuple[Guest, Guest]) -> None:
        one, two = guests
        sent = frames_of(one, [60, 61, 127, 128, 129, 192, 193, 1514])
        assert one.send(sent) == len(sent)
        assert two.receive_until(len(sent)) == sent
        assert one.statistics() == {
            "sent": 8, "received": 0, "unsent": 0, "drops": {}}
        assert two.statistics()["received"] == 8

    def test_many(self, guests: tuple[Guest, Guest]) -> None:
        """More than a batch at once, and the ring around several times."""
        one, two = guests
        for _ in range(10):
            sent = frames_of(one, [60 + k for k in range(100)])
            assert one.send(sent) == 100
            assert two.receive_until(100) == sent

    def test_nothing_comes(self, guests: tuple[Guest, Guest]) -> None:
        one, _ = guests
        assert not one.wait(0.01)
        assert one.receive_until(1, 0.01) == []

    def test_too_long_for_its_own_buffers(self, guests: tuple[Guest, Guest]) -> None:
        one, _ = guests
        assert one.send(frames_of(one, [1523])) == 0

    def test_a_device_that_breaks_the_ring(self, guests: tuple[Guest, Guest]) -> None:
        one, _ = guests
        at = one.rx_queue.used + 2 - one.region.address
        one.region.view[at : at + 2] = np.frombuffer(b"\xff\x7f", np.uint8)
        with pytest.raises(GuestError, match="used index is ahead"):
            one.receive()

    def test_closed_twice(self, guests: tuple[Guest, Guest]) -> None:
        guests[0].close()


def test_the_ring_is_full(tmp_path: Path) -> None:
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1")
        with switch.guest("vm1", 1, size=8) as guest:
            assert guest.send(frames_of(guest, [60] * 20)) == 8
            assert guest.statistics()["unsent"] == 12
            switch.settle()
            assert guest.send(frames_of(guest, [60] * 3)) == 3


class TestExchange:
    """Numbered and checked traffic."""

    @pytest.mark.parametrize(("options", "message"), [
        ({"sizes": (27,)}, "at least 28 bytes"), ({"sizes": (1523,)}, "at most 1522 bytes"),
        ({"window": 48}, "power of two"), ({"window": 256}, "at most half a ring")])
    def test_refused(self, guests: tuple[Guest, Guest], options: dict[str, object],
                     message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Exchange(guests[0], guests[1].mac, **options)  # type: ignore[arg-type]

    def test_both_ends_in_one_thread(self, guests: tuple[Guest, Guest]) -> None:
        one, two = guests
        a, b = Exchange(one, two.mac, sizes=(60, 300), window=16), Exchange(two, one.mac, window=16)
        a.run_with(b, 0.5 if INTERPRETED else SHORT)
        for exchange in (a, b):
            exchange.record["stop"] = 0
        for _ in range(50):
            for exchange in (a, b):
                exchange.run(0.005, asking=False)
        found = a.statistics(), b.statistics()
        for s in found:
            assert s["received"] == s["checked"] > 0
            assert (s["lost"], s["bad"], s["unexpected"], s["leaked"], s["waiting"]) == (0,) * 5
        assert found[0]["answers"] + found[1]["answers"] == sum(s["sent"] for s in found) // 2

    def test_nobody_answers(self, guests: tuple[Guest, Guest]) -> None:
        """What does not come back in time is lost."""
        one, _ = guests
        asks = Exchange(one, mac("02:00:00:00:00:77"), window=8)
        asks.record["patience"] = 1
        asks.run(SHORT)
        found = asks.statistics()
        assert found["lost"] >= 8
        assert (found["answers"], found["received"]) == (0, 0)

    def test_what_it_notices(self, guests: tuple[Guest, Guest]) -> None:
        """Wrong content, an answer to nothing, a frame from elsewhere, other traffic."""
        one, two = guests
        checks = Exchange(two, one.mac, foreign=mac("02:00:00:00:00:66"))

        def number(kind: int, source: bytes = one.mac, to: bytes = two.mac) -> bytes:
            payload = bytes([kind, 0, 0, 0, 0, 0]) + (5).to_bytes(8, "little") + bytes(60)
            return ethernet(to, source, TEST_ETHERTYPE, payload)

        sent = [number(1), number(2), number(1, mac("02:00:00:00:00:66")),
                number(1, to=BROADCAST), ethernet(two.mac, one.mac, 0x0800, b"")]
        assert one.send(sent) == 5
        for _ in range(100):
            checks.run(0.01, asking=False)
            if sum(checks.statistics()[k] for k in ("received", "leaked", "other")) == 5:
                break
        found = checks.statistics()
        assert {k: found[k] for k in ("received", "bad", "unexpected", "leaked", "other")} == {
            "received": 2, "bad": 2, "unexpected": 1, "leaked": 1, "other": 2}


@pytest.mark.parametrize("names", [(), ("EVENT_IDX",), ("MRG_RXBUF", "EVENT_IDX")])
def test_features(tmp_path: Path, names: tuple[str, ...]) -> None:
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        features = mask(*(Feature[name] for name in names))
        with switch.guest("vm1", 1, features=features) as one, \
                switch.guest("vm2", 2, features=features, mtu=200) as two:
            acked = switch.port("vm2")["features"]["acked"]
            assert {name.lower() for name in names} <= set(acked)
            sent = frames_of(one, [60] * 50)
            one.send(sent)
            assert two.receive_until(50) == sent


PACKED = mask(Feature.RING_PACKED)
OFFLOADS = mask(
    Feature.CSUM, Feature.GUEST_CSUM, Feature.HOST_TSO4, Feature.GUEST_TSO4, Feature.MRG_RXBUF)
LARGE = {"sizes": (1000, 9000, 65000), "gso_size": 1448, "window": 8}


@pytest.mark.parametrize(("options", "exchange"), [
    ({"packed": True}, {}),
    ({"packed": True, "size": 100}, {}),
    ({"packed": True, "features": mask(Feature.EVENT_IDX, Feature.IN_ORDER)}, {}),
    ({"features": mask(Feature.IN_ORDER)}, {}),
    ({"pairs": 2}, {}),
    ({"packed": True, "pairs": 4, "features": mask(Feature.EVENT_IDX)}, {}),
    ({"features": OFFLOADS, "size": 1024}, LARGE),
    ({"packed": True, "features": OFFLOADS, "size": 999, "buffer": 2048}, LARGE),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else "")
def test_exchanges(tmp_path: Path, options: dict[str, Any], exchange: dict[str, Any]) -> None:
    """Every kind of ring and of traffic, both guests alike."""
    with RunningSwitch(tmp_path) as switch:
        switch.network()
        pairs = options.get("pairs", 1)
        for name in ("vm1", "vm2"):
            switch.add("vhost-user", name, queues=pairs)
        with switch.guest("vm1", 1, **options) as one, switch.guest("vm2", 2, **options) as two:
            if options.get("packed"):
                assert one.features & PACKED
            introduce(one, two)
            exchange = {"sizes": (60, 300, 1500), "window": 16, **exchange}
            ends = [Exchange(one, two.mac, **exchange), Exchange(two, one.mac, **exchange)]
            ends[0].run_with(ends[1], 0.5 if INTERPRETED else SHORT)
            settle(ends)
            assert switch.drops() == {}
            for end in ends:
                check(end, 8)
                assert end.statistics()["disordered"] == 0
            if pairs > 1:
                used = [int(queue.record["avail_idx"][0]) for queue in two.queues.rx]
                assert len(set(used)) > 1 or min(used) > 256, "all pairs are used"
