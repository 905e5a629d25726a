# SPDX-License-Identifier: Apache-2.0
"""What this host says of itself, in etcd under a lease: that it is there, and what is behind it.

Used by cluster. Uses etcd and layout.

Theory of operation
-------------------
A thread of its own takes a lease, writes the host's key and the entries under it, keeps the lease
alive each third of its time, and writes what changes, all that has gathered in one transaction.
Whoever dies says nothing any more: etcd ends the lease, and removes what stands under it.

*One name, one host.* The host's key is made only where there is none. A key that is there with our
own underlay address is that of our former life, whose lease still runs: it is taken over, and what
the former life left ends with its lease. With another address it is another host: this one is
*refused*, says so, takes no part, and tries again until the name is free. Every later write holds
only while the host's key stands under our lease. Where it does not, the lease was lost (a pause
longer than it, an etcd that lost its data), and all is written anew under another one; or another
process of our name and address took over, and we are refused, too: nobody takes over twice.

Nothing is written before `allow`: what others have must be known, or generations would be chosen
that are too low. Until then, and while etcd is away, changes gather; each key once.

Time is monotonic: a clock that jumps does nothing. etcd counts the lease by its own.
"""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from byway.control.cluster.etcd import (
    OPERATIONS,
    Access,
    Etcd,
    EtcdError,
    NoLeaseError,
    absent,
    delete,
    put,
    unchanged,
    under_lease,
)
from byway.control.cluster.layout import HostValue, Layout, host_value

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between attempts


@dataclass(frozen=True)
class State:
    """`kept`: when the lease began anew (monotonic; 0.0: none). `wrote`: (etcd's revision, when)
    of the last change that the feed will hear of."""

    kind: str  # "waiting", "joined", "refused", "lost"
    sentence: str = ""
    lease: int = 0
    kept: float = 0.0
    wrote: tuple[int, float] = (0, 0.0)
    revision: int = 0  # etcd's, when it last answered


class RefusedError(EtcdError):
    """The host's name is another one's."""


