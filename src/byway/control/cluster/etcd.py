# SPDX-License-Identifier: Apache-2.0
"""etcd as the cluster needs it: ranges page by page, transactions, leases, watches.

Used by feed, presence and registry. Uses the messages and stubs of etcd's own protocol that aetcd
keeps (aetcd's client knows one address, no TLS and no pages).

Every call blocks, at most as long as its timeout, and raises EtcdError: none is made on the
control thread. After a call that reached no member the next call asks the next one. Nothing is
repeated here: who called knows whether that would be right. With a user's name the password is
exchanged for a token at the first call, and again where etcd has forgotten it (etcd, "Role-based
access control": tokens live for minutes).
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import grpc
from aetcd import rpc

from byway.control.problem import EngineError

SECONDS = 5.0  # for an answer to a small question
PAGE_SECONDS = 30.0
PAGE = 5000  # keys
OPERATIONS = 100  # in one transaction; etcd takes 128 (--max-txn-ops)
OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 4 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),  # etcd takes a ping each 5 s (--grpc-keepalive-min-time)
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
)
# A member that has no leader ends such a call; else its watches would be silent (etcd, "API
# guarantees"; clientv3.WithRequireLeader).
LED = ("hasleader", "true")
_LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

Operation: TypeAlias = Any  # a RequestOp
Condition: TypeAlias = Any  # a Compare
Token: TypeAlias = tuple[tuple[str, str], ...]  # as metadata


class EtcdError(EngineError):
    """etcd refused something, or cannot be used."""


class EtcdLostError(EtcdError):
    """No answer: whether the request was carried out is not known."""


class CompactedError(EtcdError):
    """What happened since then is no longer known; or it never happened here (a roll-back)."""


class NoLeaseError(EtcdError):
    """The lease has ended."""


@dataclass(frozen=True)
class Access:
    """How to reach etcd. `members`: URLs; with https or `ca` the connection is TLS."""

    members: tuple[str, ...]
    username: str | None = None
    password_file: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Found:
    """One key. `revision`: of its last change."""

    key: str
    value: bytes
    revision: int
    lease: int


@dataclass(frozen=True)
class Happened:
    """What a watch says: (revision, key, value) of what changed, in order; without a value (None)
    the key is gone. `revision` is the last of them: all before it has been said."""

    revision: int
    changes: tuple[tuple[int, str, bytes | None], ...]


class _Connection(NamedTuple):
    member: str
    channel: grpc.Channel


class Etcd:
    """A connection to etcd; usable by several threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()  # never held while etcd is asked
        self._member = 0
        self._connection: _Connection | None = None
        self._token: Token | None = None

    # ------------------------------------------------------------ connection
    @property
    def member(self) -> str:
        """The URL of the member that is asked now."""
        return self._access.members[self._member % len(self._access.members)]

    def close(self) -> None:
        """End every call that is under way. Idempotent."""
        with self._lock:
            connection, self._connection, self._token = self._connection, None, None
        if connection is not None:
            connection.channel.close()

    def _open(self) -> _Connection:
        with self._lock:
            self._connection = self._connection or _Connection(self.member, self._channel())
            return self._connection

    def _channel(self) -> grpc.Channel:
        address = self.member.rpartition("//")[2].rstrip("/")
        if self.member.startswith("https") or self._access.ca:
            return grpc.secure_channel(address, self._credentials(), OPTIONS)
        return grpc.insecure_channel(address, OPTIONS)

    def _give_up(self, lost: _Connection) -> None:
        """The next call asks the next member, unless another thread has seen to that."""
        with self._lock:
            if self._connection is lost:
                self._member += 1
                self._connection = self._token = None
        lost.channel.close()

    def _credentials(self) -> grpc.ChannelCredentials:
        files = [self._read(path) for path in
                 (self._access.ca, self._access.key, self._access.cert)]
        return grpc.ssl_channel_credentials(*files)

    def _read(self, path: str | None) -> bytes | None:
        try:
            return None if path is None else Path(path).read_bytes()
        except OSError as error:
            raise EtcdError(f"{path} cannot be read ({error.strerror})",
                            "check [cluster] ca, cert, key and password_file") from None

    def _metadata(self, connection: _Connection) -> Token:
        if self._access.username is None:
            return ()
        if (token := self._token) is None:
            password = (self._read(self._access.password_file) or b"").decode().rstrip("\n")
            request = rpc.AuthenticateRequest(name=self._access.username, password=password)
            answer = rpc.AuthStub(connection.channel).Authenticate(request, timeout=SECONDS)
            self._token = token = (("token", answer.token),)
        return token

    def _call(self, ask: Callable[[grpc.Channel, Token], Any]) -> Any:
        """The answer to one request; `ask` gets the channel and the metadata."""
        connection = self._open()
        return self._guarded(connection, lambda: self._ask(connection, ask))

    def _ask(self, connection: _Connection, ask: Callable[[grpc.Channel, Token], Any]) -> Any:
        token = self._metadata(connection)
        try:
            return ask(connection.channel, token)
        except grpc.RpcError as error:
            if not token or not _is_about_token(error):
                raise
        with self._lock:
            if self._token is token:
                self._token = None
        return ask(connection.channel, self._metadata(connection))

    def _guarded(self, connection: _Connection, work: Callable[[], Any]) -> Any:
        """What comes of `work`, which uses this connection; raises EtcdError."""
        try:
            return work()
        except grpc.RpcError as error:
            raise self._problem(connection, error) from None
        except ValueError:  # the channel was closed meanwhile (grpc says so in this way)
            raise EtcdLostError("the connection to etcd was closed", "try again") from None

    def _problem(self, connection: _Connection, error: grpc.RpcError) -> EtcdError:
        code, details = error.code(), error.details() or ""
        if code in _LOST:
            self._give_up(connection)
            return EtcdLostError(f"etcd at {connection.member} does not answer ({details})",
                                 "check that it runs and [cluster] etcd, ca, cert and key")
        if code == grpc.StatusCode.OUT_OF_RANGE:
            return CompactedError(f"etcd: {details}", "everything is read again")
        if code == grpc.StatusCode.NOT_FOUND and "lease" in details:
            return NoLeaseError("the lease has ended", "take another one")
        return EtcdError(f"etcd refused: {details or code.name.lower()}",
                         "check etcd's log, and [cluster] username and password_file")

    # ------------------------------------------------------------ keys
    def pages(self, prefix: str, revision: int = 0) -> Iterator[tuple[int, list[Found]]]:
        """All keys that begin with `prefix`, in order, as of `revision` (0: of now): (revision of
        the whole, some keys), at least one such page."""
        start, end = prefix.encode(), after(prefix)
        while True:
            request = rpc.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
            answer = self._page(request)
            if not revision:
                revision = answer.header.revision
            elif answer.header.revision < revision:
                raise CompactedError("etcd was rolled back", "everything is read again")
            yield revision, [Found(kv.key.decode(errors="replace"), kv.value, kv.mod_revision,
                                   kv.lease) for kv in answer.kvs]
            if not answer.more:
                return
            start = answer.kvs[-1].key + b"\0"

    def _page(self, request: Any) -> Any:
        return self._call(lambda channel, token: rpc.KVStub(channel).Range(
            request, timeout=PAGE_SECONDS, metadata=token))

    def get(self, key: str) -> tuple[int, Found | None]:
        """(etcd's revision, the key)."""
        answer = self._call(lambda channel, token: rpc.KVStub(channel).Range(
            rpc.RangeRequest(key=key.encode()), timeout=SECONDS, metadata=token))
        found = [Found(key, kv.value, kv.mod_revision, kv.lease) for kv in answer.kvs]
        return answer.header.revision, found[0] if found else None

    def change(self, conditions: Sequence[Condition],
               operations: Sequence[Operation]) -> tuple[bool, int]:
        """Carry out the operations if all conditions hold, else none; -> (whether they did, etcd's
        revision)."""
        request = rpc.TxnRequest(compare=conditions, success=operations)
        answer = self._call(lambda channel, token: rpc.KVStub(channel).Txn(
            request, timeout=SECONDS, metadata=token))
        return answer.succeeded, answer.header.revision

    # ------------------------------------------------------------ leases
    def grant(self, seconds: int) -> int:
        """A new lease; -> its number."""
        answer = self._call(lambda channel, token: rpc.LeaseStub(channel).LeaseGrant(
            rpc.LeaseGrantRequest(TTL=seconds), timeout=SECONDS, metadata=token))
        return int(answer.ID)

    def keep_alive(self, lease: int) -> int:
        """The lease begins anew; -> etcd's revision. NoLeaseError: it has ended."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)
        answer = self._call(lambda channel, token: next(rpc.LeaseStub(channel).LeaseKeepAlive(
            iter([request]), timeout=SECONDS, metadata=token)))
        if answer.TTL <= 0:
            raise NoLeaseError("the lease has ended", "take another one")
        return int(answer.header.revision)

    def revoke(self, lease: int) -> None:
        """End a lease, and remove every key under it."""
        self._call(lambda channel, token: rpc.LeaseStub(channel).LeaseRevoke(
            rpc.LeaseRevokeRequest(ID=lease), timeout=SECONDS, metadata=token))

    # ------------------------------------------------------------ changes
    def watch(self, first: str, end: bytes, revision: int) -> "Watch":
        """What happens to the keys from `first` to before `end`, from `revision` on. Ends with an
        EtcdError; CompactedError: `revision` is not known any more."""
        create = rpc.WatchCreateRequest(key=first.encode(), range_end=end,
                                        start_revision=revision, fragment=True)
        requests = _Requests(rpc.WatchRequest(create_request=create))
        connection = self._open()
        guarded = partial(self._guarded, connection)
        answers = guarded(lambda: self._ask(connection, lambda channel, token: rpc.WatchStub(
            channel).Watch(requests, metadata=(*token, LED))))
        return Watch(answers, requests, guarded)


class _Requests:
    """One request, and then nothing until the watch ends: a stream that ended would end it."""

    def __init__(self, request: Any) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._queue.put(request)

    def __iter__(self) -> "_Requests":
        return self

    def __next__(self) -> Any:
        request = self._queue.get()
        if request is None:
            raise StopIteration
        return request

    def end(self) -> None:
        """No request comes any more."""
        self._queue.put(None)


class Watch:
    """Iterate to hear what happens; `cancel` from another thread ends that."""

    def __init__(self, answers: Any, requests: _Requests,
                 guarded: Callable[[Callable[[], Any]], Any]) -> None:
        self._answers = answers
        self._requests = requests
        self._guarded = guarded

    def __iter__(self) -> Iterator[Happened]:
        parts: list[tuple[int, str, bytes | None]] = []
        try:
            while True:
                answer = self._guarded(lambda: next(self._answers, None))
                if answer is None:
                    raise EtcdLostError("etcd ended the watch", "try again")
                if answer.compact_revision:
                    raise CompactedError(
                        f"etcd has compacted up to {answer.compact_revision}", "all is read again")
                if answer.canceled:
                    raise EtcdError(f"etcd refused the watch: {answer.cancel_reason}",
                                    "check what the user may read")
                parts += [(event.kv.mod_revision, event.kv.key.decode(errors="replace"),
                           None if event.type else event.kv.value) for event in answer.events]
                # The header's revision is etcd's own: a watch that catches up is not there yet.
                if parts and not answer.fragment:
                    yield Happened(parts[-1][0], tuple(parts))
                    parts = []
        finally:
            self.cancel()

    def cancel(self) -> None:
        """End it. Idempotent."""
        self._answers.cancel()
        self._requests.end()


def after(prefix: str) -> bytes:
    """The end of the range of keys that begin with `prefix` (which ends in no 0xFF byte)."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


