# SPDX-License-Identifier: Apache-2.0
"""What all kinds of state of a network function have in common.

Used by states.py (which has the kinds) and function.py. Uses nothing.
"""

from typing import Self


class State:
    """Something that a function keeps between frames. The one in the class says what it is like;
    each instance of the function has its own."""

    def fresh(self, owner: object) -> Self:
        """A new, empty one for the instance ``owner``, whose parameters it may name."""
        raise NotImplementedError
