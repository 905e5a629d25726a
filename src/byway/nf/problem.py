# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a network function: where, what, and what to write instead.

Used by function.py and parameters.py, by byway.functions, which finds most of them, and by control,
whose messages guess as well. Uses nothing.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. ``file`` and ``line``: in the author's source (line 0: not known);
    ``message``: what is wrong there; ``fix``: what to write instead."""

    file: str
    line: int
    message: str
    fix: str

    @property
    def place(self) -> str:
        """File and line, as far as they are known."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        return f"{self.place}: {self.message}; {self.fix}"


class FunctionError(Exception):
    """A network function cannot be used; ``problems`` says all that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ParameterError(ValueError):
    """A parameter's value cannot be; the message names the parameter, the value and what can."""


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean "..."?' when a known word is near, else an empty text."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f'did you mean "{by_lower[found[0]]}"?' if found else ""