def put(key: str, value: bytes, lease: int = 0) -> Operation:
    """Write a key; with a lease it goes with that."""
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value, lease=lease))


def delete(key: str) -> Operation:
    """Remove a key, if it is there."""
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key.encode()))


def delete_below(prefix: str) -> Operation:
    """Remove every key that begins with `prefix`."""
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(
        key=prefix.encode(), range_end=after(prefix)))


def absent(key: str) -> Condition:
    """There is no such key."""
    return rpc.Compare(key=key.encode(), target=rpc.Compare.VERSION, result=rpc.Compare.EQUAL,
                       version=0)


def none_below(prefix: str) -> Condition:
    """There is no key that begins with `prefix`."""
    return rpc.Compare(key=prefix.encode(), range_end=after(prefix), target=rpc.Compare.VERSION,
                       result=rpc.Compare.EQUAL, version=0)


def present(key: str) -> Condition:
    """The key is there."""
    return rpc.Compare(key=key.encode(), target=rpc.Compare.VERSION, result=rpc.Compare.GREATER,
                       version=0)


def unchanged(key: str, revision: int) -> Condition:
    """The key's last change was at this revision (0: it is not there)."""
    return rpc.Compare(key=key.encode(), target=rpc.Compare.MOD, result=rpc.Compare.EQUAL,
                       mod_revision=revision)


def has_value(key: str, value: bytes) -> Condition:
    """The key is there with this value."""
    return rpc.Compare(key=key.encode(), target=rpc.Compare.VALUE, result=rpc.Compare.EQUAL,
                       value=value)


def under_lease(key: str, lease: int) -> Condition:
    """The key is there, and goes with this lease."""
    return rpc.Compare(key=key.encode(), target=rpc.Compare.LEASE, result=rpc.Compare.EQUAL,
                       lease=lease)


def _is_about_token(error: grpc.RpcError) -> bool:
    return error.code() == grpc.StatusCode.UNAUTHENTICATED or (
        "invalid auth token" in (error.details() or "")
        or "auth revision" in (error.details() or ""))
