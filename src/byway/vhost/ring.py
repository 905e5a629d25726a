# SPDX-License-Identifier: Apache-2.0
"""A ring as a front end describes it, piece by piece, until it can be served.

Used by the back end (which changes it) and its target (which serves it); uses payloads and
virtio.ring.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import VringAddress
from byway.virtio.ring import MAX_SIZE, PACKED_START, WRAP, avail_bytes, used_bytes

EVENT_FD = "anon_inode:[eventfd]"
LOG_USED = 1  # "Vring address description", flags: log writes to the used ring


def check_event_fd(fd: int) -> None:
    """Make ``fd`` non-blocking; ProtocolError where it is no event fd.

    A pipe or a file in its place could block a worker or fill up.
    """
    kind = os.readlink(f"/proc/self/fd/{fd}")
    if kind != EVENT_FD:
        raise ProtocolError(f"a descriptor that is no event fd ({kind.split(':')[0]})")
    os.set_blocking(fd, False)


def part_sizes(size: int, event_idx: bool,
               packed: bool = False) -> tuple[tuple[str, int, int], ...]:
    """Name, bytes and alignment of a ring's parts (VIRTIO 1.2, 2.7 and 2.8).

    In the order of a descriptor table (packed: the descriptor ring), the driver's part and the
    device's. The event words at the end of a split ring's avail and used ring count only with
    EVENT_IDX: front ends may leave them out otherwise.
    """
    if packed:
        return (("descriptor ring", 16 * size, 16),
                ("driver event suppression", avail_bytes(size, event_idx, True), 4),
                ("device event suppression", used_bytes(size, event_idx, True), 4))
    return (("descriptor table", 16 * size, 16),
            ("avail ring", avail_bytes(size, event_idx), 2),
            ("used ring", used_bytes(size, event_idx), 4))


class Placing(NamedTuple):
    """What the places of all rings depend on.

    ``locate``: (address as the front end gives it, bytes) -> host address; None where there is
    none, or ProtocolError. ``translated``: None means "not known yet": the front end was asked for
    the translation.
    """

    locate: Callable[[int, int], int | None]
    event_idx: bool
    packed: bool
    translated: bool = False


def _swap(old: int, new: int) -> int:
    if old >= 0:
        os.close(old)
    return new


class Ring:
    """One ring. ``desc``, ``avail``, ``used`` are host addresses, 0 unless ``ready``; of a packed
    ring those of the descriptor ring, the driver's and the device's event suppression.

    ``kick``, ``call``, ``err``: event fds owned by the ring, -1 where the front end gave none.
    ``enabled``: frames may pass. ``packed``: the format that was negotiated. ``logged``: writes
    to the used ring are logged while the log is on. ``inflight``: host address of the ring's part
    of the in-flight region, 0 where there is none, nothing to be noted in it (split rings), or the
    ring is not ready.
    """

    def __init__(self, index: int, served: bool = True) -> None:
        self.index = index
        self.served = served
        self.size = 0
        self.packed = False
        self.address: VringAddress | None = None
        self.desc = self.avail = self.used = 0
        self.inflight = 0
        self.recovered = False  # what the in-flight region told has been put right
        self.kick = self.call = self.err = -1
        self.kick_given = self.call_given = False
        self.enabled = False
        self.ready = False
        self.waiting = False  # nothing is missing but the translation of an address
        self._base: int | None = None  # as SET_VRING_BASE has it

    # ------------------------------------------------------------ where it goes on

    @property
    def base(self) -> int:
        """Where to go on: split, the next avail index; packed, slot | WRAP.

        A device that holds no buffer stands at one position, so of the two that a packed ring's
        front end may give (what is available next, what is used next) this is the used one: what
        lies between was taken and not returned, and is there to be taken again.
        """
        if self._base is None:
            return PACKED_START if self.packed else 0
        if not self.packed:
            return self._base & 0xFFFF
        return self._base >> 16 or self._base & 0xFFFF

    @base.setter
    def base(self, position: int) -> None:
        self._base = position | position << 16 if self.packed else position

    @property
    def base_word(self) -> int:
        """The number in the reply to GET_VRING_BASE: of a packed ring both halves."""
        return self.base | self.base << 16 if self.packed else self.base

    def give_base(self, word: int) -> None:
        """Take the number of SET_VRING_BASE. It is checked when the ring is placed: its size and
        format may come later.

        Split: 16 bits. Packed: available slot and wrap in the low half, used slot and wrap in the
        high half; a high half of 0 was not given by front ends that know one position only.
        """
        self._base = word

    def forget_base(self) -> None:
        """Begin where a new ring of its format begins."""
        self._base = None

    # ------------------------------------------------------------ checks

    def check_size(self, size: int, any_size: bool) -> None:
        """ProtocolError where no ring can have ``size`` entries; ``any_size``: it may be packed."""
        if problem := self._size_problem(size, any_size):
            raise ProtocolError(problem)

    def _size_problem(self, size: int, any_size: bool) -> str:
        if not 1 <= size <= MAX_SIZE:
            return f"ring {self.index} of {size} entries, which is not from 1 to {MAX_SIZE}"
        if size & (size - 1) and not any_size:
            return f"ring {self.index} of {size} entries, no power of two; it is a split ring"
        return ""

    def _base_problem(self) -> str:
        word = self._base or 0
        if not self.packed:
            if word > 0xFFFF:
                return f"ring {self.index} starts at {word:#x}, no 16-bit index"
            return ""
        for half in (word & 0xFFFF, word >> 16):
            if half & (WRAP - 1) >= self.size:
                return f"ring {self.index} of {self.size} entries starts at slot {half & WRAP - 1}"
        return ""

    # ------------------------------------------------------------ place

    def place(self, placing: Placing) -> str:
        """Find the ring's parts and set ``ready``.

        -> what is wrong with a ring that is complete otherwise, "" for one that is not or is good.
        """
        self.unplace()
        self.packed = placing.packed
        address = self.address
        if not (self.served and self.size and address and self.kick_given and self.call_given):
            return ""
        if problem := self._size_problem(self.size, self.packed) or self._base_problem():
            return problem
        found = []
        users = (address.desc, address.avail, address.used)
        parts = part_sizes(self.size, placing.event_idx, self.packed)
        for user, (part, n, align) in zip(users, parts, strict=True):
            try:
                host = placing.locate(user, n)
            except ProtocolError as error:
                return f"ring {self.index}: the {part}: {error.reason}"
            if host is None and not placing.translated:
                return (f"ring {self.index}: the {part} ({n} bytes at user address {user:#x}) "
                        "does not lie in one memory region")
            if host is not None and host % align:
                return (f"ring {self.index}: the {part} at user address {user:#x} is not "
                        f"aligned to {align} bytes")
            found.append(host)
        if None in found:
            self.waiting = True
        else:
            self.desc, self.avail, self.used = (host or 0 for host in found)
            self.ready = True
        return ""

    def spans(self, event_idx: bool) -> list[tuple[int, int]]:
        """Where the parts lie in the front end's terms: (address, bytes)."""
        if not self.address:
            return []
        sizes = [n for _, n, _ in part_sizes(self.size, event_idx, self.packed)]
        users = (self.address.desc, self.address.avail, self.address.used)
        return list(zip(users, sizes, strict=True))

    def unplace(self) -> str:
        """Forget where the parts lie; the ring is not ready. -> "" as ``place``."""
        self.desc = self.avail = self.used = self.inflight = 0
        self.ready = self.waiting = False
        return ""

    @property
    def logged(self) -> bool:
        """Whether writes to the used ring are to be logged ("Vring address description")."""
        return bool(self.address and self.address.flags & LOG_USED)

    # ------------------------------------------------------------ event fds, end

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
        self.recovered = False
        self.unplace()
