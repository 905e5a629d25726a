# SPDX-License-Identifier: Apache-2.0
"""One frame twice: as kernels have it in a row, and as the plain frame; the same is done to both.

Used by tests of the kernels of byway.functions.fields.
"""

import ctypes
import random
import struct
from typing import Any

import numpy as np

from byway import nf
from byway.functions.fields import FIELDS, METHODS, PAYLOAD
from byway.machine.dual import signed
from byway.machine.layout import address_of, alloc
from byway.nf.headers import Headers
from byway.nf.layers import HEAD, ethernet
from byway.nf.undone import DATA_VALID, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM
from byway.packet.batch import SEGMENT, UNDECIDED
from byway.packet.ethernet import untagged_frame
from byway.switch.network import NETWORK
from byway.testing.field_kernels import (
    JOINED,
    SETTABLE,
    SLOTS,
    WORDS,
    call_method,
    call_payload,
    read_all,
    set_one,
    word_of,
)
from byway.testing.frame_batch import FrameBatch, Unfinished

WIDE = {name for name, field in FIELDS.items() if field.high is not None}
FRAME_ONLY = {name for name, field in FIELDS.items() if field.frame_only}
_METHODS, _PAYLOAD = list(METHODS), list(PAYLOAD)
_INNER, _QUOTED, _AGAIN = 1, 2, 3
_GSO_UDP_L4 = 5
VALUES = (0, 1, 2, 3, 4, 5, 8, 0x10, 0x12, 0x45, 0x60, 0xFF, 0x800, 0x806, 0x8100, 0x86DD, 0xFFFF,
          4789, 0x0A000001, 0xFFFFFFFF, -1, 1 << 63, 0x020000000001)
PLACES = (-1, 0, 1, 6, 12, 13, 14, 15, 16, 18, 20, 23, 24, 34, 36, 37, 40, 46, 50, 54, 58, 60, 70,
          100, 124, 125, 126, 127, 128, 129, 200, 1000, 2048, 2049, 9014, 1 << 40)


def undone_for(data: bytes, rng: random.Random) -> nf.Undone:
    """What its sender may have left to do on a frame: mostly nothing, seldom nonsense."""
    found = ethernet(data[:HEAD])
    chosen = rng.random()
    if chosen < 0.5:
        return nf.Undone()
    if chosen < 0.6:
        return nf.Undone(DATA_VALID)
    if chosen < 0.7 and found.l4:
        return nf.Undone(NEEDS_CSUM, csum_start=found.l4 + rng.choice((8, 24, 58)),
                         csum_offset=rng.choice((6, 16)))
    if not found.checksum:
        return nf.Undone(NEEDS_CSUM, csum_start=rng.randrange(1 << 16),
                         csum_offset=rng.randrange(1 << 8))
    kind = 0
    if rng.random() < 0.4:
        kind = _GSO_UDP_L4 if found.has("udp") else \
            (GSO_TCPV4 if found.version == 4 else GSO_TCPV6) | rng.choice((0, 0x80))
    return nf.Undone(NEEDS_CSUM, kind, rng.choice((1, 40, 536)) if kind else 0, found.l4,
                     found.checksum - found.l4)


