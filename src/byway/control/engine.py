# SPDX-License-Identifier: Apache-2.0
"""The engine: networks, ports and workers of a running switch, and the plans that tie them.

Used by the daemon, through wanted; uses worker, ports, switch. All of it belongs to the control
thread (the event loop's); nothing here is thread-safe.

Theory of operation
-------------------
The engine keeps what exists (networks, ports by number) and which ports are *attached*: up, with
queues that workers may touch. A change of that set becomes new plans for all workers (one set of
tables, a list of rx queues to serve each), which are published and waited for; then whatever
left the plan is nobody's any more. Inside ``apply`` changes are gathered, so that hundreds of
ports cost two plans: one without what goes, one with what comes.

An rx queue is served by one worker for as long as its port lives (assignment.py).

Timers: once a second old fdb entries are removed. Twenty times a second it is asked whether a
worker hangs in the middle of a pass: a peer can make a write to its event fd block, and a signal
gets the worker out of it (machine.interrupt). The alarm event fd is written by a worker that
found a broken ring and by the SIGBUS guard; the engine then asks every port for trouble.
"""

import asyncio
import faulthandler
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from byway.control.assignment import Assignment
from byway.control.diff import Action, AddNetwork, AddPort, RemoveNetwork, RemovePort
from byway.control.model import KINDS, NetworkConfig, PortConfig, SwitchConfig
from byway.control.problem import EngineError
from byway.machine import sigbus
from byway.machine.clock import measure_hz, tsc
from byway.machine.layout import address_of
from byway.packet.ethernet import untagged_frame
from byway.ports.af_packet import AfPacketPort
from byway.ports.af_xdp import AfXdpPort
from byway.ports.namespaces import Namespaces
from byway.ports.null import NullPort
from byway.ports.pcap import PcapPort
from byway.ports.port import Port, PortError
from byway.ports.tap_port import TapPort
from byway.ports.udp import UdpPort
from byway.ports.vhost_kernel import VhostKernelPort
from byway.ports.vhost_user import VhostUserPort
from byway.ports.virtio_user import VirtioUserPort
from byway.switch.fdb import CLOCK_SHIFT, MAX_PORTS, Fdb, mac_text
from byway.worker.plan import NetworkRow, Plan, Tables
from byway.worker.worker import Worker, WorkerStuckError
from byway.worker.worker import prepare as prepare_workers

AGEING_SECONDS = 1.0
STALL_SECONDS = 0.05  # a worker that ends no pass for so long hangs in a system call
STUCK_STATUS = 70  # sysexits.h, EX_SOFTWARE
PORT_CLASSES: dict[str, type[Port]] = {
    "vhost-user": VhostUserPort, "virtio-user": VirtioUserPort, "vhost-kernel": VhostKernelPort,
    "tap": TapPort, "null": NullPort, "pcap": PcapPort,
    "af-packet": AfPacketPort, "af-xdp": AfXdpPort, "udp": UdpPort,
}
assert set(PORT_CLASSES) == set(KINDS)


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
        self.members: set[int] = set()

    def row(self) -> NetworkRow:
        """The network as a plan has it."""
        return NetworkRow(self.fdb.address, tuple(self.members), untagged_frame(self.config.mtu))


