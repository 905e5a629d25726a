# SPDX-License-Identifier: Apache-2.0
"""The frames of test traffic as they arrive, taken apart with struct."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from byway.machine.jit import prepare
from byway.testing.exchange import Exchange
from byway.testing.frame_batch import FINISHED, Unfinished
from byway.testing.frames import TEST_ETHERTYPE, checksum
from byway.testing.guest import Guest
from byway.testing.traffic import traffic_run
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch

OFFLOADS = mask(Feature.CSUM, Feature.GUEST_CSUM, Feature.HOST_TSO4, Feature.GUEST_TSO4,
                Feature.MRG_RXBUF)
BRIEFLY = 0.001


@contextmanager
def asking(folder: Path, exchange: dict[str, Any],
           **options: Any) -> Iterator[tuple[Guest, Guest, Exchange]]:
    """Two guests; the first one's requests wait at the second."""
    prepare([traffic_run])  # not in the time that it is given
    with RunningSwitch(folder, stepped=True) as switch:
        switch.network()
        for name in ("vm1", "vm2"):
            switch.add("vhost-user", name, queues=options.get("pairs", 1))
        with switch.guest("vm1", 1, **options) as one, switch.guest("vm2", 2, **options) as two:
            asks = Exchange(one, two.mac, **exchange)
            asks.run(BRIEFLY)
            switch.settle()
            assert switch.drops() == {}
            yield one, two, asks


def ipv4(frame: bytes) -> tuple[int, bytes, bytes]:
    """Protocol, pseudo-header without length, and what IP carries; its header is checked."""
    assert frame[12:15] == b"\x08\x00\x45"
    header = frame[14:34]
    assert checksum(header) == 0
    assert int.from_bytes(header[2:4], "big") == len(frame) - 14
    assert header[12:20] == bytes([10, 0, 0, 1, 10, 0, 0, 2])
    return header[9], header[12:20] + bytes([0, header[9]]), frame[34:]


def test_plain(tmp_path: Path) -> None:
    with asking(tmp_path, {"sizes": (60, 100), "window": 8}) as (one, two, asks):
        frames = two.receive()
        assert [len(frame) for frame in frames] == [60, 100] * 4
        for number, frame in enumerate(frames):
            assert frame[:14] == two.mac + one.mac + struct.pack(">H", TEST_ETHERTYPE)
            assert struct.unpack_from("<BxxxxxQ", frame, 14) == (1, number)
        assert asks.statistics()["sent"] == asks.statistics()["waiting"] == 8


def test_flows(tmp_path: Path) -> None:
    """UDP: each queue pair asks from ports of its own, and the destination port says nothing."""
    with asking(tmp_path, {"sizes": (90,), "window": 64, "flows": 4}, pairs=2) as (_, two, _):
        ports = []
        for frame in two.receive(1000):
            protocol, _, udp = ipv4(frame)
            source, destination, length, sum_ = struct.unpack_from(">HHHH", udp)
            assert (protocol, destination, length, sum_) == (17, 7, len(udp), 0)
            number = struct.unpack_from("<BxxxxxQ", udp, 8)[1]
            ports.append(source)
            assert (source - 1024) // 2 == number % 4
        assert len(ports) == 64
        assert set(ports) <= set(range(1024, 1032))


def test_frames_to_be_cut(tmp_path: Path) -> None:
    """TCP: the checksum field holds the pseudo-header's sum, what is longer is to be cut."""
    sizes = (94, 1502, 1503, 60000)
    with asking(tmp_path, {"sizes": sizes, "window": 4, "gso_size": 1448}, features=OFFLOADS,
                size=512) as (_, two, _):
        found = two.receive_unfinished()
        assert [len(frame) for _, frame in found] == list(sizes)
        for todo, frame in found:
            protocol, pseudo, tcp = ipv4(frame)
            cut = len(frame) > 54 + 1448
            assert todo == Unfinished(1, 1 if cut else 0, 1448 if cut else 0, 34, 16)
            assert protocol == 6
            whole = pseudo + struct.pack(">H", len(tcp))
            assert int.from_bytes(tcp[16:18], "big") == 0xFFFF ^ checksum(whole)
            assert tcp[12] == 0x50


def test_a_receiver_without_offloads(tmp_path: Path) -> None:
    """The switch finishes what it does not take: the same test frames, no longer than its MTU."""
    prepare([traffic_run])
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1, features=OFFLOADS) as one, switch.guest("vm2", 2) as two:
            asks = Exchange(one, two.mac, sizes=(94, 1502), window=4, gso_size=1448)
            asks.run(BRIEFLY)
            switch.settle()
            found = two.receive_unfinished()
            assert [len(frame) for _, frame in found] == [94, 1502] * 2
            for todo, frame in found:
                _, pseudo, tcp = ipv4(frame)
                assert todo == FINISHED
                assert checksum(pseudo + struct.pack(">H", len(tcp)) + tcp) == 0


@pytest.mark.parametrize(("options", "message"), [
    ({"flows": 1, "sizes": (55,)}, "at least 56 bytes"),
    ({"gso_size": 1000, "sizes": (67,)}, "at least 68 bytes"),
    ({"gso_size": 1000, "sizes": (65558,)}, "at most 65557 bytes")])
def test_sizes_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1")
        with switch.guest("vm1", 1) as guest, pytest.raises(ValueError, match=message):
            Exchange(guest, bytes(6), **options)
