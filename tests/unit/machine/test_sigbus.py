# SPDX-License-Identifier: Apache-2.0
"""A peer truncates the memory it shares: the process lives, and knows."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from byway.machine import sigbus
from byway.machine.layout import address_of, alloc

PROGRAM = """
import os
from byway.machine import sigbus
from byway.machine.layout import address_of, alloc
from byway.machine.regions import Region
from byway.testing.kernels import copy_bytes
import numpy as np

alarm = os.eventfd(0, os.EFD_NONBLOCK)
sigbus.install()
sigbus.install()
sigbus.set_alarm(alarm)
flags = alloc(np.dtype("<i8"), 2)
fd = os.memfd_create("guest")
os.ftruncate(fd, 65536)
other = Region.create(4096)
region = Region.map(fd, 65536)
slot = sigbus.add(region.address, 65536, address_of(flags))
sound = sigbus.add(other.address, 4096, address_of(flags) + 8)
target = np.full(65536, 7, np.uint8)
region.view[:] = 5
for _ in range(2):
    copy_bytes(address_of(target), region.address, 65536)
    os.ftruncate(fd, 4096)
assert sigbus.info(slot)["faults"] == 1, sigbus.info(slot)
assert target[4096:].tolist() == [0] * 61440, "zeroed memory lies there now"
assert region.view[:3].tolist() == [0, 0, 0]
assert flags.tolist() == [1, 0]
assert os.eventfd_read(alarm) == 1
assert sigbus.info(sound)["faults"] == 0
sigbus.remove(slot)
region.close()
print("survived")
if os.environ.get("FOREIGN"):
    os.ftruncate(fd, 0)
    stray = Region.map(fd, 4096)
    copy_bytes(address_of(target), stray.address, 10)
"""


def run(foreign: str) -> "subprocess.CompletedProcess[str]":
    src = Path(__file__).resolve().parents[3] / "src"
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100,
        env={**os.environ, "PYTHONPATH": str(src), "FOREIGN": foreign})


@pytest.mark.compiled_only
def test_the_process_survives() -> None:
    done = run("")
    assert (done.stdout, done.returncode) == ("survived\n", 0), done.stderr


@pytest.mark.compiled_only
def test_faults_of_others_end_it_as_ever() -> None:
    """An address that is not guarded: the previous handler, here the default one."""
    done = run("1")
    assert done.stdout == "survived\n", done.stderr
    assert done.returncode == -7


@pytest.mark.interpreted_only
def test_the_handler_itself() -> None:
    """Interpreted it is no signal handler, but it does the same."""
    alarm = os.eventfd(0, os.EFD_NONBLOCK)
    sigbus.install()
    sigbus.set_alarm(alarm)
    flag = alloc(np.dtype("<i8"), 1)
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    start = libc.mmap(None, ctypes.c_size_t(8192), 3, 0x22, -1, ctypes.c_long(0))
    ctypes.memset(start, 3, 8192)
    slot = sigbus.add(start, 8192, address_of(flag))
    info = np.zeros(16, np.int64)
    info[2] = start + 5000
    assert sigbus.on_sigbus(7, address_of(info), 0) == 0
    assert ctypes.string_at(start, 3) == bytes(3)
    assert (flag[0], os.eventfd_read(alarm)) == (1, 1)
    assert sigbus.info(slot) == {"start": start, "size": 8192, "faults": 1, "last": start + 5000}
    sigbus.remove(slot)
    sigbus.set_alarm(-1)
    libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(8192))
    os.close(alarm)


def test_slots_are_used_again() -> None:
    first = sigbus.add(1 << 40, 4096)
    second = sigbus.add(1 << 41, 4096)
    sigbus.remove(first)
    assert sigbus.add(1 << 42, 4096) == first
    sigbus.remove(first)
    sigbus.remove(second)
