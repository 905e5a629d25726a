# SPDX-License-Identifier: Apache-2.0
"""Pools of addresses: who asks gets one that nobody else has, and keeps it until it is released.

Used by the integrations through byway.ipam. Uses store (the file), prefix and choose.

Theory of operation. An address space is a name under which no address exists twice: one for each
network, or one for all. Its pools do not overlap, but for one case: pools of the same prefix that
have a range (sub-pool) each, of which no two overlap. An address is given once in its space: that
is the primary key of its table, so that SQLite itself would refuse the second one.

The next address is searched from the one that was chosen last onwards, and around: one that was
just released comes last, when neighbours and routers have forgotten whose it was. The search reads
the given addresses in order until there is a gap: it never lists free ones.

Every call is one transaction and is on the disk when it returns; `transaction()` joins several.
Killed before that, a process leaves either nothing or the whole; the caller who did not hear the
answer asks again with the same owner and gets the same address.

A Pools belongs to one thread of one process; any number of processes may use the file at once.
"""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple, Self

from byway.ipam.choose import DEFAULTS, OWN_LENGTH, Defaults, choose
from byway.ipam.prefix import (
    Pool,
    Span,
    address_text,
    make_pool,
    packed,
    prefix_text,
    read_address,
    read_prefix,
)
from byway.ipam.problem import IpamError
from byway.ipam.store import Store

MAX_NAME = 255
_POOL = "SELECT id, space, prefix, sub_pool FROM pools"


class Held(NamedTuple):
    """An address that is given: to whom ("" is nobody in particular), from which pool."""

    pool: str
    address: str  # with the prefix length
    owner: str


