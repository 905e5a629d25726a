# SPDX-License-Identifier: Apache-2.0
"""All checks of a back end, in the order in which they are made.

Used by cli.conform and the tests.
"""

from byway.conform.backend import (
    features,
    migration,
    net,
    notify,
    queues,
    regions,
    ring_states,
    rings,
    robust,
    transport,
)
from byway.conform.backend.bench import Bench
from byway.conform.outcome import Check


def all_checks() -> tuple[Check[Bench], ...]:
    """Every check of a back end."""
    return (*transport.CHECKS, *features.CHECKS, *regions.CHECKS, *rings.CHECKS,
            *ring_states.CHECKS, *notify.CHECKS, *net.CHECKS, *migration.CHECKS,
            *queues.CHECKS, *robust.CHECKS)
