# SPDX-License-Identifier: Apache-2.0
"""Unix stream sockets by path: listen, connect, and say plainly what is wrong with a path.

Used by the ports that speak vhost-user, by the API daemon and by its client. Uses nothing of
Byway.

A socket file outlives the process that made it. ``listen`` therefore tells three cases apart:
nobody answers (connect is refused: a left-over, removed), somebody answers (refused with a
message: two processes must not fight for one path), and a file that is no socket (never touched).
"""

import errno
import os
import socket
import stat

# sockaddr_un.sun_path has 108 bytes with the closing zero (unix(7)).
MAX_PATH = 107
BACKLOG = 16


class SocketError(OSError):
    """A socket path cannot be used: ``problem`` says why, ``fix`` what to do about it."""

    def __init__(self, path: str, problem: str, fix: str) -> None:
        super().__init__(f"{path}: {problem}; {fix}")
        self.path = path
        self.problem = problem
        self.fix = fix


def check_path(path: str) -> None:
    """Refuse a path that no socket can have (SocketError); touches nothing."""
    length = len(os.fsencode(path))
    if not path or "\0" in path:
        raise SocketError(repr(path), "is no path of a file", "name a file")
    if length > MAX_PATH:
        raise SocketError(path, f"the path has {length} bytes, a Unix socket takes {MAX_PATH}",
                          "use a shorter path")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise SocketError(path, f"the directory {folder} does not exist",
                          f"create it (mkdir -p {folder}) or change the path")


def _is_live(path: str) -> bool:
    """Whether a process listens at ``path``; SocketError where that cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # its backlog is full
            return True
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return False
            if error.errno == errno.EPROTOTYPE:  # a datagram socket: somebody's
                return True
            raise SocketError(path, f"cannot be tried: {error.strerror}",
                              "change its permissions or the path") from error
    return True


def _remove_stale(path: str) -> bool:
    """Remove a socket file that nobody listens at; -> whether the path is free now."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return True
    if not stat.S_ISSOCK(mode):
        raise SocketError(path, "exists and is no socket", "move it away or change the path")
    if _is_live(path):
        return False
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise SocketError(path, f"is left over and cannot be removed: {error.strerror}",
                          "remove it or change the path") from error
    return True


def listen(path: str, mode: int = 0o600, backlog: int = BACKLOG) -> socket.socket:
    """A non-blocking listening socket at ``path``, created with the permissions ``mode``.

    A left-over socket file is replaced. SocketError: path too long (108 bytes and more), missing
    directory, existing file that is no socket, a live socket, no permission.
    """
    check_path(path)
    if not _remove_stale(path):
        raise SocketError(path, "is in use by another process",
                          "stop that process or change the path")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the file the mode of the unbound socket (less the umask): there is no
        # moment at which others may connect, and the umask of the process stays alone.
        os.fchmod(listener.fileno(), mode)
        listener.bind(path)
        os.chmod(path, mode)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SocketError(path, "was taken by another process just now",
                              "stop that process or change the path") from error
        raise SocketError(path, f"cannot listen: {error.strerror}",
                          "check the directory's permissions") from error
    return listener


def close(listener: socket.socket) -> None:
    """Close a socket of ``listen`` and remove its file, unless a successor listens there."""
    path = listener.getsockname()
    listener.close()
    try:
        _remove_stale(path)
    except SocketError:
        # Somebody replaced the file by one that is not ours to remove.
        return


def connect(path: str, timeout: float = 5.0) -> socket.socket:
    """A connected socket with ``timeout`` (seconds) set; SocketError says why there is none."""
    if len(os.fsencode(path)) > MAX_PATH:
        check_path(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        if error.errno == errno.ENOENT:
            raise SocketError(path, "does not exist", "start what listens there first") from error
        if error.errno == errno.ECONNREFUSED:
            raise SocketError(path, "nobody listens there",
                              "start what listens there first") from error
        reason = error.strerror or "timed out"
        raise SocketError(path, f"cannot connect: {reason}", "check what listens there") from error
    return connection
