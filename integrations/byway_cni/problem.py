# SPDX-License-Identifier: Apache-2.0
"""Errors as CNI has them: a code, a sentence, details. Used by all of byway_cni.

Source: CNI specification 1.1.0, "Error" (code 1 to 99 are the specification's, from 100 our own).
"""

from enum import IntEnum


class Code(IntEnum):
    """What a runtime may conclude from an error."""

    VERSION = 1  # the configuration's cniVersion is none of ours
    UNSUPPORTED = 2  # a field has a value that cannot be served
    NO_CONTAINER = 3  # the container is gone: there is nothing to clean up
    ENVIRONMENT = 4  # CNI_... variables missing or wrong
    INPUT_OUTPUT = 5
    DECODE = 6  # what came on stdin is no JSON
    CONFIGURATION = 7  # the network's configuration is wrong
    NAMESPACE = 8  # CNI_NETNS is no network namespace (number of the reference library)
    LATER = 11  # try again later
    NOT_AVAILABLE = 50  # STATUS: ADD would fail now
    REFUSED = 100  # the switch refuses the port
    PRESENT = 101  # ADD: this attachment is there already
    ADDRESSES = 102  # no address could be had
    CHANGED = 103  # CHECK: something is not as ADD left it
    INTERNAL = 999


class CniError(Exception):
    """A call that failed: `problem` and `fix` in words; `details` is what another program said."""

    def __init__(self, code: Code | int, problem: str, fix: str, details: str = "") -> None:
        super().__init__(f"{problem}; {fix}")
        self.code = int(code)
        self.problem = problem
        self.fix = fix
        self.details = details

    def answer(self, version: str) -> dict[str, object]:
        """The JSON object that goes to stdout."""
        return {"cniVersion": version, "code": self.code, "msg": self.problem,
                "details": self.fix + (f" ({self.details})" if self.details else "")}
