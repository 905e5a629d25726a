# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a request for addresses, in words. Used by the other modules of ipam."""


class IpamError(Exception):
    """A request that is refused: `problem` says why, `fix` what to do. Nothing was changed."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix
