# SPDX-License-Identifier: Apache-2.0
"""What became of a frame that a chain of network functions saw.

Used by plain.py, and by byway.functions for compiled chains, so that the two can be compared. Uses
verdicts.py.
"""

from dataclasses import dataclass

from byway.nf.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong with a frame: it is dropped, and counted at the instance with this."""

    kind: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``verdict``: of the last function that saw the frame. ``frame``: its bytes as it left the
    chain. ``copies``: what MIRROR and CLONE made: number of the port, bytes. ``fault``: what went
    wrong; the verdict is then a drop without a reason."""

    verdict: Verdict
    frame: bytes
    copies: tuple[tuple[int, bytes], ...] = ()
    fault: Fault | None = None

    @property
    def reason(self) -> str:
        """Why the frame was dropped, in the function's words."""
        return self.verdict.reason
