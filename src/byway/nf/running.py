# SPDX-License-Identifier: Apache-2.0
"""What a function that runs in plain Python finds around it: the time, and chance.

Used by now() and random() of the author's page; set by plain.py, one for each instance. Uses
nothing.
"""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Run:
    """``now``: nanoseconds since some start, the same for all frames of a batch. ``random``: the
    state of the instance's generator."""

    now: int = 0
    random: int = 1


RUN: ContextVar[Run] = ContextVar("byway_nf_run")
"""The instance at work. A function that is called by itself (in an author's debugger) has none."""


def current() -> Run:
    """The instance's, or a new one where a function is called by itself."""
    run = RUN.get(None)
    if run is None:
        run = Run()
        RUN.set(run)
    return run
