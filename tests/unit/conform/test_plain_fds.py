# SPDX-License-Identifier: Apache-2.0
"""The plain back end outlives the fds that a front end hands over, whatever they are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from byway.conform.device import call
from byway.conform.plain_rings import PlainBackEnd


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends, of which the first may be closed meanwhile."""
    ours, theirs = os.pipe()
    for fd in (ours, theirs):
        os.set_blocking(fd, False)
    try:
        yield ours, theirs
    finally:
        os.close(theirs)


def kicked(fd: int) -> None:
    """What the plain back end does when a kick fd is readable."""
    PlainBackEnd.kicked(cast(PlainBackEnd, None), fd)


def test_a_call_fd_that_nobody_reads_any_more() -> None:
    """A check is over and its pipe closed, while the back end still calls."""
    with pipe() as (ours, theirs):
        os.close(ours)
        call(theirs)


def test_a_call_fd_that_is_full_or_none() -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        os.eventfd_write(fd, (1 << 64) - 2)
        call(fd)
        assert os.eventfd_read(fd) == (1 << 64) - 2
        call(fd)
        assert os.eventfd_read(fd) == 1
    finally:
        os.close(fd)
    call(-1)


def test_a_kick_fd_that_is_no_event_fd() -> None:
    """Fewer bytes than an event fd's counter are read, and are nothing to end for."""
    with pipe() as (ours, theirs):
        kicked(ours)
        os.write(theirs, b"few")
        kicked(ours)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)
        os.close(ours)


def test_a_kick_is_read_once() -> None:
    fd = os.eventfd(3, os.EFD_NONBLOCK)
    try:
        kicked(fd)
        kicked(fd)
        os.eventfd_write(fd, 2)
        assert os.eventfd_read(fd) == 2
    finally:
        os.close(fd)
