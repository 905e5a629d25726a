# SPDX-License-Identifier: Apache-2.0
"""What the control thread and a worker's loop know of each other, and what the loop keeps.

Used by loop.py, serve.py and worker.py.
"""

from byway.machine.layout import record

# Written by the control thread. edits, nedits: what changes in the plan; stored before generation.
# frame, length, origin: a frame to be sent as if it had come in on rx queue ``origin`` (length 0:
# none, or sent); where ``out`` is not 0, to port number out - 1 and nowhere else.
CONTROL, control_at, C = record("control", [
    "generation", "edits", "nedits", "stop", "frame", "length", "origin", "out"])
# Written by the worker; read by the control thread at any time.
# seen: generation in use. turn: where the next pass begins among the hot queues. asleep: blocked in
# the kernel. gave: queues that the last pass found frames in. streak: passes with frames since one
# without. gather_ticks: how long a pass that found little takes at the most. shares: SHARE[ROWS],
# nshares of them, of the batch at hand. ticks are of the time stamp counter.
WORKER, worker_at, W = record("worker", [
    "control", "epoll", "events", "batch", "sort", "hot", "idle_ticks", "look_ticks",
    "seen", "plan", "asleep", "passes", "busy_passes", "frames", "busy_ticks", "sleeps",
    "wakes", "nhot", "looked", "turn", "gave", "streak", "gather_ticks",
    "shares", "nshares"], size=256)
# A hot rx queue: its address, when it last gave a frame, its number, the last pass in which it has
# had its turn.
HOT_ENTRY = 32
HOT_GAVE, HOT_NUMBER, HOT_PASS = 8, 16, 24
# What a batch holds of one rx queue: its address, the first of its rows, how many they are.
SHARE = 24
SHARE_FIRST, SHARE_ROWS = 8, 16
