# SPDX-License-Identifier: Apache-2.0
"""What a back end drives: the target, which serves the rings that are ready.

The vhost-user port is one; byway.testing has one that moves no frame. Every method runs on the
thread that handles the conversation.
"""

from typing import Protocol


class Target(Protocol):
    """Serves rings between ``attach`` and ``detach``."""

    @property
    def fault_flag(self) -> int:
        """Address of the int64 that a fault in the front end's memory raises."""

    def detach(self) -> None:
        """When this returns no worker touches rings, memory, log or in-flight region. Idempotent.

        Buffers that were taken are given back, or have not been taken.
        """

    def attach(self) -> None:
        """Rings may be ready now; look at ``BackEnd.rings``."""

    def position(self, index: int) -> int:
        """Where the next target would go on in a ring that was ready; after detach.

        Split: the next avail index. Packed: slot | WRAP. ``Ring.base`` where the target did not
        take the ring up (it waits for its pair, say).
        """

    def call_changed(self, index: int) -> None:
        """Use ``Ring.call`` of a ready ring; when this returns no worker uses the old fd."""

    def settle(self) -> None:
        """When this returns no worker uses a translation that it looked up before the call."""

    def mtu_changed(self, mtu: int) -> bool:
        """The guest's MTU in bytes; -> whether it can be served."""

    def announce(self, mac: bytes) -> None:
        """The guest came from elsewhere: tell the network where ``mac`` (6 bytes) is now."""

    def config_space(self) -> bytes:
        """The device's configuration space (VIRTIO 1.2, 5.1.4): struct virtio_net_config, as far
        as the device has it. It does not change while a front end is connected."""
