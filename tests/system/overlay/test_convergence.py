# SPDX-License-Identifier: Apache-2.0
"""How long it takes until a change at one host is known at another, in a cluster.

Somebody on host D asks all the time: the times are from the moment when host A was told to the
first answer on D, and for a machine that moves, how long nobody answered what was asked.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.overlay.bed import BLUE, Bed, Source
from tests.system.overlay.prober import Prober
from tests.system.overlay.stations import Seat, VirtualMachine
from tests.system.peers.process import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROUNDS = 21
MOVES = 10
REACHABLE = 0.1  # seconds, the median
MOVED = 0.2  # seconds
FIRST = 101  # the number of the first station that is made


@pytest.fixture(scope="module")
def bed(folder: Path) -> Iterator[Bed]:
    with Bed(folder, Source.CLUSTER) as made:
        made.wait_agreed()
        yield made


def told(record_property: Callable[[str, object], None], name: str, seconds: list[float]) -> float:
    """Note the median and the longest, in milliseconds; -> the median in seconds."""
    middle = statistics.median(seconds)
    record_property(f"{name}_ms_median", round(middle * 1e3, 1))
    record_property(f"{name}_ms_longest", round(max(seconds) * 1e3, 1))
    print(f"{name}: median {middle * 1e3:.0f} ms, longest {max(seconds) * 1e3:.0f} ms"
          f" of {len(seconds)}")
    return middle


def test_a_new_container_is_reachable(
    bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    """From the call that makes its port on A to the first answer, and to the first answer of D's
    own switch to an ARP request, at D."""
    asker = bed.members["blue7"]
    reached, resolved = [], []
    for k in range(ROUNDS):
        seat = Seat(BLUE, FIRST + k, "A")
        member = bed.make(seat)
        with Prober(asker, seat, arp=True) as prober:
            time.sleep(0.1)
            assert prober.echo.came == {}
            began = time.monotonic()
            bed.nodes["A"].add(member)
            wait_until(lambda p=prober: p.echo.came and p.arp.came, "an answer", 20)
            first, asked = prober.echo.first(began), prober.arp.first(began)
        assert first is not None
        assert asked is not None
        reached.append(first)
        resolved.append(asked)
        bed.end(member)
    told(record_property, "resolved", resolved)
    assert told(record_property, "reachable", reached) <= REACHABLE


def test_a_machine_that_moves_is_silent_for_moments(
    bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    """From A to B and back, as in a live migration: its new port is there before it comes."""
    asker, machine = bed.members["blue7"], bed.members["blue2"]
    assert isinstance(machine, VirtualMachine)
    silent = []
    for k in range(MOVES):
        here, there = (bed.nodes[name] for name in (("A", "B"), ("B", "A"))[k % 2])
        there.switch.client.add_port(machine.port(there.folder))
        wait_until(machine.socket(there.folder).exists, "its new port", 20)
        with Prober(asker, machine.seat, interval=0.005) as prober:
            wait_until(lambda p=prober: p.echo.came, "an answer", 20)
            time.sleep(0.2)
            began = time.monotonic()
            machine.move(there.folder)
            machine.host = there.name
            time.sleep(1.0)
            silent.append(prober.outage(began))
        here.switch.client.remove_port(machine.name)
        bed.wait_agreed()
    told(record_property, "silence", silent)
    assert max(silent) <= MOVED
    assert bed.missing() == {}
