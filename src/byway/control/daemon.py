# SPDX-License-Identifier: Apache-2.0
"""`byway run`: one process that is a switch, from its configuration file to its clean end.

Used by the command. Uses config, wanted and, once the ports are up, the API.

Theory of operation
-------------------
The order is made for a fast first frame and for early refusals. The file is read and checked
first; then the API's socket and the state file are taken, so that a second instance is refused
before it touches anything; then the data path is imported and its kernels loaded or compiled; then
the engine starts and the ports open, those of the file and those of the state file. Only now, in a
thread, the API's libraries are imported (0.4 s): guests are connected meanwhile. From then on
everything runs on one asyncio loop, the control thread.

SIGTERM and SIGINT end the process cleanly with status 0. SIGHUP reads the file again and applies
the difference; what came through the API since stays, and a file with a problem changes nothing.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from byway.control.config import load
from byway.control.diff import needs_restart, rebase
from byway.control.lasting import Lasting
from byway.control.membership import Membership
from byway.control.model import Config, SwitchConfig
from byway.control.problem import ConfigError, EngineError, Problem
from byway.control.store import Store, StoreError
from byway.control.thishost import api_socket, check_machine
from byway.control.wanted import SwitchEngine, Wanted
from byway.machine import unixsocket

BUILDING_SECONDS = 15.0  # that the API is not there for, where functions are built at the start
MembershipFactory = Callable[[Wanted], Membership]
EngineFactory = Callable[[SwitchConfig, asyncio.AbstractEventLoop], SwitchEngine]


def main(path: str, data_path: Callable[[], EngineFactory] | None = None,
         cluster: str | None = None, membership: MembershipFactory | None = None) -> int:
    """Run the switch of the configuration file `path` until a signal; -> the exit status.

    0: ended by a signal; 2: the configuration or a port cannot be used (the message is on
    stderr). `data_path` loads the engine (the compiled one by default). `cluster`: the etcd of the
    cluster, as "etcd://host:port", which counts instead of the file's. `membership` makes that of
    the cluster (etcd's by default).
    """
    ended = _until_the_loop_has_its_own()
    # Each guest brings a dozen file descriptors: as many as we may have without asking.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        config = _checked(path, cluster)
        with _api_listener(config, path) as listener, _lasting(config, path) as lasting:
            make_engine = data_path() if data_path else _compiled_data_path(config)
            daemon = _Daemon(path, cluster, config, listener, lasting, membership or _in_etcd)
            return asyncio.run(daemon.run(make_engine, ended))
    except KeyboardInterrupt:
        return 0
    except RuntimeError:
        if ended:  # in a callback of the compiler: it was not compiled
            return 0
        raise
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def _until_the_loop_has_its_own() -> list[int]:
    """Have SIGTERM end the process from now on; -> a list that the signal's number is put in: the
    exception is lost where it comes in a callback that cannot raise."""
    ended: list[int] = []

    def end(number: int, _: object) -> None:
        ended.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    return ended


def _checked(path: str, cluster: str | None) -> Config:
    """The configuration of a file, held against this machine. Raises ConfigError."""
    config = load(path, cluster)
    if problems := check_machine(config):
        raise ConfigError(problems, path)
    return config


def _compiled_data_path(config: Config) -> EngineFactory:
    """Import the compiled data path and have its machine code ready."""
    from byway.control.data_path import prepare
    from byway.control.engine import Engine

    prepare(_say, stages=config.has_stages)
    return Engine


def _in_etcd(wanted: Wanted) -> Membership:
    """Import what speaks to etcd; the engine is the compiled one."""
    from byway.control.engine import Engine

    try:
        from byway.control.joining import join
    except ModuleNotFoundError as error:
        raise EngineError(f"cluster: the Python module {error.name} is not installed",
                          "install byway[cluster]") from None

    if not isinstance(wanted.engine, Engine):
        raise TypeError("only the compiled engine can be in a cluster")
    return join(wanted, wanted.engine, _say)


def _say(text: str) -> None:
    print(f"byway: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _api_listener(config: Config, file: str) -> Iterator[socket.socket]:
    """The listening API socket; its file is gone afterwards. Raises ConfigError."""
    path = api_socket(config.switch)
    try:
        if config.switch.api is None:
            os.makedirs(Path(path).parent, mode=0o700, exist_ok=True)
        listener = unixsocket.listen(path)
    except unixsocket.SocketError as error:
        holder = _holder(path)
        problem = f"{path} {error.problem}" + (f" (pid {holder})" if holder else "")
        raise ConfigError([Problem("switch: api", problem, error.fix)], file) from None
    except OSError as error:
        problem = f"{Path(path).parent} cannot be created ({error.strerror})"
        fix = "set api to a path where you may write, or set XDG_RUNTIME_DIR"
        raise ConfigError([Problem("switch: api", problem, fix)], file) from None
    try:
        yield listener
    finally:
        unixsocket.close(listener)


@contextlib.contextmanager
def _lasting(config: Config, file: str) -> Iterator[Lasting]:
    """The state file, ours as long as we run. Raises ConfigError."""
    switch = config.switch
    try:
        lasting = Lasting(switch.name, Store(switch.state) if switch.state else None)
    except StoreError as error:
        raise ConfigError([Problem("switch: state", error.problem, error.fix)], file) from None
    try:
        yield lasting
    finally:
        try:
            lasting.close()
        except EngineError as error:
            _say(str(error))


def _holder(path: str) -> int | None:
    """The process that listens at `path` (unix(7), SO_PEERCRED), None where there is none."""
    try:
        with unixsocket.connect(path, timeout=1.0) as probe:
            credentials = probe.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return None
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


class _Daemon:
    def __init__(self, path: str, cluster: str | None, config: Config, listener: socket.socket,
                 lasting: Lasting, make_membership: MembershipFactory) -> None:
        self._path = path
        self._cluster = cluster
        self._make_membership = make_membership
        self._membership: Membership | None = None
        self._lasting = lasting
        self._file = config
        self._listener = listener
        self._reloading: asyncio.Task[None] | None = None
        self._building: asyncio.Task[None] | None = None
        self._status = 0

    async def run(self, make_engine: EngineFactory, ended: list[int]) -> int:
        """From the engine's start to its end; -> the exit status. ``ended``: signals until now."""
        # To look through all that was imported takes tens of milliseconds. Not later: ports that
        # the start makes are in cycles, and are to be given back when they go.
        gc.freeze()
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        engine = make_engine(self._file.switch, loop)
        wanted = Wanted(engine, self._file.switch, self._lasting, self._file.cluster)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon, wanted)
        if ended:
            stop.set()
        try:
            engine.start()
            if self._file.cluster:
                engine.join_cluster()
            wanted.change(self._file)
            self._take_over(self._file)
            wanted.on_return = self._tell
            self._tell(wanted.restore())
            await self._build(engine, stop)
            membership = await self._join(wanted)
            server = await asyncio.to_thread(_api_server, wanted, membership)
            await self._serve(server, wanted, stop)
        except EngineError as error:
            print(f"{self._path}: {error}", file=sys.stderr)
            return 2
        except ConfigError as error:
            raise ConfigError(error.problems, self._path) from None
        finally:
            if self._membership:
                await self._membership.close()
            await _others_ended()
            engine.close()
        return self._status

    async def _build(self, engine: SwitchEngine, stop: asyncio.Event) -> None:
        """Wait until network functions are built, but neither for long nor when we are to end; tell
        what could not be had of them, whenever that is known."""
        async def tell() -> None:
            self._tell_functions(await engine.functions.settled())

        self._building = asyncio.create_task(tell())
        ending = asyncio.create_task(stop.wait())
        await asyncio.wait([self._building, ending], timeout=BUILDING_SECONDS,
                           return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()

    async def _join(self, wanted: Wanted) -> Membership | None:
        """Be in the cluster, if the configuration has one."""
        if self._file.cluster:
            self._membership = self._make_membership(wanted)
            wanted.on_change = self._membership.publish
            await self._membership.start()
        return self._membership

    async def _serve(self, server: "_ApiServer", wanted: Wanted, stop: asyncio.Event) -> None:
        """Serve the API until `stop` is set, or until the server itself ends in an error."""
        # The server closes the sockets that it is given; ours stays, to remove its file.
        serving = asyncio.create_task(server.serve(sockets=[self._listener.dup()]))
        serving.add_done_callback(lambda _: stop.set())
        ports, networks = len(wanted.config.ports), len(wanted.config.networks)
        _say(f"switch '{self._file.switch.name}' is up: {ports} port{'s' * (ports != 1)},"
             f" {networks} network{'s' * (networks != 1)}, api {api_socket(self._file.switch)}")
        switch = self._file.switch
        wanted.engine.functions.listen(api_socket(switch), switch.listeners)
        await stop.wait()
        await wanted.engine.functions.ended()
        server.end()
        await serving

    def _take_over(self, file: Config) -> None:
        """What the file says is no longer the state file's."""
        try:
            self._tell(self._lasting.file_says(file))
        except EngineError as error:
            _say(str(error))

    def _tell(self, sentences: list[str]) -> None:
        for sentence in sentences + self._lasting.notes():
            _say(sentence)

    def _reload_soon(self, wanted: Wanted) -> None:
        """SIGHUP: read the file again, after those that came before are through."""
        before = self._reloading

        async def reload() -> None:
            if before:
                await asyncio.wait([before])
            try:
                await self._reload(wanted)
            except Exception as error:  # the next one is carried out nevertheless
                asyncio.get_running_loop().call_exception_handler({
                    "message": f"{self._path} could not be read again", "exception": error})

        self._reloading = asyncio.create_task(reload())

    async def _reload(self, wanted: Wanted) -> None:
        """Apply what changed in the file, and in those of network functions. Pauses no worker."""
        try:
            new = _checked(self._path, self._cluster)
            actions = await wanted.change_built(
                lambda: rebase(wanted.config, self._file, new))
        except (ConfigError, EngineError) as error:
            _say(f"nothing was changed:\n{error}")
            return
        _say(f"{self._path} was read again: {len(actions)} changes")
        if keys := needs_restart(self._file, new):
            _say(f"{', '.join(keys)}: taken up at the next start only")
        self._file = new
        self._take_over(new)
        try:
            await wanted.engine.functions.reload()
            self._tell_functions(await wanted.engine.functions.settled())
        except (ConfigError, EngineError) as error:
            _say(f"network functions stay as they were:\n{error}")

    def _tell_functions(self, sentences: list[str]) -> None:
        """What could not be had of network functions."""
        self._tell([f"network functions: {said}" for said in sentences])


async def _others_ended() -> None:
    """Call off what is still under way, and wait until it has tidied up."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _ApiServer(Protocol):
    async def serve(self, sockets: list[socket.socket]) -> None:
        """Serve on listening sockets until end() is called; closes them."""

    def end(self) -> None:
        """Answer what is under way, then end."""


def _api_server(wanted: Wanted, membership: Membership | None) -> _ApiServer:
    """Import the API's libraries and make its server; runs in a thread, touches no engine."""
    import uvicorn

    from byway.control.api import make_app

    class Server(uvicorn.Server):
        """Leaves the signals to the daemon, and waits for its end without a timer."""

        def __init__(self, settings: uvicorn.Config) -> None:
            super().__init__(settings)
            self._ended = asyncio.Event()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def main_loop(self) -> None:
            await self._ended.wait()

        def end(self) -> None:
            self.should_exit = True
            self._ended.set()

    settings = uvicorn.Config(
        make_app(wanted, membership), lifespan="off", http="h11", ws="none", loop="asyncio",
        log_config=None, access_log=False, date_header=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=1,
    )
    settings.load()
    logging.getLogger("uvicorn.error").addFilter(_not_called_off)
    return Server(settings)


def _not_called_off(record: logging.LogRecord) -> bool:
    """A request that is cut short when the switch ends is no error of the API."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
