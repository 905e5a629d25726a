# SPDX-License-Identifier: Apache-2.0
"""The tap port: an interface of the Linux kernel, whose frames go by system calls.

Used by control. Uses tap (the interface) and tap_kernels (the frames).

Theory of operation
-------------------
A port is up while it has its interface. Where the namespace is not there the port *waits* for it,
at the start as well: other ports do not fail because one container is late. Where the interface is
removed, with its namespace or without, the port is *down*. In both cases it tries again, first
soon, then less and less often, so that it comes back by itself.

The interface has a carrier while the port is up. A persistent one outlives the switch, without a
carrier, with its addresses and routes, and wherever it has been moved to; a port that names it
takes it up again. It goes when the port is removed for good (``remove``).
"""

import asyncio
from typing import Any

from byway.machine.layout import address_of, alloc
from byway.ports.port import Host, Port, PortError
from byway.ports.record import Kind
from byway.ports.tap import FEATURES, Interface, Tap, TapError
from byway.ports.tap_kernels import HEADER, TAP, Fault
from byway.virtio.features import Feature, mask, names
from byway.virtio.negotiation import BY_NAME, closure, explain
from byway.virtio.offloads import host_takes

# Seconds until it is tried again; each time twice as long.
FIRST_RETRY, LAST_RETRY = 0.5, 16.0
CACHE_LINE = 64


class TapPort(Port):
    """An interface of the kernel."""

    kind = Kind.TAP
    supported = FEATURES

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self.off = mask(*(BY_NAME[name] for name in config.features_off))
        self.offered = 0
        self.acked: int | None = None
        self._tap: Tap | None = None
        self._records = alloc(TAP, self.queues, CACHE_LINE)
        self._timer: asyncio.TimerHandle | None = None
        self._pause = FIRST_RETRY
        self.wanted = Interface(
            config.ifname, config.netns, config.address, config.mac, mtu, self.queues,
            tuple((route.to, route.via) for route in config.routes), config.persistent)

    # ------------------------------------------------------------ to be up
    def open(self) -> None:
        try:
            self._start()
        except TapError as error:
            if not error.missing:
                raise PortError(error.key, error.problem, error.fix) from None
            self.state, self.reason = "waiting", error.problem
            self._try_later()

    def _start(self) -> None:
        """Have the interface, and have it served. TapError: it cannot be."""
        self._tap = tap = Tap(self.wanted)
        try:
            self._negotiate(tap)
            tap.set_carrier(True)
        except OSError as error:
            tap.close()
            self._tap = None
            raise TapError("ifname", f"{self.wanted.place}: {error.strerror}",
                           "see whether somebody else removes it") from None
        takes = host_takes(self.acked or 0)
        for k, file in enumerate(tap.files):
            record = self._records[k]
            record["file"], record["error"] = file, 0
            record["rx"], record["tx"] = address_of(self.rx[k:]), address_of(self.tx[k:])
            self.rxqs[k]["queue"] = self.txqs[k]["queue"] = address_of(self._records[k:])
            self.txqs[k]["takes"] = takes
            self.wake_fds[k] = file
        self.serving = list(range(len(tap.files)))
        self.record["ntx"] = len(tap.files)
        self._pause = FIRST_RETRY
        self.bring_up()

    def _negotiate(self, tap: Tap) -> None:
        self.offered = tap.features()
        features = closure(self.supported & ~self.off & self.offered)
        both = mask(Feature.GUEST_USO4, Feature.GUEST_USO6)  # a tap takes both or none
        self.acked = features if features & both == both else features & ~both
        tap.set_up(self.acked, HEADER)

    # ------------------------------------------------------------ to be down, and to come back
    def trouble(self) -> str:
        error = int(self.record["error"][0])
        return Fault(error).sentence if error else ""

    def on_trouble(self) -> None:
        self._leave(self.trouble())
        self._try_later()

    def _try_later(self) -> None:
        self._timer = self.host.loop.call_later(self._pause, self._retry)
        self._pause = min(2 * self._pause, LAST_RETRY)

    def _retry(self) -> None:
        self._timer = None
        try:
            self._start()
        except TapError as error:
            self.state, self.reason = "waiting" if error.missing else "down", error.problem
            self._try_later()

    def _leave(self, reason: str, for_good: bool = False) -> None:
        """Workers first, then the files, and with them the interface."""
        self.take_down(reason)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._tap:
            self._tap.remove() if for_good else self._tap.close()
            self._tap = None
        self.offered, self.acked = 0, None

    def close(self) -> None:
        self._leave("closed")

    def remove(self) -> None:
        self._leave("removed", for_good=True)

    # ------------------------------------------------------------ what is to be seen
    def details(self) -> dict[str, Any]:
        known = self.acked is not None
        return {
            "peer": self.wanted.place,
            "carrier": self.state == "up",
            "features": {
                "offered": names(self.offered),
                "acked": names(self.acked or 0),
                "off": explain(self.supported, self.off, self.offered if known else -1,
                               self.acked),
            },
            "queues_enabled": len(self._tap.files) if self._tap else 0,
        }
