# SPDX-License-Identifier: Apache-2.0
"""The back end's requests about the device: features, status, MTU, config space. Part of BackEnd;
the theory stands in backend.py."""

from byway.vhost.backend_iommu import TranslationRequests
from byway.vhost.connection import Message
from byway.vhost.messages import ProtocolError, Refused
from byway.vhost.payloads import Config, pack_u64, unpack_u64
from byway.virtio.features import Feature, has, names
from byway.virtio.status import Status

MIN_MTU, MAX_MTU = 68, 65535
CONFIG_SPACE = 256  # bytes; those that the device has none of are zero


class DeviceRequests(TranslationRequests):
    """Features, status and everything that concerns no ring and no memory."""

    def _get_features(self, message: Message) -> bytes:
        return pack_u64(self.offered)

    def _set_features(self, message: Message) -> None:
        features = unpack_u64(message.payload)
        if unknown := features & ~self.offered:
            raise ProtocolError("features that were not offered: " + ", ".join(names(unknown)))
        if self.features_set and features == self.features:
            return
        with self._change(self.rings):
            self._take_features(features)

    def _take_features(self, features: int) -> None:
        packed = has(features, Feature.RING_PACKED)
        for ring in self.rings:
            if self.features_set and ring.packed != packed:
                ring.forget_base()  # it was a position in a ring of the other format
                ring.recovered = False
            ring.packed = packed
            if not has(features, Feature.PROTOCOL_FEATURES):
                ring.enabled = True  # "Ring states": at once
        if has(self.features, Feature.LOG_ALL) and not has(features, Feature.LOG_ALL):
            self.log.close()  # the front end sends one anew before it wants one again
        self.features, self.features_set = features, True
        if self.translated:
            self._begin_translation()

    def _get_protocol_features(self, message: Message) -> bytes:
        return pack_u64(self.protocol_offered)

    def _set_protocol_features(self, message: Message) -> None:
        features = unpack_u64(message.payload)
        if unknown := features & ~self.protocol_offered:
            raise ProtocolError(f"protocol features that were not offered: {unknown:#x}")
        self.protocol_features = features

    def _set_owner(self, message: Message) -> None:
        pass  # the connection has one owner anyway

    def _reset_owner(self, message: Message) -> None:
        pass  # deprecated: "recommended that back-ends ... ignore this message"

    def _get_queue_num(self, message: Message) -> bytes:
        return pack_u64(self.queue_num)

    def _net_set_mtu(self, message: Message) -> None:
        mtu = unpack_u64(message.payload)
        if not MIN_MTU <= mtu <= MAX_MTU or not self._target.mtu_changed(mtu):
            raise Refused(f"an MTU of {mtu} is not served")
        self.mtu = mtu

    def _send_rarp(self, message: Message) -> None:
        mac = message.payload[:6]
        if mac[0] & 1 or not any(mac):
            raise Refused(f"{mac.hex(':')} is no station's address")
        self._target.announce(mac)

    def _get_status(self, message: Message) -> bytes:
        return pack_u64(self.status)

    def _set_status(self, message: Message) -> None:
        status = unpack_u64(message.payload)
        if status > 0xFF:
            raise ProtocolError(f"a device status of {status:#x}")
        if self._driver_ok() == bool(status & Status.DRIVER_OK):
            self.status, self.status_seen = status, True
            return
        with self._change(self.rings):
            self.status, self.status_seen = status, True

    def _reset_device(self, message: Message) -> None:
        with self._change():
            for ring in self.rings:
                ring.stop()
                self.inflight.forget(ring.index, self.packed)
                ring.forget_base()
                ring.packed = ring.enabled = False
            self.features, self.features_set, self.status = 0, False, 0
            self.iotlb.clear()

    def _get_config(self, message: Message) -> bytes:
        piece = Config.unpack(message.payload)
        end = piece.offset + len(piece.data)
        if end > CONFIG_SPACE:
            return b""  # "zero length of payload to indicate an error"
        space = self._target.config_space().ljust(CONFIG_SPACE, b"\0")
        return Config(piece.offset, piece.flags, space[piece.offset : end]).pack()

    def _set_config(self, message: Message) -> None:
        """A network device of VIRTIO 1.x has nothing that its driver may write (5.1.4); writing
        what is there already is no change, and what a migration does."""
        piece = Config.unpack(message.payload)
        space = self._target.config_space().ljust(CONFIG_SPACE, b"\0")
        if piece.data != space[piece.offset : piece.offset + len(piece.data)]:
            raise Refused("the device's configuration is read-only")