class Engine:
    """A switch that runs. ``loop`` is the control thread's event loop."""

    def __init__(self, switch: SwitchConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.switch = switch
        self.loop = loop
        self.alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.namespaces = Namespaces(loop)
        self._networks: dict[str, Network] = {}
        self._ports: dict[str, Port] = {}
        self._attached: dict[int, Port] = {}
        self._gathering = False
        self._replaced: set[str] = set()  # ports that are removed to be added again, changed
        self._hz = measure_hz()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._workers = [Worker(cpu) for cpu in switch.workers or (None,)]
        self._assignment = Assignment(self._workers)

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
        for port in self._ports.values():
            port.close()
        self._ports.clear()
        self._attached.clear()
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
        self.expire(int(tsc()))
        self._timers["ageing"] = self.loop.call_later(AGEING_SECONDS, self._on_ageing)

    def _on_watch(self) -> None:
        for worker in self._workers:
            if worker.stalled():
                worker.interrupt()
        self._timers["watch"] = self.loop.call_later(STALL_SECONDS, self._on_watch)

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
        self._attached[port.index] = port
        self._publish()

    def detach(self, port: Port) -> None:
        """Returns when no worker touches the port. Pauses no worker."""
        if self._attached.pop(port.index, None) is None:
            return
        self._gathering, gathering = False, self._gathering
        self._publish()
        self._gathering = gathering
        self._forget(port)

    def settle(self) -> None:
        """Returns when every worker has ended the pass it was in. Pauses no worker."""
        for worker in self._workers:
            worker.publish(worker.plan)
        self._wait()

    def _forget(self, port: Port) -> None:
        self._assignment.unwatch(port)
        self._networks[port.config.network].fdb.forget(port.index)

    def inject(self, port: Port, frame: bytes) -> None:
        """Send a frame in the name of a port that is attached, as if it had come in there. Pauses
        no worker."""
        if port.index not in self._attached or self._gathering:
            raise ValueError(f"port {port.name} is not part of the plan")
        k = port.serving[0]
        worker = self._workers[self._assignment.queue(port, k).worker]
        worker.give(address_of(port.rxqs[k:]), frame)
        worker.publish(worker.plan)
        self._wait()

    def _publish(self) -> None:
        """Make the plans for what is attached now, and wait until all workers follow them."""
        if self._gathering:
            return
        networks = {n.number: n.row() for n in self._networks.values()}
        ports = {number: port.address for number, port in self._attached.items()}
        # Everything a plan points to lives at least as long as the plan.
        keep = (list(self._attached.values()), list(self._networks.values()))
        served = [(port, k, self._assignment.queue(port, k))
                  for port in self._attached.values() for k in port.serving]
        rxqs = {queue.number: address_of(port.rxqs[k:]) for port, k, queue in served}
        tables = Tables(ports, networks, rxqs, keep)
        for w, worker in enumerate(self._workers):
            worker.publish(Plan(tables, sorted(q.number for _, _, q in served if q.worker == w)))
        self._wait()

    def _wait(self) -> None:
        """Until every worker follows its newest plan. One that does not, for many seconds, may
        touch memory that was to be unmapped: there is no safe way on, so the process ends."""
        try:
            for worker in self._workers:
                worker.wait(worker.interrupt)
        except WorkerStuckError as error:
            sys.stderr.write(f"byway: {error}; the switch cannot go on\n")
            faulthandler.dump_traceback()
            os._exit(STUCK_STATUS)

    # ------------------------------------------------------------ changes
    def apply(self, actions: Sequence[Action]) -> None:
        """Carry out all actions with at most two plans, or raise EngineError and undo them."""
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
            self._publish()

    def _detach_all(self, ports: list[Port]) -> None:
        """Take many ports out with one plan; each then finds itself detached."""
        attached = [p for p in ports if self._attached.pop(p.index, None)]
        if attached:
            self._gathering = False
            self._publish()
            self._gathering = True
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
            case AddPort(port):
                self.add_port(port)
            case RemovePort(name):
                self.remove_port(name)

    def add_network(self, config: NetworkConfig) -> None:
        """Create a network. Pauses no worker."""
        if config.name in self._networks:
            raise EngineError(f'network "{config.name}" exists already', "take another name")
        used = {n.number for n in self._networks.values()}
        number = next(k for k in range(len(used) + 1) if k not in used)
        self._networks[config.name] = Network(config, number)

    def remove_network(self, name: str) -> None:
        """Remove a network without ports. Pauses no worker."""
        network = self._network(name)
        if network.members:
            raise EngineError(f'network "{name}" has {len(network.members)} ports',
                              "remove its ports first")
        del self._networks[name]
        self._publish()

    def add_port(self, config: PortConfig) -> None:
        """Make and open a port. Pauses no worker."""
        if config.name in self._ports:
            raise EngineError(f'port "{config.name}" exists already', "take another name")
        network = self._network(config.network)
        used = {p.index for p in self._ports.values()}
        index = next(k for k in range(len(used) + 1) if k not in used)
        if index >= MAX_PORTS:
            raise EngineError(f"the switch has {MAX_PORTS} ports already", "remove some first")
        port = PORT_CLASSES[config.kind](config, index, self, network.config.mtu)
        port.record["network"] = network.number
        network.members.add(index)
        self._ports[config.name] = port
        try:
            port.open()
        except PortError as error:
            self.remove_port(config.name)
            raise EngineError(f'port "{config.name}": {error.key}: {error.problem}',
                              error.fix) from None
        except OSError as error:
            self.remove_port(config.name)
            raise EngineError(f'port "{config.name}" cannot be opened: {error}',
                              "see `byway doctor` for limits of this machine") from None
        self._publish()

    def remove_port(self, name: str) -> None:
        """Close a port and forget it. Pauses no worker."""
        port = self._port(name)
        port.close() if name in self._replaced else port.remove()
        del self._ports[name]
        self._assignment.forget(port)
        network = self._networks[port.config.network]
        network.members.discard(port.index)
        network.fdb.forget(port.index)  # whatever was learned: the number is given again
        self._publish()

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
        by_number = {p.index: p.name for p in self._ports.values()}
        return [{
            "name": n.config.name, "vni": n.config.vni, "mtu": n.config.mtu,
            "ageing": n.config.ageing,
            "ports": [by_number[k] for k in sorted(n.members)],
            "fdb_entries": len(n.fdb), "fdb_limit": n.config.fdb_limit,
            "fdb": n.fdb.statistics(),
        } for n in self._networks.values()]

    def fdb(self, network: str | None) -> list[dict[str, Any]]:
        """The learned addresses of one network, or of all; ``age`` in seconds."""
        chosen = [self._network(network)] if network else list(self._networks.values())
        by_number = {p.index: p.name for p in self._ports.values()}
        now, tick = int(tsc()) >> CLOCK_SHIFT, (1 << CLOCK_SHIFT) / self._hz
        return [{
            "network": n.config.name, "mac": mac_text(mac), "port": by_number[port],
            "age": round(max(0, now - seen) * tick, 1),
        } for n in chosen for mac, port, seen in n.fdb.entries() if port in by_number]

    def workers(self) -> list[dict[str, Any]]:
        """The counters of every worker, and the ports that it receives from."""
        return [{
            **worker.statistics(),
            "ports": [p.name for p in self._attached.values()
                      if k in self._assignment.workers_of(p)],
            "cycles_per_second": round(self._hz),
        } for k, worker in enumerate(self._workers)]
