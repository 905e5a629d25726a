# SPDX-License-Identifier: Apache-2.0
"""Verdicts as compiled functions answer them: one word, the kind and a value.

Used by translated functions and by apply.py; uses nf, which has the kinds by name.

The value: of DROP, the index of the reason among those of the function's definition; of REDIRECT,
MIRROR and CLONE, the number of a port.
"""

from byway.machine.jit import kernel

PASS, DROP, REDIRECT, MIRROR, REPLY, CLONE = range(6)  # as in nf.verdicts.KINDS


@kernel
def verdict(kind, value):
    """The word for a kind and its value."""
    return kind | value << 8


@kernel
def kind_of(word):
    """Its kind."""
    return word & 0xFF


@kernel
def value_of(word):
    """Its value."""
    return word >> 8
