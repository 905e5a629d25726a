# SPDX-License-Identifier: Apache-2.0
"""What this plugin has attached, kept in the same file as the addresses of byway.ipam.

Used by the verbs. Uses byway.ipam's store.

A row is written before anything else is made, with the addresses in one transaction, so that a call
that is killed anywhere leaves a row by which DEL or GC finds all there may be. The key of a row is
that of an attachment: network, container, interface. Two calls that add the same attachment meet at
the key: the second one is refused.

A row with `leaving` set stands for a port that could not be removed because the switch was not
there: its container is gone, and the next call that meets the switch removes the port.
"""

import zlib
from typing import Any, NamedTuple

from byway.ipam import Pools
from byway_cni.call import Call
from byway_cni.problem import CniError, Code

_TABLES = (
    """CREATE TABLE IF NOT EXISTS attachments (
        network TEXT NOT NULL,
        container TEXT NOT NULL,
        ifname TEXT NOT NULL,
        port TEXT NOT NULL UNIQUE,
        published TEXT NOT NULL DEFAULT '',  -- the table of byway.nat with its ports
        leaving INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (network, container, ifname)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS gateways (
        port TEXT NOT NULL,     -- of the switch: one for each of its networks
        address TEXT NOT NULL,  -- with prefix length
        PRIMARY KEY (port, address)
    ) WITHOUT ROWID""",
)
_COLUMNS = "network, container, ifname, port, published, leaving"


class Attachment(NamedTuple):
    """One row."""

    network: str
    container: str
    ifname: str
    port: str
    published: str
    leaving: int

    @property
    def owner(self) -> str:
        """Who owns its addresses."""
        return f"{self.container}/{self.ifname}"


def port_name(network: str, container: str, ifname: str) -> str:
    """The name of an attachment's port, the same whenever it is asked for."""
    digest = zlib.crc32(f"{network}/{container}/{ifname}".encode())
    return f"cni-{container[:40]}-{digest:08x}"


def space(network: str) -> str:
    """The address space of a CNI network."""
    return f"cni/{network}"


class Attachments:
    """The file `path`: attachments, and the pools of their addresses."""

    def __init__(self, path: str) -> None:
        self.pools = Pools(path)
        self._store = self.pools.store
        if not self._store.rows("SELECT 1 FROM sqlite_master WHERE name = 'gateways'"):
            with self._store.transaction():
                for table in _TABLES:
                    self._store.run(table)

    def add(self, call: Call) -> Attachment:
        """Record what a call is going to attach. CniError where it is attached already."""
        port = port_name(call.network, call.container, call.ifname)
        with self._store.transaction():
            for row in self._select("port = ?", (port,)):
                if not row.leaving:
                    raise CniError(
                        Code.PRESENT,
                        f"{row.ifname} of container {row.container} is attached already",
                        "delete that attachment first, or take another interface name")
            self._store.run(
                f"INSERT OR REPLACE INTO attachments ({_COLUMNS}) VALUES (?, ?, ?, ?, '', 0)",
                (call.network, call.container, call.ifname, port))
        return Attachment(call.network, call.container, call.ifname, port, "", 0)

    def find(self, network: str, container: str, ifname: str) -> Attachment | None:
        """The row of an attachment that is not leaving."""
        rows = self._select("network = ? AND container = ? AND ifname = ? AND NOT leaving",
                            (network, container, ifname))
        return rows[0] if rows else None

    def of_network(self, network: str) -> list[Attachment]:
        """All attachments of a CNI network."""
        return self._select("network = ?", (network,))

    def leaving(self) -> list[Attachment]:
        """Those whose port is still to be removed."""
        return self._select("leaving", ())

    def publish(self, attachment: Attachment, table: str) -> None:
        """Record the table of an attachment's published ports, before it is made."""
        self._store.run("UPDATE attachments SET published = ? WHERE port = ?",
                        (table, attachment.port))

    def leave(self, attachment: Attachment) -> None:
        """Keep only the port's name of an attachment; its addresses are free."""
        with self._store.transaction():
            self._store.run("UPDATE attachments SET leaving = 1, published = '' WHERE port = ?",
                            (attachment.port,))
            self.pools.release_owner(space(attachment.network), attachment.owner)

    def remove(self, attachment: Attachment) -> None:
        """Forget an attachment and free its addresses. Idempotent.

        One that is leaving, or came again in the meantime, is another one."""
        with self._store.transaction():
            self._store.run("DELETE FROM attachments WHERE port = ? AND leaving = ?",
                            (attachment.port, attachment.leaving))
            if not attachment.leaving:
                self.pools.release_owner(space(attachment.network), attachment.owner)

    def gateway(self, port: str, addresses: list[str]) -> list[str]:
        """Add addresses to those of a gateway; -> all it has."""
        with self._store.transaction():
            for address in addresses:
                self._store.run("INSERT OR IGNORE INTO gateways VALUES (?, ?)", (port, address))
            rows = self._store.rows("SELECT address FROM gateways WHERE port = ? ORDER BY address",
                                    (port,))
        return [address for (address,) in rows]

    def _select(self, where: str, values: tuple[Any, ...]) -> list[Attachment]:
        return [Attachment(*row) for row in self._store.rows(
            f"SELECT {_COLUMNS} FROM attachments WHERE {where}", values)]

    def close(self) -> None:
        """Close the file. Idempotent."""
        self.pools.close()
