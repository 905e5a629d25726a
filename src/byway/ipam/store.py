# SPDX-License-Identifier: Apache-2.0
"""The file that pools and addresses are kept in: SQLite, opened, laid out, written in transactions.

Used by pools, and by programs that keep tables of their own in the same file, so that their entries
and the addresses come and go together. Uses sqlite3.

What is answered is on the disk: synchronous=FULL, with a rollback journal that is truncated (not a
write-ahead log: most users are processes that open the file, write once and end, and closing a log
costs more than it saves). A process that is killed anywhere leaves a journal, by which the next one
to open the file undoes what was begun. Writers wait for each other, at most `timeout` seconds.

A Store belongs to one thread and to one process: open another one after a fork.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from byway.ipam.problem import IpamError

VERSION = 1
_TABLES = (
    """CREATE TABLE pools (
        id TEXT NOT NULL PRIMARY KEY,
        space TEXT NOT NULL,
        prefix TEXT NOT NULL,
        sub_pool TEXT NOT NULL,
        version INTEGER NOT NULL,
        latest BLOB NOT NULL,   -- the address that was chosen last: the next search begins there
        gateway BLOB
    ) WITHOUT ROWID""",
    """CREATE TABLE addresses (
        space TEXT NOT NULL,
        version INTEGER NOT NULL,
        address BLOB NOT NULL,  -- sorts as addresses do
        pool TEXT NOT NULL REFERENCES pools(id) ON DELETE CASCADE,
        owner TEXT NOT NULL,
        PRIMARY KEY (space, version, address)
    ) WITHOUT ROWID""",
    "CREATE INDEX addresses_of_a_pool ON addresses(pool, owner)",
    "CREATE INDEX addresses_of_an_owner ON addresses(space, owner)",
    "CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)


class Store:
    """The open file `path`; made, with its directory, where there is none (mode 0600)."""

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        self.path = path
        try:
            os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
            # Owners are names of containers, and whoever may write here may take addresses away.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise IpamError(f"{path}: cannot be used: {error.strerror}",
                            "choose another path, or make it writable") from None
        self._db = sqlite3.connect(path, timeout=timeout, isolation_level=None)
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        with self._problems():
            self._db.execute("PRAGMA journal_mode = TRUNCATE")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
        if self._version() == 0:
            with self.transaction():
                if self._version() == 0:  # nobody was faster
                    for statement in _TABLES:
                        self.run(statement)
                    self.run(f"PRAGMA user_version = {VERSION}")
        if (found := self._version()) != VERSION:
            raise IpamError(f"{self.path}: has the layout {found}, this release knows {VERSION}",
                            "use the newer release, or another file")

    def _version(self) -> int:
        return int(self.rows("PRAGMA user_version")[0][0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done inside happens, or nothing; it is on the disk when this ends.

        A transaction within another is a part of it. IpamError where the file cannot be written."""
        if self._db.in_transaction:
            yield
            return
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        if self._db.in_transaction:  # some errors of SQLite have undone it already
            self._db.execute("ROLLBACK")

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """One statement; -> how many rows it changed. sqlite3.IntegrityError is the caller's."""
        with self._problems():
            return self._db.execute(statement, values).rowcount

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        with self._problems():
            return self._db.execute(query, values).fetchall()

    def each(self, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """The rows of a query one after the other: for those that are rarely read to the end."""
        with self._problems():
            yield from self._db.execute(query, values)

    @contextmanager
    def _problems(self) -> Iterator[None]:
        """What SQLite has to say against the file, as an IpamError."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise IpamError(f"{self.path}: another process is writing to it and does not end",
                                "see which one it is: fuser FILE") from None
            raise IpamError(f"{self.path}: {error}",
                            "see that the file and its directory are writable, with space left"
                            ) from None
        except sqlite3.DatabaseError as error:
            raise IpamError(f"{self.path}: {error}",
                            "move the file away: it is none of Byway's, or it is damaged"
                            ) from None

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
