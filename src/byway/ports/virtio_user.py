# SPDX-License-Identifier: Apache-2.0
"""The virtio-user port: Byway is the front end and the driver of somebody else's back end.

Used by control: it chains two switches, or connects Byway to any vhost-user device. Uses
vhost.FrontEnd for the conversation and driver_port for the queues.

The conversation blocks (each step with a time-out), so it runs in a thread of the event loop's
pool; what it made is taken over on the control thread. When the back end hangs up the port leaves
the plan, and tries again until one answers.

What becomes of the frames in the rings then depends on the back end. One that keeps an in-flight
region (INFLIGHT_SHMFD) gets the same memory, the same rings and its region again: it goes on where
it was. For any other the port starts over with empty rings in new memory, because the old back end
may keep its mapping; frames that were in the rings are lost, and were never acknowledged to
anybody.

How many pairs: the configuration space says it, where the back end has one. GET_QUEUE_NUM counts
pairs for DPDK and QEMU, rings for rust-vmm. We believe in pairs; where a ring beyond its number
makes the back end give up, it counts rings.
"""

import socket
from typing import Any

from byway.machine import unixsocket
from byway.ports.driver_port import GPA, DriverPort, QueuePairs
from byway.ports.port import Host, PortError
from byway.vhost.connection import Closed
from byway.vhost.frontend import FrontEnd, protocol_mask
from byway.vhost.messages import ProtocolError, ProtocolFeature
from byway.vhost.requests import RequestRefused
from byway.vhost.sharing import InflightFile
from byway.virtio.features import Feature, has, mask

RETRY_SECONDS = 0.5
TIMEOUT_SECONDS = 5.0
WANTED_PROTOCOL = protocol_mask(
    ProtocolFeature.MQ, ProtocolFeature.REPLY_ACK, ProtocolFeature.NET_MTU, ProtocolFeature.STATUS,
    ProtocolFeature.INFLIGHT_SHMFD, ProtocolFeature.RESET_DEVICE, ProtocolFeature.CONFIG)
_MAX_PAIRS = 8, 2  # VIRTIO 1.2, 5.1.4: offset and bytes of max_virtqueue_pairs


class Kept:
    """What a back end that comes back is given again."""

    def __init__(self, pairs: QueuePairs, inflight: InflightFile) -> None:
        self.pairs, self.inflight = pairs, inflight

    def close(self) -> None:
        """Give it up."""
        self.pairs.close()
        self.inflight.close()


class Conversation:
    """What one conversation has come to: all that a back end was given. In a thread of its own."""

    def __init__(self, front: FrontEnd, port: "VirtioUserPort") -> None:
        self.front = front
        self.pairs: QueuePairs | None = None
        self.inflight: InflightFile | None = None
        self.resumed = False
        self._port = port

    def hold(self) -> None:
        """Negotiate, share the memory, start the rings. ProtocolError, Closed, OSError."""
        front, port = self.front, self._port
        port.note = ""
        offered = front.look(WANTED_PROTOCOL)
        front.own()
        features = front.take(port.choose(offered))
        if not has(features, Feature.VERSION_1):
            raise ProtocolError("the back end does not offer VERSION_1 (a legacy device)")
        try:
            front.set_mtu(port.mtu)
        except RequestRefused as error:
            port.note = error.reason
        self._queues(features, port.pair_count(front))
        assert self.pairs
        if front.took(ProtocolFeature.INFLIGHT_SHMFD):
            self._in_flight()
        front.set_memory([self.pairs.region], [GPA])
        # What a ring holds that is started and not enabled is discarded ("Ring states").
        self._enable(self.resumed)
        for index, queue in self.pairs.rings():
            try:
                front.start_ring(index, queue.size, queue.position(), queue.desc, queue.avail,
                                 queue.used, queue.kick, queue.call)
            except (ProtocolError, Closed):
                port.gave_up(front, index)
                raise
            if queue.receive and not self.resumed:
                queue.post_all(kick=False)  # the worker's first look kicks
        self._enable(not self.resumed)
        front.driver_ok()

    def _enable(self, now: bool) -> None:
        assert self.pairs
        for index, _ in self.pairs.rings() if now else ():
            self.front.enable_ring(index, True)

    def _queues(self, features: int, count: int) -> None:
        """The queues that this back end had, if it can go on with them, or new ones."""
        port, kept = self._port, self._port.kept
        port.kept = None
        if kept and self.front.took(ProtocolFeature.INFLIGHT_SHMFD) and (
                (kept.pairs.features, len(kept.pairs)) == (features, count)):
            self.pairs, self.inflight, self.resumed = kept.pairs, kept.inflight, True
            for _, queue in self.pairs.rings():
                try:
                    queue.resume()
                except ValueError as error:
                    raise ProtocolError(str(error)) from None
            return
        if kept:
            kept.close()
        self.pairs = QueuePairs(port.name, count, features, port.mtu)
        self.pairs.start(port.rx, port.tx, port.mtu)

    def _in_flight(self) -> None:
        assert self.pairs
        if not self.inflight:
            queue = self.pairs.receive[0]
            self.inflight = self.front.get_inflight(2 * len(self.pairs), queue.size)
        if self.inflight:
            self.front.set_inflight(self.inflight)

    def close(self) -> None:
        """Hang up and give everything back. Idempotent."""
        self.front.close()
        if self.pairs:
            self.pairs.close()
        if self.inflight:
            self.inflight.close()


