# SPDX-License-Identifier: Apache-2.0
"""A driver of a packed virtqueue in plain Python: slow, obvious, strict. The oracle for devices.

    queue = PlainPackedDriver(memory, 100, features, receive=False)
    queue.send(frame, Layout((12, 20)))                       # three slots of the ring
    queue.publish()
    ... the device runs ...
    queue.reap()                                              # checks the ring; -> buffer ids

Used by tests of devices, Byway's and others'; plain_driver.py is its like for split rings,
plain_queue.py holds what both share. A chain is named by its buffer id. VIRTIO 1.2: 2.8.

Theory of operation
-------------------
Driver and device walk the same ring of descriptors, each with a position: a slot and a wrap counter
that changes whenever the last slot is passed (2.8.1). The driver writes at ``next_avail``; it looks
for used descriptors at ``next_used``, and an id tells it how many slots further the next one will
be. A *word* is a position as one number, slot | wrap << 15, as in the event suppression structure.

Ids say nothing about slots: they come from ``ids`` in turn, and all but the last descriptor of a
chain carry a wrong one, which the device must not look at (2.8.6). The flags of each chain's first
descriptor are written by ``publish``, backwards, so that a device that looks too early sees
nothing, or something whole (2.8.21.1). The driver remembers each descriptor as it wrote it: a
device that writes anywhere but where used descriptors belong is found.
"""

import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from byway.testing.plain_memory import Layout, PlainMemory
from byway.testing.plain_queue import INDIRECT, NEXT, WRITE, DeviceError, PlainQueue, Used

AVAIL, USED = 1 << 7, 1 << 15
ENABLE, DISABLE, AT_DESCRIPTOR, RESERVED = range(4)  # event suppression flags (2.8.10)
START = 1 << 15  # slot 0, wrap counter 1


@dataclass(frozen=True)
class Position:
    """A slot of a ring of ``size`` slots, and the lap: the wrap counter, 0 or 1."""

    slot: int
    wrap: int
    size: int

    @property
    def word(self) -> int:
        """slot | wrap << 15."""
        return self.slot | self.wrap << 15

    def after(self, slots: int) -> "Position":
        """The position so many slots on, one by one."""
        slot, wrap = self.slot, self.wrap
        for _ in range(slots):
            slot += 1
            if slot == self.size:
                slot, wrap = 0, 1 - wrap
        return Position(slot, wrap, self.size)


def passed(event: int, old: Position, new: Position) -> bool:
    """Is the word ``event`` among the positions from ``old`` up to, not including, ``new``?

    Counted one by one: 2.8.10 wants the event when the descriptor at that place, in that lap, is
    made available or used.
    """
    at = old
    while at != new:
        if at.word == event:
            return True
        at = at.after(1)
    return False


