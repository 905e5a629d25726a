# SPDX-License-Identifier: Apache-2.0
"""The client against the real API on a Unix socket, and how it finds a switch."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.client import Client, ClientError, NotReachable, SeveralSwitches, find_socket
from byway.client import client as client_module
from byway.machine import rundir
from tests.unit.control.fake_switch import FakeSwitch


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSwitch]:
    switch = FakeSwitch(tmp_path_factory.mktemp("switch") / "api.sock")
    yield switch
    switch.close()


@pytest.fixture
def switch(shared: FakeSwitch) -> FakeSwitch:
    shared.renew()
    return shared


@pytest.fixture
def client(switch: FakeSwitch) -> Iterator[Client]:
    with Client(switch.path) as made:
        yield made


def test_ports(client: Client) -> None:
    assert client.switch()["name"] == "lab"
    added = client.add_port({"name": "a", "network": "blue", "kind": "null"})
    assert added == client.port("a")
    assert [port["name"] for port in client.ports()] == ["vm1", "vm2", "a"]
    client.remove_port("a")
    assert [port["name"] for port in client.ports()] == ["vm1", "vm2"]


def test_a_connection_that_was_idle_is_not_used_again(
        client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch may be ending it just now."""
    monkeypatch.setattr(client_module, "_IDLE_SECONDS", 0.0)
    made = []
    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect",
                        lambda sock, to: (made.append(to), connect(sock, to))[1])
    for _ in range(3):
        client.switch()
    assert len(made) == 3


def test_networks(client: Client) -> None:
    client.add_network({"name": "red", "mtu": 9000})
    assert client.network("red")["mtu"] == 9000
    client.remove_network("red")
    assert [network["name"] for network in client.networks()] == ["blue"]


def test_many_changes_at_once(client: Client, switch: FakeSwitch) -> None:
    summary = client.change(
        add_networks=[{"name": "red"}],
        add_ports=({"name": f"p{k}", "network": "red", "kind": "null"} for k in range(50)),
        remove_ports=["vm1"],
    )
    assert summary["removed_ports"] == ["vm1"]
    assert len(client.ports()) == 51
    assert len(switch.engine.applied) == 2
    client.change(remove_ports=summary["added_ports"], remove_networks=["red"])
    assert [network["name"] for network in client.networks()] == ["blue"]


def test_fdb_workers_and_metrics(client: Client, switch: FakeSwitch) -> None:
    entry = {"network": "blue", "mac": "02:00:00:00:00:01", "port": "vm1", "age": 0.5}
    switch.engine.learned = [entry]
    assert client.fdb() == client.fdb("blue") == [entry]
    assert client.workers()[0]["ports"] == ["vm1", "vm2"]
    assert "byway_worker_passes_total" in client.metrics()


def test_a_refusal_has_problem_fix_and_status(client: Client) -> None:
    with pytest.raises(ClientError) as caught:
        client.port("vm")
    assert caught.value.status == 404
    assert str(caught.value) == 'there is no port "vm"; did you mean "vm2"?'


def test_a_refusal_lists_every_problem(client: Client) -> None:
    with pytest.raises(ClientError) as caught:
        client.add_port({"name": "a", "network": "blue", "kind": "null", "mac": "x", "y": 1})
    assert caught.value.status == 422
    assert len(caught.value.problems) == 2


def test_a_name_cannot_leave_its_place_in_the_path(client: Client) -> None:
    with pytest.raises(ClientError) as caught:
        client.port("../networks/blue")
    assert caught.value.status == 404


def test_no_switch_at_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    with Client(str(path)) as client, pytest.raises(NotReachable) as caught:
        client.ports()
    assert caught.value.problem.startswith(f"no switch answers at {path} (")
    assert caught.value.fix == "start one with: byway run FILE"


def test_a_switch_that_hangs_up(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with Client(str(path), timeout=0.05) as client, pytest.raises(ClientError) as caught:
            client.ports()
    assert not isinstance(caught.value, NotReachable)
    assert caught.value.fix == "see whether it is still running"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's and the system's directory of API sockets."""
    own, system = tmp_path / "own" / "byway", tmp_path / "system"
    own.mkdir(parents=True)
    system.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own.parent))
    monkeypatch.setattr(rundir, "SYSTEM_DIRECTORY", system)
    monkeypatch.delenv("BYWAY_API", raising=False)
    return own, system


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_a_named_socket_wins(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYWAY_API", "/tmp/b.sock")
    assert find_socket("/tmp/a.sock") == "/tmp/a.sock"
    assert find_socket() == "/tmp/b.sock"


def test_the_only_running_switch_is_found(places: tuple[Path, Path]) -> None:
    own, system = places
    listening(own / "stale.sock").close()
    (own / "file.sock").write_text("")
    with listening(system / "lab.sock"):
        assert find_socket() == str(system / "lab.sock")
        with listening(own / "mine.sock"):
            assert find_socket() == str(own / "mine.sock")


def test_several_switches_need_a_choice(places: tuple[Path, Path]) -> None:
    own, _ = places
    with (
        listening(own / "a.sock"), listening(own / "b.sock"),
        pytest.raises(SeveralSwitches) as caught,
    ):
        find_socket()
    assert caught.value.problem == f"several switches are running: {own}/a.sock, {own}/b.sock"


def test_no_switch_is_running(places: tuple[Path, Path]) -> None:
    own, system = places
    own.rmdir()
    with pytest.raises(NotReachable) as caught:
        find_socket()
    assert caught.value.problem == f"no switch is running: nobody listens in {own} or {system}"