class VirtioUserPort(DriverPort):
    """A vhost-user device of somebody else's."""

    supported = DriverPort.supported | mask(
        Feature.MTU, Feature.HOST_UFO, Feature.PROTOCOL_FEATURES)

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self.kept: Kept | None = None  # belongs to the thread while there is one
        self.note = ""  # what the back end refused, and can do without
        self._limit = self.queues  # pairs that the back end has, as far as we know
        self._conversation: Conversation | None = None
        self._listener: socket.socket | None = None
        self._timer: Any = None
        self._busy = False  # a conversation is under way in a thread
        self._closed = False

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

    # ------------------------------------------------------------ what a conversation asks (thread)
    def pair_count(self, front: FrontEnd) -> int:
        """How many pairs to start."""
        if not has(front.features, Feature.MQ):
            return 1
        has_pairs = front.queue_num
        if front.took(ProtocolFeature.CONFIG):
            try:
                has_pairs = int.from_bytes(front.get_config(*_MAX_PAIRS), "little")
            except RequestRefused as error:
                self.note = error.reason
        return max(1, min(self._limit, has_pairs, front.queue_num))

    def gave_up(self, front: FrontEnd, index: int) -> None:
        """The back end did not take ring ``index``: it counts rings, if it said less."""
        if index >= front.queue_num > 1:
            self._limit = front.queue_num // 2

    # ------------------------------------------------------------ the conversation
    def _begin(self) -> None:
        """Start a conversation in a thread, unless there is one."""
        self._timer = None
        if self._busy or self._conversation or self._closed:
            return
        if self._listener:  # until this back end is gone
            self.host.loop.remove_reader(self._listener.fileno())
        self._busy = True
        future = self.host.loop.run_in_executor(None, self._converse, self._listener)
        future.add_done_callback(self._finish)

    def _converse(self, listener: socket.socket | None) -> Conversation:
        """In a thread: connect, and hold the conversation."""
        front = (FrontEnd.accept(listener, TIMEOUT_SECONDS) if listener
                 else FrontEnd.connect(self.config.socket, TIMEOUT_SECONDS))
        conversation = Conversation(front, self)
        try:
            conversation.hold()
        except BaseException:
            conversation.close()
            raise
        return conversation

    def _finish(self, future: Any) -> None:
        """On the control thread: the conversation has ended, well or not."""
        self._busy = False
        error = future.exception()
        if error is None and not self._closed:
            self._take_over(future.result())
            return
        if error is None:
            future.result().close()
        self.free()
        if not self._closed:
            self._again(str(error))
        elif self.kept:
            self.kept.close()
        if error is not None and not isinstance(error, (OSError, ProtocolError, Closed)):
            self.host.loop.call_exception_handler(
                {"message": f"port {self.name}: the conversation failed", "exception": error})

    def _take_over(self, conversation: Conversation) -> None:
        assert conversation.pairs
        self._conversation, front = conversation, conversation.front
        self.offered, self.acked = front.offered, front.features
        self.host.loop.add_reader(front.fileno(), self._on_hang_up)
        self.serve(conversation.pairs)

    def _again(self, reason: str) -> None:
        self.state, self.reason = "waiting", reason
        if self._listener:
            self.host.loop.add_reader(self._listener.fileno(), self._begin)
        else:
            self._timer = self.host.loop.call_later(RETRY_SECONDS, self._begin)

    def _drop(self, reason: str, keep: bool = False) -> None:
        """Leave the back end. ``keep``: it may come back and go on."""
        self.take_down(reason)
        conversation, self._conversation = self._conversation, None
        if conversation:
            self.host.loop.remove_reader(conversation.front.fileno())
            conversation.front.close()
            if keep and conversation.inflight and conversation.pairs:
                self.kept = Kept(conversation.pairs, conversation.inflight)
            else:
                conversation.close()
            self.pairs = None
        if not self._busy:
            self.free()

    def _on_hang_up(self) -> None:
        # A back end says nothing unasked: the socket is readable because it ended.
        self._drop("the back end hung up", keep=True)
        self._again(self.reason)

    def on_trouble(self) -> None:
        self._drop(self.trouble())
        self._again(self.reason)

    def close(self) -> None:
        self._closed = True
        self._drop("closed")
        if self.kept and not self._busy:
            self.kept.close()
            self.kept = None
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._listener:
            self.host.loop.remove_reader(self._listener.fileno())
            unixsocket.close(self._listener)
            self._listener = None

    def details(self) -> dict[str, Any]:
        resumed = bool(self._conversation and self._conversation.resumed)
        return {**super().details(), "peer": self.config.socket, "mode": self.config.mode,
                "resumed": resumed, "note": self.note}
