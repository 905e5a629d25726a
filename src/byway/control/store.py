# SPDX-License-Identifier: Apache-2.0
"""The state file: what came through the API (networks, ports, ...), so that it outlives the switch.

Used by lasting (which has every change kept before it is carried out, and restores what is there).
Uses SQLite, outcome, the parsers of tables.py.

Theory of operation
-------------------
Goal: whatever the API acknowledged is there after the next start, also when the process is killed
or the power fails between any two instructions; and what stands in the file is never lost because
a switch did not understand it.

A change is written as one transaction (write-ahead log, synced before it counts) *before* the
engine carries it out; where the engine then refuses, the opposite is written. So a kill in between
leaves at most a change that nobody was told of. A change that cannot be written is not carried out.

One switch has the file: the lock is held as long as it is open, and the kernel drops it when the
process ends in whatever way. A file of another program, of a newer Byway, or with broken pages is
refused and stays as it is. An entry that cannot be used (its network is gone, a key is unknown)
is left out, said, and stays in the file.

A row is what the user wrote, in JSON, without the defaults: they may change as in a TOML file.
A file of an older Byway gets the tables that it lacks when it is opened, and is of this version
from then on.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from byway.control.actions import Action
from byway.control.outcome import outcome
from byway.control.parts import Key, Kind, Part
from byway.control.problem import ConfigError, EngineError
from byway.control.tables import PARSERS

APPLICATION = 0x42797761  # "Bywa": PRAGMA application_id, which file(1) shows
VERSION = 3  # PRAGMA user_version: what the tables below are
# The tables in the order in which their parts are restored, with the version they came with.
_TABLES: dict[Kind, tuple[str, int]] = {
    "group": ("security_groups", 2), "function": ("functions", 3),
    "service": ("services", 3), "network": ("networks", 1),
    "host": ("hosts", 2), "entry": ("entries", 2), "router": ("routers", 2), "port": ("ports", 1)}
_CREATE = "CREATE TABLE {} (name TEXT PRIMARY KEY, body TEXT NOT NULL)"
_PUT = "INSERT INTO {} VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body"
_GET = "SELECT body FROM {} WHERE name = ?"
_REMOVE = "DELETE FROM {} WHERE name = ?"
_AWAY = "restore it from a backup, or move it away and start without what is in it"

Row: TypeAlias = tuple[str, str, str | None]  # table, name, body; without a body: it goes


class StoreError(EngineError):
    """The state file cannot be used, or a change cannot be kept in it."""


class Store:
    """An open state file; nobody else has it meanwhile. Belongs to one thread."""

    def __init__(self, path: str) -> None:
        """Open the file, or make it (mode 0600). StoreError: it is not ours to use; it stays as
        it is."""
        self.path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"the state file {path} cannot be opened ({error.strerror})",
                             "make it and its directory writable, or set another path") from None
        self._database = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            with self._told():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA synchronous = FULL")
        version = self._pragma("user_version")
        fresh = not self._pragma("schema_version")
        if self._pragma("application_id") != APPLICATION and not fresh:
            raise StoreError(f"the state file {self.path} belongs to another program",
                             "set another path")
        if version > VERSION:
            raise StoreError(f"the state file {self.path} was written by a newer Byway (its version"
                             f" is {version}, this one knows {VERSION})",
                             "start that release, or set another path")
        if (problem := self._database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise StoreError(f"the state file {self.path} is broken ({problem})", _AWAY)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("BEGIN EXCLUSIVE")  # from now on the lock is ours
        if fresh:
            self._database.execute(f"PRAGMA application_id = {APPLICATION}")
        if version < VERSION:
            for table, since in _TABLES.values():
                if since > version:
                    self._database.execute(_CREATE.format(table))
            self._database.execute(f"PRAGMA user_version = {VERSION}")
        self._database.execute("COMMIT")
        if fresh:
            _sync_directory(self.path)

    def _pragma(self, name: str) -> int:
        value: int = self._database.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    @contextlib.contextmanager
    def keeping(self, actions: Sequence[Action]) -> Iterator[None]:
        """Have these changes on the disk, all or none, before the body is run; and what there was
        before them again where the body raises. StoreError: none of it was done."""
        before: list[Row] = []
        rows = _rows(actions)
        with self._told():
            before = [(table, name, self._body(table, name)) for table, name, _ in rows]
        self._write(rows)
        try:
            yield
        except BaseException:
            self._write(before[::-1])
            raise

    def keep(self, actions: Sequence[Action]) -> None:
        """Have these changes on the disk, all or none. StoreError: none."""
        self._write(_rows(actions))

    def forget(self, keys: Iterable[Key]) -> None:
        """Have these no longer on the disk. StoreError: all of them are."""
        self._write([(_TABLES[key.kind][0], key.name, None) for key in keys])

    def _write(self, rows: Sequence[Row]) -> None:
        with self._told():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for table, name, body in rows:
                    if body is None:
                        self._database.execute(_REMOVE.format(table), (name,))
                    else:
                        self._database.execute(_PUT.format(table), (name, body))
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # a full disk may have ended it
                    self._database.execute("ROLLBACK")
                raise

    def _body(self, table: str, name: str) -> str | None:
        found = self._database.execute(_GET.format(table), (name,)).fetchone()
        return found and str(found[0])

    def load(self) -> tuple[list[Part], list[str]]:
        """What is in the file, kind by kind in the order of its coming, what others need first;
        and sentences on what cannot be used."""
        parts: list[Part] = []
        problems: list[str] = []
        with self._told():
            for kind, (table, _) in _TABLES.items():
                rows = self._database.execute(f"SELECT name, body FROM {table} ORDER BY rowid")
                for name, body in rows:
                    label = f"{self.path}: {Key(kind, name)}"
                    try:
                        parts.append(PARSERS[kind](json.loads(body), label))
                    except ValueError as error:
                        problems.append(f"{label} is no JSON ({error})")
                    except ConfigError as error:
                        problems += [str(problem) for problem in error.problems]
        return parts, problems

    def close(self) -> None:
        """Give the file up. Idempotent."""
        self._database.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite says becomes what a user can do about it."""
        try:
            yield
        except sqlite3.Error as error:
            raise _refusal(self.path, error) from None


def _rows(actions: Sequence[Action]) -> list[Row]:
    """What becomes of the rows; the underlay is a matter of configuration files."""
    return [(_TABLES[key.kind][0], key.name,
             None if part is None else part.model_dump_json(exclude_unset=True))
            for key, part in outcome(actions).items() if key.kind in _TABLES]


def _refusal(path: str, error: sqlite3.Error) -> StoreError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_BUSY"):
        return StoreError(f"the state file {path} is in use by another switch",
                          "stop that one, or give each a file of its own")
    if name == "SQLITE_FULL":
        return StoreError(f"the state file {path} cannot take more: the disk is full",
                          "make room and try again; nothing was changed")
    if name.startswith("SQLITE_READONLY") or _read_only(path):
        return StoreError(f"the state file {path} can only be read",
                          "make the file, its directory and its file system writable")
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return StoreError(f"the state file {path} is broken, or none ({error})", _AWAY)
    return StoreError(f"the state file {path} cannot be used ({error})",
                      "check the disk and the messages of the kernel")


def _read_only(path: str) -> bool:
    return bool(os.statvfs(os.path.dirname(path) or ".").f_flag & os.ST_RDONLY)


def _sync_directory(path: str) -> None:
    """The file's name outlives a power failure, too."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
