# SPDX-License-Identifier: Apache-2.0
"""How to spoil a vhost-user conversation, with knowledge of its structure.

Used by the fuzzer of the back end (tests/hostile); uses conversation. Public, as that is.

``mutate`` changes a field, not a bit of a length that would end the conversation at once; it
drops, repeats and swaps messages; it attaches wrong files. With the same random.Random it always
does the same.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from byway.testing.conversation import GUEST, MEMORY_SIZE, SEEDS, USER, FileKind, Step
from byway.vhost.messages import MAX_FDS, NEED_REPLY, REPLY, SPECS, Request

_WORDS = {8: "=Q", 4: "=I", 2: "=H", 1: "=B"}
_NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 31, 255, 256, 257, 4095, 4096, 0x7FFF, 0x8000, 0x8001, 0xFFFF,
            0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 62) - 1, 1 << 62,
            (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1, MEMORY_SIZE, MEMORY_SIZE - 1,
            MEMORY_SIZE + 1, GUEST, USER, USER + MEMORY_SIZE, USER + MEMORY_SIZE - 1)


def _number(rng: random.Random, old: int, bits: int) -> int:
    way = rng.randrange(5)
    if way == 0:
        new = old ^ 1 << rng.randrange(bits)
    elif way == 1:
        new = old + rng.choice((-4096, -16, -8, -4, -2, -1, 1, 2, 4, 8, 16, 4096))
    elif way == 2:
        new = rng.getrandbits(bits)
    else:
        new = rng.choice(_NUMBERS)
    return new & (1 << bits) - 1


def _field(step: Step, rng: random.Random) -> Step:
    """Change one field, taken to be a word of 8 or 4 bytes (1 or 2 at the tail)."""
    if not step.payload:
        return _request(step, rng)
    width = rng.choice((8, 8, 4, 4, 2, 1))
    width = next(w for w in (width, 4, 2, 1) if w <= len(step.payload))
    at = rng.randrange(len(step.payload) // width) * width
    data = bytearray(step.payload)
    (old,) = struct.unpack_from(_WORDS[width], data, at)
    struct.pack_into(_WORDS[width], data, at, _number(rng, old, 8 * width))
    return replace(step, payload=bytes(data))


def _request(step: Step, rng: random.Random) -> Step:
    return replace(step, request=rng.choice((*SPECS, 0, 45, 46, 99, 0xFFFFFFFF)))


def _flags(step: Step, rng: random.Random) -> Step:
    flags = rng.choice((step.flags ^ NEED_REPLY,) * 4 + (step.flags ^ REPLY, 0, 2, 3,
                       step.flags | 1 << rng.randrange(4, 32)))
    return replace(step, flags=flags)


def _size(step: Step, rng: random.Random) -> Step:
    way = rng.randrange(3)
    if way == 0:
        return replace(step, payload=step.payload[: rng.randrange(len(step.payload) + 1)])
    if way == 1:
        return replace(step, payload=step.payload + rng.randbytes(rng.choice((1, 4, 8, 32, 300))))
    return replace(step, declared=rng.choice((0, 1, 7, 8, 9, 12, 40, 264, 4096, 4097, 0xFFFFFFFF)))


def _files(step: Step, rng: random.Random) -> Step:
    kinds = tuple(FileKind)
    way = rng.randrange(4)
    if way == 0:
        return replace(step, files=())
    if way == 1 or not step.files:
        more = rng.choice((1, 1, 1, 2, 7, MAX_FDS - 1, MAX_FDS, MAX_FDS + 1, 2 * MAX_FDS))
        return replace(step, files=step.files + tuple(rng.choices(kinds, k=more)))
    files = list(step.files)
    files[rng.randrange(len(files))] = rng.choice(kinds)
    return replace(step, files=tuple(files))


def _cut(step: Step, rng: random.Random) -> Step:
    return replace(step, cut=rng.randrange(12 + len(step.payload) + 1))


_SPOIL_ONE: Sequence[tuple[Callable[[Step, random.Random], Step], int]] = (
    (_field, 10), (_files, 4), (_flags, 3), (_size, 2), (_request, 2), (_cut, 1))


def _spoil_order(steps: list[Step], rng: random.Random) -> None:
    """Drop, repeat, swap, move, or take in from another conversation."""
    way = rng.randrange(5)
    at, to = rng.randrange(len(steps)), rng.randrange(len(steps))
    if way == 0 and len(steps) > 1:
        del steps[at]
    elif way == 1:
        steps.insert(to, steps[at])
    elif way == 2:
        steps[at], steps[to] = steps[to], steps[at]
    elif way == 3:
        steps.insert(to, steps.pop(at))
    else:
        other = rng.choice(SEEDS)()
        start = rng.randrange(len(other))
        steps[to:to] = other[start : start + rng.randrange(1, 8)]


# What the back end has to check most of.
_RICH = {Request.SET_MEM_TABLE, Request.ADD_MEM_REG, Request.SET_VRING_ADDR, Request.SET_VRING_NUM,
         Request.SET_VRING_BASE, Request.SET_FEATURES, Request.SET_LOG_BASE, Request.IOTLB_MSG,
         Request.SET_INFLIGHT_FD}


def _pick(steps: Sequence[Step], rng: random.Random) -> int:
    rich = [i for i, step in enumerate(steps) if step.request in _RICH]
    return rng.choice(rich) if rich and rng.randrange(3) == 0 else rng.randrange(len(steps))


def mutate(steps: Sequence[Step], rng: random.Random) -> list[Step]:
    """A spoiled copy of a conversation: one to four changes, of single messages or of order."""
    spoiled = list(steps)
    changes, weights = zip(*_SPOIL_ONE, strict=True)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if rng.randrange(3) == 0:
            _spoil_order(spoiled, rng)
            continue
        at = _pick(spoiled, rng)
        (change,) = rng.choices(changes, weights)
        spoiled[at] = change(spoiled[at], rng)
    return spoiled
