# SPDX-License-Identifier: Apache-2.0
"""Frames and virtio headers that tempt a device to do something wrong with an offload.

Used by hostile.py.
"""

from typing import Any

import numpy as np

FRAMES = (14, 60, 64, 127, 128, 129, 300, 1500, 1514, 9014)
HEADERS = 256  # different ones to choose from
HEADER_BYTES = 96  # of each: virtio header and the frame's own headers
GSO_TYPES = (0, 0, 0, 1, 1, 0x81, 3, 4, 5, 0x83, 2, 6, 0xFF)
GSO_SIZES = (0, 1, 7, 8, 100, 536, 1448, 65535)
STARTS = (0, 13, 14, 34, 34, 34, 38, 54, 54, 60, 127, 128, 65535)
OFFSETS = (0, 6, 6, 16, 16, 16, 17, 255, 256, 65535)
NEEDS_CSUM, TCPV4 = 1, 1


def _ipv4(protocol: int, options: int) -> bytes:
    first = 0x40 | 5 + options
    return bytes([first, 0, 2, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]) \
        + bytes(4 * options)


def _ipv6(protocol: int) -> bytes:
    return bytes([0x60, 0, 0, 0, 2, 0, protocol, 64]) + bytes(range(32))


def _tcp(offset: int) -> bytes:
    return bytes([1, 0, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0, offset << 4, 0x19, 1, 0, 0, 0, 0, 0])


def _head(rng: Any) -> bytes:
    """Ethernet, seldom with tags, and something like IP in it."""
    choice, tags, options = rng.integers(0, 8), rng.choice([0, 0, 0, 1, 2, 3]), rng.choice(3)
    mac = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]) + bytes([0x81, 0, 0, 5]) * int(tags)
    if choice < 5:
        protocol = int(rng.choice([6, 6, 6, 17, 17, 132, 47]))
        network = b"\x08\x00" + _ipv4(protocol, int(options))
    else:
        protocol = int(rng.choice([6, 6, 17, 44, 0]))
        network = b"\x86\xdd" + _ipv6(protocol)
    return mac + network + _tcp(int(rng.choice([5, 5, 5, 8, 15, 4, 0])))


def tempting_headers() -> Any:
    """HEADERS arrays of HEADER_BYTES: what the first bytes of a buffer may hold, always the same.

    Some are right, most of them are nearly.
    """
    rng = np.random.default_rng(3)
    made = rng.integers(0, 256, (HEADERS, HEADER_BYTES), np.uint8)
    for k in range(HEADERS):
        fields = [rng.choice((0, 1, 1, 1, 1, 2, 3, 255)), rng.choice(GSO_TYPES), 0, 0,
                  *_word(rng.choice(GSO_SIZES)), *_word(rng.choice(STARTS)),
                  *_word(rng.choice(OFFSETS)), 0, 0]
        data = bytes(int(field) for field in fields)[: 10 if k % 4 == 0 else 12] + _head(rng)
        made[k, : len(data)] = np.frombuffer(data[:HEADER_BYTES], np.uint8)[:HEADER_BYTES]
    return made


def _word(value: int) -> tuple[int, int]:
    return int(value) & 0xFF, int(value) >> 8


def offloaded_frames(count: int) -> tuple[list[bytes], list[int]]:
    """Frames to deliver and their offload words: every fourth is TCP with something left to do."""
    frames, words = [], []
    for k in range(count):
        n = FRAMES[k % len(FRAMES)]
        word = 0
        data = bytes([k]) * n
        if k % 4 == 3 and n >= 60:
            head = bytes(12) + b"\x08\x00" + _ipv4(6, 0) + _tcp(5)
            data = head + data[len(head) :]
            word = NEEDS_CSUM | 34 << 32 | 16 << 48
            if n > 1000:
                word |= TCPV4 << 8 | 536 << 16
        frames.append(data)
        words.append(word)
    return frames, words
