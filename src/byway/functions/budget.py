# SPDX-License-Identifier: Apache-2.0
"""spent: the loop rounds that a function may still take for the frame at hand.

Used by translated functions whose loops may take more rounds than their budget: one call for each
round. Uses instance.
"""

from byway.functions.instance import I
from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64


@kernel(inline=True)
def spent(instance):
    """Take one round from what is left; was there none? The chain fills it up for each frame."""
    left = ld64(instance + I.left)
    st64(instance + I.left, left - 1)
    return left <= 0
