# SPDX-License-Identifier: Apache-2.0
"""All checks of a front end, in the order in which they are made.

Used by cli.conform and the tests.
"""

from byway.conform.frontend import conversation, driver
from byway.conform.frontend.bench import FrontBench
from byway.conform.outcome import Check


def all_checks() -> tuple[Check[FrontBench], ...]:
    """Every check of a front end."""
    return (*conversation.CHECKS, *driver.CHECKS)
