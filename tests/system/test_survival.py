# SPDX-License-Identifier: Apache-2.0
"""A hundred times the switch is killed under full load, and a new one goes on with the same rings.

Two guests ask and answer with numbered frames, as fast as they can, each in a thread. SIGKILL comes
at any moment. Then nobody has told the rings anything: what the dead switch had done is what stands
in them and in the in-flight region. Each guest hands the same memory to the next switch. The driver
finds a buffer that is given back twice, or one that was never given (its ring is broken then); a
frame that never arrives is a request or an answer that is missing in the end.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from byway.testing.exchange import Exchange
from byway.virtio.features import Feature, mask
from tests import exchanging
from tests.system.peers.process import wait_until
from tests.system.peers.survivor import Survivor
from tests.system.peers.switch import Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

KILLS = 50  # in each format
MACS = ("02:00:00:06:00:01", "02:00:00:06:00:02")
FEATURES = mask(Feature.EVENT_IDX)
ENOUGH = 200  # answers that prove that all runs
LONGEST = 0.15  # seconds between the moment when all runs and SIGKILL


class Lab:
    """A switch and two guests that never stop asking each other."""

    def __init__(
        self, stack: ExitStack, folder: Path, cpus: tuple[int, int], packed: bool
    ) -> None:
        self.sockets = [folder / "vm1.sock", folder / "vm2.sock"]
        ports = [Port(socket.stem, socket) for socket in self.sockets]
        self.switch = stack.enter_context(Switch(folder, ports, workers=[cpus[0]]))
        self.guests = [
            stack.enter_context(
                Survivor.connect(str(socket), mac, features=FEATURES, packed=packed, inflight=True)
            )
            for socket, mac in zip(self.sockets, MACS, strict=True)
        ]
        one, two = self.guests
        self.exchanges = [
            Exchange(guest, peer.mac, sizes=exchanging.SIZES, window=64)
            for guest, peer in ((one, two), (two, one))
        ]
        self.release()

    def release(self) -> None:
        """Both guests are there: let go."""
        self.switch.wait_up()
        for guest in self.guests:
            guest.release()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Both guests ask and answer while the block runs, and are stopped after it."""
        for exchange in self.exchanges:
            exchange.record["stop"] = 0
        with exchanging.running([(exchange, True) for exchange in self.exchanges]):
            yield

    def answers(self) -> int:
        """Answers that came, to both."""
        return sum(exchange.statistics()["answers"] for exchange in self.exchanges)

    def replace_switch(self) -> None:
        """Start another switch and hand it what the dead one left."""
        self.switch.start()
        for guest, socket in zip(self.guests, self.sockets, strict=True):
            guest.reconnect(str(socket))
        self.release()

    def errors(self) -> list[str]:
        """What the drivers found wrong in their rings."""
        found = [guest.queues.error() for guest in self.guests]
        return [error.sentence for error in found if error is not None]


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def lab(
    request: pytest.FixtureRequest, own_folder: Path, cpus: tuple[int, int]
) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack, own_folder, cpus, request.param)


def test_nothing_is_lost_when_the_switch_is_killed(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    moments = random.Random(100)
    gaps = []
    for kill in range(KILLS):
        before = lab.answers()
        with lab.load():
            wait_until(lambda n=before: lab.answers() > n + ENOUGH, "frames go back and forth", 20)
            time.sleep(moments.random() * LONGEST)
            lab.switch.kill()
            died = time.monotonic()
        lab.replace_switch()
        gaps.append(time.monotonic() - died)
        assert lab.errors() == [], f"after {kill + 1} kills"
    exchanging.settle(lab.exchanges)
    found = [exchange.statistics() for exchange in lab.exchanges]
    again = sum(one["unexpected"] for one in found)
    gaps.sort()
    record_property("gap_seconds_median", round(gaps[KILLS // 2], 3))
    record_property("delivered_twice", again)
    print(f"{KILLS} kills, {sum(one['sent'] for one in found)} frames sent, {again} of them twice;"
          f" back after {gaps[KILLS // 2]:.2f} s (median), {gaps[-1]:.2f} s at most")
    for one in found:
        assert {key: one[key] for key in ("lost", "bad", "waiting", "leaked")} == {
            "lost": 0, "bad": 0, "waiting": 0, "leaked": 0}
        assert one["checked"] == one["received"]
    assert lab.errors() == []
    assert lab.switch.drops() == {}
