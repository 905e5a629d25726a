# SPDX-License-Identifier: Apache-2.0
"""Shared memory: made here, mapped from elsewhere, sealed, unmapped."""

import os

import pytest

from byway.machine.regions import Region


def test_two_mappings_are_one_memory() -> None:
    made = Region.create(10000, "test")
    other = Region.map(made.fd, 5000, offset=4096)
    made.view[4096 + 17] = 99
    assert other.view[17] == 99
    assert (made.size, len(made.view), other.size, other.fd) == (10000, 10000, 5000, -1)
    assert other.address % 4096 == 0
    other.close()
    made.close()


def test_nobody_can_shrink_it() -> None:
    made = Region.create(4096)
    with pytest.raises(PermissionError):
        os.ftruncate(made.fd, 0)
    made.close()


def test_close_is_final_and_idempotent() -> None:
    made = Region.create(4096)
    fd = made.fd
    made.close()
    made.close()
    assert (made.fd, made.address) == (-1, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_what_cannot_be_mapped() -> None:
    read, write = os.pipe()
    with pytest.raises(OSError, match="cannot map 8192 bytes"):
        Region.map(read, 8192)
    os.close(read)
    os.close(write)
