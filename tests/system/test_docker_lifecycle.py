# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to Docker's containers, the plugin, the switch or dockerd: traffic works
afterwards, and nothing is left behind; docs/reference/docker-lifecycle.md says so.

The cases follow one another in one lab, so that each begins where another ended.
BYWAY_WRITE_LIFECYCLE=1 writes the page.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import lifecycle
from tests.system.engines.docker import PLUGINS
from tests.system.engines.station import beside
from tests.system.lifecycle import CASES, Case, Lab, Row
from tests.system.peers.process import wait_until

SETTLE = 30.0  # seconds within which nothing is left


@pytest.fixture(scope="module")
def lab(folder: Path, station_image: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack, folder, station_image)


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """What this run saw."""
    return {}


def test_the_page_has_a_row_for_each_case() -> None:
    found = lifecycle.parse(lifecycle.PAGE.read_text())
    assert [row.what for row in found] == [case.what for case in CASES]
    assert {(row.afterwards, row.left) for row in found} == {(lifecycle.TRAFFIC, "nothing")}


@pytest.mark.system
@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.act.__name__)
def test_life_goes_on(lab: Lab, case: Case, rows: dict[str, Row]) -> None:
    meanwhile = ""
    near, far = beside(lab.one.name, lab.one.pid), lab.two.address()
    near.reach(far)
    try:
        for _ in case.act(lab) or ():
            meanwhile = "goes on" if near.ping(far, 3) == 3 else "stands still"
    finally:
        lab.revive()
    lab.check()
    wait_until(lambda: not lab.left(), "nothing is left", SETTLE)
    rows[case.what] = Row(case.what, meanwhile, lifecycle.TRAFFIC, "nothing")


@pytest.mark.system
def test_the_page_says_what_was_seen(rows: dict[str, Row]) -> None:
    """Runs after the cases; what was not run is not compared."""
    if os.environ.get("BYWAY_WRITE_LIFECYCLE"):
        lifecycle.PAGE.write_text(lifecycle.page(rows[case.what] for case in CASES))
    written = {row.what: row for row in lifecycle.parse(lifecycle.PAGE.read_text())}
    assert rows == {what: written.get(what) for what in rows}


@pytest.mark.system
def test_nothing_at_all_is_left_in_the_end(lab: Lab) -> None:
    lab.docker.clear()
    wait_until(lambda: not lab.switch.ports(), "no port is left", SETTLE)
    assert lab.plugin.held() == set()
    assert lab.plugin.endpoints() == lab.plugin.left_overs() == set()
    assert lab.place.namespace.links() == set()
    lab.plugin.stop()
    assert not (PLUGINS / f"{lab.plugin.name}.sock").exists()
