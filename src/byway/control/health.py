# SPDX-License-Identifier: Apache-2.0
"""Whether an appliance of a service lets pass what is sent into it.

Used by services. Uses nothing: who sends the probes, and looks which came back, is its caller.

An appliance works when a probe has come back. It does not when so many in a row did not come back
as its service allows to miss; and it is not believed to when one of its ports was down, until the
next probe has come back.
"""


class Health:
    """One appliance's."""

    def __init__(self) -> None:
        self.asked = 0  # number of the last probe
        self._works = False
        self._missed = 0
        self._passed = 0  # calls of tick since the last probe

    def reset(self) -> None:
        """One of its ports came up, or went down."""
        self._works, self._missed = False, 0

    def tick(self, period: int) -> bool:
        """Called once a second; -> is it time for a probe?"""
        self._passed += 1
        due = self._passed >= period or not self._works
        self._passed = 0 if due else self._passed
        return due

    def ask(self, heard: int, misses: int) -> bool:
        """A probe is about to be sent, number ``asked``. ``heard``: number of the last one that
        came back; -> has what is thought of the appliance changed?"""
        before = self._works
        if self.asked and heard == self.asked:
            self._works, self._missed = True, 0
        elif self._works:
            self._missed += 1
            self._works = self._missed < misses
        self.asked += 1
        return self._works != before

    @property
    def trouble(self) -> str:
        """Why it does not work, in words; empty: it does."""
        if self._works:
            return ""
        return f"{self._missed} probes did not come back" if self._missed else (
            "no probe came back yet")
