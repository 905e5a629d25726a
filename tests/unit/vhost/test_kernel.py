# SPDX-License-Identifier: Apache-2.0
"""vhost/kernel.py without a kernel that has it: the table of ioctls, and refusals.

What it does with one that has is seen in tests/system/test_vhost_kernel.py.
"""

import os
from pathlib import Path

import pytest

from byway.vhost.kernel import RING_FEATURES, Ioctl, KernelVhost
from byway.virtio.features import Feature, has


def test_the_ioctls_are_those_of_the_header() -> None:
    """As gcc prints them for linux/vhost.h on x86-64 (Linux 6.1)."""
    assert {ioctl.name: ioctl.request for ioctl in Ioctl} == {
        "GET_FEATURES": 0x8008AF00, "SET_FEATURES": 0x4008AF00, "SET_OWNER": 0xAF01,
        "RESET_OWNER": 0xAF02, "SET_MEM_TABLE": 0x4008AF03, "SET_VRING_NUM": 0x4008AF10,
        "SET_VRING_ADDR": 0x4028AF11, "SET_VRING_BASE": 0x4008AF12, "GET_VRING_BASE": 0xC008AF12,
        "SET_VRING_KICK": 0x4008AF20, "SET_VRING_CALL": 0x4008AF21, "SET_VRING_ERR": 0x4008AF22,
        "NET_SET_BACKEND": 0x4008AF30}


def test_the_bit_that_means_something_else_is_never_taken() -> None:
    assert not has(RING_FEATURES, Feature.ANY_LAYOUT)


def test_no_device(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KernelVhost(str(tmp_path / "vhost-net"))


def test_a_device_of_another_kind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="SET_OWNER: Inappropriate ioctl"):
        KernelVhost("/dev/null")
    assert len(os.listdir("/proc/self/fd")) <= before