class Presence:
    """One host's presence. `say` is told sentences, `on_joined` is called each time that the host
    has its name: both on the presence's own thread."""

    def __init__(self, access: Access, layout: Layout, host: str, address: str, ttl: int,
                 say: Callable[[str], None], on_joined: Callable[[], None]) -> None:
        self.host = host
        self.address = address
        self.ttl = ttl
        self.state = State("waiting", "waits until everything is known")
        self._say = say
        self._on_joined = on_joined
        self._etcd = Etcd(access)
        self._layout = layout
        self._key = layout.host(host)
        self._instance = uuid.uuid4().hex
        self._joined_before = False
        self._networks: tuple[str, ...] = ()
        self._wanted: dict[str, bytes] = {}  # entries, by key
        self._dirty: dict[str, None] = {}
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._allowed = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    # ------------------------------------------------------------ from the control thread
    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and have the others forget this host at once, where etcd answers. Idempotent."""
        self._stopped.set()
        self._allowed.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join()
        self._etcd.close()

    def allow(self) -> None:
        """What the others have is known: this host may speak."""
        self._allowed.set()

    def set_networks(self, networks: tuple[str, ...]) -> None:
        """The networks that this host has ports in."""
        with self._lock:
            if networks == self._networks:
                return
            self._networks = networks
            self._dirty[self._key] = None
        self._work.set()

    def set_address(self, address: str) -> None:
        """This host's address in the underlay."""
        with self._lock:
            if address == self.address:
                return
            self.address = address
            self._dirty[self._key] = None
        self._work.set()

    def set_entries(self, changes: Mapping[str, bytes | None]) -> None:
        """Entries that are new or changed, or gone (None), by key."""
        with self._lock:
            for key, value in changes.items():
                if value is None:
                    self._wanted.pop(key, None)
                else:
                    self._wanted[key] = value
                self._dirty[key] = None
        self._work.set()

    def say_again(self, stale: Iterable[str]) -> None:
        """etcd has lost data: write all anew, and remove these keys if they are not among it."""
        with self._lock:
            self._dirty.update(dict.fromkeys([self._key, *self._wanted, *stale]))
        self._work.set()

    # ------------------------------------------------------------ the thread
    def _run(self) -> None:
        try:
            self._go_on()
        finally:
            if not self._stopped.is_set():  # the traceback is on stderr
                self._note("lost", "this host's presence has ended by an error of Byway's own;"
                                   " restart it")

    def _go_on(self) -> None:
        self._allowed.wait()
        failures = 0
        while not self._stopped.is_set():
            try:
                self._be_there()
                failures = 0
            except NoLeaseError as error:
                self._note("lost", str(error))
            except RefusedError as error:
                lease = self.state.lease
                self._note("refused", str(error))
                if lease:  # what is left of us shall not wait for its end
                    self._give_up(lease)
            except EtcdError as error:
                self._note("lost", str(error), keep_lease=True)
                failures = min(failures + 1, len(PAUSES) - 1)
            pause = self.ttl / 3 if self.state.kind == "refused" else PAUSES[failures]
            self._stopped.wait(pause * random.uniform(0.5, 1.0))
        self._leave()

    def _be_there(self) -> None:
        """Keep the lease, or take one, and write what changes until it is to end."""
        if self.state.lease:
            self._keep(self.state.lease)  # also after a loss: it may live on
        else:
            self._join()
        until = self.state.kept + self.ttl / 3
        while not self._stopped.is_set():
            if self._work.wait(max(0.0, until - time.monotonic())):
                self._work.clear()
                self._write(self.state.lease)
            if time.monotonic() >= until:
                self._keep(self.state.lease)
                until = self.state.kept + self.ttl / 3

    def _keep(self, lease: int) -> None:
        asked = time.monotonic()
        revision = self._etcd.keep_alive(lease)
        if self.state.kind != "joined":
            self._write(lease)
        self.state = State("joined", lease=lease, kept=asked, wrote=self.state.wrote,
                           revision=revision)

    def _join(self) -> None:
        asked = time.monotonic()
        lease = self._etcd.grant(self.ttl)
        try:
            revision = self._register(lease)
        except BaseException:
            self._give_up(lease)
            raise
        with self._lock:
            self._dirty.update(dict.fromkeys(self._wanted))
        if self.state.kind != "waiting":
            self._say(f'host "{self.host}" takes part in the cluster again')
        self._joined_before = True
        self.state = State("joined", lease=lease, kept=asked, revision=revision)
        self._on_joined()
        self._write(lease)

    def _register(self, lease: int) -> int:
        while True:
            _, found = self._etcd.get(self._key)
            if found is None:
                condition = absent(self._key)
            else:
                self._refuse_another(found.value)
                condition = unchanged(self._key, found.revision)
            done, revision = self._etcd.change([condition], [put(self._key, self._value(), lease)])
            if done:
                return revision

    def _refuse_another(self, value: bytes) -> None:
        """RefusedError, where the host's key is not our own, nor our former life's."""
        try:
            other = host_value(value)
        except ValueError as error:
            raise RefusedError(f'the host name "{self.host}" is taken, by whom is not known'
                               f" ({error})", f"remove the key {self._key} from etcd") from None
        if other.instance == self._instance:
            return
        fix = "give one of them another name ([cluster] host)"
        if other.address != self.address:
            raise RefusedError(f'the host name "{self.host}" is taken by the host at'
                               f" {other.address}, this one takes no part in the cluster", fix)
        if self._joined_before:
            raise RefusedError(f'another process at {self.address} has taken over as host'
                               f' "{self.host}", this one takes no part any more',
                               "end one of them")

    def _write(self, lease: int) -> None:
        """Write what has changed, as long as the host's key is ours."""
        while True:
            with self._lock:
                keys = list(self._dirty)[:OPERATIONS]
                operations = [self._operation(key, lease) for key in keys]
                for key in keys:
                    del self._dirty[key]
            if not operations:
                return
            try:
                done, revision = self._etcd.change([under_lease(self._key, lease)], operations)
            except BaseException:
                self._again(keys)
                raise
            if not done:
                self._again(keys)
                _, found = self._etcd.get(self._key)
                if found is not None:
                    self._refuse_another(found.value)
                raise NoLeaseError("etcd no longer has this host's presence", "it joins again")
            self.state = State("joined", lease=lease, kept=self.state.kept,
                               wrote=(revision, time.monotonic()), revision=revision)

    def _operation(self, key: str, lease: int) -> object:
        if key == self._key:
            return put(key, self._value(), lease)
        value = self._wanted.get(key)
        return delete(key) if value is None else put(key, value, lease)

    def _again(self, keys: list[str]) -> None:
        with self._lock:
            self._dirty = {**dict.fromkeys(keys), **self._dirty}
        self._work.set()

    def _value(self) -> bytes:
        return HostValue(self.address, self._networks, self._instance).encode()

    def _note(self, kind: str, sentence: str, keep_lease: bool = False) -> None:
        if self.state.sentence != sentence:
            self._say(sentence)
        lease = self.state.lease if keep_lease else 0
        self.state = State(kind, sentence, lease, self.state.kept if keep_lease else 0.0,
                           self.state.wrote, self.state.revision)

    def _give_up(self, lease: int) -> None:
        try:
            self._etcd.revoke(lease)
        except EtcdError as error:
            self._say(f"a lease ends by itself: {error}")

    def _leave(self) -> None:
        if self.state.lease and self.state.kind == "joined":
            self._give_up(self.state.lease)
