# SPDX-License-Identifier: Apache-2.0
"""The ports with ``masquerade``: what leaves their networks goes behind the address of the host.

Used by wanted, which calls ``follow`` with the state that is to be. Uses nat.

The rules of a switch are one table, "byway-NAME", in each network namespace that has such a port.
A table is always replaced as a whole, so that what a killed switch left behind does no harm. A
switch without such ports never asks for nft.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from byway.control.problem import EngineError
from byway.nat import NatError, Table

Networks = dict[str, list[str]]  # the addresses of its gateways, by network


class Gateway(Protocol):
    """What is asked of such a port (control.model.TapPort has the whole of it)."""

    @property
    def name(self) -> str: ...
    @property
    def network(self) -> str: ...
    @property
    def netns(self) -> str | None: ...
    @property
    def address(self) -> Sequence[str]: ...


class Gateways:
    """The tables of one switch. Belongs to the control thread; a change takes it some 20 ms."""

    def __init__(self, switch: str) -> None:
        self._name = f"byway-{switch}"
        self._present: dict[str | None, Networks] = {}  # by network namespace
        self.notes: list[str] = []  # what was changed about the kernel's settings, for the log

    def follow(self, gateways: Iterable[Gateway]) -> None:
        """Have rules for exactly these ports. EngineError: there are those that there were."""
        wanted: dict[str | None, Networks] = {}
        named: dict[str | None, str] = {}
        for port in gateways:
            wanted.setdefault(port.netns, {}).setdefault(port.network, []).extend(port.address)
            named[port.netns] = port.name
        before = dict(self._present)
        for namespace in {**before, **wanted}:
            try:
                self._have(namespace, wanted.get(namespace, {}))
            except NatError as error:
                with suppress(NatError):  # what is the matter now may be the matter then
                    self._have_all(before)
                where = f'port "{named[namespace]}": ' if namespace in named else ""
                raise EngineError(f"{where}masquerade: {error.problem}", error.fix) from None

    def _have_all(self, tables: dict[str | None, Networks]) -> None:
        for namespace in {**self._present, **tables}:
            self._have(namespace, tables.get(namespace, {}))

    def _have(self, namespace: str | None, networks: Networks) -> None:
        if networks == self._present.get(namespace, {}):
            return
        table = Table(self._name, namespace)
        if networks:
            self._present[namespace] = networks
            self.notes += table.replace(networks.values(), [])
            return
        del self._present[namespace]
        if table.namespace is None or os.path.exists(table.namespace):  # else it went with it
            table.remove()

    def close(self) -> None:
        """No rules are left. Idempotent."""
        self.follow([])
