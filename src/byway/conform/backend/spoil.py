# SPDX-License-Identifier: Apache-2.0
"""Spoils lists of acts, knowing what they are made of.

Used by backend.hostile. With the same random.Random it always does the same. A number is changed to
one that implementers forget (ends of ranges, ends of memory, one more, one less); acts are dropped,
repeated, moved and swapped; messages get wrong flags, sizes and files, or are cut off.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from byway.conform.backend.acts import (
    AVAIL_AT,
    BUFFERS,
    FILES,
    KICK,
    MEMORY,
    MESSAGE,
    RING_SPACE,
    SIZE,
    USED_AT,
    WRITTEN,
    Act,
)
from byway.conform.memory import GUEST, USER
from byway.vhost.messages import NEED_REPLY, REPLY, SPECS

WORDS = {8: "<Q", 4: "<I", 2: "<H"}
NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 17, SIZE - 1, SIZE, SIZE + 1, 255, 256, 4095, 4096, 0x7FFF,
           0x8000, 0x8001, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40,
           (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1, MEMORY, MEMORY - 1, GUEST, USER,
           GUEST + MEMORY, GUEST + MEMORY - 1, USER + MEMORY, USER + MEMORY - 16)


def number(rng: random.Random, old: int, bits: int) -> int:
    """A number in place of another one."""
    way = rng.randrange(4)
    if way == 0:
        new = old ^ 1 << rng.randrange(bits)
    elif way == 1:
        new = old + rng.choice((-4096, -16, -8, -2, -1, 1, 2, 8, 16, 4096))
    elif way == 2:
        new = rng.getrandbits(bits)
    else:
        new = rng.choice(NUMBERS)
    return new & (1 << bits) - 1


def _word(act: Act, rng: random.Random) -> Act:
    width = rng.choice((8, 4, 4, 2, 2))
    if len(act.data) < width:
        return act
    at = rng.randrange(len(act.data) // width) * width
    data = bytearray(act.data)
    (old,) = struct.unpack_from(WORDS[width], data, at)
    struct.pack_into(WORDS[width], data, at, number(rng, old, 8 * width))
    return replace(act, data=bytes(data))


def _flags(act: Act, rng: random.Random) -> Act:
    return replace(act, flags=rng.choice((act.flags ^ NEED_REPLY, act.flags ^ NEED_REPLY,
                                          act.flags ^ REPLY, 0, 2, act.flags | 1 << 17)))


def _size(act: Act, rng: random.Random) -> Act:
    way = rng.randrange(3)
    if way == 0:
        return replace(act, data=act.data[: rng.randrange(len(act.data) + 1)])
    if way == 1:
        return replace(act, data=act.data + rng.randbytes(rng.choice((1, 8, 32, 300))))
    return replace(act, declared=rng.choice((0, 1, 7, 9, 40, 264, 4096, 4097, 0xFFFFFFFF)))


def _files(act: Act, rng: random.Random) -> Act:
    if act.files and rng.randrange(2):
        return replace(act, files=(rng.choice(FILES), *act.files[1:]))
    return replace(act, files=act.files + tuple(rng.choices(FILES, k=rng.choice((1, 1, 7, 30)))))


def _request(act: Act, rng: random.Random) -> Act:
    return replace(act, number=rng.choice((*(int(r) for r in SPECS), 0, 99, 0xFFFFFFFF)))


def _cut(act: Act, rng: random.Random) -> Act:
    return replace(act, cut=rng.randrange(13 + len(act.data)))


MESSAGES: Sequence[Callable[[Act, random.Random], Act]] = (
    _word, _word, _word, _word, _word, _flags, _size, _files, _request, _cut)


def _scribble(rng: random.Random) -> list[Act]:
    """Random bytes into a ring, and a kick."""
    ring = rng.randrange(2)
    at = RING_SPACE * ring + rng.choice((0, AVAIL_AT, USED_AT)) + rng.randrange(16 * SIZE)
    if rng.randrange(4) == 0:
        at = BUFFERS + rng.randrange(0x8000)
    return [Act(WRITTEN, at, rng.randbytes(rng.choice((1, 2, 4, 8)))), Act(KICK, ring)]


def _order(acts: list[Act], rng: random.Random) -> None:
    way, at, to = rng.randrange(4), rng.randrange(len(acts)), rng.randrange(len(acts))
    if way == 0 and len(acts) > 1:
        del acts[at]
    elif way == 1:
        acts.insert(to, acts[at])
    elif way == 2:
        acts[at], acts[to] = acts[to], acts[at]
    else:
        acts.insert(to, acts.pop(at))


def spoil(acts: Sequence[Act], rng: random.Random) -> list[Act]:
    """A spoiled copy: one to four changes."""
    spoiled = list(acts)
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        way = rng.randrange(5)
        if way == 0:
            _order(spoiled, rng)
            continue
        if way == 1:
            at = rng.randrange(len(spoiled) // 2, len(spoiled) + 1)
            spoiled[at:at] = _scribble(rng)
            continue
        wanted = MESSAGE if way < 4 else WRITTEN
        places = [k for k, act in enumerate(spoiled) if act.kind == wanted]
        if not places:
            continue
        at = rng.choice(places)
        change = rng.choice(MESSAGES) if wanted == MESSAGE else _word
        spoiled[at] = change(spoiled[at], rng)
    return spoiled
