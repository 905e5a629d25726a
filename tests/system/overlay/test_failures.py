# SPDX-License-Identifier: Apache-2.0
"""What goes away in a cluster, and what is left: a switch, etcd, the underlay's cable.

After each failure everybody is reached again, and every host knows what there is and nothing else.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.overlay.bed import BLUE, TTL, Bed, Source
from tests.system.overlay.prober import Prober
from tests.system.overlay.stations import Seat
from tests.system.peers.process import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

SETTLE = 30.0  # seconds
CUT = 30.0  # seconds that the underlay is cut
OTHERS = "ACD"


@pytest.fixture(scope="module")
def bed(folder: Path) -> Iterator[Bed]:
    with Bed(folder, Source.CLUSTER) as made:
        made.wait_agreed()
        assert made.missing() == {}
        yield made


def names(bed: Bed, hosts: str) -> list[str]:
    """The stations that are on these hosts."""
    return [name for name, member in bed.members.items() if member.host in hosts]


def test_a_switch_is_killed(bed: Bed) -> None:
    """Others go on, and forget who was there after its lease; it comes back with its ports."""
    one, two = bed.members["blue1"], bed.members["blue7"]
    lost = bed.nodes["B"]
    with Prober(one, two.seat, interval=0.01) as prober:
        began = time.monotonic()
        lost.switch.kill()
        died = time.monotonic()
        wait_until(lambda: all("B" not in {host for host, _ in bed.nodes[name].known().values()}
                               for name in OTHERS), "the others have forgotten it", SETTLE)
        print(f"forgotten after {time.monotonic() - died:.1f} s (lease: {TTL} s)")
        assert bed.missing(bed.members[name] for name in names(bed, OTHERS)) == {}
        assert one.reached(bed.members["blue3"].seat.ips, tries=1) == set()
        lost.switch.start()
        again = time.monotonic()
        bed.wait_settled()
        took = bed.wait_agreed()
        assert bed.missing() == {}
        print(f"everybody agrees {took:.2f} s after its ports were up,"
              f" {time.monotonic() - again:.2f} s after it was started all is reached")
        assert prober.outage(began) < 1.0


def test_etcd_is_killed(bed: Bed) -> None:
    """Everybody goes on with what is known, for longer than any lease; then all is as before."""
    one, two = bed.members["blue1"], bed.members["blue8"]
    with Prober(one, two.seat, interval=0.01) as prober:
        began = time.monotonic()
        bed.etcd.kill()
        while time.monotonic() < began + 3 * TTL:
            assert bed.missing() == {}
        assert bed.differences() == {}
        bed.etcd.start()
        made = bed.make(Seat(BLUE, 41, "C"))
        bed.nodes["C"].add(made)
        bed.wait_settled()
        bed.wait_agreed()
        assert bed.missing() == {}
        bed.end(made)
        bed.wait_agreed()
        assert prober.outage(began) < 1.0


def test_etcd_loses_everything(bed: Bed) -> None:
    """Hosts write again what they have; nobody forgets anybody meanwhile."""
    one, two = bed.members["blue1"], bed.members["blue8"]
    with Prober(one, two.seat, interval=0.01) as prober:
        began = time.monotonic()
        bed.etcd.kill()
        bed.etcd.forget()
        bed.etcd.start()
        wait_until(lambda: len(bed.etcd.keys("/byway/entries/")) == len(bed.members),
                   "the hosts have written their entries again", SETTLE)
        bed.wait_agreed()
        assert bed.missing() == {}
        assert prober.outage(began) < 1.0


def test_the_underlay_is_cut(bed: Bed) -> None:
    """A host without its cable serves those who are there; what changed meanwhile, here and
    elsewhere, is known everywhere afterwards, though etcd has forgotten how it came about."""
    cut = bed.nodes["B"]
    cut.cut()
    ends = time.monotonic() + CUT
    within = [bed.members[name] for name in names(bed, "B")]
    outside = [bed.members[name] for name in names(bed, OTHERS)]
    assert bed.missing(within) == {}
    bed.end(bed.members["blue5"])
    outside = [member for member in outside if member.name != "blue5"]
    for seat in (Seat(BLUE, 42, "D"), Seat(BLUE, 43, "B")):
        bed.nodes[seat.host].add(bed.make(seat))
    bed.wait_settled()
    wait_until(lambda: all("B" not in {host for host, _ in bed.nodes[name].known().values()}
                           for name in OTHERS), "the others have forgotten it", SETTLE)
    bed.etcd.compact()
    while time.monotonic() < ends:
        assert bed.missing(within) == bed.missing(outside) == {}
        time.sleep(1.0)
    cut.mend()
    began = time.monotonic()
    bed.wait_agreed()
    wait_until(lambda: not bed.missing(), "everybody is reached", SETTLE)
    print(f"all is as it has to be {time.monotonic() - began:.1f} s after the cable was in again")
    assert bed.differences() == {}
    assert bed.leaks() == {}
