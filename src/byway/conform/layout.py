# SPDX-License-Identifier: Apache-2.0
"""Numbers of the two ring formats, as VIRTIO 1.2 gives them.

Used by the rings of both sides in this package, which share nothing with those they test.
"""

NEXT, WRITE, INDIRECT = 1, 2, 4  # flags of a descriptor (2.7.5, 2.8.13)
AVAIL_NO_INTERRUPT = 1  # flags of the available ring (2.7.6)
USED_NO_NOTIFY = 1  # flags of the used ring (2.7.8)
AVAIL, USED = 1 << 7, 1 << 15  # flags of a packed descriptor (2.8.1)
EVENT_FLAGS = 2  # where an event suppression structure has its flags (2.8.14)
EVENT_ENABLE, EVENT_DISABLE, EVENT_AT_SLOT = 0, 1, 2
WRAP = 1 << 15  # beside a slot: the wrap counter
