# SPDX-License-Identifier: Apache-2.0
"""The underlay of a switch, and a tunnel to each other host over it.

Used by the overlay. Uses plans, the ports that carry tunnels (ports.underlay, ports.tunnel), and
uplinked.py where one of the switch's own ports carries them.

A tunnel has a number as ports have one, from FIRST_TUNNEL on, and is one for all networks. Nothing
here is told to workers before the engine publishes, but for the table of remote hosts, which
workers read while it changes.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from byway.control.model import UnderlayConfig
from byway.control.numbers import Numbers
from byway.control.opening import TRIES, open_port
from byway.control.plans import Plans
from byway.control.problem import EngineError
from byway.control.uplinked import Uplinked
from byway.machine.layout import address_of
from byway.packet.tunnels import Remotes, Vnis
from byway.ports.port import Host, Port, PortError
from byway.ports.tunnel import Tunnel, check_address
from byway.ports.underlay import Underlay
from byway.switch.fdb import FIRST_TUNNEL, MAX_PORTS


class TunnelHost(Host, Protocol):
    """What the engine is to tunnels."""

    loop: asyncio.AbstractEventLoop

    def publish(self) -> None:
        """Tell the workers what has changed, unless that is done soon for more changes together."""

    def together(self) -> contextlib.AbstractContextManager[None]:
        """What is changed in the body is one exchange with the workers."""

    def emit(self, port: Port, frame: bytes) -> None:
        """Send a frame out of a port that is attached."""

    def port_named(self, name: str) -> Port:
        """A port (EngineError: there is none of that name)."""


class Tunnels:
    """The tunnels of one switch, by the names of their hosts. ``stages``: the STAGES record that
    all of them have; ``keep`` has something live until no worker uses it."""

    def __init__(self, engine: TunnelHost, plans: Plans, stages: Any, vnis: Vnis,
                 keep: Callable[[Any], None]) -> None:
        self._engine = engine
        self._plans = plans
        self._stages = stages
        self._vnis = vnis
        self._keep = keep
        self._fit: Callable[[Port], None] = lambda port: None
        self._numbers = Numbers(MAX_PORTS - FIRST_TUNNEL)
        self.remotes = Remotes(plans.settle)
        self.config: UnderlayConfig | None = None
        self.underlay: Underlay | None = None
        self.uplinked: Uplinked | None = None
        self.by_host: dict[str, Tunnel] = {}
        self.names: dict[int, str] = {}  # hosts by the numbers of their tunnels
        self._up: dict[str, Tunnel] = {}  # those that let frames through, by the host's address

    # ------------------------------------------------------------ the underlay
    def set_underlay(self, config: UnderlayConfig | None) -> None:
        """Have this underlay; None: none. The tunnels that there are go by the new one, or are down
        (EngineError: it cannot be had; then there is none)."""
        for tunnel in self.by_host.values():
            self.shut(tunnel, "there is no underlay")
        self._drop_underlay()
        if config is None:
            return
        uplink = self._engine.port_named(config.uplink) if config.uplink else None
        index = FIRST_TUNNEL + self._numbers.take()
        made = Underlay(config, index, self._engine, self._vnis, self.remotes,
                        self._plans.workers, uplink)
        # What comes out of it is of many networks: that takes the way of ports with stages.
        made.record["stages"] = address_of(self._stages)
        self._plans.use_stages()
        try:
            open_port(made)
        except EngineError:
            made.close()
            self.number_back(made)
            raise
        self.config = config
        self.underlay = made
        if uplink:
            self.uplinked = Uplinked(config, uplink, self._plans, self._stages, self._vnis,
                                     self.remotes)
            self._fit(uplink)
        for tunnel in self.by_host.values():
            tunnel.underlay = made
            self._open(tunnel)

    def _drop_underlay(self) -> None:
        self.config = None
        if underlay := self.underlay:
            self.underlay = None
            underlay.close()
            self.number_back(underlay)
        if uplinked := self.uplinked:
            self.uplinked = None
            self._fit(uplinked.port)
            self._keep(uplinked)

    def number_back(self, port: Port) -> None:
        """No worker knows the tunnel any more once this is published."""
        self._engine.publish()
        self._numbers.give_back(port.index - FIRST_TUNNEL)

    # ------------------------------------------------------------ the uplink
    def on_uplink(self, callback: Callable[[Port], None]) -> None:
        """Who is told that a port has become the uplink, or is it no more."""
        self._fit = callback

    def uplink_of(self, port: Port) -> int:
        """The address of the port's UPLINK, 0 where it is no uplink."""
        uplinked = self.uplinked
        return uplinked.uplink.address if uplinked and uplinked.port is port else 0

    def _ask(self) -> None:
        """What the uplink has to ask its neighbours."""
        if self.uplinked:
            for frame in self.uplinked.questions(self._engine.loop.time()):
                self._engine.emit(self.uplinked.port, frame)

    # ------------------------------------------------------------ tunnels
    def tick(self) -> None:
        """Once a second: ask neighbours, try again what could not be opened."""
        self._ask()
        if self.underlay:
            down = [tunnel for tunnel in self.by_host.values() if tunnel.state == "down"]
            for tunnel in down[:TRIES]:
                self.by_host[tunnel.name] = self.by_host.pop(tunnel.name)  # then the others' turn
                self._open(tunnel)

    def check(self, host: str, address: str) -> None:
        """EngineError where a host that the user names cannot have a tunnel."""
        if self.underlay is None:
            raise EngineError(f'host "{host}": this switch has no underlay',
                              'add [underlay] with address = "..."')
        if host not in self.by_host and not self._numbers.left:
            raise EngineError(f"there are {MAX_PORTS - FIRST_TUNNEL} tunnels already",
                              "remove hosts first")
        try:
            check_address(self.underlay, address)
        except PortError as error:
            raise EngineError(f'host "{host}": {error.key}: {error.problem}', error.fix) from None

    def set(self, host: str, address: str) -> None:
        """The host is at this underlay address; replaces another address. Never fails: where there
        can be no tunnel it is down, and says why. Without an underlay there is none."""
        tunnel = self.by_host.get(host)
        if tunnel is None:
            if self.underlay is None or not self._numbers.left:
                return
            tunnel = Tunnel(host, address, FIRST_TUNNEL + self._numbers.take(), self.underlay)
            tunnel.record["stages"] = address_of(self._stages)
            self.by_host[host] = tunnel
            self.names[tunnel.index] = host
        elif tunnel.address_of_host == address:
            return
        else:
            self.shut(tunnel, "its address changes")
            tunnel.address_of_host = address
        if self.underlay:
            self._open(tunnel)
        self._engine.publish()

    def _open(self, tunnel: Tunnel) -> None:
        """Let frames through, or have the tunnel say why not."""
        address = tunnel.address_of_host
        other = self._up.get(address)
        try:
            if other:
                raise EngineError(f'host "{tunnel.name}": {address} is that of host "{other.name}"',
                                  "give each its own")
            open_port(tunnel)
        except EngineError as error:
            tunnel.state, tunnel.reason = "down", str(error)
            return
        self._up[address] = tunnel
        if self.uplinked:
            self.uplinked.carry(tunnel, address)
            self._engine.loop.call_soon(self._ask)

    def shut(self, tunnel: Tunnel, reason: str) -> None:
        """Let no frames through."""
        if tunnel.state == "up":
            if self.uplinked:
                self.uplinked.let_go(tunnel)
            tunnel.close()
            del self._up[tunnel.address_of_host]
        tunnel.state, tunnel.reason = "down", reason

    def close(self) -> None:
        """No tunnels, no underlay; the workers have ended. Idempotent."""
        for tunnel in self.by_host.values():
            if tunnel.state == "up":
                tunnel.close()
        self.by_host.clear()
        self.names.clear()
        self._up.clear()
        if self.underlay:
            self.underlay.close()
            self.underlay = None
        self.uplinked = None
