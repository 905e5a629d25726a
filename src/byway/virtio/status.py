# SPDX-License-Identifier: Apache-2.0
"""The device status byte, in which a driver says how far it has come.

Used by vhost (SET_STATUS, GET_STATUS) and by ports. VIRTIO 1.2, 2.1.
"""

from enum import IntFlag


class Status(IntFlag):
    """Bits of the device status field; 0 resets the device."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128
