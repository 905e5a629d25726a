# SPDX-License-Identifier: Apache-2.0
"""The machine code that a switch needs before its engine can start.

Used by the daemon, and by tests that make engines. Uses worker.
"""

from collections.abc import Callable

from byway.machine import sigbus
from byway.worker.worker import prepare as prepare_workers


def prepare(progress: Callable[[str], None], *, stages: bool = False) -> None:
    """Have the machine code of the data path ready; tells ``progress`` what it compiles.
    ``stages``: those are needed soon."""
    prepare_workers(progress, stages=stages)
    sigbus.install()
