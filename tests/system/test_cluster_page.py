# SPDX-License-Identifier: Apache-2.0
"""The commands of the manual's page about clusters, with the etcd that it speaks of."""

from pathlib import Path

import pytest

from tests.architecture.console import Session
from tests.architecture.sources import ROOT
from tests.system.peers.etcd import Etcd

PAGE = "how-to/run-a-cluster.md"

pytestmark = [pytest.mark.system, pytest.mark.compiled_only, pytest.mark.timeout(600)]


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    with Etcd(tmp_path, "127.0.41.9", 2379), Session() as session:
        session.run_page(ROOT / "docs" / PAGE)
