# SPDX-License-Identifier: Apache-2.0
"""A switch, a kernel and a Docker that are none, for the tests of the Docker plugin.

The switch is the real API over an engine that makes taps in a kernel of dictionaries; it may be
killed and started again. `Kernel` is what the plugin sees of namespaces; `Docker` moves taps into
sandboxes as dockerd does. `Calls` says what a plugin is asked, over its socket or directly.
"""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from byway.control.actions import Action, AddPort, RemovePort
from byway.control.model import SwitchConfig, TapPort
from byway.machine import unixsocket
from byway_docker.model import Endpoint, Network, Refused
from byway_docker.outside import publications
from byway_docker.service import Plugin, serve
from byway_docker.state import State
from byway_docker.switch import Switch
from byway_docker.wire import BODY_SECONDS
from tests.unit.control.fake_engine import FakeEngine
from tests.unit.control.fake_switch import FakeSwitch

HOST = "host"  # where dockerd is: the namespace None
Body = dict[str, Any]


@dataclass
class Tap:
    """An interface; `holder` is the port that holds it, "" nobody."""

    mac: str
    persistent: bool
    holder: str


class Kernel:
    """Namespaces with taps by name. A sandbox is one whose path starts with "/sandbox/"."""

    def __init__(self) -> None:
        self.places: dict[str, dict[str, Tap]] = {HOST: {}}

    def open(self, port: TapPort) -> None:
        """The switch attaches to a tap, or makes one."""
        links = self.places[port.netns or HOST]
        if port.ifname in links:
            assert not links[port.ifname].holder, "EBUSY"
            links[port.ifname].holder = port.name
        else:
            links[port.ifname] = Tap(port.mac or "", port.persistent, port.name)

    def close(self, name: str, for_good: bool) -> None:
        """The switch lets go of what a port holds."""
        for links in self.places.values():
            for ifname, tap in list(links.items()):
                if tap.holder == name:
                    tap.holder = ""
                    if for_good or not tap.persistent:
                        del links[ifname]

    def taps(self, place: str = HOST) -> set[str]:
        """The names of the taps there."""
        return set(self.places[place])

    # ------------------------------------------------------------ what the plugin asks
    def exists(self, path: str) -> bool:
        return path in self.places

    def find(self, path: str, mac: str) -> str | None:
        return next((n for n, tap in self.places[path].items() if tap.mac == mac), None)

    def has(self, path: str | None, interface: str) -> bool:
        return interface in self.places[path or HOST]

    def is_held(self, path: str | None, interface: str) -> bool:
        tap = self.places[path or HOST].get(interface)
        return tap is None or bool(tap.holder)

    def remove_free(self, path: str | None, interface: str) -> bool:
        tap = self.places[path or HOST].get(interface)
        if tap is not None and not tap.holder:
            del self.places[path or HOST][interface]
        return interface not in self.places[path or HOST]


