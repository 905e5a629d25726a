# SPDX-License-Identifier: Apache-2.0
"""The af-xdp port: an interface of somebody else's, whose frames the kernel puts into our memory.

Used by control. Uses xdp_program (which sends frames our way), xsk (one socket a queue), links (is
the interface there), far_end and ethtool (what is done to frames before they come here).

Theory of operation
-------------------
A port *has* its interface from when it appears until it goes: program attached, offloads switched
off, a socket bound to each queue. While it has it, the port is up unless the interface is down or
without carrier; sockets stay then, because drivers take the carrier away for a moment when a
program is attached. When the interface or its namespace goes, everything is let go, and made anew
when there is one of that name again.

Where that does not work at the start the port is refused. Later it is down with the reason, and it
is tried again every RETRY_SECONDS: another program or socket may be in the way for a moment.

Frames must come finished (far_end says why they may not): ``checksums`` says who sees to it.

    "peer"      the other end of a pair is told to; where that cannot be, the port is refused. An
                interface of hardware has finished frames anyway
    "complete"  checksums that were left undone are recognised (packet.unfinished) and completed, or
                passed on as they are to who takes them. Large frames cannot be recognised; of a
                pair's other end the kernel itself asks none while a program is attached natively
    "trust"     somebody else has seen to it
"""

import asyncio
import errno
import socket
import time
from contextlib import suppress
from typing import Any

from byway.machine.layout import address_of, alloc
from byway.machine.netns import NoNamespaceError, inside
from byway.packet.counters import COUNTERS, drops_by_name
from byway.packet.ethernet import MAX_TAGS, VLAN_TAG, untagged_frame
from byway.packet.offload import TAKES_VALID
from byway.packet.reason import Reason
from byway.ports.af_xdp_kernels import XdpError
from byway.ports.ethtool import promiscuous, receive_queues
from byway.ports.far_end import (
    PAIRS,
    Switched,
    UnreachableError,
    finish_at_far_end,
    keep_apart,
    nature,
    restore,
)
from byway.ports.links import ETHERNET, Follower, Link
from byway.ports.port import Host, Port, PortError
from byway.ports.record import Kind
from byway.ports.xdp_program import XdpProgram
from byway.ports.xsk import COUNTERS as COUNTED
from byway.ports.xsk import (
    HEADROOM,
    MAX_PIECES,
    NoMemoryError,
    QueueTakenError,
    Wanted,
    Xsk,
    ZeroCopyError,
)

RETRY_SECONDS = 1.0
BUSY_TRIES, BUSY_SECONDS = 5, 0.01  # a socket that was just closed has its queue a moment longer
SMALL_CHUNK, LARGE_CHUNK = 2048, 4096
_MODES = {"auto": ("native", "skb"), "native": ("native",), "skb": ("skb",)}
_ZERO_COPY = {"auto": None, True: True, False: False}
# Kinds of interfaces over hardware, whose frames come from the wire.
_FROM_THE_WIRE = ("", "bond", "team")