class Pair:
    """``step`` does the same to both and compares what is said; ``check`` compares them."""

    def __init__(self, data: bytes, undone: nf.Undone, pieces: int = 1, out: bool = False) -> None:
        self.batch = FrameBatch()
        self.words = np.zeros(WORDS, np.int64)
        self.network = alloc(NETWORK, 1)
        self.place(data, undone, pieces, out)

    def place(self, data: bytes, undone: nf.Undone, pieces: int = 1, out: bool = False,
              mtu: int = 1500) -> None:
        """Take another frame."""
        todo = Unfinished(undone.flags, undone.gso_type, undone.gso_size, undone.csum_start,
                          undone.csum_offset)
        self.batch.place([(todo, data)], [pieces])
        record, self.row = self.batch.batch.record[0], self.batch.batch.rows[0]
        self.row["out"] = UNDECIDED
        record["npayloads"] = 64 if out else 0
        record["origin"], record["network"], record["vni"] = 7, 3, 70
        self.network["max_frame"] = untagged_frame(mtu)
        record["here"] = address_of(self.network)
        self.address = address_of(self.batch.batch.rows)
        self.plain = nf.Frame(data, port=7, network=3, vni=70, undone=undone, mtu=mtu,
                              direction="tx" if out else "rx")
        self.word = word_of(self.address, 0, int(out))
        self.views: dict[str, tuple[Any, int]] = {}
        self.look()

    def look(self) -> None:
        """Take the views anew."""
        self.views = {"inner": (self.plain.inner, word_of(self.address, _INNER, self.word)),
                      "quoted": (self.plain.quoted, word_of(self.address, _QUOTED, self.word))}

    # ------------------------------------------------------------ what there is
    def content(self) -> bytes:
        """The row's frame: its head, and the rest from where it lies."""
        n = int(self.row["len"])
        head = ctypes.string_at(int(self.row["head"]), min(n, HEAD))
        if n <= HEAD:
            return head
        if not self.row["nsegs"]:
            return head + ctypes.string_at(int(self.row["addr"]) + HEAD, n - HEAD)
        listed = ctypes.string_at(int(self.row["segs"]), SEGMENT * int(self.row["nsegs"]))
        whole = b"".join(ctypes.string_at(a, size) for a, size in struct.iter_unpack("=qq", listed))
        return head + whole[HEAD:n]

    def check_bytes(self) -> None:
        """Have both the same bytes, and the same left to do?"""
        assert self.content() == bytes(self.plain)
        left = Unfinished.of(int(self.row["offload"]))
        assert nf.Undone(left.flags, left.gso_type, left.gso_size, left.csum_start,
                         left.csum_offset) == self.plain.undone

    def check(self) -> None:
        """Are both the same, whatever is read?"""
        self.check_bytes()
        self._same(self.plain, self.word, set(SLOTS))
        for view, word in self.views.values():
            if word:
                self._same(view, word, SLOTS.keys() - FRAME_ONLY)
            else:
                assert view.layers.starts == {}

    def read(self) -> None:
        """Have the kernels read all numbers there are."""
        for word in (self.word, *(word for _, word in self.views.values())):
            read_all(self.address, word, self.batch.address, address_of(self.words))

    def _same(self, plain: Headers, word: int, names: set[str]) -> None:
        read_all(self.address, word, self.batch.address, address_of(self.words))
        got, wanted = {}, {}
        for name in names:
            slot = SLOTS[name]
            got[name] = [int(n) for n in self.words[slot : slot + 1 + (name in WIDE)]]
            value = getattr(plain, name)
            if name in WIDE:
                wanted[name] = [signed(value >> 64), signed(value)]
            elif FIELDS[name].choices:
                wanted[name] = [FIELDS[name].choices.index(value)]
            else:
                wanted[name] = [int(value)]
        assert got == wanted, {n: (got[n], wanted[n]) for n in names if got[n] != wanted[n]}

    # ------------------------------------------------------------ what is done
    def set(self, name: str, value: int, quoted: bool = False) -> None:
        """Set a number of the frame, or of what it quotes."""
        plain, word = self.views["quoted"] if quoted else (self.plain, self.word)
        setattr(plain, name, value)
        high = signed(value >> 64) if name in WIDE else 0
        set_one(self.address, word, int(quoted), SETTABLE.index(name), high, signed(value))
        if FIELDS[name].reshapes:
            self._reshaped()

    def join(self, which: int, address: int, port: int) -> None:
        """Set an address and a port in one step."""
        for name, value in zip(JOINED[which], (address, port), strict=True):
            setattr(self.plain, name, value)
        set_one(self.address, self.word, 0, len(SETTABLE) + which, signed(address), signed(port))

    def call_kernel(self, name: str, *given: int) -> int:
        """Call a method of the row's frame only."""
        given = (*given, *(0,) * (3 - len(given)))
        return int(call_method(self.address, self.word, self.batch.address, _METHODS.index(name),
                               *given))

    def call(self, name: str, *given: int) -> None:
        """Call a method of the frame."""
        method = METHODS[name]
        wanted = getattr(self.plain, name)(*given)
        got = self.call_kernel(name, *given)
        if method.answers or method.pure:
            assert got == int(wanted), name
        if method.reshapes:
            self._reshaped()

    def call_payload(self, name: str, *given: int) -> None:
        """Call a method of its payload, or read its length."""
        said = getattr(self.plain.payload, name)
        wanted = said if name == "length" else said(*given)
        given = (*given, *(0,) * (3 - len(given)))
        got = call_payload(self.address, self.word, self.batch.address, _PAYLOAD.index(name),
                           *given)
        if PAYLOAD[name].pure:
            assert got == wanted, name

    def _reshaped(self) -> None:
        self.word = word_of(self.address, _AGAIN, self.word)
        self.views = {name: (plain, 0) for name, (plain, word) in self.views.items()}

    def step(self, rng: random.Random) -> str:
        """Do anything; -> what."""
        kind = rng.random()
        if kind < 0.4:
            name = rng.choice(SETTABLE)
            value = rng.choice((rng.choice(VALUES), rng.randrange(1 << 16), rng.getrandbits(128)))
            self.set(name, value, quoted=not FIELDS[name].reshapes and rng.random() < 0.3)
        elif kind < 0.45:
            name = "join"
            self.join(rng.randrange(len(JOINED)), rng.choice((rng.choice(VALUES),
                      rng.getrandbits(32))), rng.choice((rng.choice(VALUES), rng.getrandbits(16))))
        elif kind < 0.7:
            name = rng.choice(_METHODS)
            self.call(name, *_arguments(name, METHODS[name].arguments, self.plain, rng))
        elif kind < 0.95:
            name = rng.choice(_PAYLOAD)
            self.call_payload(name, *_arguments(name, PAYLOAD[name].arguments, self.plain, rng))
        else:
            name = "look"
            self.look()
        return name


def _arguments(name: str, wanted: tuple[str, ...], frame: nf.Frame,
               rng: random.Random) -> list[int]:
    near = [frame.length, frame.length - 1, frame.length + 4, frame.l3_offset - 2, frame.l3_offset,
            frame.l3_offset + 6, frame.l3_offset + 9, frame.l4_offset, frame.l4_offset + 12,
            frame.l4_offset - frame.l3_offset, frame.payload_offset, frame.payload_offset + 8,
            frame.payload.length - 1, frame.payload.length - 4,
            *(HEAD - frame.payload_offset - k for k in (0, 1, 2, 3))]
    if name == "replace_l3":
        n = rng.choice((0, 20, 40, 24, frame.l4_offset - frame.l3_offset, rng.choice(PLACES)))
        return [n, rng.choice((0, n, 20, 40, 28, 48, n + 64, n + 65)),
                rng.choice((0, 0x800, 0x86DD, 0x6558))]
    return [signed(rng.choice(VALUES)) if argument == "value" else
            rng.choice((*PLACES, *near, *near)) for argument in wanted]
