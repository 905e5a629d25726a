# SPDX-License-Identifier: Apache-2.0
"""The vhost-user port: a guest's network device. Byway is the back end.

Used by control. The conversation is vhost.BackEnd's; this file owns the socket (listening or
dialling, again and again) and fills the virtqueue records from rings that are ready.

States: "waiting" (no front end, or one that has not started its rings), "up" (both rings of at
least one pair are served), "down" (closed, or what the peer did wrong; it may connect again at
once). One connection at a time; a second one is hung up on.

What is offered depends on the configuration only, so it is the same for every connection: a guest
whose switch was restarted finds what it has negotiated.
"""

import socket
import struct
from typing import Any

from byway.machine import unixsocket
from byway.machine.layout import address_of, alloc
from byway.packet.ethernet import longest_frame, rarp_frame
from byway.ports.port import Host, Port, PortError
from byway.ports.record import Kind
from byway.vhost.backend import BackEnd
from byway.vhost.connection import Closed, Connection
from byway.vhost.messages import ProtocolError, ProtocolFeature
from byway.virtio.features import Feature, has, header_length, mask, names
from byway.virtio.negotiation import BY_NAME, closure, explain
from byway.virtio.offloads import guest_takes
from byway.virtio.position import packed_position, used_index
from byway.virtio.ring import VQ, RingError

SUPPORTED = mask(
    Feature.CSUM, Feature.GUEST_CSUM, Feature.MTU, Feature.GUEST_TSO4, Feature.GUEST_TSO6,
    Feature.GUEST_ECN, Feature.GUEST_UFO, Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.HOST_ECN,
    Feature.HOST_UFO, Feature.MRG_RXBUF, Feature.CTRL_VQ, Feature.CTRL_RX,
    Feature.GUEST_ANNOUNCE, Feature.MQ, Feature.LOG_ALL, Feature.ANY_LAYOUT, Feature.INDIRECT_DESC,
    Feature.EVENT_IDX, Feature.PROTOCOL_FEATURES, Feature.VERSION_1, Feature.ACCESS_PLATFORM,
    Feature.RING_PACKED, Feature.IN_ORDER, Feature.GUEST_USO4, Feature.GUEST_USO6,
    Feature.HOST_USO)
_VMM = "the virtual machine monitor's own: it works whatever the back end offers"
_CONTROL = "the control queue never reaches a vhost-user back end"
UNSUPPORTED = {
    Feature.MAC: _VMM, Feature.STATUS: _VMM, Feature.STANDBY: _VMM, Feature.SPEED_DUPLEX: _VMM,
    Feature.CTRL_VLAN: _CONTROL, Feature.CTRL_RX_EXTRA: _CONTROL, Feature.CTRL_MAC_ADDR: _CONTROL,
    Feature.CTRL_GUEST_OFFLOADS: _CONTROL, Feature.RSS: _CONTROL, Feature.HASH_REPORT: _CONTROL,
    Feature.RING_RESET: "QEMU would not tell a vhost-user back end of it",
    Feature.NOTIFICATION_DATA: "an event fd carries no data",
    Feature.NOTIFY_ON_EMPTY: "a legacy feature that no driver needs",
    Feature.GSO: "a legacy feature: the host_* ones say more",
    Feature.GUEST_HDRLEN: "header lengths are found in the frame, whatever the guest says",
    Feature.ORDER_PLATFORM: "for devices in hardware",
}
ONE_PAIR = "the port has one queue pair (queues = 1)"
PROTOCOL_OFFERED = sum(1 << f for f in (
    ProtocolFeature.MQ, ProtocolFeature.LOG_SHMFD, ProtocolFeature.RARP, ProtocolFeature.REPLY_ACK,
    ProtocolFeature.NET_MTU, ProtocolFeature.BACKEND_REQ, ProtocolFeature.CONFIG,
    ProtocolFeature.INFLIGHT_SHMFD, ProtocolFeature.CONFIGURE_MEM_SLOTS,
    ProtocolFeature.RESET_DEVICE, ProtocolFeature.STATUS))
# The rings as the guest numbers them (VIRTIO 1.2, 5.1.2): of pair k it receives on 2k, transmits on
# 2k + 1.
GUEST_RECEIVES, GUEST_TRANSMITS = 0, 1
LINK_UP = 1  # VIRTIO 1.2, 5.1.4
RETRY_SECONDS = 0.5  # between two attempts to reach a front end that does not listen
MESSAGES_A_TURN = 8  # before others on the control thread have theirs
PENALTY_SECONDS, MAX_PENALTY_SECONDS = 1.0, 60.0  # doubled each time


