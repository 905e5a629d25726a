# SPDX-License-Identifier: Apache-2.0
"""spent: the rounds that a function may still take for the frame at hand.

Used by translated functions whose loops and calls may be more than their budget: one call for each
round of a loop, and for each call of a method or function of the author's. Uses instance.
"""

from byway.functions.instance import I
from byway.machine.jit import kernel
from byway.machine.mem import ld64, st64


@kernel(inline=True)
def spent(instance, fault):
    """Take one round from what is left; was there none? Then that is noted: ``fault``, its kind and
    place. The chain fills the budget up for each frame."""
    left = ld64(instance + I.left)
    st64(instance + I.left, left - 1)
    if left <= 0:
        st64(instance + I.fault, fault)
    return left <= 0
