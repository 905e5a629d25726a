# SPDX-License-Identifier: Apache-2.0
"""The virtio-user port: Byway is the front end and the driver of somebody else's back end.

Used by control: it chains two switches, or connects Byway to any vhost-user device. Uses
vhost.FrontEnd for the conversation and virtio's driver queues for the frames.

The conversation blocks (each step with a time-out), so it runs in a thread of the event loop's
pool; what it made is taken over on the control thread. When the back end hangs up the port leaves
the plan and starts over with empty rings: frames that were in them are lost, and were never
acknowledged to anybody.
"""

import socket
from typing import Any

from byway.machine import unixsocket
from byway.machine.layout import address_of
from byway.machine.regions import Region
from byway.packet.ethernet import longest_frame
from byway.ports.port import Host, Port, PortError
from byway.ports.record import Kind
from byway.vhost.connection import Closed
from byway.vhost.frontend import FrontEnd
from byway.vhost.messages import ProtocolError
from byway.virtio.driver_queue import DriverQueue
from byway.virtio.features import Feature, has, mask, names

WANTED = mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.MTU)
RING_SIZE = 1024
MIN_BUFFER = 2048
GPA = 1 << 32
RETRY_SECONDS = 0.5
TIMEOUT_SECONDS = 5.0


class VirtioUserPort(Port):
    """A device of somebody else's, driven by us."""

    kind = Kind.DRIVER

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self._front: FrontEnd | None = None
        self._listener: socket.socket | None = None
        self._timer: Any = None
        self._busy = False  # a conversation is under way in a thread
        self._closed = False
        self._region: Region | None = None

    def open(self) -> None:
        try:
            if self.config.mode == "server":
                self._listener = unixsocket.listen(self.config.socket)
                self.host.loop.add_reader(self._listener.fileno(), self._begin)
            else:
                unixsocket.check_path(self.config.socket)
        except unixsocket.SocketError as error:
            raise PortError("socket", f"{self.config.socket} {error.problem}",
                            error.fix) from None
        self.state, self.reason = "waiting", "no back end yet"
        if self.config.mode == "client":
            self._begin()

    def _make_queues(self) -> None:
        """Memory for one conversation: the next back end gets other memory, because this one may
        keep its mapping."""
        longest = longest_frame(self.mtu)
        buffer = max(MIN_BUFFER, -(-(longest + 12) // 256) * 256)
        each = DriverQueue.bytes_needed(RING_SIZE, buffer)
        region = Region.create(2 * each, f"byway {self.name}")
        try:
            self._receive = DriverQueue(region, 0, GPA, RING_SIZE, buffer, receive=True)
            self._transmit = DriverQueue(region, each, GPA, RING_SIZE, buffer, receive=False)
        except OSError:  # no file descriptors left
            region.close()
            raise
        self._region = region
        self.rxqs["queue"], self.txqs["queue"] = self._receive.address, self._transmit.address
        self.wake_fds = [self._receive.call]

    # ------------------------------------------------------------ the conversation
    def _begin(self) -> None:
        """Start a conversation in a thread, unless there is one."""
        self._timer = None
        if self._busy or self._front or self._closed:
            return
        if self._listener:  # until this back end is gone
            self.host.loop.remove_reader(self._listener.fileno())
        try:
            self._make_queues()
        except OSError as error:
            self._again(f"no memory to share: {error}")
            return
        self._busy = True
        future = self.host.loop.run_in_executor(None, self._converse, self._listener)
        future.add_done_callback(self._finish)

    def _converse(self, listener: socket.socket | None) -> FrontEnd:
        """In a thread: connect, negotiate, hand over memory and rings."""
        front = (FrontEnd.accept(listener, TIMEOUT_SECONDS) if listener
                 else FrontEnd.connect(self.config.socket, TIMEOUT_SECONDS))
        try:
            features = front.negotiate(WANTED)
            if not has(features, Feature.VERSION_1):
                raise ProtocolError("the back end does not offer VERSION_1 (a legacy device)")
            assert self._region
            front.set_memory([self._region], [GPA])
            sides = ((0, self._receive, self.rx), (1, self._transmit, self.tx))
            for index, queue, counters in sides:
                queue.start(features, address_of(counters), longest_frame(self.mtu))
                front.start_ring(index, queue.size, 0, queue.desc, queue.avail, queue.used,
                                 queue.kick, queue.call)
            self._receive.post_all(kick=False)  # the worker's first look kicks
            for index in (0, 1):
                front.enable_ring(index, True)
        except BaseException:
            front.close()
            raise
        return front

    def _finish(self, future: Any) -> None:
        """On the control thread: the conversation has ended, well or not."""
        self._busy = False
        error = future.exception()
        if error is None and not self._closed:
            self._front = future.result()
            self.host.loop.add_reader(self._front.fileno(), self._on_hang_up)
            self.bring_up()
            return
        if error is None:
            future.result().close()
        self._free()
        if not self._closed:
            self._again(str(error))
        if error is not None and not isinstance(error, (OSError, ProtocolError, Closed)):
            self.host.loop.call_exception_handler(
                {"message": f"port {self.name}: the conversation failed", "exception": error})

    def _again(self, reason: str) -> None:
        self.state, self.reason = "waiting", reason
        if self._listener:
            self.host.loop.add_reader(self._listener.fileno(), self._begin)
        else:
            self._timer = self.host.loop.call_later(RETRY_SECONDS, self._begin)

    def _drop(self, reason: str) -> None:
        self.take_down(reason)
        if self._front:
            self.host.loop.remove_reader(self._front.fileno())
            self._front.close()
            self._front = None
        if not self._busy:
            self._free()

    def _on_hang_up(self) -> None:
        # A back end says nothing unasked: the socket is readable because it ended.
        self._drop("the back end hung up")
        self._again(self.reason)

    def on_trouble(self) -> None:
        self._drop(self.trouble())
        self._again(self.reason)

    def close(self) -> None:
        self._closed = True
        self._drop("closed")
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._listener:
            self.host.loop.remove_reader(self._listener.fileno())
            unixsocket.close(self._listener)
            self._listener = None

    def _free(self) -> None:
        if self._region:
            self._receive.close()
            self._transmit.close()
            self._region.close()
            self._region = None

    def details(self) -> dict[str, Any]:
        offered = self._front.offered if self._front else 0
        acked = self._front.features if self._front else 0
        return {
            "peer": self.config.socket,
            "mode": self.config.mode,
            "features": {"offered": names(offered), "acked": names(acked)},
            "ring_sizes": [RING_SIZE, RING_SIZE],
        }
