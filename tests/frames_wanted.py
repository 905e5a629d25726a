# SPDX-License-Identifier: Apache-2.0
"""How many frames an oracle's test generates: few as a rule, as many as BYWAY_FRAMES says."""

import os

from tests.conftest import INTERPRETED

COMPILED_FRAMES, INTERPRETED_FRAMES = 5000, 1000


def frames_wanted() -> int:
    """Frames to compare; by hand: BYWAY_FRAMES=100000."""
    usual = INTERPRETED_FRAMES if INTERPRETED else COMPILED_FRAMES
    return int(os.environ.get("BYWAY_FRAMES", usual))
