# SPDX-License-Identifier: Apache-2.0
"""The two sides of a bare copy between two rings of buffers; the theory stands in bare_copy.py,
which uses them."""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64_acq, st64, st64_rel
from byway.machine.system import pause, rdtsc
from byway.packet.batch import HEAD

LINE = 8  # words of a cache line

# sent, copied: passes, each in a line of its own, written by one side and polled by the other.
# source, target: the rings, ``size`` buffers of ``each`` bytes. private: where the sender has a
# frame. length: of a frame with its header; n: frames of a pass; ahead: passes that may be sent
# and not copied. ticks: address of int64[passes], filled.
BARE, bare_at, C = record("bare", [
    ("sent", "<i8", (LINE,)), ("copied", "<i8", (LINE,)), "source", "target", "size", "each",
    "private", "length", "n", "ahead", "passes", "ticks"])


@kernel
def send_frame(bare, place):
    """Write a frame into the buffers from number ``place`` on; -> the place behind it."""
    c = bare_at(bare)
    left = c.length
    while left > 0:
        piece = min(left, c.each)
        copy_frame(c.source + place * c.each, c.private + c.length - left, piece)
        left -= piece
        place = place + 1 if place + 1 < c.size else 0
    return place


@kernel
def copy_buffers(bare, place):
    """Copy the frame in the buffers from number ``place`` on; -> the place behind it."""
    c = bare_at(bare)
    left, each, source, target = c.length, c.each, c.source, c.target
    while left > 0:
        piece = min(left, each)
        copy_frame(target + place * each, source + place * each, piece)
        left -= piece
        place = place + 1 if place + 1 < c.size else 0
    return place


@kernel
def look_at_frame(bare, place):
    """Read a frame's head; -> the place behind the frame."""
    c = bare_at(bare)
    copy_frame(c.private + c.length, c.target + place * c.each, min(c.length, HEAD, c.each))
    place += (c.length + c.each - 1) // c.each
    return place if place < c.size else place - c.size


@kernel(entry=True)
def bare_send(bare):
    """The guests' side; -> 0."""
    c = bare_at(bare)
    sending = 0
    looking = 0
    looked = 0
    for k in range(c.passes):
        while ld64_acq(bare + C.copied) < k - c.ahead:
            pause()
        copied = ld64_acq(bare + C.copied)
        while looked < copied:
            for _ in range(c.n):
                looking = look_at_frame(bare, looking)
            looked += 1
        for _ in range(c.n):
            sending = send_frame(bare, sending)
        st64_rel(bare + C.sent, k + 1)
    return 0


@kernel(entry=True)
def bare_copy(bare):
    """The worker's side; -> 0."""
    c = bare_at(bare)
    place = 0
    for k in range(c.passes):
        while ld64_acq(bare + C.sent) <= k:
            pause()
        began = rdtsc()
        for _ in range(c.n):
            place = copy_buffers(bare, place)
        st64(c.ticks + 8 * k, rdtsc() - began)
        st64_rel(bare + C.copied, k + 1)
    return 0
