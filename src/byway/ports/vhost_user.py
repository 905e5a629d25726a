# SPDX-License-Identifier: Apache-2.0
"""The vhost-user port: a guest's network device. Byway is the back end.

Used by control. The conversation is vhost.BackEnd's; this file owns the socket (listening or
dialling, again and again) and fills the virtqueue records from rings that are ready.

States: "waiting" (no front end, or one that has not started its rings), "up" (both rings of the
pair are served), "down" (closed, or what the peer did wrong; it may connect again at once).
One connection at a time; a second one is hung up on.
"""

import ctypes
import socket
from typing import Any

from byway.machine import unixsocket
from byway.machine.layout import address_of, alloc
from byway.packet.ethernet import longest_frame
from byway.ports.port import Host, Port, PortError
from byway.ports.record import Kind
from byway.vhost.backend import BackEnd
from byway.vhost.connection import Closed, Connection
from byway.vhost.messages import ProtocolError, ProtocolFeature
from byway.virtio.features import Feature, has, header_length, mask, names
from byway.virtio.ring import INDEX, VQ, RingError

OFFERED = mask(
    Feature.VERSION_1, Feature.MRG_RXBUF, Feature.INDIRECT_DESC, Feature.EVENT_IDX,
    Feature.ANY_LAYOUT, Feature.MTU, Feature.PROTOCOL_FEATURES)
PROTOCOL_OFFERED = sum(1 << f for f in (
    ProtocolFeature.MQ, ProtocolFeature.REPLY_ACK, ProtocolFeature.NET_MTU,
    ProtocolFeature.CONFIGURE_MEM_SLOTS, ProtocolFeature.RESET_DEVICE, ProtocolFeature.STATUS))
# The rings as the guest numbers them (VIRTIO 1.2, 5.1.2): it receives on 0, transmits on 1.
GUEST_RECEIVES, GUEST_TRANSMITS = 0, 1
RETRY_SECONDS = 0.5  # between two attempts to reach a front end that does not listen
MESSAGES_A_TURN = 8  # before others on the control thread have theirs
PENALTY_SECONDS, MAX_PENALTY_SECONDS = 1.0, 60.0  # doubled each time