class AfXdpPort(Port):
    """An interface, by AF_XDP sockets."""

    kind = Kind.XDP

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self.serving = list(range(self.queues))
        self.record["ntx"] = self.queues
        self.txqs["takes"] = TAKES_VALID  # finished frames; that they are verified goes unsaid
        self._link: Link | None = None  # the interface that we have
        self._program: XdpProgram | None = None
        self._sockets: list[Xsk] = []
        self._listener: socket.socket | None = None  # for frames to addresses behind us
        self._switched: list[Switched] = []
        self._pieces = 1
        self._opening = False
        self._seen = False  # the interface was there, some time
        self._lost = alloc(COUNTERS, 1)
        self._told: dict[str, int] = dict.fromkeys(COUNTED, 0)  # by sockets that were closed
        self._timer: asyncio.TimerHandle | None = None
        self._follower = Follower(host, config.ifname, config.netns, self._on_link)

    # ------------------------------------------------------------ its life
    def open(self) -> None:
        self._opening = True
        try:
            self._follower.start()
        except PortError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise _no_namespace(self.config.netns, error) from None
        finally:
            self._opening = False

    def _on_link(self, link: Link | None, reason: str) -> None:
        """News of the interface: it can be used, or cannot."""
        if link is None:
            if self._follower.present:
                self.take_down(reason, "down" if self._seen else "waiting")
            else:
                self._let_go(reason)
        elif self._link == link:
            self.bring_up()
        else:
            if self._link:  # it has another MTU, so chunks may be too small
                self._let_go("the interface was changed")
            self._try(link)

    def _try(self, link: Link) -> None:
        try:
            inside(self.config.netns, lambda: self._have(link))
        except PortError as error:
            self._let_go(str(error))
            if self._opening:
                raise
            self._retry_later()
        except OSError as error:  # it has gone meanwhile, mostly: we shall be told
            self._let_go(f'the interface "{link.name}" cannot be used: {error.strerror}')
            if self._opening:
                raise _refused(link.name, error) from None
            self._retry_later()
        else:
            self._seen = True
            self.bring_up()

    def _retry_later(self) -> None:
        if self._timer is None:
            self._timer = self.host.loop.call_later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._timer = None
        link = self._follower.link
        if link and self.state != "up":
            self._let_go(self.reason)
            self._try(link)

    def trouble(self) -> str:
        if error := int(self.record["error"][0]):
            return XdpError(error).sentence
        return ""

    def on_trouble(self) -> None:
        self._let_go(self.trouble())
        self._retry_later()

    def close(self) -> None:
        self._follower.close()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._seen = True
        self._let_go("closed")

    # ------------------------------------------------------------ to have the interface
    def _have(self, link: Link) -> None:
        """Make everything, in the interface's namespace; ``_let_go`` undoes what was made."""
        config = self.config
        if link.type != ETHERNET:
            raise PortError("ifname", f'the interface "{link.name}" is not Ethernet',
                            "name another one")
        self._check_queues(link.name)
        self._link = link
        longest = untagged_frame(link.mtu) + MAX_TAGS * VLAN_TAG
        chunk = SMALL_CHUNK if longest <= SMALL_CHUNK - HEADROOM else LARGE_CHUNK
        self._pieces = MAX_PIECES if longest > LARGE_CHUNK - HEADROOM else 1
        try:
            self._make(link, chunk)
        except (PortError, OSError):
            if self._pieces == 1:
                raise
            # Without frames in pieces, which are newer than AF_XDP: longer ones do not come in.
            self._pieces = 1
            self._undo()
            self._make(link, chunk)
        assert self._program
        for number, xsk in enumerate(self._sockets):
            xsk.records.rx["complete"] = config.checksums == "complete"
            xsk.records.tx["max_frame"] = longest
            self.rxqs["queue"][number] = address_of(xsk.records.rx)
            self.txqs["queue"][number] = address_of(xsk.records.tx)
            self.wake_fds[number] = xsk.fileno()
            self._program.serve(number, xsk.fileno())

    def _make(self, link: Link, chunk: int) -> None:
        self._program = XdpProgram(link.name, link.index, self.queues, _MODES[self.config.mode],
                                   self._pieces > 1)
        self._switch_off(link)
        self._bind(link, chunk)
        self._listener = promiscuous(link.index)

    def _check_queues(self, ifname: str) -> None:
        there = receive_queues(ifname)
        if there is None or there == self.queues:
            return
        if there < self.queues:
            raise PortError("queues", f'"{ifname}" has only {there} receive queues',
                            f"write queues = {there}")
        raise PortError(
            "queues", f'"{ifname}" has {there} receive queues, and frames that come in on those'
            " without a socket are not seen",
            f"write queues = {there}, or `ethtool -L {ifname}` to give it {self.queues}")

    def _switch_off(self, link: Link) -> None:
        """See to it that frames come whole, finished, and one by one."""
        assert self._program
        self._switched.append(keep_apart(link.name))
        kind, checksums = nature(link.index).kind, self.config.checksums
        if checksums == "peer" and kind in PAIRS:
            try:
                self._switched.append(finish_at_far_end(self.config.netns, link.index))
            except UnreachableError as error:
                raise _unfinished(f"the other end of the pair cannot be told to finish its frames:"
                                  f" {error}") from None
        elif checksums == "peer" and kind not in _FROM_THE_WIRE:
            raise _unfinished(f'frames on an interface of kind "{kind}" may come unfinished from'
                              " this machine, and nobody can be told to finish them")
        elif checksums == "complete" and kind in PAIRS and (
                self._program.mode != "native" or self._pieces > 1):
            raise PortError("checksums", "large frames, which would come from the other end of the"
                            ' pair, cannot be completed', 'write mode = "native", and an MTU of at'
                            ' most 3500, or checksums = "peer"')

    def _bind(self, link: Link, chunk: int) -> None:
        assert self._program
        zero_copy = _ZERO_COPY[self.config.zero_copy]
        if self._program.mode == "skb" and zero_copy is None:
            zero_copy = False  # the driver would take frames that the program never sees
        for queue in range(self.queues):
            wanted = Wanted(link.index, queue, self.config.frames, chunk, self._pieces, zero_copy)
            self._sockets.append(self._patient(link, wanted))

    def _patient(self, link: Link, wanted: Wanted) -> Xsk:
        """The socket; a queue that is taken is asked for again a few times."""
        counters = (address_of(self.rx[wanted.queue :]), address_of(self.tx[wanted.queue :]))
        for k in range(BUSY_TRIES):
            try:
                return Xsk(wanted, *counters)
            except QueueTakenError:
                if k < BUSY_TRIES - 1:
                    time.sleep(BUSY_SECONDS)
            except ZeroCopyError:
                raise PortError("zero_copy", f'"{link.name}" cannot do without copying',
                                'write zero_copy = "auto"') from None
            except NoMemoryError as error:
                raise PortError("frames", error.strerror or "", "raise the limit (LimitMEMLOCK in"
                                " a systemd unit, ulimit -l), or write a smaller number") from None
        raise PortError("ifname", f'queue {wanted.queue} of "{link.name}" is used by another AF_XDP'
                        " socket", "end the program that has it")

    def _undo(self) -> None:
        """Give back what was made: sockets, offloads, program."""
        self.wake_fds = [-1] * self.queues
        self.rxqs["queue"] = self.txqs["queue"] = 0
        self._told = self._statistics()
        while self._sockets:
            self._sockets.pop().close()
        if self._listener:
            self._listener.close()
            self._listener = None
        while self._switched:
            self._restore(self._switched.pop())
        if self._program:
            self._program.close()
            self._program = None

    def _restore(self, switched: Switched) -> None:
        assert self._link
        with suppress(OSError, UnreachableError):  # it has gone, and its offloads with it
            restore(self.config.netns, self._link.index, switched)

    def _let_go(self, reason: str) -> None:
        """Workers first, then everything that was made."""
        self.take_down(reason, "down" if self._seen else "waiting")
        self._undo()
        self._link = None

    # ------------------------------------------------------------ what it says
    def details(self) -> dict[str, Any]:
        netns = self.config.netns
        place = f" in {netns}" if netns else ""
        told = self._statistics()
        # A frame for which there was no chunk is counted by each of the first two; the others that
        # were dropped were longer than a chunk.
        unlucky = min(told["rx_dropped"], told["rx_fill_ring_empty"])
        self._lost[0]["drops"][Reason.RING_FULL] = unlucky + told["rx_ring_full"]
        self._lost[0]["drops"][Reason.SMALL_BUFFER] = told["rx_dropped"] - unlucky
        return {"peer": f"{self.config.ifname}{place}", "xdp": self._facts(),
                "drops": drops_by_name(*self.rx, *self.tx, *self._lost)}

    def _statistics(self) -> dict[str, int]:
        """What the kernel counted since the port was opened."""
        told = [self._told, *(xsk.statistics() for xsk in self._sockets)]
        return {key: sum(one.get(key, 0) for one in told) for key in COUNTED}

    def _facts(self) -> dict[str, Any] | None:
        """What came of the configuration, and what the kernel counted; None without sockets."""
        if not self._program or not self._sockets:
            return None
        area = self._sockets[0].records
        return {
            "mode": self._program.mode,
            "zero_copy": all(xsk.zero_copy for xsk in self._sockets),
            "checksums": self.config.checksums,
            "frames": area.frames,
            "chunk": area.chunk,
            "pieces": area.pieces,
            "kicks": sum(xsk.kicks() for xsk in self._sockets),
            "kernel": self._statistics(),
            "switched_off": {one.place: list(one.names) for one in self._switched if one.names},
        }


# ---------------------------------------------------------------- what can go wrong
def _unfinished(problem: str) -> PortError:
    return PortError(
        "checksums", problem,
        'give byway CAP_SYS_ADMIN and CAP_NET_ADMIN; or write checksums = "complete"; or switch the'
        ' sender\'s offloads off (`ethtool -K IF tx off tso off gso off txvlan off`) and write'
        ' checksums = "trust"')


def _no_namespace(netns: str | None, error: OSError) -> PortError:
    if isinstance(error, NoNamespaceError) and error.errno in (errno.EPERM, errno.EACCES):
        return PortError("netns", f'"{netns}" may not be entered', "give byway CAP_SYS_ADMIN")
    return PortError("netns", f'"{netns}": {error.strerror}', "name one of `ip netns list`")


def _refused(ifname: str, error: OSError) -> PortError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return PortError("kind", "the kernel lets this process make no AF_XDP socket",
                         "give byway CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF, or be root")
    if error.errno == errno.EAFNOSUPPORT:
        return PortError("kind", "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
                         "use an af-packet port")
    return PortError("ifname", f'"{ifname}" cannot be used by AF_XDP: {error.strerror}',
                     "see `byway doctor`, or use an af-packet port")
