# SPDX-License-Identifier: Apache-2.0
"""What is asked of etcd, at a server of gRPC that plays a part of it."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aetcd import rpc

from byway.control.cluster.etcd import Access, Etcd, EtcdLostError

SECONDS = 60  # at most; nothing here takes its time


class Leaderless(grpc.GenericRpcHandler):
    """A member that has just lost its leader: it ends the watches that ask for one (etcd,
    server/etcdserver/api/v3rpc/interceptor.go), and leaves others without news."""

    def service(self, details: Any) -> Any:
        """The watch alone."""
        if details.method == "/etcdserverpb.Watch/Watch":
            return grpc.stream_stream_rpc_method_handler(
                self._watch, request_deserializer=rpc.WatchRequest.FromString,
                response_serializer=rpc.WatchResponse.SerializeToString)
        return None

    @staticmethod
    def _watch(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        assert next(requests).create_request.start_revision == 7
        yield rpc.WatchResponse(created=True)
        if dict(context.invocation_metadata()).get("hasleader") == "true":
            context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "here it would be silent for ever")


class Lost(Leaderless):
    """A member whose watches hear nothing, and whose keys cannot be read."""

    def service(self, details: Any) -> Any:
        """Watches and ranges."""
        if details.method == "/etcdserverpb.KV/Range":
            return grpc.unary_unary_rpc_method_handler(
                self._range, request_deserializer=rpc.RangeRequest.FromString,
                response_serializer=rpc.RangeResponse.SerializeToString)
        return super().service(details)

    def _range(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, "it goes down")

    @staticmethod
    def _watch(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        over = threading.Event()
        context.add_callback(over.set)
        yield rpc.WatchResponse(created=True)
        over.wait(SECONDS)


class LostByTwo(Lost):
    """It goes down when two ask at once."""

    def __init__(self) -> None:
        self._both = threading.Barrier(2)

    def _range(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._both.wait(SECONDS)
        super()._range(request, context)


class Good(Lost):
    """A member that has no keys."""

    def _range(self, request: Any, context: grpc.ServicerContext) -> Any:
        return rpc.RangeResponse()


class Forgetful(Good):
    """It forgets its first token as two ask with it at once. The second of them hears so when the
    first asks for another, which it does not get before the second asks for one, too."""

    def __init__(self) -> None:
        self.given = 0
        self._lock = threading.Lock()
        self._both = threading.Barrier(2)
        self._first_asks = threading.Event()

    def service(self, details: Any) -> Any:
        """Ranges and tokens."""
        if details.method == "/etcdserverpb.Auth/Authenticate":
            return grpc.unary_unary_rpc_method_handler(
                self._authenticate, request_deserializer=rpc.AuthenticateRequest.FromString,
                response_serializer=rpc.AuthenticateResponse.SerializeToString)
        return super().service(details)

    def _authenticate(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            self.given += 1
            token = str(self.given)
        if token != "1":
            self._first_asks.set()
            self._both.wait(SECONDS)
        return rpc.AuthenticateResponse(token=token)

    def _range(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.key != b"first" and dict(context.invocation_metadata())["token"] == "1":
            if self._both.wait(SECONDS):
                assert self._first_asks.wait(SECONDS)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
        return super()._range(request, context)


@contextmanager
def serving(url: str, member: grpc.GenericRpcHandler) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(member,))
    server.add_insecure_port(url)
    server.start()
    yield url
    server.stop(None).wait()


@pytest.fixture
def member(tmp_path: Path) -> Iterator[str]:
    with serving(f"unix:{tmp_path}/etcd.sock", Leaderless()) as url:
        yield url


@pytest.fixture
def good(tmp_path: Path) -> Iterator[str]:
    with serving(f"unix:{tmp_path}/good.sock", Good()) as url:
        yield url


def by_two(work: Callable[[], object]) -> list[BaseException | None]:
    """What two threads fail with that do it at once."""
    with futures.ThreadPoolExecutor(2) as threads:
        return [done.exception(SECONDS) for done in [threads.submit(work) for _ in range(2)]]


def test_a_watch_ends_where_a_member_has_no_leader(member: str) -> None:
    etcd = Etcd(Access((member, "192.0.2.9:2379")))
    try:
        with pytest.raises(EtcdLostError, match="no leader"):
            next(iter(etcd.watch("/byway/entries/", b"/byway/o", 7)))
        assert etcd.member == "192.0.2.9:2379"  # who is asked next
    finally:
        etcd.close()


def test_two_calls_that_a_member_fails_ask_the_next_one_afterwards(
        tmp_path: Path, good: str) -> None:
    with serving(f"unix:{tmp_path}/lost.sock", LostByTwo()) as lost:
        etcd = Etcd(Access((lost, good)))
        try:
            failed = by_two(lambda: etcd.get("/byway/x"))
            assert {type(error) for error in failed} == {EtcdLostError}
            assert all(lost in str(error) for error in failed)
            assert etcd.member == good
            assert etcd.get("/byway/x") == (0, None)
        finally:
            etcd.close()


def test_a_watch_that_hears_late_that_its_member_is_lost_leaves_the_next_one_alone(
        tmp_path: Path, good: str) -> None:
    with serving(f"unix:{tmp_path}/lost.sock", Lost()) as lost:
        etcd = Etcd(Access((lost, good)))
        try:
            watch = etcd.watch("/byway/entries/", b"/byway/o", 7)
            with pytest.raises(EtcdLostError, match="it goes down"):
                etcd.get("/byway/x")
            following = etcd.watch("/byway/entries/", b"/byway/o", 7)
            with pytest.raises(EtcdLostError):
                next(iter(watch))
            assert etcd.member == good
            assert following._answers.is_active()
        finally:
            etcd.close()


def test_two_calls_whose_token_was_forgotten_get_another(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    member = Forgetful()
    with serving(f"unix:{tmp_path}/etcd.sock", member) as url:
        etcd = Etcd(Access((url,), "byway", str(tmp_path / "password")))
        try:
            etcd.get("first")
            assert by_two(lambda: etcd.get("/byway/x")) == [None, None]
            assert member.given == 3
        finally:
            etcd.close()
