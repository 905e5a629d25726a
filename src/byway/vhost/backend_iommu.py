# SPDX-License-Identifier: Apache-2.0
"""The back end's requests about translations, and its questions. Part of BackEnd; the theory stands
in backend.py, that of the translations in iotlb.py."""

import os
from contextlib import suppress

from byway.vhost.back_channel import BackChannel
from byway.vhost.backend_state import State
from byway.vhost.connection import Message
from byway.vhost.iotlb import touches
from byway.vhost.messages import ProtocolFeature
from byway.vhost.payloads import Iotlb as Translation
from byway.virtio.features import Feature, has


class TranslationRequests(State):
    """SET_BACKEND_REQ_FD and IOTLB_MSG."""

    _channel: BackChannel | None = None
    _alarm: int = -1

    def _set_backend_req_fd(self, message: Message) -> None:
        assert self._loop, "not offered without a loop"
        channel = BackChannel(message.take_fd(), self._loop, refused=self.iotlb.refused,
                              acknowledged=self._took(ProtocolFeature.REPLY_ACK))
        if self._channel:
            self._channel.close()
        self._channel, self.iotlb.ask = channel, channel.miss
        if any(ring.waiting for ring in self.rings):
            with self._change():
                pass  # whoever waits asks now

    def _iotlb_msg(self, message: Message) -> None:
        translation = Translation.unpack(message.payload)
        self.iotlb.take(translation)
        # The acknowledgement follows: no worker may be in a ring whose place is taken away.
        event_idx = has(self.features, Feature.EVENT_IDX)
        if self.translated and any(
                touches(translation, iova, n)
                for ring in self.rings if ring.ready or ring.waiting
                for iova, n in ring.spans(event_idx)):
            with self._change():
                pass

    def _begin_translation(self) -> None:
        """Hear what workers miss. Idempotent."""
        if self._alarm < 0 and self._loop:
            self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._loop.add_reader(self._alarm, self._missed)
            self.iotlb.hear(self._alarm, self._loop.call_later)

    def _missed(self) -> None:
        with suppress(BlockingIOError):  # heard already
            os.eventfd_read(self._alarm)
        self.iotlb.serve()

    def _end_translation(self) -> None:
        self.iotlb.close()
        if self._channel:
            self._channel.close()
        if self._alarm >= 0 and self._loop:
            self._loop.remove_reader(self._alarm)
            os.close(self._alarm)
            self._alarm = -1
