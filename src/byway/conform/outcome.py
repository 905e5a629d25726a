# SPDX-License-Identifier: Apache-2.0
"""What a check is, and what comes of it.

Used by everything in this package. A check is a function that gets what it works with and returns
a sentence on what was seen; it raises one of the exceptions below where it does not pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Level(Enum):
    """How much the specification insists."""

    MUST = "must"
    SHOULD = "should"


class Verdict(Enum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not-applicable"
    UNABLE = "unable"


class Failed(Exception):
    """The peer did what it must not, or did not what it must; the text says what was seen."""


class HungUp(Failed):
    """The peer closed the connection where it should have gone on."""


class Gone(Failed):
    """Nobody answers at the socket any more."""


class NotApplicable(Exception):
    """The peer does not have what is checked; the text says what is missing."""


class Unable(Exception):
    """The check could not be made here; the text says what it needs."""


@dataclass(frozen=True)
class Check(Generic[T]):
    """One check. ``name`` is stable; ``section`` names its source; ``done`` says what is done."""

    name: str
    level: Level
    section: str
    done: str
    run: Callable[..., str]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, bench: T) -> str:
        """Make the check; -> what was seen."""
        return self.run(bench, **self.options)


@dataclass(frozen=True)
class Outcome:
    """What came of one check. ``seconds``: how long it took."""

    name: str
    level: Level
    section: str
    done: str
    verdict: Verdict
    seen: str
    seconds: float

    @property
    def counts(self) -> bool:
        """Whether it decides the exit status: a *must* that failed."""
        return self.verdict is Verdict.FAIL and self.level is Level.MUST

    def as_row(self) -> dict[str, Any]:
        """The outcome as JSON has it."""
        return {"name": self.name, "level": self.level.value, "section": self.section,
                "done": self.done, "verdict": self.verdict.value, "seen": self.seen,
                "seconds": round(self.seconds, 3)}


def must(name: str, section: str, done: str, run: Callable[..., str], **options: Any) -> Check[Any]:
    """A check of something that the specification demands."""
    return Check(name, Level.MUST, section, done, run, options)


def should(name: str, section: str, done: str, run: Callable[..., str],
           **options: Any) -> Check[Any]:
    """A check of something that the specification recommends, or that peers rely on."""
    return Check(name, Level.SHOULD, section, done, run, options)