class VhostUserPort(Port):
    """A guest's device."""

    kind = Kind.VHOST_USER

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self.offered = OFFERED & ~mask(*(
            Feature[name.upper()] for name in getattr(config, "features_off", ())))
        self._queues = alloc(VQ, 2)
        self._listener: socket.socket | None = None
        self._connection: Connection | None = None
        self._back_end: BackEnd | None = None
        self._retry: Any = None
        self._served = False  # the rings' positions are those of the virtqueue records
        self._penalty = PENALTY_SECONDS  # for which a peer has to wait that made us wait

    # ------------------------------------------------------------ the socket
    def open(self) -> None:
        try:
            if self.config.mode == "server":
                self._listener = unixsocket.listen(self.config.socket)
                self._listener.setblocking(False)
                self.host.loop.add_reader(self._listener.fileno(), self._accept)
            else:
                unixsocket.check_path(self.config.socket)
                self._dial()
        except unixsocket.SocketError as error:
            raise PortError("socket", f"{self.config.socket} {error.problem}",
                            error.fix) from None
        if self.state == "down":
            self.state, self.reason = "waiting", "no front end has connected yet"

    def _accept(self) -> None:
        assert self._listener
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no file descriptors left, for instance
            self.reason = f"a front end could not be accepted ({error.strerror})"
            self._rest(RETRY_SECONDS)
            return
        if self._connection:
            sock.close()
        else:
            self._converse(sock)

    def _dial(self) -> None:
        self._retry = None
        sock = None
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.connect(self.config.socket)
        except OSError as error:
            if sock:
                sock.close()
            self.state = "waiting"
            self.reason = f"no front end listens at {self.config.socket} ({error.strerror})"
            self._retry = self.host.loop.call_later(RETRY_SECONDS, self._dial)
            return
        self._converse(sock)

    def _converse(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._connection = Connection(sock)
        self._back_end = BackEnd(
            self, features=self.offered, protocol_features=PROTOCOL_OFFERED)
        self._back_end.connection = self._connection
        self.state, self.reason = "waiting", "the front end has not started its rings yet"
        self.host.loop.add_reader(self._connection.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            for _ in range(MESSAGES_A_TURN):
                if not self._connection or not self._back_end:
                    return
                message = self._connection.receive()
                if message is None:
                    return
                self._back_end.handle(message)
        except Closed as closed:
            self._hang_up("waiting", f"the front end hung up ({closed.reason})")
        except ProtocolError as error:
            self._hang_up("down", f"the front end broke the protocol: {error.reason}")
        except OSError as error:
            self._hang_up("down", f"the front end cannot be served: {error}")

    def _hang_up(self, state: Any, reason: str, rest: float = 0.0) -> None:
        """Leave the peer: workers first, then memory, then the socket. The next one is welcome
        after ``rest`` seconds."""
        connection, back_end = self._connection, self._back_end
        self._connection = self._back_end = None
        if connection:
            self.host.loop.remove_reader(connection.fileno())
        self.take_down(reason, state)
        if back_end:
            back_end.close()
        if connection:
            connection.close()
            if self.config.mode == "client":
                self._retry = self.host.loop.call_later(max(rest, RETRY_SECONDS), self._dial)
            elif rest:
                self._rest(rest)

    def _rest(self, seconds: float) -> None:
        """Accept nobody for a while; who connects meanwhile waits."""
        if self._listener:
            self.host.loop.remove_reader(self._listener.fileno())
            self._retry = self.host.loop.call_later(seconds, self._listen_again)

    def _listen_again(self) -> None:
        self._retry = None
        if self._listener:
            self.host.loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        self._hang_up("down", "closed")
        if self._retry:
            self._retry.cancel()
            self._retry = None
        if self._listener:
            self.host.loop.remove_reader(self._listener.fileno())
            unixsocket.close(self._listener)
            self._listener = None

    def on_trouble(self) -> None:
        # The ring's error fd is not written: it is the peer's, and could make us wait.
        rest = 0.0
        if int(self.record["error"][0]) == RingError.BLOCKED:
            rest = self._penalty
            self._penalty = min(2 * self._penalty, MAX_PENALTY_SECONDS)
        self._hang_up("down", self.trouble(), rest)

    # ------------------------------------------------------------ what BackEnd asks of its target
    def detach(self) -> None:
        self.host.detach(self)
        if self.state == "up":
            self.state, self.reason = "waiting", "the front end stopped its rings"

    def attach(self) -> None:
        assert self._back_end
        receive, transmit = self._back_end.rings[GUEST_RECEIVES : GUEST_TRANSMITS + 1]
        self._served = receive.ready and transmit.ready
        if not self._served:
            return
        for ring, counters in ((receive, self.tx), (transmit, self.rx)):
            self._fill(ring, counters)
        row = self.record[0]
        row["rxq"] = address_of(self._queues[GUEST_TRANSMITS:])
        row["txq"] = address_of(self._queues[GUEST_RECEIVES:]) if receive.enabled else 0
        row["discard"] = not transmit.enabled
        row["awake"] = transmit.kick < 0
        self.wake_fd = transmit.kick
        self.bring_up()

    def _fill(self, ring: Any, counters: Any) -> None:
        assert self._back_end
        features, row = self._back_end.features, self._queues[ring.index]
        row["desc"], row["avail"], row["used"] = ring.desc, ring.avail, ring.used
        row["size"], row["mask"] = ring.size, ring.size - 1
        row["memtab"], row["counters"] = self._back_end.memory.table, address_of(counters)
        row["header"] = header_length(features)
        row["merge"] = has(features, Feature.MRG_RXBUF)
        row["indirect"] = has(features, Feature.INDIRECT_DESC)
        row["event_idx"] = has(features, Feature.EVENT_IDX)
        # Between passes nothing is borrowed, so used and available position are the same. The
        # ring's own used index is where its driver goes on from, also after a back end was killed.
        position = used_index(ring.used)
        row["last_avail"] = row["avail_seen"] = row["used_idx"] = position
        # Buffers may have been used, and not been told of, before we came: the worker calls once.
        row["signalled_valid"], row["error"] = 0, 0
        row["call"], row["one"] = ring.call, address_of(self.one)
        row["max_frame"] = longest_frame(min(self.mtu, self._back_end.mtu or self.mtu))

    def position(self, index: int) -> int:
        assert self._back_end
        if not self._served:  # ready, but its pair was not: nobody has moved it
            return self._back_end.rings[index].base
        return int(self._queues["last_avail"][index])

    def call_changed(self, index: int) -> None:
        assert self._back_end
        self._queues["call"][index] = self._back_end.rings[index].call
        self._queues["signalled_valid"][index] = 0  # the old one may have been called in vain
        self.host.settle()

    def mtu_changed(self, mtu: int) -> bool:
        if mtu > self.mtu:
            return False
        self._queues["max_frame"][GUEST_RECEIVES] = longest_frame(mtu)
        return True

    # ------------------------------------------------------------ for the API
    def details(self) -> dict[str, Any]:
        acked = self._back_end.features if self._back_end else 0
        return {
            "peer": self.config.socket,
            "mode": self.config.mode,
            "features": {"offered": names(self.offered), "acked": names(acked)},
            "ring_sizes": [r.size for r in self._back_end.rings[:2]] if self._back_end else [],
            "calls": int(self._queues["calls"].sum()),
        }


def used_index(used: int) -> int:
    """The used index in a ring at host address ``used`` (VIRTIO 1.2, 2.7.8)."""
    return ctypes.c_uint16.from_address(used + INDEX).value
