# SPDX-License-Identifier: Apache-2.0
"""A process for every call has to start fast: what byway-cni loads, and how long that takes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cni_lab import fake_lab

OWN = {"byway", "byway_cni"}
SLOW = {"asyncio", "http", "inspect", "logging", "selectors", "socket", "subprocess", "threading",
        "urllib", "dataclasses", "traceback"}
MODULES = 120
SECONDS = 0.15  # of processor time, on a slow and busy machine; Python itself takes 0.02


def loaded(log: str) -> set[str]:
    """The modules that a process named in its import times (PYTHONPROFILEIMPORTTIME)."""
    return {line.rpartition("|")[2].strip() for line in log.splitlines()
            if line.startswith("import time:") and not line.endswith("imported package")}


def test_add_loads_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole ADD with addresses: nothing but the standard library's small modules and our own."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with fake_lab() as lab:
        runtime = lab.runtime()
        config = runtime.configuration(runtime.network["plugins"][0], None, {})
        outcome = runtime.call("ADD", config, "c1", lab.namespace(), "eth0")
        assert outcome.status == 0
    modules = loaded(outcome.log)
    assert "byway_cni.attach" in modules
    before = bare()
    strangers = {name for name in modules - before
                 if name.partition(".")[0] not in OWN | sys.stdlib_module_names}
    assert strangers == set()
    assert {name.partition(".")[0] for name in modules - before} & SLOW == set()
    assert len(modules - before) < MODULES
    assert {name for name in modules if name.startswith("byway.")} == {
        "byway.ipam", "byway.ipam.choose", "byway.ipam.pools", "byway.ipam.prefix",
        "byway.ipam.problem", "byway.ipam.store"}


def bare() -> set[str]:
    """What this installation's Python loads by itself."""
    done = subprocess.run([sys.executable, "-c", ""], capture_output=True, text=True, check=True)
    return loaded(done.stderr)


def test_it_starts_fast(tmp_path: Path) -> None:
    """The cheapest of some calls: processor time, which a busy machine does not lengthen much."""
    program = Path(sys.executable).with_name("byway-cni")
    config = (f'{{"cniVersion": "1.1.0", "name": "n", "type": "byway-cni",'
              f' "api": "{tmp_path}/none.sock", "state": "{tmp_path}/cni.db"}}')
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([program], input=config, text=True, capture_output=True, check=False,
                              env={**environment, "CNI_COMMAND": "STATUS"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 1
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(taken) < SECONDS
