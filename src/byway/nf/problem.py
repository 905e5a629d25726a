# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a network function: where, what, and what to write instead.

Used by function.py and parameters.py, and by byway.functions, which finds most of them. Uses
nothing.
"""

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

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}; {self.fix}"


class FunctionError(Exception):
    """A network function cannot be used; ``problems`` says all that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ParameterError(ValueError):
    """A parameter's value cannot be; the message names the parameter, the value and what can."""
