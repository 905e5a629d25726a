# SPDX-License-Identifier: Apache-2.0
"""What is asked of etcd, at a server of gRPC that plays a part of it."""

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from aetcd import rpc

from byway.control.cluster.etcd import Access, Etcd, EtcdLostError


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


@pytest.fixture
def member(tmp_path: Path) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Leaderless(),))
    url = f"unix:{tmp_path}/etcd.sock"
    server.add_insecure_port(url)
    server.start()
    yield url
    server.stop(None).wait()


def test_a_watch_ends_where_a_member_has_no_leader(member: str) -> None:
    etcd = Etcd(Access((member, "192.0.2.9:2379")))
    try:
        with pytest.raises(EtcdLostError, match="no leader"):
            next(iter(etcd.watch("/byway/entries/", b"/byway/o", 7)))
        assert etcd.member == "192.0.2.9:2379"  # who is asked next
    finally:
        etcd.close()