class TapEngine(FakeEngine):
    """An engine whose tap ports have taps."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(SwitchConfig(name="lab"))
        self.kernel = kernel

    def apply(self, actions: Sequence[Action]) -> None:
        replaced = {action.port.name for action in actions if isinstance(action, AddPort)}
        super().apply(actions)
        for action in actions:
            match action:
                case RemovePort(name):
                    self.kernel.close(name, name not in replaced)
                case AddPort(TapPort() as port):
                    self.kernel.open(port)


class World:
    """A kernel, a switch, a plugin without its socket, and the state's file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = Kernel()
        self.outside = FakeOutside()
        self.now = 1000.0
        self.births = 1
        self.switch = _start_switch(folder, self.kernel)
        self.start_plugin()

    def start_plugin(self) -> None:
        """A plugin over the file that is there."""
        self.state = State(str(self.folder / "docker.db"))
        self.client = WorldSwitch(self)
        self.plugin = Plugin(self.state, self.client, self.outside, self.kernel, self.clock)
        self.methods = self.plugin.methods()

    def clock(self) -> float:
        return self.now

    def kill_plugin(self) -> None:
        """It ends, having put nothing away."""
        self.client.close()
        self.state.close()

    def kill_switch(self) -> None:
        """It ends; who asks finds nobody."""
        for links in self.kernel.places.values():
            for name, tap in list(links.items()):
                tap.holder = ""
                if not tap.persistent:
                    del links[name]
        self.switch.close()

    def start_switch(self) -> None:
        """A new one, with what its file says."""
        self.births += 1
        self.switch = _start_switch(self.folder, self.kernel)

    def tick(self, seconds: float = 0.0) -> None:
        """The plugin looks after the switch, twice, with so much time between."""
        self.plugin.reconciler.tick()
        self.now += seconds
        self.plugin.reconciler.tick()

    def close(self) -> None:
        """The end."""
        self.kill_plugin()
        self.switch.close()

    # ------------------------------------------------------------ what Docker does
    def call(self, method: str, **body: Any) -> Body:
        """A method's answer; Refused where it refuses."""
        return self.methods[method](body)

    def refusal(self, method: str, **body: Any) -> str:
        """Why a method refuses."""
        with suppress(Refused):
            answer = self.call(method, **body)
            raise AssertionError(f"{method} answered {answer}")
        return _why(lambda: self.call(method, **body))

    def move(self, ifname: str, sandbox: str, name: str = "eth0") -> None:
        """dockerd moves an interface into a sandbox, which comes into being."""
        tap = self.kernel.places[HOST].pop(ifname)
        self.kernel.places.setdefault(sandbox, {})[name] = tap

    def move_back(self, sandbox: str, name: str, ifname: str) -> None:
        """dockerd takes an interface out again."""
        self.kernel.places[HOST][ifname] = self.kernel.places[sandbox].pop(name)

    def end_sandbox(self, sandbox: str) -> None:
        """The namespace dies, and with it what is in it."""
        self.kernel.places.pop(sandbox, None)

    def ports(self) -> dict[str, Body]:
        """The switch's ports of Docker's."""
        rows = self.switch.engine.ports()
        return {row["name"]: row for row in rows if row["name"].startswith("docker-")}

    def networks(self) -> set[str]:
        """The names of the switch's networks."""
        return {row["name"] for row in self.switch.engine.networks()}


class WorldSwitch(Switch):
    """As the plugin knows the switch, which has another process id with each start."""

    def __init__(self, world: World) -> None:
        super().__init__(world.switch.path, None, patience=0)
        self.world = world

    def look(self) -> tuple[int, float] | None:
        seen = super().look()
        return seen and (self.world.births, 10.0)


class FakeOutside:
    """Remembers what is open, and which ports lead to a container."""

    def __init__(self) -> None:
        self.pools: set[str] = set()
        self.ports: set[str] = set()

    def restore(self, networks: Sequence[Network], endpoints: Sequence[Endpoint]) -> None:
        self.pools, self.ports = set(), set()
        for network in networks:
            self.open(network)
        for endpoint in endpoints:
            self.ports |= {str(one) for one in publications(endpoint)}

    def open(self, network: Network) -> None:
        if network.gateway == "host":
            self.pools |= {subnet.pool for subnet in network.subnets}

    def close(self, network: Network) -> None:
        self.pools -= {subnet.pool for subnet in network.subnets}

    def publish(self, network: Network, endpoint: Endpoint) -> None:
        self.ports |= {str(one) for one in publications(endpoint)}

    def withdraw(self, endpoint: Endpoint) -> None:
        self.ports -= {str(one) for one in publications(endpoint)}


class Served:
    """A plugin behind its socket, in a thread of its own."""

    def __init__(self, world: World, body_seconds: float = BODY_SECONDS) -> None:
        self.path = str(world.folder / "plugin.sock")
        self._listener = unixsocket.listen(self.path)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        serving = serve(world.plugin, self._listener.dup(), signals=False, stop=self._stop,
                        body_seconds=body_seconds)
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(serving,), daemon=True)
        self._thread.start()

    def connect(self) -> http.client.HTTPConnection:
        """A connection to it."""
        connection = http.client.HTTPConnection("plugin")
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(20)
        connection.sock.connect(self.path)
        return connection

    def post(self, path: str, body: bytes | None = None, method: str = "POST",
             ) -> tuple[int, Any]:
        """(status, answer) of one request."""
        connection = self.connect()
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._loop.close()
        unixsocket.close(self._listener)


def _why(work: Callable[[], object]) -> str:
    try:
        work()
    except Refused as error:
        return str(error)
    raise AssertionError("it was not refused the second time")


def _start_switch(folder: Path, kernel: Kernel) -> FakeSwitch:
    return FakeSwitch(folder / "api.sock", lambda: TapEngine(kernel))


def identity(number: int) -> str:
    """An id as Docker makes them."""
    return f"{number:012x}" + "ab" * 26


def subnet(pool: str, gateway: str, space: str = "byway-local") -> Body:
    """An entry of IPv4Data or IPv6Data."""
    return {"AddressSpace": space, "Pool": pool, "Gateway": gateway, "AuxAddresses": None}