class PlainPackedDriver(PlainQueue):
    """One packed virtqueue of 1 to 32768 slots.

    ``start``: the word that both positions begin at. ``ids``: the buffer ids to use, as many as
    slots, any 16-bit numbers (default: those below ``size``, the highest first).
    """

    def __init__(self, memory: PlainMemory, size: int, features: int, *, receive: bool,
                 start: int = START, region: int = 0, ids: Iterable[int] = ()) -> None:
        super().__init__(memory, size, features, receive=receive)
        self.desc = memory.take(16 * size, 16, region)
        self.avail = memory.take(4, 4, region)  # the driver's event suppression
        self.used = memory.take(4, 4, region)  # the device's
        self.next_avail = Position(start & 0x7FFF, start >> 15, size)
        self.next_used = self.published = self.considered = self.next_avail
        self.ids = deque(ids or range(size - 1, -1, -1))
        self._slots: dict[int, bytes] = {}  # by slot: what the driver wrote there
        self._hidden: list[int] = []  # slots whose flags are to be written by publish
        memory.write(self.avail, bytes(4))
        memory.write(self.used, bytes(4))
        # All slots were used: those in front in this lap, the others in the one before.
        marks = [AVAIL | USED if bool(start >> 15) == (slot < start & 0x7FFF) else 0
                 for slot in range(size)]
        memory.write(self.desc, b"".join(struct.pack("<14xH", mark) for mark in marks))

    # ------------------------------------------------------------ chains
    @property
    def room(self) -> int:
        """Free slots of the ring."""
        return self.size - sum(len(chain.descriptors) for chain in self.chains.values())

    def descriptors_for(self, total: int, layout: Layout) -> int:
        """How many slots a buffer takes; a table takes one (2.8.7)."""
        return len(layout.sizes(total)) if layout.direct is None else 1

    def _list(self, places: list[tuple[int, int]], layout: Layout) -> tuple[int, list[int]]:
        """Write the descriptors of a chain, but for the first one's flags."""
        name = self.ids.popleft()
        flag = WRITE if self.receive else 0
        if layout.direct is None:
            elements = [(gpa, n, flag) for gpa, n in places]
        else:
            table = self.memory.take(16 * len(places), 16)
            self.memory.write(table, b"".join(
                struct.pack("<QIHH", gpa, n, name ^ 0xFFFF, flag) for gpa, n in places))
            elements = [(table, 16 * len(places), INDIRECT)]
        slots = []
        for k, (gpa, n, flags) in enumerate(elements):
            at, self.next_avail = self.next_avail, self.next_avail.after(1)
            last = k + 1 == len(elements)
            flags |= (0 if last else NEXT) | (AVAIL if at.wrap else USED)
            made = struct.pack("<QIHH", gpa, n, name if last else name ^ 0xFFFF, flags)
            self._slots[at.slot] = made
            self.memory.write(self.desc + 16 * at.slot, made[:14] if k == 0 else made)
            slots.append(at.slot)
        self._hidden.append(slots[0])
        return name, slots

    def publish(self) -> bool:
        """Let the device see what was added; -> whether it asked to be kicked (2.8.21.2)."""
        for slot in reversed(self._hidden):
            self.memory.write(self.desc + 16 * slot + 14, self._slots[slot][14:])
        self._hidden.clear()
        for chain in self.chains.values():
            chain.published = True
        old, self.published = self.published, self.next_avail
        word, flags = struct.unpack("<HH", self.memory.read(self.used, 4))
        if flags not in (ENABLE, DISABLE) and not (self.event_idx and flags == AT_DESCRIPTOR):
            raise DeviceError(f"the device's event suppression says {flags:#x}")
        if flags == AT_DESCRIPTOR:
            if word & 0x7FFF >= self.size:
                raise DeviceError(f"the device asks for an event at slot {word & 0x7FFF}")
            return passed(word, old, self.published)
        return bool(flags == ENABLE)

    # ------------------------------------------------------------ notifications
    def _ask(self, flags: int, word: int) -> None:
        self.memory.write(self.avail, struct.pack("<HH", word, flags))

    def ask_for_calls(self, after: int = 0) -> None:
        """Ask for a call once ``after`` + 1 more slots are used (2.8.10); without EVENT_IDX any."""
        if self.event_idx:
            self._ask(AT_DESCRIPTOR, self.next_used.after(after).word)
        else:
            self.ask_for_all_calls()

    def ask_for_all_calls(self) -> None:
        """Ask for calls; the event's place is nonsense, as it says nothing then."""
        self._ask(ENABLE, 0xFFFF)

    def refuse_calls(self) -> None:
        """Ask not to be called."""
        self._ask(DISABLE, self.next_used.word)

    def call_is_due(self) -> bool:
        """Must the device have called for what it used since this was asked last?"""
        old, self.considered = self.considered, self.used_position()
        word, flags = struct.unpack("<HH", self.memory.read(self.avail, 4))
        if flags == AT_DESCRIPTOR:
            return passed(word, old, self.considered)
        return bool(flags == ENABLE) and old != self.considered

    # ------------------------------------------------------------ used descriptors
    def _used_at(self, at: Position, waiting: list[int]) -> tuple[list[int], int] | None:
        """What the used descriptor there says: (chains that it stands for, length), or None.

        2.8.1: it is used where both flags equal the wrap counter. 2.8.3, 2.8.4: the length counts
        with WRITE only.
        """
        found = self.memory.read(self.desc + 16 * at.slot, 16)
        if not waiting or found == self._slots[at.slot]:
            return None
        length, name, flags = struct.unpack_from("<IHH", found, 8)
        if flags & ~WRITE != (AVAIL | USED if at.wrap else 0):
            raise DeviceError(f"slot {at.slot}: flags {flags:#06x} of a used descriptor in the lap "
                              f"with wrap counter {at.wrap}")
        return self.names_up_to(name, waiting), length if flags & WRITE else 0

    def used_position(self) -> Position:
        """Where the device is: the place of the next used descriptor."""
        at, waiting = self.next_used, self.outstanding()
        while found := self._used_at(at, waiting):
            at = at.after(sum(len(self.chains[name].descriptors) for name in found[0]))
            waiting = [name for name in waiting if name not in found[0]]
        return at

    def take_used(self) -> list[Used]:
        """New used descriptors as (id, length, chain), checked; their slots and ids are free.

        With IN_ORDER one may stand for a batch (2.8.8): it names the last buffer.
        """
        answer: list[Used] = []
        skipped: list[int] = []
        while found := self._used_at(self.next_used, self.outstanding()):
            used = self.finish(*found)
            del self._slots[self.next_used.slot]
            for _ in range(1, sum(len(chain.descriptors) for _, _, chain in used)):
                self.next_used = self.next_used.after(1)
                skipped.append(self.next_used.slot)
            self.next_used = self.next_used.after(1)
            answer += used
        self._check_untouched()
        for slot in skipped:
            del self._slots[slot]
        self.ids.extend(name for name, _, _ in answer)
        return answer

    def _check_untouched(self) -> None:
        """Slots without a used descriptor of their own stay as the driver wrote them (2.8.15)."""
        for slot, made in self._slots.items():
            known = 14 if slot in self._hidden else 16
            if self.memory.read(self.desc + 16 * slot, known) != made[:known]:
                raise DeviceError(f"the device wrote into slot {slot}, where no used descriptor "
                                  "belongs")
