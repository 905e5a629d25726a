# SPDX-License-Identifier: Apache-2.0
"""The Internet checksum (RFC 1071), and the flow hash of the switch, in plain Python.

Used by frame.py. All numbers are as they stand in the frame: network byte order.
"""

from byway.nf.layers import HEAD, TCP, UDP, ethernet, number

_A, _B = -0x61C8864680B583EB, 0x6A09E667F3BCC909
_ALL = (1 << 64) - 1


def total(data: bytes) -> int:
    """The sum over all words of 16 bits, an odd last byte being the first of two; 16 bits."""
    data += b"\0" * (len(data) % 2)
    added = sum(number(data, at, 2) for at in range(0, len(data), 2))
    while added >> 16:
        added = (added & 0xFFFF) + (added >> 16)
    return added


def checksum(data: bytes, udp: bool = False) -> int:
    """The checksum over all bytes; 0 means none in UDP, so it is 0xFFFF there (RFC 768)."""
    value = total(data) ^ 0xFFFF
    return 0xFFFF if value == 0 and udp else value


def changed(old: bytes, new: bytes) -> bytes:
    """What is to be added to a sum when ``old`` becomes ``new`` (RFC 1624): bytes to sum."""
    return bytes(byte ^ 0xFF for byte in old) + new


# ---------------------------------------------------------------- flow hash
def _mixed(a: int, b: int) -> int:
    x = (a * _A + b * _B) & _ALL
    x = (x ^ x >> 32) * _A & _ALL
    x = (x ^ x >> 29) * _B & _ALL
    return (x ^ x >> 32) & _ALL >> 1


def _loaded(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def flow_hash(data: bytes) -> int:
    """The number that packet.flow has for the frames of a flow: 63 bits."""
    found = ethernet(data[:HEAD])
    if found.version == 0:
        return _mixed(_loaded(data, 0, 8), _loaded(data, 8, 4))
    key = 0
    if not found.fragment:
        key = found.protocol << 32
        if found.protocol in (TCP, UDP) and found.l4 + 4 <= min(len(data), HEAD):
            key |= _loaded(data, found.l4, 4)
    if found.version == 4:
        return _mixed(_loaded(data, found.l3 + 12, 8), key)
    words = [_loaded(data, found.l3 + at, 8) for at in (8, 16, 24, 32)]
    source, target = _mixed(words[0], words[1]), _mixed(words[2], words[3])
    return _mixed(source + target * _B, key)
