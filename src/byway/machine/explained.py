# SPDX-License-Identifier: Apache-2.0
"""Numbers that kernels store and people read: each with a sentence.

Used by whoever has such numbers: why a virtqueue, a socket or an interface is of no use any more.
"""

from enum import IntEnum


class Explained(IntEnum):
    """Members are ``NAME = number, "sentence"``."""

    sentence: str

    def __new__(cls, value: int, sentence: str = "") -> "Explained":
        made = int.__new__(cls, value)
        made._value_ = value
        made.sentence = sentence
        return made
