# SPDX-License-Identifier: Apache-2.0
"""The record of an instance: what a compiled function reaches its parameters and state by.

Used by translated functions (which have the places as constants), compose.py and control. Uses
machine.

    words 0 to 15    the header, INSTANCE
    from FIRST on    parameters, a word each (wide ones two: high, low)
    then             addresses of the states, a word each
    then             how many frames were dropped, a word for each reason

``fault``: what went wrong with the frame at hand: kind << 32 | place (0: nothing; place: line, and
above 20 bits the number of the source file). ``left``: rounds that the frame may still take.
``random``: state of the generator. ``seen``: frames that came to it. ``faults``, ``last_fault``:
frames dropped because something went wrong, and what it was the last time. ``lost``: copies
(MIRROR, CLONE) that there was no room for, or no port. ``high``: of an address of 128 bits that one
kernel hands to another, the high word.
"""

from byway.machine.layout import record

FIRST = 16  # words before the parameters
INSTANCE, instance_at, I = record("instance", [
    "fault", "left", "random", "seen", "faults", "last_fault", "lost", "high"], size=8 * FIRST)
# Kinds of faults, in the high half of ``fault``.
DIVISION, INDEX, BUDGET, VERDICT, SHIFT = 1, 2, 3, 4, 5
FAULTS = {DIVISION: "division by zero", INDEX: "index out of range",
          BUDGET: "work budget used up", VERDICT: "a port that there cannot be",
          SHIFT: "negative shift"}
LINE_BITS = 20
LINE_MASK, FILE_MASK = (1 << LINE_BITS) - 1, 0xFFF


def place(word: int) -> int:
    """Bytes from the record's beginning to its word number ``word``."""
    return 8 * word
