# SPDX-License-Identifier: Apache-2.0
"""The stages of each port: what its configuration, its network and its security groups ask for.

Used by the engine. Uses networks, overlay, plans, functions, and the stages in switch.

A port that needs no stage has no STAGES record. One that gets its first is given one between two
passes; afterwards its fields change one by one, as words that a worker reads at any time, and what
they led to before is kept until every worker has ended its pass.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from byway.control.actions import (
    Action,
    AddGroup,
    AddRouter,
    ChangeGroup,
    RemoveGroup,
    RemoveRouter,
)
from byway.control.function_answers import AnsweringFunctions
from byway.control.model import LimitConfig, MirrorConfig
from byway.control.networks import Networks
from byway.control.overlay import Overlay, mac_number
from byway.control.plans import Plans
from byway.control.problem import EngineError
from byway.control.routers import Routers
from byway.control.security import Security
from byway.control.services import Sender, Services
from byway.control.trunks import PortNumbers, TrunkPort
from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.ports.port import Port
from byway.switch.meter import Meter
from byway.switch.port_security import PortSecurity
from byway.switch.stages import STAGES

# What is done with frames that come in, besides a chain.
_WITH_CHAIN = ("meter", "security", "responder", "groups", "router", "uplink", "mirror_rx",
               "services", "service")


class PolicyHost(PortNumbers, Sender, Protocol):
    """What the engine is to the policy."""

    loop: asyncio.AbstractEventLoop

    def publish(self) -> None:
        """Tell the workers what has changed, unless that is done soon for more changes together."""

    def settle(self) -> None:
        """Returns when every worker has ended the pass it was in."""

    def number(self, name: str) -> int:
        """The number of a port, -1 where there is none of that name."""

    def open_waiting(self) -> None:
        """Open ports that could not be opened, or must not be, if they can be now."""


class Policy:
    """The stages of all ports. Belongs to the control thread."""

    def __init__(self, engine: PolicyHost, plans: Plans, networks: Networks, overlay: Overlay,
                 hz: float, connections: int) -> None:
        self._engine = engine
        self._plans = plans
        self._networks = networks
        self._overlay = overlay
        self._hz = hz
        self._security = Security(overlay, hz, connections)
        self._routers = Routers(engine, networks, hz, overlay.table_address, overlay.keep)
        overlay.stages["router"] = self._routers.address
        self.services = Services(engine, networks, plans, overlay.keep)
        self.services.refit = self._refit
        self.functions = AnsweringFunctions(engine.loop, engine.number, hz)
        self.functions.refit, self.functions.settle = self._refit, engine.settle
        self.functions.ready = engine.open_waiting
        self._ports: dict[str, Port] = {}
        self._mirrors: dict[str, str] = {}  # port: the port that it is mirrored to
        self._mirrored: dict[str, dict[str, None]] = {}  # and the other way round
        self._responder = overlay.responder
        overlay.tunnels.on_uplink(self.change)
        self._trunks: dict[str, TrunkPort] = {}
        self._records: dict[str, Any] = {}  # STAGES by port
        self._parts: dict[str, list[Any]] = {}  # what they lead to

    # ------------------------------------------------------------ ports
    def admit(self, port: Port) -> None:
        """A port that is not attached yet gets the stages that it needs."""
        self._ports[port.name] = port
        self._set_mirror(port.name, port.config.mirror)
        self.services.admit(port)
        if port.config.vlans:
            self._trunks[port.name] = TrunkPort(port, self._engine, self._networks, self._plans)
            self._trunks[port.name].join()
        self._fit(port)
        for other in self._mirrored_to(port.name):
            self._fit(other)
        self.functions.instances.renumber(port.name)

    def change(self, port: Port) -> None:
        """The configuration of a port, or of what it belongs to, is another one."""
        self._set_mirror(port.name, port.config.mirror)
        self._fit(port)

    def _refit(self, names: Iterable[str]) -> None:
        """The functions, or services, of these ports are others."""
        self._fit(*(self._ports[name] for name in names if name in self._ports))

    def leave(self, port: Port) -> None:
        """The port is about to be closed."""
        self._ports.pop(port.name, None)
        self._set_mirror(port.name, None)
        self.services.leave(port)
        if trunk := self._trunks.get(port.name):
            trunk.leave()
        for other in self._mirrored_to(port.name):
            self._fit(other)

    def dismiss(self, port: Port) -> None:
        """The port is gone, and no worker knows it."""
        self.functions.leave(port.config)
        self.functions.instances.renumber(port.name)
        self._security.detach(port)
        self.services.dismiss(port)
        if trunk := self._trunks.pop(port.name, None):
            trunk.dismiss()
        self._records.pop(port.name, None)
        self._parts.pop(port.name, None)

    def _mirrored_to(self, name: str) -> list[Port]:
        return [self._ports[other] for other in self._mirrored.get(name, ())]

    def _set_mirror(self, name: str, mirror: MirrorConfig | None) -> None:
        before = self._mirrors.pop(name, None)
        if before is not None:
            del self._mirrored[before][name]
        if mirror:
            self._mirrors[name] = mirror.to
            self._mirrored.setdefault(mirror.to, {})[name] = None

    def network_changed(self, name: str) -> None:
        """A network has other values: fit its ports."""
        self._routers.network_changed(self._networks[name].config)
        self._fit(*[p for p in self._ports.values() if name in p.config.networks])

    def network_gone(self, name: str) -> None:
        """A network is about to be removed; it has no ports."""
        self._routers.network_gone(name)

    def finish(self) -> None:
        """All changes that come together were told: make what is made once for all of them."""
        self._routers.finish()
        self.functions.finish()

    def _fit(self, *ports: Port) -> None:
        """Have the ports' stages be what is wanted of them. What they led to before is let go when
        nobody uses it any more, once for all of them."""
        before: list[list[Any]] = []
        try:
            for port in ports:
                before.append(self._parts.get(port.name, []))
                self._fit_one(port)
        finally:
            if any(before):
                self._engine.settle()

    def _fit_one(self, port: Port) -> None:
        parts: list[Any] = []
        wanted = self._wanted(port, parts)
        trunk = self._trunks.get(port.name)
        if port.name not in self._records:
            if not trunk and not any(wanted.values()):
                return
            self._plans.use_stages()
            self._plans.publish()
            self._records[port.name] = alloc(STAGES, 1, CACHE_LINE)
        self._store(self._records[port.name], wanted, trunk.table.address if trunk else 0)
        for network, sub in (trunk.subs if trunk else {}).items():
            self._store(sub.stages, {
                **self._of_network(network), "meter": wanted["meter"],
                "security": wanted["security"],
                "mirror_rx": wanted["mirror_rx"], "mirror_tx": wanted["mirror_tx"],
                **self._chains(port, network, parts),
                "groups": self._security.attach_number(port, sub.index)}, sub.push.address)
        port.record["stages"] = address_of(self._records[port.name])
        self._parts[port.name] = parts

    @staticmethod
    def _store(record: Any, wanted: Mapping[str, int], trunk: int) -> None:
        record["alone"], record["trunk"] = 0, trunk  # it is alone when all of the others are there
        for field in set(STAGES.names) - {"parent", "trunk", "alone"}:
            record[field] = wanted.get(field, 0)
        if not trunk and not any(wanted.get(field, 0) for field in _WITH_CHAIN):
            record["alone"] = wanted.get("chain_rx", 0)

    def _wanted(self, port: Port, parts: list[Any]) -> dict[str, int]:
        """What stands in the port's STAGES; ``parts`` gets what it leads to."""
        config = port.config
        wanted = self._of_network(config.network)
        wanted["meter"] = self._meter(config.limit, parts) if config.limit else 0
        wanted["security"] = self._port_security(config, parts) if config.port_security else 0
        wanted["uplink"] = self._overlay.tunnels.uplink_of(port)
        wanted["groups"] = self._security.attach(port)
        wanted["mirror_rx"], wanted["mirror_tx"] = self._mirror(config.mirror)
        wanted |= self.services.words(port, parts)
        return wanted | self._chains(port, config.network, parts)

    def _chains(self, port: Port, network: str, parts: list[Any]) -> dict[str, int]:
        """The network functions for frames of one of the port's networks."""
        return self.functions.chains(port.config, self._networks[network].config, parts)

    def _of_network(self, name: str) -> dict[str, int]:
        """The stages that a port of this network has, whatever the port."""
        config = self._networks[name].config
        return {"router": self._routers.address if config.gateway else 0,
                "responder": self._responder.address if config.vni or config.responds else 0}

    def _meter(self, limit: LimitConfig, parts: list[Any]) -> int:
        meter = Meter(self._hz, limit.burst, rx_bits=limit.rx_bits or 0,
                      rx_frames=limit.rx_frames or 0, tx_bits=limit.tx_bits or 0,
                      tx_frames=limit.tx_frames or 0,
                      broadcast_frames=limit.broadcast_frames or 0)
        parts.append(meter)
        return meter.address

    @staticmethod
    def _port_security(config: Any, parts: list[Any]) -> int:
        """The addresses that the port may use: its own, any where none is known, and its pairs."""
        own = mac_number(config.mac)
        pairs: list[tuple[int, str | None]] = [(own, ip) for ip in config.known_ips or (None,)]
        pairs += [(mac_number(pair.mac) if pair.mac else own, pair.ip)
                  for pair in config.allowed_address_pairs]
        try:
            security = PortSecurity(pairs, config.trusted)
        except ValueError as error:
            raise EngineError(f'port "{config.name}", allowed_address_pairs: {error}',
                              "give it fewer pairs") from error
        parts.append(security)
        return security.address

    def _mirror(self, mirror: MirrorConfig | None) -> tuple[int, int]:
        target = self._ports.get(mirror.to) if mirror else None
        to = target.index + 1 if target else 0
        direction = mirror.direction if mirror else "both"
        return (to if direction != "tx" else 0), (to if direction != "rx" else 0)

    def connections(self, port: str | None, limit: int) -> list[dict[str, Any]]:
        """The connections of one port, or of all; at most so many."""
        names = {number: one.name for one in self._ports.values() if port in (None, one.name)
                 for number in (one.index, *(number for number, _ in one.sub_ports))}
        return self._security.connections(names, limit)

    def tick(self) -> None:
        """Once a second."""
        self.functions.tick()
        self._security.tick()
        self.services.tick()

    # ------------------------------------------------------------ security groups, routers
    def carry_out(self, action: Action) -> None:
        """Security groups, routers and network functions of the configuration."""
        match action:
            case AddGroup(group) | ChangeGroup(_, group):
                self._security.set_group(group)
            case RemoveGroup(name):
                self._security.remove_group(name)
            case AddRouter(router):
                self._routers.add(router)
            case RemoveRouter(name):
                self._routers.remove(name)
            case _ if not self.services.carry_out(action):
                self.functions.carry_out(action)

    def undo(self, action: Action) -> Action:
        """What takes back an action that is about to be carried out."""
        match action:
            case AddGroup(group):
                return RemoveGroup(group.name)
            case ChangeGroup(old, new):
                return ChangeGroup(new, old)
            case RemoveGroup(name):
                return AddGroup(self._security.configs[name])
            case AddRouter(router):
                return RemoveRouter(router.name)
            case RemoveRouter(name):
                return AddRouter(self._routers.configs[name])
        undo = self.services.undo(action) or self.functions.undo(action)
        assert undo is not None, f"{action} is not the policy's"
        return undo
