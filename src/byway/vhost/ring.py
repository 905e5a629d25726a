# SPDX-License-Identifier: Apache-2.0
"""A ring as a front end describes it, piece by piece, until it can be served.

Used by the back end (which changes it) and its target (which serves it); uses memory, payloads.
"""

import os

from byway.vhost.memory import Memory
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import VringAddress

MAX_RING_SIZE = 32768  # VIRTIO 1.2, 2.7 Split Virtqueues: queue size, a power of two
EVENT_FD = "anon_inode:[eventfd]"


def check_event_fd(fd: int) -> None:
    """Make ``fd`` non-blocking; ProtocolError where it is no event fd.

    A pipe or a file in its place could block a worker or fill up.
    """
    kind = os.readlink(f"/proc/self/fd/{fd}")
    if kind != EVENT_FD:
        raise ProtocolError(f"a descriptor that is no event fd ({kind.split(':')[0]})")
    os.set_blocking(fd, False)


def part_sizes(size: int, event_idx: bool) -> tuple[tuple[str, int, int], ...]:
    """Name, bytes and alignment of a split ring's parts (VIRTIO 1.2, 2.7).

    The event words at the end of avail and used ring count only with EVENT_IDX: front ends may
    leave them out otherwise.
    """
    event = 2 if event_idx else 0
    return (("descriptor table", 16 * size, 16),
            ("avail ring", 4 + 2 * size + event, 2),
            ("used ring", 4 + 8 * size + event, 4))


def _swap(old: int, new: int) -> int:
    if old >= 0:
        os.close(old)
    return new


class Ring:
    """One ring. ``desc``, ``avail``, ``used`` are host addresses, 0 unless ``ready``.

    ``kick``, ``call``, ``err``: event fds owned by the ring, -1 where the front end gave none.
    ``base``: the avail index to continue from. ``enabled``: frames may pass.
    """

    def __init__(self, index: int, served: bool = True) -> None:
        self.index = index
        self.served = served
        self.size = 0
        self.base = 0
        self.address: VringAddress | None = None
        self.desc = self.avail = self.used = 0
        self.kick = self.call = self.err = -1
        self.kick_given = self.call_given = False
        self.enabled = False
        self.ready = False

    def check_size(self, size: int) -> None:
        """ProtocolError where no split ring can have ``size`` entries."""
        if not 1 <= size <= MAX_RING_SIZE or size & (size - 1):
            raise ProtocolError(f"ring {self.index} of {size} entries, no power of two from 1 to "
                                f"{MAX_RING_SIZE}")

    def place(self, memory: Memory, event_idx: bool) -> str:
        """Find the ring's parts in ``memory`` and set ``ready``.

        -> what is wrong with a ring that is complete otherwise, "" for one that is not or is good.
        """
        self.unplace()
        address = self.address
        if not (self.served and self.size and address and self.kick_given and self.call_given):
            return ""
        found = []
        users = (address.desc, address.avail, address.used)
        for user, (part, n, align) in zip(users, part_sizes(self.size, event_idx), strict=True):
            host = memory.user_to_host(user, n)
            if host is None:
                return (f"ring {self.index}: the {part} ({n} bytes at user address {user:#x}) "
                        "does not lie in one memory region")
            if host % align:
                return (f"ring {self.index}: the {part} at user address {user:#x} is not "
                        f"aligned to {align} bytes")
            found.append(host)
        self.desc, self.avail, self.used = found
        self.ready = True
        return ""

    def unplace(self) -> str:
        """Forget where the parts lie; the ring is not ready. -> "" as ``place``."""
        self.desc = self.avail = self.used = 0
        self.ready = False
        return ""

    def set_kick(self, fd: int) -> None:
        """Take a kick fd (-1: the front end polls us, or will never kick)."""
        self.kick, self.kick_given = _swap(self.kick, fd), True

    def set_call(self, fd: int) -> None:
        """Take a call fd (-1: the front end polls)."""
        self.call, self.call_given = _swap(self.call, fd), True

    def set_err(self, fd: int) -> None:
        """Take an error fd (-1: none)."""
        self.err = _swap(self.err, fd)

    def stop(self) -> None:
        """The end of a run ("Ring states"): close kick and call, forget the addresses."""
        self.set_kick(-1)
        self.set_call(-1)
        self.kick_given = self.call_given = False
        self.address = None
        self.unplace()
