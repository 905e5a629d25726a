# SPDX-License-Identifier: Apache-2.0
"""Hosts that know each other from configuration files lose a switch, and the underlay's cable.

Nobody tells them anything, so what they know is what it was; the other protocol of the underlay and
long frames are tried here, too.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.engines.station import INTERFACE
from tests.system.overlay import capture
from tests.system.overlay.bed import Bed
from tests.system.overlay.prober import Prober
from tests.system.peers.process import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SETTLE = 20.0  # seconds
CUT = 5.0
CLOSE = 0.5  # seconds that others may miss while one dies on a busy machine


@pytest.fixture(scope="module")
def bed(folder: Path) -> Iterator[Bed]:
    with Bed(folder) as made:
        yield made


def test_every_host_knows_what_it_was_told(bed: Bed) -> None:
    assert bed.differences() == {}


def test_a_switch_is_killed(bed: Bed) -> None:
    """The others do not notice; those behind it are back with the next one."""
    one, two, lost = bed.members["blue1"], bed.members["blue7"], bed.nodes["B"]
    others = [member for member in bed.members.values() if member.host != "B"]
    with Prober(one, two.seat, interval=0.01) as prober:
        began = time.monotonic()
        lost.switch.kill()
        assert bed.missing(others) == {}
        assert one.reached(bed.members["blue3"].seat.ips, tries=1) == set()
        again = time.monotonic()
        lost.switch.start()
        bed.wait_settled()
        wait_until(lambda: not bed.missing(), "everybody is reached", SETTLE)
        print(f"everybody is reached {time.monotonic() - again:.2f} s after it was started")
        assert prober.outage(began) < CLOSE
    assert bed.differences() == {}


def test_the_underlay_is_cut(bed: Bed) -> None:
    """Those on the same host go on; with the cable in again, all is as it was at once."""
    one, two, cut = bed.members["blue1"], bed.members["blue3"], bed.nodes["B"]
    within = [member for member in bed.members.values() if member.host == "B"]
    others = [member for member in bed.members.values() if member.host != "B"]
    with Prober(one, two.seat, interval=0.01) as prober:
        cut.cut()
        ends = time.monotonic() + CUT
        while time.monotonic() < ends:
            assert bed.missing(within) == bed.missing(others) == {}
        before = len(prober.echo.came)
        time.sleep(0.2)
        assert len(prober.echo.came) == before
        cut.mend()
        mended = time.monotonic()
        wait_until(lambda: len(prober.echo.came) > before, "an answer", SETTLE)
        print(f"answered {prober.echo.first(mended)} s after the cable was in again")
    assert bed.missing() == {}
    assert bed.differences() == {}


@pytest.mark.parametrize(("family", "mtu"), [(6, 1500), (4, 9000), (6, 9000)])
def test_other_underlays(own_folder: Path, family: int, mtu: int) -> None:
    with Bed(own_folder, hosts="AB", mtu=mtu, family=family) as bed:
        assert bed.missing() == {}
        one, two = bed.members["blue1"], bed.members["blue3"]
        assert f"mtu {bed.mtu}" in one.run(f"ip link show dev {INTERFACE}")
        assert one.ping(two.seat.ipv4, 3, f"-s {bed.mtu - 28}") == 3
        two.listen(own_folder)
        assert one.transfer(two, two.seat.ipv6) > 1 << 17


@pytest.mark.parametrize(("uplink", "family"), [("af-packet", 4), ("af-xdp", 4), ("af-packet", 6)])
def test_switches_that_speak_to_the_underlay_themselves(
    own_folder: Path, uplink: str, family: int
) -> None:
    """The hosts' kernels have no address there; a frame is no longer than the underlay allows."""
    with Bed(own_folder, hosts="AB", uplink=uplink, family=family) as bed:
        assert bed.missing() == {}
        assert bed.leaks() == {}
        one, two = bed.members["blue1"], bed.members["blue3"]
        assert one.ping(two.seat.ipv4, 3, f"-s {bed.mtu - 28}") == 3
        two.listen(own_folder)
        for options in ("", "--reverse"):
            assert one.transfer(two, two.seat.ipv4, options) > 1 << 17
        with capture.of(bed.underlay) as seen:
            assert bed.missing() == {}
        assert len(seen.tunnelled()) > 0
        assert seen.inner_groups() == [], seen.inner_kinds()
