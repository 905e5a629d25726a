# SPDX-License-Identifier: Apache-2.0
"""The engine: networks, ports and workers of a running switch, and the plans that tie them.

Used by the daemon, through wanted; uses its parts beside it, ports and worker. All of it belongs to
the control thread (the event loop's); nothing here is thread-safe.

Theory of operation
-------------------
The engine keeps what exists: ports by number, and through its parts networks, the overlay (tunnels,
who is behind which) and the policy (the stages of ports). Which ports are *attached*, that is up,
with queues that workers may touch, stands in the workers' plans (plans.py). A change is published
to all workers and waited for; then whatever left the plans is nobody's any more. Inside ``apply``
changes are gathered, so that hundreds of ports cost two exchanges: one without what goes, one with
what comes. No change costs more for what is there already. An rx queue is served by one worker for
as long as its port lives (assignment.py).

Timers: once a second old fdb entries go, and ports are tried that could not be opened. Twenty times
a second a worker that hangs in the middle of a pass is interrupted (machine.interrupt): a peer can
make a write to its event fd block. Who finds a ring broken writes the alarm event fd.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from byway.control.actions import (
    Action,
    AddEntry,
    AddHost,
    AddNetwork,
    AddPort,
    ChangeNetwork,
    ChangePort,
    RemoveEntry,
    RemoveHost,
    RemoveNetwork,
    RemovePort,
    SetUnderlay,
)
from byway.control.engine_shown import ShownEngine
from byway.control.heard import Heard
from byway.control.model import NetworkConfig, PortConfig, SwitchConfig
from byway.control.networks import Network
from byway.control.opening import PORT_CLASSES, Unopened
from byway.control.overlay import Overlay
from byway.control.policy import Policy
from byway.control.problem import EngineError
from byway.machine import sigbus
from byway.machine.clock import tsc
from byway.ports.port import Port
from byway.worker import units
from byway.worker.events import Events

AGEING_SECONDS = 1.0
AHEAD_SECONDS = 30.0  # until code is made that may be needed later
STALL_SECONDS = 0.05  # a worker that ends no pass for so long hangs in a system call


class Engine(ShownEngine):
    """A switch that runs. ``loop`` is the control thread's event loop."""

    def __init__(self, switch: SwitchConfig, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(switch.workers or (None,), loop, switch.gather_us / 1e6)
        self.switch = switch
        self._ports: dict[str, Port] = {}
        self._unopened = Unopened(lambda port: self.functions.why_shut(port.config))
        self._replaced: set[str] = set()  # ports that are removed to be added again, changed
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.overlay = Overlay(self, self._plans, self._networks, self._entries)
        self._heard = Heard(self._networks, self.overlay)
        self.policy = Policy(self, self._plans, self._networks, self.overlay, self._hz,
                             switch.connections)
        self.functions = self.policy.functions
        self.services = self.policy.services.shown

    # ------------------------------------------------------------ life
    def start(self) -> None:
        """Start the workers (EngineError: a CPU that cannot be used)."""
        sigbus.set_alarm(self.alarm)
        self.loop.add_reader(self.alarm, self._on_alarm)
        for worker in self._workers:
            try:
                worker.start()
            except OSError as error:
                raise EngineError(f"switch: workers: {error}", "name other CPUs") from None
        for events in self._events:
            self.loop.add_reader(events.fd, self._on_events, events)
        self._timers["ahead"] = self.loop.call_later(
            AHEAD_SECONDS, partial(units.start, patient=True))
        self._on_ageing()
        self._on_watch()

    def close(self) -> None:
        """Stop the workers, close every port. Idempotent."""
        self.functions.close()
        for worker in self._workers:
            worker.stop(worker.interrupt)
        self._detach_all(list(self._ports.values()))
        self._gathering += 1
        for port in self._ports.values():
            port.close()
        self.overlay.close()
        self._closing.finish()
        self._ports.clear()
        for worker in self._workers:
            worker.close()
        for events in self._events:
            self.loop.remove_reader(events.fd)
            events.close()
        for timer in self._timers.values():
            timer.cancel()
        self._events.clear()
        self._timers.clear()
        if self.alarm >= 0:
            sigbus.set_alarm(-1)
            self.loop.remove_reader(self.alarm)
            os.close(self.alarm)
            self.alarm = -1

    def step(self, now: int | None = None) -> int:
        """One pass of every worker in the calling thread, at tick ``now``; -> rows moved. For tests
        without worker threads; answers alarms as well."""
        moved = sum(worker.step(now) for worker in self._workers)
        self._hear()
        self._on_alarm()
        return moved

    def expire(self, now: int) -> int:
        """Remove fdb entries that at tick ``now`` are older than their network's ageing time;
        -> how many."""
        return self._networks.expire(now)

    def _on_ageing(self) -> None:
        # First: whatever goes wrong below goes wrong once.
        self._timers["ageing"] = self.loop.call_later(AGEING_SECONDS, self._on_ageing)
        if self.expire(int(tsc())) or self._heard.due:
            self._heard.sweep()
        self.policy.tick()
        self.overlay.tunnels.tick()
        self.open_waiting()

    def open_waiting(self) -> None:
        """Try again to open ports that could not be opened, and shut those that lack a guard which
        cannot be had. Pauses no worker."""
        with self.together():
            self._unopened.open_held()
            self._unopened.shut(self._ports[name] for name in self.functions.unguarded())
        for again in self._unopened.again(self.overlay.tunnels.config):
            self.apply(again)

    def _hear(self) -> None:
        for events in self._events:
            self._on_events(events)

    def _on_events(self, events: Events) -> None:
        for event in events.take():
            self._heard.hear(event)

    def _on_watch(self) -> None:
        self._timers["watch"] = self.loop.call_later(STALL_SECONDS, self._on_watch)
        for worker in self._workers:
            if worker.stalled():
                worker.interrupt()

    def _on_alarm(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self.alarm)
        for port in [*self._ports.values(), *self.overlay.ports]:
            if port.trouble():
                try:
                    port.on_trouble()
                except OSError as error:  # the others' alarms are not to be lost
                    self.loop.call_exception_handler({
                        "message": f"port {port.name} cannot be taken down", "exception": error})

    # ------------------------------------------------------------ changes
    def join_cluster(self) -> None:
        """A cluster tells from now on who is where. Pauses no worker."""
        self._networks.join_cluster()
        self.publish()

    def apply(self, actions: Sequence[Action]) -> None:
        """Carry out all actions with at most two exchanges, or raise EngineError and undo them."""
        done: list[Action] = []
        leaving = [self._ports[a.name] for a in actions
                   if isinstance(a, RemovePort) and a.name in self._ports]
        with self.together():
            self._replaced = {a.port.name for a in actions if isinstance(a, AddPort)} & {
                p.name for p in leaving}
            try:
                self._detach_all(leaving)
                for action in actions:
                    undo = self._undo(action)
                    self._carry_out(action)
                    done.append(undo)
                self.policy.finish()
            except BaseException:
                self._take_back(done, leaving)
                raise
            finally:
                self._replaced = set()

    def _take_back(self, done: list[Action], leaving: list[Port]) -> None:
        for action in reversed(done):
            with suppress(EngineError):
                self._carry_out(action)
        with suppress(EngineError):
            self.policy.finish()
        for port in leaving:  # those that have stayed are served again
            if self._ports.get(port.name) is port and port.state == "up":
                self.attach(port)

    def _undo(self, action: Action) -> Action:
        match action:
            case AddNetwork(config):
                return RemoveNetwork(config.name)
            case RemoveNetwork(name):
                return AddNetwork(self._networks[name].config)
            case ChangeNetwork(old, new):
                return ChangeNetwork(new, old)
            case AddPort(port):
                return RemovePort(port.name)
            case RemovePort(name):
                return AddPort(self._port(name).config, patient=True)
            case ChangePort(before, after):
                return ChangePort(after, before)
            case SetUnderlay() | AddHost() | RemoveHost() | AddEntry() | RemoveEntry():
                return self.overlay.undo(action)
            case _:
                return self.policy.undo(action)

    def _carry_out(self, action: Action) -> None:
        match action:
            case AddNetwork(config):
                self.add_network(config)
            case RemoveNetwork(name):
                self.remove_network(name)
            case ChangeNetwork(_, new):
                self._networks.change(new)
                self.policy.network_changed(new.name)
            case AddPort(port, patient):
                self.add_port(port, patient)
            case RemovePort(name):
                self.remove_port(name)
            case ChangePort(_, port):
                self._change_port(port)
            case SetUnderlay() | AddHost() | RemoveHost() | AddEntry() | RemoveEntry():
                self.overlay.carry_out(action)
            case _:
                self.policy.carry_out(action)
        self.publish()

    def add_network(self, config: NetworkConfig) -> None:
        """Create a network. Pauses no worker."""
        self._networks.add(config)
        try:
            self.overlay.add_network(config.name)
            self.policy.network_changed(config.name)
        except BaseException:
            self.remove_network(config.name)
            raise
        self.publish()

    def remove_network(self, name: str) -> None:
        """Remove a network without ports. Pauses no worker."""
        network = self._networks[name]
        if not network.members:
            self.overlay.remove_network(name)
            self.policy.network_gone(name)
        self.retired.append(self._networks.remove(name))  # workers still know its table
        self.publish()

    def add_port(self, config: PortConfig, patient: bool = False) -> None:
        """Make and open a port. ``patient``: where it cannot be opened it is there nevertheless,
        "down" with the reason, and tried again and again. Pauses no worker."""
        if config.name in self._ports:
            raise EngineError(f'port "{config.name}" exists already', "take another name")
        self._closing.finish()  # what it names may have been another's just now
        port = self._ports[config.name] = self._new_port(config, self._networks[config.network])
        try:
            self.policy.admit(port)
            self.overlay.admit(port)
            self._unopened.open(port, patient)
        except BaseException:
            self.remove_port(config.name)
            raise
        self.publish()

    def _new_port(self, config: PortConfig, network: Network) -> Port:
        """A port that is not open, with a number, and a member of its network."""
        index = self.take_number()
        try:
            port = PORT_CLASSES[config.kind](config, index, self, network.config.mtu)
        except BaseException:
            self._port_numbers.give_back(index)
            raise
        if self._assignment.room < port.queues:
            self._port_numbers.give_back(index)
            raise EngineError("the ports of the switch have too many queues",
                              "remove some first, or give the port fewer queues")
        self._assignment.admit(port)
        port.record["network"] = network.number
        network.members[index] = config.name
        self.policy.services.join(config.name, network.number, index)
        return port

    def remove_port(self, name: str) -> None:
        """Close a port and forget it. Pauses no worker."""
        port = self._port(name)
        network = self._networks[port.config.network]
        self.policy.services.part(network.number, port.index)  # goes with what closing changes
        self._unopened.discard(name)
        self.overlay.dismiss(port)
        self.policy.leave(port)
        port.close() if name in self._replaced else port.remove()
        del self._ports[name]
        self.publish()
        self._hear()  # what is still said of the port: its number may be another's soon
        self._heard.leave({port.index, *(number for number, _ in port.sub_ports)})
        self.policy.dismiss(port)
        del network.members[port.index]
        network.fdb.forget(port.index)  # whatever was learned: the number is given again
        self._assignment.forget(port)
        self._port_numbers.give_back(port.index)

    def _change_port(self, config: PortConfig) -> None:
        """Other values of what a port can change while it goes on. Pauses no worker."""
        port = self._port(config.name)
        before, port.config = port.config, config
        try:
            self.policy.change(port)
        except BaseException:
            port.config = before
            self.policy.change(port)
            raise
        self.overlay.admit(port)

    def placed(self, port: Port, there: bool) -> None:
        """A port was attached, or detached: its addresses are here, or not."""
        (self.overlay.port_up if there else self.overlay.port_down)(port)
        self.policy.services.placed(port)