class VhostUserPort(Port):
    """A guest's device."""

    kind = Kind.DEVICE

    def __init__(self, config: Any, index: int, host: Host, mtu: int) -> None:
        super().__init__(config, index, host, mtu)
        self.off = mask(*(BY_NAME[name] for name in getattr(config, "features_off", ())))
        one = self.queues == 1
        self.supported = SUPPORTED & ~mask(Feature.MQ) if one else SUPPORTED
        self.unsupported = UNSUPPORTED | ({Feature.MQ: ONE_PAIR} if one else {})
        self.offered = closure(self.supported & ~self.off)
        self._queues = alloc(VQ, 2 * self.queues)
        self._listener: socket.socket | None = None
        self._connection: Connection | None = None
        self._back_end: BackEnd | None = None
        self._retry: Any = None
        self._served: set[int] = set()  # rings whose positions are those of the virtqueue records
        self._announcement = b""  # the address of a guest that is here, but not served yet
        self._started: set[int] = set()  # rings that were served on this connection
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
        self._started = set()
        self._connection = Connection(sock)
        self._back_end = BackEnd(
            self, features=self.offered, protocol_features=PROTOCOL_OFFERED,
            queue_pairs=self.queues, loop=self.host.loop)
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
        self._announcement = b""
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
        rings = self._back_end.rings
        self.serving = [k for k in range(self.queues)
                        if rings[2 * k].ready and rings[2 * k + 1].ready]
        self._served = {ring for k in self.serving for ring in (2 * k, 2 * k + 1)}
        if not self.serving:
            return
        takes = guest_takes(self._back_end.features)
        enabled = 0
        for k in self.serving:
            receive, transmit = rings[2 * k : 2 * k + 2]
            self._fill(receive, address_of(self.tx[k:]))
            self._fill(transmit, address_of(self.rx[k:]))
            rxq = self.rxqs[k]
            rxq["queue"] = address_of(self._queues[transmit.index :])
            rxq["discard"], rxq["awake"] = not transmit.enabled, transmit.kick < 0
            self.wake_fds[k] = transmit.kick
            if receive.enabled:
                txq = self.txqs[enabled]
                txq["queue"] = address_of(self._queues[receive.index :])
                txq["counters"], txq["takes"] = address_of(self.tx[k:]), takes
                enabled += 1
        if not enabled:
            self.txqs["queue"][0] = 0
        self.record["ntx"] = max(enabled, 1)
        self.bring_up()
        if self._announcement:
            mac, self._announcement = self._announcement, b""
            self.announce(mac)

    def _fill(self, ring: Any, counters: int) -> None:
        assert self._back_end
        features, row = self._back_end.features, self._queues[ring.index]
        row["desc"], row["avail"], row["used"] = ring.desc, ring.avail, ring.used
        row["size"], row["mask"] = ring.size, ring.size - 1
        row["packed"], row["in_order"] = ring.packed, has(features, Feature.IN_ORDER)
        row["memtab"], row["counters"] = self._back_end.memtab, counters
        row["header"] = header_length(features)
        row["merge"] = has(features, Feature.MRG_RXBUF)
        row["indirect"] = has(features, Feature.INDIRECT_DESC)
        row["event_idx"] = has(features, Feature.EVENT_IDX)
        row["offloads"] = has(features, Feature.CSUM)
        row["log"] = self._back_end.log_record
        row["inflight"] = ring.inflight
        # Between passes nothing is borrowed, so used and available position are the same. The ring
        # itself says where its driver goes on from, also after a back end was killed.
        position = used_index(ring.used)
        if ring.packed:
            position = ring.base
            told = ring.inflight or row["in_order"] or ring.index in self._started
            if not told:
                position = packed_position(ring.desc, ring.used, ring.size, ring.base)
        self._started.add(ring.index)
        row["last_avail"] = row["avail_seen"] = row["used_idx"] = row["published"] = position
        row["unkept"] = ring.size  # noted with the first that is returned, for there may be a next
        # Buffers may have been used, and not been told of, before we came: the worker calls once.
        row["signalled_valid"], row["error"] = 0, 0
        row["call"], row["one"] = ring.call, address_of(self.one)
        row["max_frame"] = longest_frame(min(self.mtu, self._back_end.mtu or self.mtu))

    def position(self, index: int) -> int:
        assert self._back_end
        if index not in self._served:  # ready, but its pair was not: nobody has moved it
            return int(self._back_end.rings[index].base)
        return int(self._queues["last_avail"][index])

    def call_changed(self, index: int) -> None:
        assert self._back_end
        self._queues["call"][index] = self._back_end.rings[index].call
        self.host.settle()
        self._queues["signalled_valid"][index] = 0  # the old one may have been called in vain
        if index in self._served:
            self.host.attach(self)  # so that workers look at it anew, and call

    def settle(self) -> None:
        # Pages were taken away, or came: workers look ahead anew. They are not told by the event
        # fd that wakes them: it is the peer's as well, who can make whoever writes to it wait.
        self.host.look(self)

    def announce(self, mac: bytes) -> None:
        if self.state == "up":
            self.host.inject(self, rarp_frame(mac))
        else:  # as soon as the guest's rings are served
            self._announcement = mac

    def config_space(self) -> bytes:
        mac = bytes.fromhex((self.config.mac or "00" * 6).replace(":", ""))
        return mac + struct.pack("<HHH", LINK_UP, self.queues, self.mtu)

    def mtu_changed(self, mtu: int) -> bool:
        if mtu > self.mtu:
            return False
        self._queues["max_frame"][GUEST_RECEIVES::2] = longest_frame(mtu)
        return True

    # ------------------------------------------------------------ for the API
    def details(self) -> dict[str, Any]:
        back_end = self._back_end
        acked = back_end.features if back_end and back_end.features_set else None
        rings = [r for r in back_end.rings[: 2 * self.queues] if r.size] if back_end else []
        return {
            "peer": self.config.socket,
            "mode": self.config.mode,
            "features": {
                "offered": names(self.offered),
                "acked": names(acked or 0),
                "off": explain(self.supported, self.off, self.offered, acked,
                               unsupported=self.unsupported),
            },
            "queues_enabled": sum(r.enabled and r.index & 1 == GUEST_RECEIVES for r in rings),
            "rings": [self._describe(r) for r in rings],
            "calls": int(self._queues["calls"].sum()),
        }

    def _describe(self, ring: Any) -> dict[str, Any]:
        receives = ring.index & 1 == GUEST_RECEIVES
        counters = (self.tx if receives else self.rx)[ring.index // 2]
        return {
            "index": ring.index, "way": "tx" if receives else "rx",
            "format": "packed" if ring.packed else "split", "size": ring.size,
            "enabled": bool(ring.enabled), "frames": int(counters["frames"]),
            "bytes": int(counters["bytes"]), "calls": int(self._queues["calls"][ring.index]),
        }
