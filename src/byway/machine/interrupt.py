# SPDX-License-Identifier: Apache-2.0
"""Get a thread out of a system call that a peer made it wait in.

Used by worker. Event fds are files that we share with a peer, and so are their flags: a peer may
fill the counter and make the file blocking at any moment, and a worker's write then waits. A
signal that has a handler, and no SA_RESTART, makes that write answer -EINTR (signal(7)); a write
to a file that does not block never answers so. The worker thus learns whose event fd it was.
"""

import ctypes
import os
import signal
import threading

SIGNAL = signal.SIGURG  # ignored by default, sent to us by nobody else
_SIGACTION_SIZE = 152  # glibc, x86-64: handler, mask, flags, restorer

_libc = ctypes.CDLL(None, use_errno=True)


def install() -> None:
    """Have SIGNAL interrupt system calls and do nothing else. Idempotent; from any thread."""
    # The handler has to be harmless whatever it is called with, and safe in a signal: getpid is.
    action = (ctypes.c_uint8 * _SIGACTION_SIZE)()
    handler = ctypes.cast(_libc.getpid, ctypes.c_void_p).value
    ctypes.c_uint64.from_buffer(action, 0).value = int(handler or 0)
    if _libc.sigaction(int(SIGNAL), action, None):
        error = ctypes.get_errno()
        raise OSError(error, f"sigaction: {os.strerror(error)}")


def interrupt(thread: threading.Thread) -> None:
    """End the system call that ``thread`` is in, if it is in one."""
    if thread.is_alive() and thread.ident is not None:
        signal.pthread_kill(thread.ident, SIGNAL)
