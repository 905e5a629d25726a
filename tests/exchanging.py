# SPDX-License-Identifier: Apache-2.0
"""Full-speed exchanges between guests of a running switch, each guest in a thread.

Used by tests/unit/worker and tests/hostile.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from byway.machine.jit import prepare
from byway.testing.exchange import Exchange
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.testing.traffic import traffic_run
from tests.running import RunningSwitch

SIZES = (60, 590, 1514, 64, 128, 129, 300)
FOR_EVER = 600.0


def introduce(*guests: Guest) -> None:
    """Let the switch learn where each guest is: a broadcast, which the others receive."""
    for guest in guests:
        assert guest.send([ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"")]) == 1
        for other in guests:
            if other is not guest:
                hear(other, guest.mac)


def hear(guest: Guest, source: bytes, seconds: float = 30.0) -> None:
    """Receive, until there is a frame from ``source``."""
    end = time.monotonic() + seconds
    while not any(frame[6:12] == source for frame in guest.receive_until(1, 0.2)):
        assert time.monotonic() < end, f"nothing from {source.hex(':')}"


def both(one: Guest, other: Guest) -> list[tuple[Guest, Guest | None]]:
    """Each asks the other."""
    return [(one, other), (other, one)]


@contextmanager
def running(exchanges: Sequence[tuple[Exchange, bool]]) -> Iterator[None]:
    """Each exchange runs in a thread until the block ends (True: it asks as well)."""
    prepare([traffic_run])
    threads = [threading.Thread(target=e.run, args=(FOR_EVER, asking), daemon=True)
               for e, asking in exchanges]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for exchange, _ in exchanges:
            exchange.stop()
        for thread in threads:
            thread.join(10.0)
        assert not any(thread.is_alive() for thread in threads)


@contextmanager
def exchanging(asks: Sequence[tuple[Guest, Guest | None]],
               window: int = 64) -> Iterator[list[Exchange]]:
    """Each guest asks its peer, if it has one, and answers whoever asks, until the block ends.

    Then the statistics are checked: nothing may be lost.
    """
    exchanges = [Exchange(guest, peer.mac if peer else b"", sizes=SIZES, window=window)
                 for guest, peer in asks]
    asking = [peer is not None for _, peer in asks]
    with running(list(zip(exchanges, asking, strict=True))):
        yield exchanges
    settle(exchanges)
    for exchange in exchanges:
        check(exchange)


@contextmanager
def chain(folder: Path) -> Iterator[tuple[Guest, Guest]]:
    """Two guests in two networks, which a virtio-user and a vhost-user port join."""
    with RunningSwitch(folder) as switch:
        switch.network("blue")
        switch.network("green")
        switch.vhost("vm1")
        switch.vhost("vm2", "trunk", network="green")
        switch.add("virtio-user", "uplink", socket=switch.socket("trunk"))
        switch.until(lambda: {switch.port(p)["state"] for p in ("uplink", "trunk")} == {"up"})
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            introduce(one, two)
            yield one, two
        assert switch.drops() == {}


def settle(exchanges: Sequence[Exchange], rounds: int = 5000) -> None:
    """Let everybody answer and collect answers, until nobody waits for any."""
    for _ in range(rounds):
        for exchange in exchanges:
            exchange.record["stop"] = 0
            exchange.run(0.002, asking=False)
        if not any(e.statistics()["waiting"] for e in exchanges):
            return


def check(exchange: Exchange, at_least: int = 100) -> None:
    """Everything came back, and came back right."""
    found = exchange.statistics()
    wrong = {k: found[k] for k in ("lost", "bad", "unexpected", "leaked", "waiting") if found[k]}
    assert wrong == {}, found
    assert found["checked"] == found["received"] >= at_least, found
