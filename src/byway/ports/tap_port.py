# SPDX-License-Identifier: Apache-2.0
"""The tap port: an interface of the Linux kernel, whose frames go by system calls.

Used by control. Uses tap (the interface), tap_kernels (the frames), namespaces (where it is).

Theory of operation
-------------------
A port is *up* while it has its interface. Where the namespace is not there yet the port *waits*
for it, at the start as well: others do not fail because one container is late. Where the interface
was removed the port is *down*. In both cases it tries again, first soon, then less and less often,
and at once when something is made at the namespace's name; so it comes back by itself.

Who removed the interface, or the namespace that it is in, tells it by the files: a worker reads
EBADFD and rings the alarm. But the files keep the namespace alive in which they were opened. So the
port watches its name; when that goes, and the interface is still there, the port lets go of it.
Has somebody moved the interface to another namespace, it is left alone. A namespace named after a
process (/proc/PID/ns/net) does not come back with another process of that number: the port stays
down.

The interface has a carrier while the port is up. A persistent one outlives the switch, without a
carrier, with its addresses and routes, and wherever it has been moved to; a port that names it
takes it up again. It goes when the port is removed for good (``remove``).
"""

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.machine.netns import identity
from byway.ports.namespaces import process_of
from byway.ports.port import Host, Port, PortError
from byway.ports.record import Kind
from byway.ports.tap import FEATURES, Interface, Tap, TapError
from byway.ports.tap_kernels import HEADER, TAP, Fault
from byway.virtio.features import Feature, mask, names
from byway.virtio.negotiation import BY_NAME, closure, explain
from byway.virtio.offloads import host_takes

# Seconds until it is tried again, each time twice as long; and after news of the namespace.
FIRST_RETRY, LAST_RETRY = 0.5, 16.0
SOON = 0.05
_BOTH = mask(Feature.GUEST_USO4, Feature.GUEST_USO6)


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
        self._home = (0, 0)  # the namespace that the files were opened in
        self._records = alloc(TAP, self.queues, CACHE_LINE)
        self._timer: asyncio.TimerHandle | None = None
        self._pause = FIRST_RETRY
        self._watched = False
        self.wanted = Interface(
            config.ifname, config.netns, config.address, config.mac, mtu, self.queues,
            tuple((route.to, route.via) for route in config.routes), config.persistent)

    # ------------------------------------------------------------ to be up
    def open(self) -> None:
        process = process_of(self.wanted.namespace or "")
        if process is not None and not os.path.exists(f"/proc/{process}"):
            raise PortError("netns", f"there is no process {process}", "name one that runs")
        try:
            self._start()
        except TapError as error:
            if not error.missing:
                self._unwatch()
                raise PortError(error.key, error.problem, error.fix) from None
            self.state, self.reason = "waiting", error.problem
            self._try_later()

    def _start(self) -> None:
        """Have the interface, and have it served. TapError: it cannot be."""
        self._watch()
        tap = Tap(self.wanted)
        try:
            self._home = tap.namespace()
            self._negotiate(tap)
            tap.set_carrier(True)
            # Made again, it is to be the station that others have talked to.
            self.wanted = replace(self.wanted, mac=self.wanted.mac or tap.mac())
        except OSError as error:
            tap.close()
            raise TapError("ifname", f"{self.wanted.place}: {error.strerror}",
                           "see whether somebody else removes it") from None
        self._tap = tap
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
        # A tap takes both or none.
        self.acked = features if features & _BOTH == _BOTH else features & ~_BOTH
        tap.set_up(self.acked, HEADER)

    # ------------------------------------------------------------ to be down, and to come back
    def trouble(self) -> str:
        error = int(self.record["error"][0])
        return Fault(error).sentence if error else ""

    def on_trouble(self) -> None:
        self._lose(self.trouble())

    def _lose(self, reason: str) -> None:
        """The interface is gone, or has to be let go of: it may come back."""
        self._leave(reason)
        process = process_of(self.wanted.namespace or "")
        if process is not None and not os.path.exists(f"/proc/{process}"):
            self.reason = self.last_trouble = f"process {process} has ended"
            self._unwatch()
        else:
            self._try_later()

    def _try_later(self, soon: bool = False) -> None:
        if self._timer:
            self._timer.cancel()
        self._pause = SOON if soon else self._pause
        self._timer = self.host.loop.call_later(self._pause, self._retry)
        self._pause = min(2 * self._pause, LAST_RETRY)

    def _retry(self) -> None:
        self._timer = None
        try:
            self._start()
        except TapError as error:
            self.state, self.reason = "waiting" if error.missing else "down", error.problem
            self._try_later()

    def _watch(self) -> None:
        namespace = self.wanted.namespace
        self._unwatch()  # its folder may be another one by now
        if namespace:
            with suppress(OSError):  # not even a folder yet: opening the tap says so
                self.host.namespaces.watch(namespace, self._on_namespace)
                self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self.host.namespaces.forget(self.wanted.namespace or "", self._on_namespace)
            self._watched = False

    def _on_namespace(self) -> None:
        """Something happened to the name of the namespace."""
        if self._tap is None:
            self._try_later(soon=True)
            return
        with suppress(OSError):
            if identity(self.wanted.namespace or "") == self._home:
                return
        with suppress(OSError):  # it is gone: the worker hears of it
            if self._tap.namespace() == self._home:
                self._lose(f'the network namespace "{self.wanted.namespace}" was removed')

    def _leave(self, reason: str, for_good: bool = False) -> None:
        """Workers first, then the files, and with them the interface."""
        self.take_down(reason)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._tap:
            self.host.close_files(self._tap.release(for_good))
            self._tap = None
        self.offered, self.acked = 0, None

    def close(self) -> None:
        self._unwatch()
        self._leave("closed")

    def remove(self) -> None:
        self._unwatch()
        self._leave("removed", for_good=True)

    # ------------------------------------------------------------ what is to be seen
    def details(self) -> dict[str, Any]:
        details = {
            "peer": self.wanted.place,
            "ifname": self.wanted.name,
            "netns": self.wanted.namespace,
            "address": list(self.wanted.addresses),
            "persistent": self.wanted.persistent,
            "carrier": self.state == "up",
            "features": _features(self.off, self.offered, self.acked),
            "queues_enabled": len(self._tap.files) if self._tap else 0,
        }
        with suppress(OSError):  # it has just gone
            details |= self._found() if self._tap else {}
        return details

    def _found(self) -> dict[str, Any]:
        """What the interface is called now, and where it is: others may rename and move it."""
        assert self._tap
        name, place = self._tap.name(), self._tap.namespace()
        where = f"net:[{place[1]}]" if place != self._home else self.wanted.namespace
        return {"mac": self._tap.mac(), "peer": f"{name} in {where}" if where else name}


@cache
def _features(off: int, offered: int, acked: int | None) -> dict[str, Any]:
    """The table of features; nearly all taps have the same one, and there may be thousands."""
    known = offered if acked is not None else -1
    return {"offered": names(offered), "acked": names(acked or 0),
            "off": explain(FEATURES, off, known, acked)}
