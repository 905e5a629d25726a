# SPDX-License-Identifier: Apache-2.0
"""What exists once in the cluster: networks with their VNIs, ports of hosts, addresses.

Used by cluster, for the API. Uses etcd, layout, addresses, and the parsers of tables. Blocks: never
called on the control thread; usable by several threads.

Each change reads what it depends on, and is then one transaction that holds only if that is still
so; otherwise it is done again with what is there now. So two hosts that create networks at once get
two VNIs, and of two that create one network, one creates it and the other finds it there.

A VNI is given after the one that was given last: a host that is cut off, and still has a network
that was removed meanwhile, shall not meet another network under its number. A port needs its
networks: its `owners` keys keep them from being removed.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from byway.control.cluster.addresses import Addresses
from byway.control.cluster.etcd import (
    Access,
    Condition,
    Etcd,
    Found,
    Operation,
    absent,
    delete,
    delete_below,
    none_below,
    present,
    put,
    unchanged,
)
from byway.control.cluster.layout import NAME, Layout, host_value, load
from byway.control.problem import EngineError
from byway.control.tables import parse_network, parse_port

FIRST_VNI, LAST_VNI = 4097, (1 << 24) - 1  # of those that are chosen; RFC 7348 5: 24 bits
ATTEMPTS = 200
SETTLE_SECONDS = 2.0
PAUSE_SECONDS = 0.005  # at most, after an attempt that another one came before

Made = TypeVar("Made")


class Registry:
    """Changes the cluster's data. Every method raises EngineError, a table that is wrong
    ConfigError, and has then changed nothing."""

    def __init__(self, access: Access, layout: Layout, chance: random.Random | None = None) -> None:
        self._etcd = Etcd(access)
        self._layout = layout
        self._chance = chance or random.Random()
        self.addresses = Addresses(self._etcd, layout, self._chance)

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._etcd.close()

    # ------------------------------------------------------------ networks
    def put_network(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a network, in place of another one of its name. `vni` "auto": the one that it has,
        or the next free one. -> the table with its VNI."""
        return self._until_done(lambda: self._try_network(dict(table)))

    def _try_network(self, table: dict[str, Any]) -> dict[str, Any] | None:
        name = str(table.get("name"))
        chosen = table.get("vni") == "auto"
        parse_network({**table, "vni": FIRST_VNI} if chosen else table, f'network "{name}"')
        key = self._layout.network(name)
        before = self._table(key)
        old_vni = before[1].get("vni")
        conditions = [unchanged(key, before[0])]
        operations: list[Operation] = []
        if chosen:
            table["vni"] = old_vni or self._next_vni(conditions, operations)
        vni = table.get("vni")
        if before[0] and before[1] == table:
            return table
        if vni != old_vni:
            if vni is not None:
                if not chosen:
                    self._check_vni(vni, name)
                conditions.append(absent(self._layout.vni(vni)))
                operations.append(put(self._layout.vni(vni), name.encode()))
            if old_vni is not None:
                operations.append(delete(self._layout.vni(old_vni)))
        operations.append(put(key, _written(table)))
        return table if self._etcd.change(conditions, operations)[0] else None

    def _next_vni(self, conditions: list[Condition], operations: list[Operation]) -> int:
        latest_key = self._layout.latest_vni
        taken, latest, revision = set(), FIRST_VNI - 1, 0
        for _, page in self._etcd.pages(self._layout.vnis):
            for found in page:
                if found.key == latest_key:
                    latest, revision = _number(found), found.revision
                else:
                    taken.add(found.key.removeprefix(self._layout.vnis))
        count = LAST_VNI - FIRST_VNI + 1
        for step in range(1, min(count, len(taken) + 1) + 1):
            vni = FIRST_VNI + (latest - FIRST_VNI + step) % count
            if str(vni) not in taken:
                conditions.append(unchanged(latest_key, revision))
                operations.append(put(latest_key, str(vni).encode()))
                return vni
        raise EngineError("every VNI is taken", "remove networks that are not needed")

    def _check_vni(self, vni: int, name: str) -> None:
        _, found = self._etcd.get(self._layout.vni(vni))
        if found is not None and found.value.decode(errors="replace") != name:
            raise EngineError(f'the VNI {vni} is that of the network'
                              f' "{found.value.decode(errors="replace")}"',
                              'take another one, or "auto"')

    def delete_network(self, name: str) -> None:
        """Keep a network no longer. Refused while a port needs it."""
        _check_names(name)
        self._until_done(lambda: self._try_delete_network(name))

    def _try_delete_network(self, name: str) -> bool | None:
        key = self._layout.network(name)
        revision, table = self._table(key)
        if not revision:
            return True
        owners = self._layout.owners(name)
        users = [found.key.removeprefix(owners)
                 for _, page in self._etcd.pages(owners) for found in page] or self._hosts_in(name)
        if users:
            shown = ", ".join(sorted(users)[:5]) + (" and others" if len(users) > 5 else "")
            raise EngineError(f'network "{name}" is needed by {shown}', "remove these ports first")
        operations = [delete(key), delete_below(self._layout.addresses(name))]
        if table.get("vni") is not None:
            operations.append(delete(self._layout.vni(table["vni"])))
        return self._etcd.change([unchanged(key, revision), none_below(owners)],
                                 operations)[0] or None

    def _hosts_in(self, network: str) -> list[str]:
        """Who has ports there; a host that has just lost its last one needs a moment to say so."""
        until = time.monotonic() + SETTLE_SECONDS
        while (users := self._hosts_now_in(network)) and time.monotonic() < until:
            time.sleep(0.05)
        return users

    def _hosts_now_in(self, network: str) -> list[str]:
        users = []
        for _, page in self._etcd.pages(self._layout.hosts):
            for found in page:
                try:
                    if network in host_value(found.value).networks:
                        users.append(f"ports of {found.key.removeprefix(self._layout.hosts)}")
                except ValueError:
                    continue  # a host that nobody understands has no port anywhere
        return users

    # ------------------------------------------------------------ ports
    def put_port(self, host: str, table: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a port for a host, in place of another one of its name. `ips` "auto": those that it
        has, or free ones of its network's subnets. -> the table with its addresses."""
        _check_names(host)
        return self._until_done(lambda: self._try_port(host, dict(table)))

    def _try_port(self, host: str, table: dict[str, Any]) -> dict[str, Any] | None:
        name, network = str(table.get("name")), str(table.get("network"))
        parse_port({**table, "ips": []} if table.get("ips") == "auto" else table, f'port "{name}"')
        key, owner = self._layout.port(host, name), f"{host}/{name}"
        revision, before = self._table(key)
        conditions = [unchanged(key, revision)]
        operations: list[Operation] = []
        self._free(before, owner, table, operations)
        for one in _networks(table):
            at, its = self._table(self._layout.network(one))
            if not at:
                raise EngineError(f'the cluster has no network "{one}"', "create it first")
            conditions.append(present(self._layout.network(one)))
            held = self._held(one, owner)
            if one == network:
                wanted = table.get("ips") or ()
                plan = self.addresses.plan(its, owner, wanted, held)
                self._check_holders(one, owner, wanted)
                if plan.ips:
                    table["ips"] = plan.ips
                conditions += plan.conditions
                operations += plan.operations
                held = plan.ips
            operations.append(put(self._layout.owner(one, owner), json.dumps(held).encode()))
        if revision and before == table:
            return table
        operations.append(put(key, _written(table)))
        return table if self._etcd.change(conditions, operations)[0] else None

    def _check_holders(self, network: str, owner: str, ips: Sequence[str] | str) -> None:
        for ip in () if isinstance(ips, str) else ips:
            _, found = self._etcd.get(self._layout.addresses(network) + ip)
            if found is not None and (holder := found.value.decode(errors="replace")) != owner:
                raise EngineError(f'{ip} is the address of {holder} in the network "{network}"',
                                  'take another one, or "auto"')

    def _free(self, before: Mapping[str, Any], owner: str, after: Mapping[str, Any],
              operations: list[Operation]) -> None:
        """What a port that was `before` has in networks that it is in no more."""
        for network in _networks(before) - _networks(after):
            below = self._layout.addresses(network)
            operations += [delete(below + ip) for ip in self._held(network, owner)]
            operations.append(delete(self._layout.owner(network, owner)))

    def delete_port(self, host: str, name: str) -> None:
        """Keep a port no longer; its addresses are free. Idempotent."""
        _check_names(host, name)
        self._until_done(lambda: self._try_delete_port(host, name))

    def _try_delete_port(self, host: str, name: str) -> bool | None:
        key = self._layout.port(host, name)
        revision, before = self._table(key)
        if not revision:
            return True
        operations = [delete(key)]
        self._free(before, f"{host}/{name}", {}, operations)
        return self._etcd.change([unchanged(key, revision)], operations)[0] or None

    def forget_host(self, host: str) -> list[str]:
        """Keep no port of a host that does not come back; -> their names."""
        below = self._layout.ports(host)
        names = [found.key.removeprefix(below)
                 for _, page in self._etcd.pages(below) for found in page]
        for name in names:
            self.delete_port(host, name)
        return names

    # ------------------------------------------------------------ addresses of other ports
    def take(self, network: str, owner: str, ips: list[str] | str = "auto") -> list[str]:
        """Addresses for a port, "host/name", that the cluster does not keep; asked again, those
        that it has."""
        return self._until_done(lambda: self._try_take(network, owner, ips))

    def _try_take(self, network: str, owner: str, ips: list[str] | str) -> list[str] | None:
        key = self._layout.network(network)
        revision, table = self._table(key)
        if not revision:
            raise EngineError(f'the cluster has no network "{network}"', "create it first")
        owner_key = self._layout.owner(network, owner)
        found = self._etcd.get(owner_key)[1]
        held = _held(found)
        plan = self.addresses.plan(table, owner, "auto" if isinstance(ips, str) else ips, held)
        self._check_holders(network, owner, ips)
        if found is not None and plan.ips == held:
            return held
        conditions = [present(key), unchanged(owner_key, found.revision if found else 0)]
        operations = [put(owner_key, json.dumps(plan.ips).encode())]
        done, _ = self._etcd.change(conditions + plan.conditions, operations + plan.operations)
        return plan.ips if done else None

    def give_back(self, network: str, owner: str) -> None:
        """What a port has in a network is free. Idempotent."""
        operations: list[Operation] = []
        self._free({"network": network}, owner, {}, operations)
        self._etcd.change([], operations)

    # ------------------------------------------------------------
    def _held(self, network: str, owner: str) -> list[str]:
        return _held(self._etcd.get(self._layout.owner(network, owner))[1])

    def _table(self, key: str) -> tuple[int, dict[str, Any]]:
        """(revision of a key's last change, the table in it); (0, {}) where there is none."""
        _, found = self._etcd.get(key)
        if found is None:
            return 0, {}
        try:
            return found.revision, load(found.value)
        except ValueError:
            return found.revision, {}

    def _until_done(self, attempt: Callable[[], Made | None]) -> Made:
        for _ in range(ATTEMPTS):
            if (made := attempt()) is not None:
                return made
            time.sleep(self._chance.uniform(0, PAUSE_SECONDS))
        raise EngineError("others change the same all the time", "try again")


def _check_names(*names: str) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise EngineError(f"{name!r} is no valid name", "use letters, digits, '_', '.' and '-'")


def _networks(table: Mapping[str, Any]) -> set[str]:
    """The networks that a port's table names."""
    vlans = table.get("vlans") or {}
    named = [table.get("network"), *(vlans.values() if isinstance(vlans, dict) else ())]
    return {name for name in named if isinstance(name, str)}


def _held(found: Found | None) -> list[str]:
    try:
        held = json.loads(found.value) if found else []
    except ValueError:
        held = []
    return [str(ip) for ip in held] if isinstance(held, list) else []


def _number(found: Found) -> int:
    try:
        return min(max(int(found.value), FIRST_VNI - 1), LAST_VNI)
    except ValueError:
        return FIRST_VNI - 1


def _written(table: Mapping[str, Any]) -> bytes:
    return json.dumps(table, separators=(",", ":")).encode()
