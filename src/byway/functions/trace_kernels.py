# SPDX-License-Identifier: Apache-2.0
"""A traced chain notes each step of a frame: how it came, and what each function made of it.

Used by the code that compose.py writes for traced chains; trace.py reads it. Uses packet.

A trace is a list of notes in memory, for so many frames; then nothing more is noted. The chain's
locks hold for it as well (trace.py adds one), so one worker writes at a time, and control reads
what is complete: ``notes`` is stored last.
"""

from byway.machine.copying import copy_frame
from byway.machine.jit import kernel
from byway.machine.layout import record
from byway.machine.mem import ld64, st64, st64_rel
from byway.packet.batch import HEAD, R
from byway.switch.chain import C

# lock: of those who write. left: frames that are still to be noted. room: for how many notes.
# notes: how many there are. list: their address.
TRACE, trace_at, T = record("trace", ["lock", "left", "room", "notes", "list"])
# step: -1 a frame that comes to the chain, else the place of the function; word: its verdict;
# length: of the frame; head: its first bytes, as the function left them.
NOTE, note_at, N = record("note", ["step", "word", "length", ("head", "u1", (HEAD,))])
_NOTE = NOTE.itemsize
WENT_WRONG = -1  # the verdict of a function that did


@kernel
def note(chain, step, row, word):
    """Note what a function made of a frame; of one that comes, whether there is room for it."""
    trace = ld64(chain + C.trace)
    notes = ld64(trace + T.notes)
    if step < 0:
        st64(trace + T.left, ld64(trace + T.left) - 1)
    if ld64(trace + T.left) < 0 or notes >= ld64(trace + T.room):
        return
    place = ld64(trace + T.list) + _NOTE * notes
    length = ld64(row + R.len)
    st64(place + N.step, step)
    st64(place + N.word, word)
    st64(place + N.length, length)
    n = min(length, HEAD)
    if n > 0:
        copy_frame(place + N.head, ld64(row + R.head), n)
    st64_rel(trace + T.notes, notes + 1)
