# SPDX-License-Identifier: Apache-2.0
"""The plugin socket: what Docker says over HTTP, and what nobody should say."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from byway_docker.wire import MAX_BODY
from tests.unit.docker.world import Served, World, identity, subnet

ARGUMENTLESS = {
    "/Plugin.Activate": {"Implements": ["NetworkDriver", "IpamDriver"]},
    "/NetworkDriver.GetCapabilities": {"Scope": "local", "ConnectivityScope": "local"},
    "/IpamDriver.GetCapabilities": {"RequiresMACAddress": True, "RequiresRequestReplay": False},
    "/IpamDriver.GetDefaultAddressSpaces": {"LocalDefaultAddressSpace": "byway-local",
                                            "GlobalDefaultAddressSpace": "byway-global"},
}


@pytest.fixture
def served(world: World) -> Iterator[Served]:
    with Served(world) as plugin:
        yield plugin
    assert len(world.plugin.network.locks) == 0  # now; before, the reconciler may have held one


@pytest.fixture
def hurried(world: World) -> Iterator[Served]:
    """One that soon gives a body up, even that of a client that is only held up."""
    with Served(world, body_seconds=0.5) as plugin:
        yield plugin


@pytest.mark.parametrize("body", [None, b"", b"null", b"{}", b" \n"])
def test_methods_without_arguments_take_no_body(served: Served, body: bytes | None) -> None:
    assert {path: served.post(path, body) for path in ARGUMENTLESS} == {
        path: (200, answer) for path, answer in ARGUMENTLESS.items()}


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"a": }', b"[" * 100_000, b"[]", b"7"])
def test_what_is_no_json_object_is_no_request(served: Served, body: bytes) -> None:
    status, answer = served.post("/NetworkDriver.CreateNetwork", body)
    assert status == 400
    assert "JSON" in answer["Err"]
    assert served.post("/Plugin.Activate")[0] == 200


@pytest.mark.parametrize("path", [
    "/", "/NetworkDriver", "/NetworkDriver.", "/NetworkDriver.AllocateNetwork", "/Volume.Create",
    "/NetworkDriver.Join/", "//NetworkDriver.Join",
])
def test_an_unknown_method_is_not_found(served: Served, path: str) -> None:
    assert served.post(path, b"{}")[0] == 404


def test_only_post_is_served(served: Served) -> None:
    assert served.post("/Plugin.Activate", method="GET")[0] == 405


def test_a_huge_body_is_not_read_to_its_end(served: Served) -> None:
    fits = b'{"x": "' + b"a" * (MAX_BODY - 9) + b'"}'
    assert len(fits) == MAX_BODY
    assert served.post("/NetworkDriver.DiscoverNew", fits) == (200, {})
    status, answer = served.post("/NetworkDriver.DiscoverNew", fits + b" ")
    assert (status, "1048576 bytes" in answer["Err"]) == (413, True)
    assert served.post("/Plugin.Activate")[0] == 200


@pytest.mark.parametrize("start", [
    b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
def test_a_body_that_never_ends_is_given_up(hurried: Served, start: bytes) -> None:
    connection = hurried.connect()
    connection.sock.sendall(b"POST /NetworkDriver.Join HTTP/1.1\r\nHost: plugin\r\n" + start)
    said = b""
    while data := connection.sock.recv(65536):
        said += data
    assert said.startswith(b"HTTP/1.1 408")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["Err"] == \
        "the body did not end within 0.5 s"
    assert hurried.post("/Plugin.Activate")[0] == 200


def test_refusals_are_answers_with_the_drivers_own_key(served: Served) -> None:
    status, answer = served.post("/NetworkDriver.Join", b'{"SandboxKey": "/sandbox/1"}')
    assert (status, list(answer)) == (200, ["Err"])
    assert "EndpointID" in answer["Err"]
    status, answer = served.post("/IpamDriver.RequestAddress", b'{"PoolID": "none"}')
    assert (status, list(answer)) == (200, ["Error"])
    assert "none" in answer["Error"]


def test_a_fault_is_an_answer_too(world: World) -> None:
    def faulty(body: object) -> dict[str, object]:
        raise ZeroDivisionError("nobody thought of it")

    world.plugin.network.methods["Leave"] = faulty
    with Served(world) as served:
        status, answer = served.post("/NetworkDriver.Leave", b"{}")
        assert (status, "nobody thought of it" in answer["Err"]) == (200, True)
        assert served.post("/Plugin.Activate")[0] == 200


def test_endpoints_come_in_parallel(served: Served, world: World) -> None:
    def post(method: str, **body: object) -> dict[str, object]:
        status, answer = served.post(f"/{method}", json.dumps(body).encode())
        assert (status, answer.get("Err")) == (200, None)
        return dict(answer)

    network = identity(1)
    post("NetworkDriver.CreateNetwork", NetworkID=network,
         IPv4Data=[subnet("10.0.0.0/24", "10.0.0.1/24")])

    def container(number: int) -> str:
        one = identity(100 + number)
        post("NetworkDriver.CreateEndpoint", NetworkID=network, EndpointID=one, Interface={})
        answer = post("NetworkDriver.Join", NetworkID=network, EndpointID=one,
                      SandboxKey=f"/sandbox/{number}")
        return str(answer["InterfaceName"]["SrcName"])  # type: ignore[index]

    with ThreadPoolExecutor(16) as threads:
        names = list(threads.map(container, range(24)))
    assert len(set(names)) == 24
    assert set(names) < world.kernel.taps()
    assert len(world.ports()) == 25
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: post("NetworkDriver.DeleteEndpoint", NetworkID=network,
                                        EndpointID=identity(100 + n)), range(24)))
    assert set(world.ports()) == {"docker-000000000001-gw"}