class Pools:
    """The pools kept in the file `path`, which is made where there is none.

    `defaults`: where pools come from that nobody names. `timeout`: how many seconds to wait for
    another process that writes. Every method raises IpamError, and has then changed nothing."""

    def __init__(self, path: str | os.PathLike[str], defaults: Defaults = DEFAULTS,
                 timeout: float = 10.0) -> None:
        self.store = Store(os.fspath(path), timeout)
        self._defaults = defaults

    def transaction(self) -> AbstractContextManager[None]:
        """Several calls as one: all of them happen, or, where an exception leaves it, none."""
        return self.store.transaction()

    # ------------------------------------------------------------ pools
    def request_pool(self, space: str, pool: str | None = None, sub_pool: str | None = None,
                     v6: bool = False, *, avoid: Iterable[str] = (), shared: bool = False,
                     ) -> tuple[str, str]:
        """A new pool; -> (its id, its prefix).

        `pool` empty: one is chosen that overlaps no pool of any space and none of the prefixes
        `avoid`; `v6` says of which kind. `sub_pool`, "10.0.0.64/26" or "10.0.0.10-10.0.0.20": only
        those are chosen from. A pool that is there already is refused, or returned with `shared`.
        """
        _check_name("address space", space)
        if sub_pool and not pool:
            raise IpamError(f"the range {sub_pool} has no pool", "name the pool as well")
        with self.transaction():
            chosen = pool or self._choose(6 if v6 else 4, avoid)
            made = make_pool(space, chosen, sub_pool or "")
            if v6 and made.version != 6:
                raise IpamError(f"{made.prefix} is no IPv6 pool", "name an IPv6 pool")
            if shared and self._find(made.id):
                return made.id, made.prefix
            self._refuse_overlap(made)
            self.store.run(
                "INSERT INTO pools (id, space, prefix, sub_pool, version, latest)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (made.id, space, made.prefix, made.sub_pool, made.version,
                 packed(made.choice.last, made.version)))
        return made.id, made.prefix

    def release_pool(self, pool_id: str) -> None:
        """Remove a pool with all its addresses. Idempotent."""
        self.store.run("DELETE FROM pools WHERE id = ?", (pool_id,))

    def pools(self, space: str | None = None) -> list[Pool]:
        """The pools of one space, or of all."""
        where, values = (" WHERE space = ?", (space,)) if space is not None else ("", ())
        return [_read(row) for row in self.store.rows(f"{_POOL}{where} ORDER BY id", values)]

    def pool(self, pool_id: str) -> Pool:
        """One pool."""
        if found := self._find(pool_id):
            return found
        raise IpamError(f"there is no pool {pool_id!r}", "request the pool first")

    def _find(self, pool_id: str) -> Pool | None:
        found = self.store.rows(f"{_POOL} WHERE id = ?", (pool_id,))
        return _read(found[0]) if found else None

    def _refuse_overlap(self, new: Pool) -> None:
        for pool in self.pools(new.space):
            if pool.version != new.version or not pool.span.overlaps(new.span):
                continue
            if pool.prefix == new.prefix and pool.sub_pool and new.sub_pool:
                if not pool.choice.overlaps(new.choice):
                    continue
            raise IpamError(f"{new.prefix} overlaps with the pool {pool.id}",
                            "choose another prefix, or release that pool first")

    def _choose(self, version: int, avoid: Iterable[str]) -> str:
        taken = [pool.span for pool in self.pools() if pool.version == version]
        for prefix in avoid:
            found, span = read_prefix(prefix)
            if found == version:
                taken.append(span)
        defaults = self._defaults
        if version == 6 and not any(read_prefix(whole)[0] == 6 for whole, _ in defaults):
            defaults = ((self._own_prefix(), OWN_LENGTH),)
        return choose(defaults, version, taken)

    def _own_prefix(self) -> str:
        """The unique local prefix of this file: fd and 40 random bits (RFC 4193 3.2)."""
        number = int.from_bytes(b"\xfd" + os.urandom(5), "big") << 80
        self.store.run("INSERT OR IGNORE INTO facts VALUES ('ipv6 prefix', ?)",
                       (prefix_text(number, 48, 6),))
        found = self.store.rows("SELECT value FROM facts WHERE name = 'ipv6 prefix'")
        return str(found[0][0])

    # ------------------------------------------------------------ addresses
    def request_address(self, pool_id: str, address: str | None = None, owner: str = "",
                        within: str = "") -> str:
        """An address of a pool, with its prefix length: `address`, or the next one that is free.

        `within`: a range as of a sub-pool, which this one is chosen from.

        An owner with a name has at most one address of a pool: asked again, the answer is the
        same. Owners without a name ("") get a new one each time."""
        if owner:
            _check_name("owner", owner)
        with self.transaction():
            pool = self.pool(pool_id)
            if owner and (held := self._held_by(pool, owner)) is not None:
                if address and read_address(address, pool.version) != held:
                    raise IpamError(f"{owner} has the address {pool.cidr(held)} of this pool",
                                    "release it before asking for another one")
                return pool.cidr(held)
            if address:
                found = self._check_free(pool, address)
            else:
                found = self._next_free(pool, within)
                self.store.run("UPDATE pools SET latest = ? WHERE id = ?",
                               (packed(found, pool.version), pool.id))
            self._give(pool, found, owner)
        return pool.cidr(found)

    def request_gateway(self, pool_id: str, address: str | None = None) -> str:
        """The pool's gateway address: `address`, or the first one that is free; it stays so.

        Asked again, the answer is the same; another `address` is then refused."""
        with self.transaction():
            pool = self.pool(pool_id)
            present = self.gateway(pool_id)
            if present:
                if address and pool.cidr(read_address(address, pool.version)) != present:
                    raise IpamError(f"the gateway of {pool.id} is {present}",
                                    f"use that one instead of {address}, or another pool")
                return present
            found = self._check_free(pool, address) if address else self._search(
                pool, pool.choice)
            if found is None:
                raise _full(pool, "")
            self._give(pool, found, "")
            self.store.run("UPDATE pools SET gateway = ? WHERE id = ?",
                           (packed(found, pool.version), pool.id))
        return pool.cidr(found)

    def gateway(self, pool_id: str) -> str | None:
        """The gateway of a pool, with the prefix length; None where none was requested."""
        pool = self.pool(pool_id)
        ((raw,),) = self.store.rows("SELECT gateway FROM pools WHERE id = ?", (pool_id,))
        return None if raw is None else pool.cidr(int.from_bytes(raw, "big"))

    def release_address(self, pool_id: str, address: str) -> None:
        """Give an address back. Idempotent: also of a pool that is gone."""
        with self.transaction():
            pool = self._find(pool_id)
            if pool is None:
                return
            raw = packed(read_address(address, pool.version), pool.version)
            self.store.run("DELETE FROM addresses WHERE pool = ? AND version = ? AND address = ?",
                           (pool_id, pool.version, raw))
            self.store.run("UPDATE pools SET gateway = NULL WHERE id = ? AND gateway = ?",
                           (pool_id, raw))

    def release_owner(self, space: str, owner: str) -> list[str]:
        """Give back all that an owner with a name has in a space; -> the addresses. Idempotent."""
        _check_name("owner", owner)
        with self.transaction():
            held = [one.address for one in self.owned(space, owner)]
            if held:
                self.store.run("DELETE FROM addresses WHERE space = ? AND owner = ?",
                               (space, owner))
        return held

    def addresses(self, pool_id: str) -> list[Held]:
        """What is given of a pool, in order."""
        return self._held("pool = ?", (pool_id,))

    def owned(self, space: str, owner: str) -> list[Held]:
        """What an owner has in a space, IPv4 first."""
        return self._held("space = ? AND owner = ?", (space, owner))

    def _held(self, where: str, values: tuple[str, ...]) -> list[Held]:
        rows = self.store.rows(
            "SELECT a.pool, a.address, a.version, a.owner, p.prefix FROM addresses a"
            f" JOIN pools p ON p.id = a.pool WHERE {where.replace('space', 'a.space')}"
            " ORDER BY a.version, a.address", values)
        return [Held(pool, f"{address_text(int.from_bytes(raw, 'big'), version)}"
                           f"/{prefix.rpartition('/')[2]}", owner)
                for pool, raw, version, owner, prefix in rows]

    def _held_by(self, pool: Pool, owner: str) -> int | None:
        rows = self.store.rows("SELECT address FROM addresses WHERE pool = ? AND owner = ?",
                               (pool.id, owner))
        return int.from_bytes(rows[0][0], "big") if rows else None

    def _check_free(self, pool: Pool, text: str) -> int:
        address = read_address(text, pool.version)
        if not pool.span.first <= address <= pool.span.last:
            raise IpamError(f"{text} is not in the pool {pool.prefix}",
                            "ask for an address of the pool")
        if pool.version == 4 and pool.span.last - pool.span.first >= 2:
            if address in (pool.span.first, pool.span.last):
                raise IpamError(f"{text} is the network's or the broadcast address of"
                                f" {pool.prefix}", "ask for another one")
        if owners := self.store.rows(
                "SELECT owner FROM addresses WHERE space = ? AND version = ? AND address = ?",
                (pool.space, pool.version, packed(address, pool.version))):
            whose = f" by {owners[0][0]}" if owners[0][0] else ""
            raise IpamError(f"{text} is in use{whose}", "ask for another one")
        return address

    def _next_free(self, pool: Pool, within: str) -> int:
        choice = make_pool(pool.space, pool.prefix, within).choice if within else pool.choice
        ((raw,),) = self.store.rows("SELECT latest FROM pools WHERE id = ?", (pool.id,))
        latest = int.from_bytes(raw, "big")
        found = self._search(pool, Span(max(latest + 1, choice.first), choice.last))
        if found is None:
            found = self._search(pool, Span(choice.first, min(latest, choice.last)))
        if found is None:
            raise _full(pool, within)
        return found

    def _search(self, pool: Pool, span: Span) -> int | None:
        """The first address of `span` that is not given."""
        expected = span.first
        if expected > span.last:
            return None
        for (raw,) in self.store.each(
                "SELECT address FROM addresses WHERE space = ? AND version = ?"
                " AND address BETWEEN ? AND ? ORDER BY address",
                (pool.space, pool.version, packed(span.first, pool.version),
                 packed(span.last, pool.version))):
            if int.from_bytes(raw, "big") != expected:
                break
            expected += 1
        return expected if expected <= span.last else None

    def _give(self, pool: Pool, address: int, owner: str) -> None:
        self.store.run(
            "INSERT INTO addresses (space, version, address, pool, owner) VALUES (?, ?, ?, ?, ?)",
            (pool.space, pool.version, packed(address, pool.version), pool.id, owner))

    # ------------------------------------------------------------ the end
    def close(self) -> None:
        """Close the file. Idempotent."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _read(row: tuple[str, str, str, str]) -> Pool:
    _, space, prefix, sub_pool = row
    return make_pool(space, prefix, sub_pool)


def _full(pool: Pool, within: str) -> IpamError:
    part = f"the range {within} of " if within else ""
    return IpamError(f"{part}the pool {pool.id} has no address left",
                     "release some, or use a larger one")


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise IpamError(f"{name!r} is no name of an {what}",
                        f"use 1 to {MAX_NAME} printable characters")
