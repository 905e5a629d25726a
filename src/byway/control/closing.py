# SPDX-License-Identifier: Apache-2.0
"""Files that the Linux kernel takes its time to close: those of one change are closed together.

Used by the engine. Closing the last file of a tap removes its interface, for which the kernel waits
until every processor has been quiet (some ten milliseconds, net/core/dev.c:
unregister_netdevice_many). Side by side many wait as long as one.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

AT_ONCE = 64  # threads


class Closing:
    """Files that are to be closed; ``finish`` does it."""

    def __init__(self) -> None:
        self._files: list[int] = []

    def add(self, files: Sequence[int]) -> None:
        """Nobody uses these any more."""
        self._files += files

    def finish(self) -> None:
        """Returns when all of them are closed."""
        files, self._files = self._files, []
        if len(files) < 2:
            for file in files:
                os.close(file)
            return
        with ThreadPoolExecutor(min(AT_ONCE, len(files)), "byway-closing") as threads:
            for _ in threads.map(os.close, files):
                pass  # what a thread raised is raised here
