# SPDX-License-Identifier: Apache-2.0
"""Services and their appliances: who has which, who works, and what workers know of it.

Used by policy and the engine. Uses networks, plans, health, and switch.service_memory.

Names may point at what comes later in the same change, so all is tied when it is asked for: a port
may have a service that is not there yet (then nothing passes), a service may name ports that are
not there (then that appliance does not work).

The ports of appliances are no members of their network: an appliance joins two of them, and what
is flooded to both would go round for ever. A port that a service has named stays outside until it
is removed, whatever becomes of the service.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from byway.control.actions import Action, AddService, ChangeService, RemoveService
from byway.control.health import Health
from byway.control.model import AnyPort, ApplianceConfig, ServiceConfig
from byway.control.networks import Networks
from byway.control.overlay import mac_number
from byway.control.plans import Plans
from byway.control.problem import EngineError
from byway.ports.port import Port
from byway.switch.population import PopulationFullError
from byway.switch.service import LEFT, RIGHT
from byway.switch.service_memory import Back, Homes, Service, Steps


class Sender(Protocol):
    """Who sends probes."""

    def emit(self, port: Port, frame: bytes) -> None:
        """Send a frame out of a port that is attached."""


class Services:
    """The services of a switch. ``keep`` is given memory that workers may still be reading. Belongs
    to the control thread."""

    def __init__(self, sender: Sender, networks: Networks, plans: Plans,
                 keep: Callable[[Any], None]) -> None:
        self._sender = sender
        self._networks = networks
        self._plans = plans
        self.refit: Callable[[Iterable[str]], None] = lambda names: None
        self._keep = keep
        self._homes = Homes()
        self._homes.population.on_moved(keep)
        self.configs: dict[str, ServiceConfig] = {}
        self._services: dict[str, Service] = {}
        self._of_port: dict[str, tuple[str, ApplianceConfig, int]] = {}  # service and side, by port
        self._health: dict[ApplianceConfig, Health] = {}
        self._ports: dict[str, Port] = {}
        self._backs: dict[str, Back] = {}  # by port
        self._outside: set[int] = set()  # port numbers
        self._inside: dict[int, tuple[Steps, list[int]]] = {}  # with addresses, by port number

    # ------------------------------------------------------------ ports
    def join(self, name: str, network: int, port: int) -> None:
        """A port that is made becomes a member of its network, if it is no appliance's."""
        if name in self._of_port:
            self._outside.add(port)
        else:
            self._plans.join(network, port)

    def part(self, network: int, port: int) -> None:
        """A port is about to be removed: it is no member any more, if it was one."""
        if port in self._outside:
            self._outside.remove(port)
        else:
            self._plans.leave(network, port)

    def admit(self, port: Port) -> None:
        """The port is there."""
        self._ports[port.name] = port

    def leave(self, port: Port) -> None:
        """The port is about to be closed."""
        self._ports.pop(port.name, None)
        self.placed(port)
        self._move_out(port.index)

    def dismiss(self, port: Port) -> None:
        """No worker knows the port any more."""
        self._backs.pop(port.name, None)

    def placed(self, port: Port) -> None:
        """The port has come up, or gone down."""
        if port.name in self._of_port:
            service, appliance, _ = self._of_port[port.name]
            self._health[appliance].reset()
            self._spread(service)

    # ------------------------------------------------------------ what stands in STAGES
    def words(self, port: Port, parts: list[Any]) -> dict[str, int]:
        """The fields of the port's STAGES; ``parts`` gets what they lead to."""
        return {"services": self._steps(port, parts), "service": self._back(port, parts)}

    def _steps(self, port: Port, parts: list[Any]) -> int:
        network = self._networks[port.config.network].number
        macs = _addresses(port.config) if port.config.services else []
        if not macs:
            self._move_out(port.index)
            return 0
        services = [self._service(name) for name in port.config.services]
        steps = Steps(self._homes, network, port.index, services)
        if port.index in self._inside:
            before, known = self._inside[port.index]
            self._homes.forget(network, port.index, [mac for mac in known if mac not in macs])
            self._keep(before)  # workers find it by its addresses, too
        self._inside[port.index] = steps, macs  # first: workers find it even if there is no room
        try:
            self._homes.settle_in(steps, macs)
        except PopulationFullError as error:
            raise EngineError(f'port "{port.name}": {error.problem}', error.fix) from None
        parts.append(steps)
        return steps.address

    def _move_out(self, port: int) -> None:
        """The port has no services any more."""
        steps, macs = self._inside.pop(port, (None, []))
        if steps is not None:
            self._homes.forget(steps.network, port, macs)
            self._homes.leave(port)
            self._keep(steps)

    def _back(self, port: Port, parts: list[Any]) -> int:
        if port.name not in self._of_port:
            if port.index not in self._outside:
                return 0
            back = self._backs.get(port.name)  # of a service that is no more: all is a stray
            parts.append(back)
            return back.address if back else 0
        service, _, side = self._of_port[port.name]
        network = self._networks[port.config.network]
        back = Back(self._homes, self._service(service), side, network.number, port.index)
        if (old := self._backs.get(port.name)) and old.is_like(back):
            back = old  # and knows which probe came back last
        self._backs[port.name] = back
        if port.index not in self._outside:
            self._outside.add(port.index)
            self._plans.leave(network.number, port.index)
            network.fdb.forget(port.index)
        parts.append(back)
        return back.address

    def _service(self, name: str) -> Service:
        return self._services.setdefault(name, Service(name))

    # ------------------------------------------------------------ the configuration
    def carry_out(self, action: Action) -> bool:
        """A service comes, changes or goes; -> False where the action is about something else."""
        match action:
            case AddService(config) | ChangeService(_, config):
                self._set(config)
            case RemoveService(name):
                self._forget_ports(name)
                del self.configs[name]
                self._spread(name)
            case _:
                return False
        return True

    def undo(self, action: Action) -> Action | None:
        """What takes back an action that is about to be carried out; None: it is another's."""
        match action:
            case AddService(config):
                return RemoveService(config.name)
            case ChangeService(old, new):
                return ChangeService(new, old)
            case RemoveService(name):
                return AddService(self.configs[name])
        return None

    def _set(self, config: ServiceConfig) -> None:
        # Those that were asked before, and stay, are what they were.
        before = self.configs.get(config.name)
        known = {one: self._health[one] for one in before.appliances} if (
            before and before.probe) else {}
        gone = self._forget_ports(config.name)
        self.configs[config.name] = config
        for one in config.appliances:
            self._health[one] = known.get(one) or Health()
            self._of_port[one.left] = config.name, one, LEFT
            self._of_port[one.right] = config.name, one, RIGHT
        self._service(config.name).choose(
            bypass=config.down == "bypass", addresses=config.spread == "addresses")
        self._spread(config.name)
        self.refit([*gone, *config.ports])

    def _forget_ports(self, name: str) -> list[str]:
        """The service has no appliances; -> the ports of those that it had."""
        ports = self.configs[name].ports if name in self.configs else ()
        for one in self.configs[name].appliances if ports else ():
            del self._health[one]
        for port in ports:
            del self._of_port[port]
        return list(ports)

    # ------------------------------------------------------------ who works
    def tick(self) -> None:
        """Once a second: ask the appliances, and spread the flows over those that work."""
        for config in self.configs.values():
            changed = False
            for one in config.appliances if config.probe else ():
                health = self._health[one]
                if health.tick(config.probe) and self._are_up(one):
                    back = self._backs.get(one.right)
                    changed |= health.ask(back.heard if back else 0, config.misses)
                    frame = self._service(config.name).probe(health.asked)
                    self._sender.emit(self._ports[one.left], frame)
            if changed:
                self._spread(config.name)

    def _are_up(self, one: ApplianceConfig) -> bool:
        ports = [self._ports.get(name) for name in (one.left, one.right)]
        return all(port is not None and self._plans.known(port) for port in ports)

    def _trouble(self, config: ServiceConfig, one: ApplianceConfig) -> str:
        """Why an appliance does not work; empty: it does."""
        for name in (one.left, one.right):
            port = self._ports.get(name)
            if port is None:
                return f'there is no port "{name}"'
            if not self._plans.has(port):
                return f'port "{name}" is not up'
        return self._health[one].trouble if config.probe else ""

    def _spread(self, name: str) -> None:
        config = self.configs.get(name)
        self._service(name).spread([
            (one.left, self._ports[one.left].index, self._ports[one.right].index)
            for one in (config.appliances if config else ())
            if config and not self._trouble(config, one)])

    # ------------------------------------------------------------ what there is
    def shown(self) -> list[dict[str, Any]]:
        """Every service: its configuration, its appliances' states, its counters."""
        return [self._shown(config) for config in self.configs.values()]

    def _shown(self, config: ServiceConfig) -> dict[str, Any]:
        service = self._service(config.name)
        appliances = []
        for one in config.appliances:
            trouble = self._trouble(config, one)
            left = self._ports.get(one.left)
            appliances.append({
                **one.model_dump(), "state": "down" if trouble else "up", "reason": trouble,
                "slots": service.share(left.index) if left and not trouble else 0})
        return {**config.model_dump(), "appliances": appliances, **service.statistics()}


def _addresses(config: AnyPort) -> list[int]:
    """The MAC addresses of whoever is behind a port."""
    macs = [config.mac, *(pair.mac for pair in config.allowed_address_pairs)]
    return list(dict.fromkeys(mac_number(mac) for mac in macs if mac))
