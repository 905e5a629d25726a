# SPDX-License-Identifier: Apache-2.0
"""Where a test's engine lives: a network namespace, a folder, a control group, and their end.

Used by the engines and the tests of containers. At its end nothing of the test is left, whatever
was killed in the middle of its work (`sweep.py`).
"""

from pathlib import Path
from types import TracebackType
from typing import Self

from tests.system.engines import sweep
from tests.system.engines.namespace import Namespace


class Place:
    """``folder`` is the caller's and empty; ``group`` is the name of the control group."""

    def __init__(self, folder: Path, purpose: str) -> None:
        self.folder = folder
        self.namespace = Namespace(purpose)
        self.group = self.namespace.name

    def close(self) -> None:
        """End every process that belongs here, and take away mounts, groups and the namespace."""
        try:
            sweep.sweep(self.folder, self.group)
        finally:
            self.namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
