# SPDX-License-Identifier: Apache-2.0
"""The vhost-kernel port where it cannot be: what is missing is named, and nothing is left behind.

What it does where it can be is seen in tests/system/test_vhost_kernel.py.
"""

import os
import socket
from pathlib import Path

import pytest

from byway.control.problem import EngineError
from byway.ports import vhost_kernel
from byway.vhost.kernel import KernelVhost
from tests.running import RunningSwitch


@pytest.mark.parametrize(("device", "problem", "fix"), [
    ("missing", "there is no /dev/vhost-net", "modprobe vhost_net"),
    ("null", "SET_OWNER: Inappropriate ioctl", "doctor"),
])
def test_no_vhost_net(switch: RunningSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                      device: str, problem: str, fix: str) -> None:
    path = "/dev/null" if device == "null" else str(tmp_path / "vhost-net")
    monkeypatch.setattr(vhost_kernel, "KernelVhost", lambda: KernelVhost(path))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(EngineError, match=problem) as caught:
        switch.add("vhost-kernel", "host", ifname="byway-test0", queues=3)
    assert fix in caught.value.fix
    assert len(os.listdir("/proc/self/fd")) <= before
    assert "byway-test0" not in {name for _, name in socket.if_nameindex()}
    assert switch.call(switch.engine.ports) == []
