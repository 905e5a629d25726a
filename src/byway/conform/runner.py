# SPDX-License-Identifier: Apache-2.0
"""Runs checks one after the other, and turns what they raise into outcomes.

Used by cli.conform and the tests. Once nobody answers at the socket any more, the check before is
told so, and the others are `unable`.
"""

import fnmatch
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from byway.conform.outcome import (
    Check,
    Failed,
    Gone,
    Level,
    NotApplicable,
    Outcome,
    Unable,
    Verdict,
)
from byway.vhost.connection import Closed
from byway.vhost.messages import ProtocolError


class Subject(Protocol):
    """What checks are made with."""

    def check(self) -> AbstractContextManager[None]:
        """Around each check."""

    def probe(self) -> None:
        """Gone where the peer does not answer any more."""


def select(checks: Sequence[Check[Any]], pattern: str | None) -> list[Check[Any]]:
    """The checks whose name fits: a shell pattern, or the beginning of names; all without one."""
    if not pattern:
        return list(checks)
    wanted = [p for p in pattern.split(",") if p]
    return [c for c in checks
            if any(fnmatch.fnmatchcase(c.name, p) or c.name.startswith(p + ".") for p in wanted)]


def run_one(check: Check[Any], subject: Any) -> tuple[Verdict, str]:
    """Make one check."""
    try:
        with subject.check():
            return Verdict.PASS, check(subject)
    except NotApplicable as why:
        return Verdict.NOT_APPLICABLE, str(why)
    except Unable as why:
        return Verdict.UNABLE, str(why)
    except (Failed, ProtocolError, Closed) as what:
        return Verdict.FAIL, str(what)
    except OSError as error:
        return Verdict.UNABLE, f"this machine: {error}"


def run(checks: Sequence[Check[Any]], subject: Subject,
        beginning: Callable[[Check[Any]], None] = lambda check: None) -> Iterator[Outcome]:
    """Make checks; yields each outcome as it is known. ``beginning`` is told of each before."""
    gone = ""
    for check in checks:
        began = time.monotonic()
        beginning(check)
        level = check.level
        if gone:
            verdict, seen = Verdict.UNABLE, gone
        else:
            verdict, seen = run_one(check, subject)
            try:
                subject.probe()
            except (Failed, ProtocolError) as error:
                gone = f"nobody has answered since {check.name}"
                # Whatever the check asked: a peer that is gone after it is no small thing.
                verdict, level = Verdict.FAIL, Level.MUST
                seen = f"{seen}; afterwards: {error}" if not isinstance(error, Gone) else \
                    f"{seen}; afterwards nobody answered ({error})"
        yield Outcome(check.name, level, check.section, check.done, verdict, seen,
                      time.monotonic() - began)
