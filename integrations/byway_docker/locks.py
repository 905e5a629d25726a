# SPDX-License-Identifier: Apache-2.0
"""A lock for each name that is in use: requests about one thing wait, about different ones do not.

Used by the network driver and reconcile. Uses the standard library.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Locks:
    """Locks by name, which are there while somebody wants them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Nobody else holds `name` meanwhile. Not to be taken twice by one thread."""
        with self._guard:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks[name]
                if users == 1:
                    del self._locks[name]
                else:
                    self._locks[name] = lock, users - 1

    def __len__(self) -> int:
        return len(self._locks)
