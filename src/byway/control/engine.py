# SPDX-License-Identifier: Apache-2.0
"""The engine: networks, ports and workers of a running switch, and the plans that tie them.

Used by the daemon, through wanted; uses worker, ports, switch. All of it belongs to the control
thread (the event loop's); nothing here is thread-safe.

Theory of operation
-------------------
The engine keeps what exists (networks, ports by number). Which ports are *attached*, that is up,
with queues that workers may touch, stands in the workers' plans (plans.py). A change is published
to all workers and waited for; then whatever left the plans is nobody's any more. Inside ``apply``
changes are gathered, so that hundreds of ports cost two exchanges: one without what goes, one with
what comes. No change costs more for what is there already.

An rx queue is served by one worker for as long as its port lives (assignment.py).

Timers: once a second old fdb entries are removed, and ports tried that could not be opened. Twenty
times a second it is asked whether a worker hangs in the middle of a pass: a peer can make a write
to its event fd block, and a signal gets the worker out of it (machine.interrupt). The alarm event
fd is written by a worker that found a broken ring and by the SIGBUS guard; the engine then asks
every port for trouble.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from byway.control.assignment import Assignment
from byway.control.closing import Closing
from byway.control.diff import Action, AddNetwork, AddPort, RemoveNetwork, RemovePort
from byway.control.model import NetworkConfig, PortConfig, SwitchConfig
from byway.control.numbers import Numbers
from byway.control.opening import PORT_CLASSES, Unopened, open_port
from byway.control.plans import Plans
from byway.control.problem import EngineError
from byway.machine import sigbus
from byway.machine.clock import measure_hz, tsc
from byway.machine.layout import address_of
from byway.packet.ethernet import untagged_frame
from byway.ports.namespaces import Namespaces
from byway.ports.port import Port
from byway.switch.fdb import CLOCK_SHIFT, MAX_PORTS, Fdb, mac_text
from byway.worker.plan import MAX_NETWORKS
from byway.worker.worker import Worker
from byway.worker.worker import prepare as prepare_workers

AGEING_SECONDS = 1.0
STALL_SECONDS = 0.05  # a worker that ends no pass for so long hangs in a system call


def prepare(progress: Callable[[str], None]) -> None:
    """Have the machine code of the data path ready; tells ``progress`` what it compiles."""
    prepare_workers(progress)
    sigbus.install()


class Network:
    """One network: its configuration, its number in plans, its table, its ports."""

    def __init__(self, config: NetworkConfig, number: int) -> None:
        self.config = config
        self.number = number
        self.fdb = Fdb(config.fdb_limit)
        self.members: dict[int, str] = {}  # the names of its ports by number


class Engine:
    """A switch that runs. ``loop`` is the control thread's event loop."""

    def __init__(self, switch: SwitchConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.switch = switch
        self.loop = loop
        self.alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.namespaces = Namespaces(loop)
        self._networks: dict[str, Network] = {}
        self._ports: dict[str, Port] = {}
        self._port_numbers = Numbers(MAX_PORTS)
        self._network_numbers = Numbers(MAX_NETWORKS)
        self._gathering = False
        self._unopened = Unopened()
        self._closing = Closing()
        self._replaced: set[str] = set()  # ports that are removed to be added again, changed
        self._hz = measure_hz()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._workers = [Worker(cpu) for cpu in switch.workers or (None,)]
        self._assignment = Assignment(self._workers)
        self._plans = Plans(self._workers, self._assignment)

    # ------------------------------------------------------------ life
    def start(self) -> None:
        """Start the workers (EngineError: a CPU that cannot be used)."""
        sigbus.set_alarm(self.alarm)
        self.loop.add_reader(self.alarm, self._on_alarm)
        for worker in self._workers:
            try:
                worker.start()
            except OSError as error:
                raise EngineError(f"switch: workers: {error}", "name CPUs that may be used") \
                    from None
        self._on_ageing()
        self._on_watch()

    def close(self) -> None:
        """Stop the workers, close every port. Idempotent."""
        for worker in self._workers:
            worker.stop(worker.interrupt)
        self._detach_all(list(self._ports.values()))
        self._gathering = True
        for port in self._ports.values():
            port.close()
        self._closing.finish()
        self._ports.clear()
        for worker in self._workers:
            worker.close()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self.alarm >= 0:
            sigbus.set_alarm(-1)
            self.loop.remove_reader(self.alarm)
            os.close(self.alarm)
            self.alarm = -1

    def step(self, now: int | None = None) -> int:
        """One pass of every worker in the calling thread, at tick ``now``; -> rows moved.

        For tests without worker threads; answers alarms as well.
        """
        moved = sum(worker.step(now) for worker in self._workers)
        self._on_alarm()
        return moved

    def expire(self, now: int) -> int:
        """Remove fdb entries that at tick ``now`` are older than their network's ageing time;
        -> how many."""
        return sum(
            network.fdb.expire((now - int(network.config.ageing * self._hz)) >> CLOCK_SHIFT)
            for network in self._networks.values() if len(network.fdb))

    def _on_ageing(self) -> None:
        # First: whatever goes wrong below goes wrong once.
        self._timers["ageing"] = self.loop.call_later(AGEING_SECONDS, self._on_ageing)
        self.expire(int(tsc()))
        for name in self._unopened.due():
            again = AddPort(self._port(name).config, patient=True)
            self.apply([RemovePort(name), again])

    def _on_watch(self) -> None:
        self._timers["watch"] = self.loop.call_later(STALL_SECONDS, self._on_watch)
        for worker in self._workers:
            if worker.stalled():
                worker.interrupt()

    def _on_alarm(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self.alarm)
        for port in list(self._ports.values()):
            if port.trouble():
                try:
                    port.on_trouble()
                except OSError as error:  # the others' alarms are not to be lost
                    self.loop.call_exception_handler(
                        {"message": f"port {port.name} could not be taken down",
                         "exception": error})

    # ------------------------------------------------------------ plans (ports call these)
    def attach(self, port: Port) -> None:
        """Serve the port from the next pass on. Pauses no worker."""
        self._assignment.watch(port)
        port.record["shared"] = len(self._workers) > 1
        self._plans.attach(port)
        self._publish()

    def detach(self, port: Port) -> None:
        """Returns when no worker touches the port. Pauses no worker."""
        known = self._plans.known(port)
        if not self._plans.detach(port):
            return
        if known:
            self._plans.publish()
        else:  # it was attached in a change that is not published yet
            self._publish()
        self._forget(port)

    def settle(self) -> None:
        """Returns when every worker has ended the pass it was in. Pauses no worker."""
        self._plans.settle()

    def _forget(self, port: Port) -> None:
        self._assignment.unwatch(port)
        self._networks[port.config.network].fdb.forget(port.index)

    def close_files(self, files: Sequence[int]) -> None:
        """Close files of a port; during a change, all of it together. Pauses no worker."""
        self._closing.add(files)
        if not self._gathering:
            self._closing.finish()

    def inject(self, port: Port, frame: bytes) -> None:
        """Send a frame in the name of a port that is attached, as if it had come in there. Pauses
        no worker."""
        if not self._plans.known(port):
            raise ValueError(f"port {port.name} is not part of the plan")
        k = port.serving[0]
        worker = self._workers[self._assignment.queue(port, k).worker]
        worker.give(address_of(port.rxqs[k:]), frame)
        worker.publish()
        self._plans.wait()

    def _publish(self) -> None:
        """Hand over what has changed, and wait until all workers follow."""
        if not self._gathering:
            self._plans.publish()

    # ------------------------------------------------------------ changes
    def apply(self, actions: Sequence[Action]) -> None:
        """Carry out all actions with at most two exchanges, or raise EngineError and undo them."""
        done: list[Action] = []
        leaving = [self._ports[a.name] for a in actions
                   if isinstance(a, RemovePort) and a.name in self._ports]
        self._gathering = True
        self._replaced = {a.port.name for a in actions if isinstance(a, AddPort)} & {
            p.name for p in leaving}
        try:
            self._detach_all(leaving)
            for action in actions:
                undo = self._undo(action)
                self._carry_out(action)
                done.append(undo)
        except BaseException:
            for action in reversed(done):
                with suppress(EngineError):
                    self._carry_out(action)
            for port in leaving:  # those that have stayed are served again
                if self._ports.get(port.name) is port and port.state == "up":
                    self.attach(port)
            raise
        finally:
            self._replaced = set()
            self._gathering = False
            self._closing.finish()
            self._publish()

    def _detach_all(self, ports: list[Port]) -> None:
        """Take many ports out at once; each then finds itself detached."""
        attached = [port for port in ports if self._plans.detach(port)]
        self._plans.publish()
        for port in attached:
            self._forget(port)

    def _undo(self, action: Action) -> Action:
        match action:
            case AddNetwork(config):
                return RemoveNetwork(config.name)
            case RemoveNetwork(name):
                return AddNetwork(self._network(name).config)
            case AddPort(port):
                return RemovePort(port.name)
            case RemovePort(name):
                return AddPort(self._port(name).config)

    def _carry_out(self, action: Action) -> None:
        match action:
            case AddNetwork(config):
                self.add_network(config)
            case RemoveNetwork(name):
                self.remove_network(name)
            case AddPort(port, patient):
                self.add_port(port, patient)
            case RemovePort(name):
                self.remove_port(name)

    def add_network(self, config: NetworkConfig) -> None:
        """Create a network. Pauses no worker."""
        if config.name in self._networks:
            raise EngineError(f'network "{config.name}" exists already', "take another name")
        if not self._network_numbers.left:
            raise EngineError(f"the switch has {MAX_NETWORKS} networks already",
                              "remove some first")
        made = self._networks[config.name] = Network(config, self._network_numbers.take())
        self._plans.set_network(made.number, made.fdb.address, untagged_frame(config.mtu))
        self._publish()

    def remove_network(self, name: str) -> None:
        """Remove a network without ports. Pauses no worker."""
        network = self._network(name)
        if network.members:
            raise EngineError(f'network "{name}" has {len(network.members)} ports',
                              "remove its ports first")
        del self._networks[name]
        self._plans.drop_network(network.number)
        self._network_numbers.give_back(network.number)
        self._publish()

    def add_port(self, config: PortConfig, patient: bool = False) -> None:
        """Make and open a port. ``patient``: where it cannot be opened it is there nevertheless,
        "down" with the reason, and tried again and again. Pauses no worker."""
        if config.name in self._ports:
            raise EngineError(f'port "{config.name}" exists already', "take another name")
        self._closing.finish()  # what it names may have been another's just now
        port = self._ports[config.name] = self._new_port(config, self._network(config.network))
        try:
            open_port(port)
        except EngineError as error:
            if not patient:
                self.remove_port(config.name)
                raise
            self._unopened.add(port, error)
        self._publish()

    def _new_port(self, config: PortConfig, network: Network) -> Port:
        """A port that is not open, with a number, and a member of its network."""
        if not self._port_numbers.left:
            raise EngineError(f"the switch has {MAX_PORTS} ports already", "remove some first")
        index = self._port_numbers.take()
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
        self._plans.join(network.number, index)
        return port

    def remove_port(self, name: str) -> None:
        """Close a port and forget it. Pauses no worker."""
        port = self._port(name)
        network = self._networks[port.config.network]
        self._plans.leave(network.number, port.index)  # goes with what closing changes
        self._unopened.discard(name)
        port.close() if name in self._replaced else port.remove()
        del self._ports[name]
        self._publish()
        del network.members[port.index]
        network.fdb.forget(port.index)  # whatever was learned: the number is given again
        self._assignment.forget(port)
        self._port_numbers.give_back(port.index)

    def _network(self, name: str) -> Network:
        if name not in self._networks:
            raise EngineError(f'there is no network "{name}"', "add it first")
        return self._networks[name]

    def _port(self, name: str) -> Port:
        if name not in self._ports:
            raise EngineError(f'there is no port "{name}"', "see `byway port list`")
        return self._ports[name]

    # ------------------------------------------------------------ what there is
    def ports(self) -> list[dict[str, Any]]:
        """State and counters of every port, in the order of their making."""
        return [port.status() for port in self._ports.values()]

    def networks(self) -> list[dict[str, Any]]:
        """Every network with the names of its ports."""
        return [self._shown(network) for network in self._networks.values()]

    def port(self, name: str) -> dict[str, Any]:
        """State and counters of one port (EngineError: there is none of that name)."""
        return self._port(name).status()

    def network(self, name: str) -> dict[str, Any]:
        """One network with the names of its ports (EngineError: there is none of that name)."""
        return self._shown(self._network(name))

    @staticmethod
    def _shown(n: Network) -> dict[str, Any]:
        return {
            "name": n.config.name, "vni": n.config.vni, "mtu": n.config.mtu,
            "ageing": n.config.ageing,
            "ports": [n.members[k] for k in sorted(n.members)],
            "fdb_entries": len(n.fdb), "fdb_limit": n.config.fdb_limit,
            "fdb": n.fdb.statistics(),
        }

    def fdb(self, network: str | None) -> list[dict[str, Any]]:
        """The learned addresses of one network, or of all; ``age`` in seconds."""
        chosen = [self._network(network)] if network else list(self._networks.values())
        now, tick = int(tsc()) >> CLOCK_SHIFT, (1 << CLOCK_SHIFT) / self._hz
        return [{
            "network": n.config.name, "mac": mac_text(mac), "port": n.members[port],
            "age": round(max(0, now - seen) * tick, 1),
        } for n in chosen for mac, port, seen in n.fdb.entries() if port in n.members]

    def workers(self) -> list[dict[str, Any]]:
        """The counters of every worker, and the ports that it receives from."""
        return [{
            **worker.statistics(),
            "ports": [p.name for p in self._plans.attached
                      if k in self._assignment.workers_of(p)],
            "cycles_per_second": round(self._hz),
        } for k, worker in enumerate(self._workers)]
