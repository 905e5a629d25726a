# SPDX-License-Identifier: Apache-2.0
"""The back end's requests about single rings. Part of BackEnd; the theory stands in backend.py."""

import os

from byway.vhost.backend_state import State
from byway.vhost.connection import Message
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import RingFile, VringAddress, VringState
from byway.vhost.ring import Ring, check_event_fd

MAX_BASE = 0xFFFF  # a split ring's index; a packed ring's word has 32 bits


class RingRequests(State):
    """Size, addresses, position, event fds, enabling."""

    def _set_vring_num(self, message: Message) -> None:
        ring, size = self._state(message)
        # Before the features are known a ring may still become a packed one, of any size.
        ring.check_size(size, any_size=self.packed or not self.features_set)
        if size != ring.size:
            with self._change([ring]):
                ring.size = size

    def _set_vring_addr(self, message: Message) -> None:
        address = VringAddress.unpack(message.payload)
        ring = self._ring(address.index)
        if address != ring.address:
            with self._change([ring]):
                ring.address = address

    def _set_vring_base(self, message: Message) -> None:
        ring, word = self._state(message)
        if word > MAX_BASE and self.features_set and not self.packed:
            raise ProtocolError(f"ring {ring.index} starts at {word:#x}, no 16-bit index")
        if not ring.ready:
            # Also where it is the position of now: what stopped here may have gone on elsewhere.
            ring.give_base(word)
            return
        with self._change([ring]):
            ring.give_base(word)

    def _get_vring_base(self, message: Message) -> bytes:
        ring, _ = self._state(message)
        with self._change():
            ring.stop()
            self.inflight.forget(ring.index, self.packed)
        return VringState(ring.index, ring.base_word).pack()

    def _set_vring_kick(self, message: Message) -> None:
        ring = self._ring_of_file(message)
        with self._change([ring]):
            ring.set_kick(message.take_fd())

    def _set_vring_call(self, message: Message) -> None:
        ring = self._ring_of_file(message)
        if not ring.ready:
            with self._change([ring]):
                ring.set_call(message.take_fd())
            return
        # QEMU switches between two fds while the guest runs: no reason to stop the ring.
        old, ring.call = ring.call, message.take_fd()
        self._target.call_changed(ring.index)
        if old >= 0:
            os.close(old)

    def _set_vring_err(self, message: Message) -> None:
        self._ring_of_file(message).set_err(message.take_fd())

    def _ring_of_file(self, message: Message) -> Ring:
        """The ring that a message brings an event fd (or none) for; the message keeps it."""
        payload = RingFile.unpack(message.payload)
        ring = self._ring(payload.index)
        if payload.has_fd != bool(message.fds):
            said = "one" if payload.has_fd else "no"
            raise ProtocolError(f"{said} file descriptor announced, {len(message.fds)} attached")
        if message.fds:
            check_event_fd(message.fds[0])
        return ring

    def _set_vring_enable(self, message: Message) -> None:
        ring, on = self._state(message)
        if on > 1:
            raise ProtocolError(f"ring {ring.index} enabled with {on}, neither 0 nor 1")
        if not ring.ready:
            ring.enabled = bool(on)  # front ends do it early and often: nobody is disturbed
        elif ring.enabled != bool(on):
            with self._change():
                ring.enabled = bool(on)
